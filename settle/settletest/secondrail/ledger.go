// Package secondrail is a rail that is unlike the PKT chain in everything that
// a rail may differ in: accounts with nonces and balances instead of coins,
// Ed25519 over SHA-512/256 instead of ECDSA over SHA-256, and finality by a
// receipt instead of depth. It shows that package settle and whoever pays with
// it stay as they are. It is a twin for tests, all in memory, and not fit for
// money.
//
// Start with [New]; [World.Payer] and [World.Payee] are the two sides.
package secondrail

import (
	"crypto/ed25519"
	"crypto/sha512"
	"errors"
	"fmt"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Account is an account's name: its Ed25519 public key.
type Account [ed25519.PublicKeySize]byte

// kind is what a transaction does.
type kind uint64

const (
	openLock  kind = 1 // locks Amount until Height for a channel with To
	claimLock kind = 2 // pays Amount to the payee by the payer's voucher
	closeLock kind = 3 // pays Amount to the payee by the payer's close
	refund    kind = 4 // pays everything back to the payer, from the lock's height on
	nothing   kind = 5 // uses up a nonce
)

// transaction is signed by its sender's account key. Those of one account are
// carried out in the order of their nonces, from 0 on.
type transaction struct {
	Kind    kind            `cbor:"kind"`
	From    Account         `cbor:"from"`
	Nonce   uint64          `cbor:"nonce"`
	Channel pktcloud.ID     `cbor:"channel"`
	To      Account         `cbor:"to"`
	Amount  pktcloud.Amount `cbor:"amount"`
	Height  uint64          `cbor:"height"`
	Proof   []byte          `cbor:"proof"`
	Sig     []byte          `cbor:"sig"`
}

// hash is what the sender signs, and the name of the transaction.
func (tx transaction) hash() [32]byte {
	tx.Sig = nil
	b, _ := pktcloud.Marshal(tx) // every field has an encoding
	return digest("transaction", b)
}

func digest(what string, data []byte) [32]byte {
	return sha512.Sum512_256(append([]byte("pktcloud second rail v1\x00"+what+"\x00"), data...))
}

func (tx transaction) signed(key ed25519.PrivateKey) transaction {
	h := tx.hash()
	tx.Sig = ed25519.Sign(key, h[:])
	return tx
}

// receipt is the ledger's word on a transaction that it carried out.
type receipt struct {
	hash  [32]byte
	final bool
}

// account is what the ledger keeps of an account.
type account struct {
	balance pktcloud.Amount
	nonce   uint64
	waiting map[uint64]transaction // by nonce, beyond the next one
}

// lock is the money of a channel.
type lock struct {
	open transaction
	made receipt
	end  *receipt // nil while the money is locked
	paid pktcloud.Amount
	back bool // by a refund
}

// ledger is the chain. Each transaction is a block of its own.
type ledger struct {
	height   uint64
	accounts map[Account]*account
	locks    map[pktcloud.ID]*lock
}

func (l *ledger) account(a Account) *account {
	if l.accounts[a] == nil {
		l.accounts[a] = &account{waiting: map[uint64]transaction{}}
	}
	return l.accounts[a]
}

// errInvalid marks a transaction that the ledger refuses for good.
var errInvalid = errors.New("second rail: invalid transaction")

// submit takes a transaction. One whose nonce is not next waits for its turn;
// one that was carried out before is no error.
func (l *ledger) submit(tx transaction) error {
	h := tx.hash()
	if !ed25519.Verify(tx.From[:], h[:], tx.Sig) {
		return fmt.Errorf("%w: signature", errInvalid)
	}
	a := l.account(tx.From)
	if tx.Nonce < a.nonce {
		if lk := l.locks[tx.Channel]; lk != nil && (lk.made.hash == h || lk.end != nil && lk.end.hash == h) {
			return nil
		}
		return fmt.Errorf("%w: nonce %d was used", errInvalid, tx.Nonce)
	}
	a.waiting[tx.Nonce] = tx
	for {
		next, ok := a.waiting[a.nonce]
		if !ok {
			return nil
		}
		delete(a.waiting, a.nonce)
		a.nonce++ // used up, whatever comes of it
		l.height++
		if err := l.execute(a, next); err != nil {
			return err
		}
	}
}

// execute carries a transaction out, all of it or nothing.
func (l *ledger) execute(from *account, tx transaction) error {
	lk := l.locks[tx.Channel]
	if tx.Kind == openLock {
		if lk != nil || tx.Amount > from.balance {
			return fmt.Errorf("%w: a second lock, or no money", errInvalid)
		}
		from.balance -= tx.Amount
		l.locks[tx.Channel] = &lock{open: tx, made: receipt{hash: tx.hash()}}
		return nil
	}
	if tx.Kind == nothing {
		return nil
	}
	if lk == nil || lk.end != nil || tx.Amount > lk.open.Amount {
		return fmt.Errorf("%w: nothing is locked, or too little", errInvalid)
	}
	ok := false
	switch tx.Kind {
	case claimLock:
		ok = tx.From == lk.open.To && verify(lk.open.From, "voucher", tx.Channel, tx.Proof, tx.Amount)
	case closeLock:
		ok = tx.From == lk.open.To && verify(lk.open.From, "close", tx.Channel, tx.Proof, tx.Amount)
	case refund:
		ok = tx.From == lk.open.From && l.height >= lk.open.Height && tx.Amount == 0
	case openLock, nothing:
	}
	if !ok {
		return fmt.Errorf("%w: kind %d is not due", errInvalid, tx.Kind)
	}
	l.account(lk.open.To).balance += tx.Amount
	l.account(lk.open.From).balance += lk.open.Amount - tx.Amount
	lk.end, lk.paid, lk.back = &receipt{hash: tx.hash()}, tx.Amount, tx.Kind == refund
	return nil
}

// finalize makes every receipt final.
func (l *ledger) finalize() {
	for _, lk := range l.locks {
		lk.made.final = true
		if lk.end != nil {
			lk.end.final = true
		}
	}
}

// observe is what the ledger says of a channel. A final receipt is as deep as
// was agreed; any other counts as not mined.
func (l *ledger) observe(id pktcloud.ID, p settle.Params) settle.Observation {
	o := settle.Observation{Height: l.height}
	lk := l.locks[id]
	if lk == nil {
		return o
	}
	depth := func(r receipt) uint64 {
		if r.final {
			return max(1, p.MinDepth)
		}
		return 0
	}
	o.Funded, o.Depth = true, depth(lk.made)
	if lk.end != nil {
		o.Spent = settle.Spent{Known: true, TxID: lk.end.hash, Depth: depth(*lk.end), Refund: lk.back}
	}
	return o
}
