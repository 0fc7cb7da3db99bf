package pktchain_test

import (
	"math/big"

	"github.com/btcsuite/btcd/btcec/v2"
)

// parts cuts a DER signature with its type byte into R and S.
func parts(sig []byte) (r, s *big.Int) {
	n := int(sig[3])
	return new(big.Int).SetBytes(sig[4 : 4+n]), new(big.Int).SetBytes(sig[6+n : len(sig)-1])
}

// join writes DER as it should not always be written: pad puts needless zero
// bytes before R.
func join(r, s *big.Int, pad int, kind byte) []byte {
	number := func(n *big.Int, pad int) []byte {
		b := n.Bytes()
		if b[0]&0x80 != 0 {
			pad++
		}
		b = append(make([]byte, pad), b...)
		return append([]byte{2, byte(len(b))}, b...)
	}
	body := append(number(r, pad), number(s, 0)...)
	return append(append([]byte{0x30, byte(len(body))}, body...), kind)
}

// highS is the same signature with S above half the group's order, which
// verifies mathematically but is not relayed.
func highS(sig []byte) []byte {
	r, s := parts(sig)
	return join(r, new(big.Int).Sub(btcec.S256().N, s), 0, sig[len(sig)-1])
}

// padR is the same signature with R in a needlessly long spelling.
func padR(sig []byte) []byte {
	r, s := parts(sig)
	return join(r, s, 1, sig[len(sig)-1])
}
