package pktcloud_test

import (
	"crypto/ed25519"
	"crypto/sha512"
	"math/big"
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// This file computes on the curve of Ed25519 with big integers, slowly and
// plainly, to make the signatures on which verifiers disagree.

// point is an affine point.
type point struct{ x, y *big.Int }

var (
	prime  = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	order  = number("7237005577332262213973186563042994240857116359379907606001950938285454250989")
	curveD = mod(new(big.Int).Mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), prime)))
	base   = decompress(append([]byte{0x58}, slices.Repeat([]byte{0x66}, 31)...))
)

func number(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 10)
	if !ok {
		panic(s)
	}
	return n
}

func mod(n *big.Int) *big.Int { return n.Mod(n, prime) }

func product(factors ...*big.Int) *big.Int {
	p := big.NewInt(1)
	for _, f := range factors {
		mod(p.Mul(p, f))
	}
	return p
}

// add is the complete addition law x3 = (x1y2 + x2y1)/(1 + d x1x2y1y2),
// y3 = (y1y2 + x1x2)/(1 - d x1x2y1y2).
func add(a, b point) point {
	cross := product(curveD, a.x, b.x, a.y, b.y)
	over := new(big.Int).ModInverse(mod(new(big.Int).Add(big.NewInt(1), cross)), prime)
	under := new(big.Int).ModInverse(mod(new(big.Int).Sub(big.NewInt(1), cross)), prime)
	return point{
		product(new(big.Int).Add(product(a.x, b.y), product(b.x, a.y)), over),
		product(new(big.Int).Add(product(a.y, b.y), product(a.x, b.x)), under),
	}
}

func times(n *big.Int, p point) point {
	sum := point{big.NewInt(0), big.NewInt(1)}
	for i := n.BitLen() - 1; i >= 0; i-- {
		sum = add(sum, sum)
		if n.Bit(i) == 1 {
			sum = add(sum, p)
		}
	}
	return sum
}

func little(n *big.Int) []byte {
	b := n.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return b
}

func fromLittle(b []byte) *big.Int {
	b = slices.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

func compress(p point) []byte {
	b := little(p.y)
	b[31] |= byte(p.x.Bit(0)) << 7
	return b
}

func decompress(b []byte) point {
	b = slices.Clone(b)
	sign := uint(b[31] >> 7)
	b[31] &= 0x7f
	y := fromLittle(b)
	y2 := product(y, y)
	under := mod(new(big.Int).Add(product(curveD, y2), big.NewInt(1)))
	x := new(big.Int).ModSqrt(product(new(big.Int).Sub(y2, big.NewInt(1)), new(big.Int).ModInverse(under, prime)), prime)
	if x.Bit(0) != sign {
		x.Sub(prime, x)
	}
	return point{x, y}
}

// forger signs with the key secret*B + keyTorsion and the nonce point
// nonce*B + nonceTorsion.
type forger struct {
	secret, nonce            *big.Int
	keyTorsion, nonceTorsion point
}

func (f forger) key() pktcloud.PublicKey {
	return pktcloud.PublicKey(compress(add(times(f.secret, base), f.keyTorsion)))
}

// challenge is SHA-512(R || A || message) as a number, not reduced.
func (f forger) challenge(message []byte) (r, k *big.Int, encodedR []byte) {
	encodedR = compress(add(times(f.nonce, base), f.nonceTorsion))
	key := f.key()
	digest := sha512.Sum512(slices.Concat(encodedR, key[:], message))
	return f.nonce, fromLittle(digest[:]), encodedR
}

// sign returns R and S = r + k*secret mod the group order.
func (f forger) sign(message []byte) pktcloud.Signature {
	r, k, encodedR := f.challenge(message)
	s := new(big.Int).Mul(new(big.Int).Mod(k, order), f.secret)
	s.Add(s, r).Mod(s, order)
	return pktcloud.Signature(slices.Concat(encodedR, little(s)))
}

// cofactored is the looser equation 8SB = 8R + 8kA, which batch verifiers and
// ZIP 215 use.
func cofactored(key pktcloud.PublicKey, message []byte, sig pktcloud.Signature) bool {
	digest := sha512.Sum512(slices.Concat(sig[:32], key[:], message))
	eight, s, k := big.NewInt(8), fromLittle(sig[32:]), fromLittle(digest[:])
	left := times(eight, times(s, base))
	right := times(eight, add(decompress(sig[:32]), times(new(big.Int).Mod(k, order), decompress(key[:]))))
	return left.x.Cmp(right.x) == 0 && left.y.Cmp(right.y) == 0
}

// stdlib is what Go's own verifier says, without our rules.
func stdlib(key pktcloud.PublicKey, message []byte, sig pktcloud.Signature) bool {
	return ed25519.Verify(key[:], message, sig[:])
}
