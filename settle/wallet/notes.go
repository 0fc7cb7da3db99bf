package wallet

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/btcsuite/btcd/chainhash/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// MaxLabelBytes is the longest label [WALLET-42].
const MaxLabelBytes = 256

// checkLabel refuses a label that is no line of text.
func checkLabel(label string) error {
	if len(label) > MaxLabelBytes || !utf8.ValidString(label) || strings.ContainsFunc(label, unicode.IsControl) {
		return settle.Refuse(settle.ErrMalformed, "a label is one line of at most %d bytes", MaxLabelBytes)
	}
	return nil
}

func txLabel(txid chainhash.Hash) string  { return "tx/" + txid.String() }
func addressLabel(address string) string  { return "address/" + address }
func frozenKey(at settle.Outpoint) string { return frozenPrefix + FormatOutpoint(at) }

// FormatOutpoint writes an outpoint: the transaction's id in its usual
// hexadecimal form, a colon, and the index.
func FormatOutpoint(at settle.Outpoint) string {
	return fmt.Sprintf("%s:%d", chainhash.Hash(at.TxID), at.Index)
}

// ParseOutpoint reads an outpoint as FormatOutpoint writes it. Errors match
// settle.ErrMalformed.
func ParseOutpoint(s string) (settle.Outpoint, error) {
	id, index, ok := strings.Cut(s, ":")
	hash, err := chainhash.NewHashFromStr(id)
	n, err2 := strconv.ParseUint(index, 10, 32)
	if !ok || err != nil || err2 != nil || len(id) != 2*chainhash.HashSize || FormatOutpoint(settle.Outpoint{TxID: *hash, Index: uint32(n)}) != s {
		return settle.Outpoint{}, settle.Refuse(settle.ErrMalformed, "%q is no coin; one is written as a transaction's id, a colon and a number", s[:min(len(s), 80)])
	}
	return settle.Outpoint{TxID: *hash, Index: uint32(n)}, nil
}

func (w *Wallet) loadNotes(ctx context.Context) error {
	err := w.cfg.Store.Load(ctx, labelPrefix, func(key string, value []byte) error {
		w.labels[strings.TrimPrefix(key, labelPrefix)] = string(value)
		return nil
	})
	if err != nil {
		return err
	}
	return w.cfg.Store.Load(ctx, frozenPrefix, func(key string, _ []byte) error {
		at, err := ParseOutpoint(strings.TrimPrefix(key, frozenPrefix))
		w.frozen[at] = true
		return err
	})
}

// LabelAddress keeps a text beside an address of the network, one's own or
// another's; an empty one removes it. Errors match settle.ErrMalformed.
func (w *Wallet) LabelAddress(ctx context.Context, address, label string) error {
	if _, err := w.ParseAddress(address); err != nil {
		return err
	}
	return w.setLabel(ctx, addressLabel(address), label)
}

// LabelTx keeps a text beside a transaction; an empty one removes it. Errors
// match settle.ErrMalformed.
func (w *Wallet) LabelTx(ctx context.Context, txid [32]byte, label string) error {
	return w.setLabel(ctx, txLabel(txid), label)
}

func (w *Wallet) setLabel(ctx context.Context, key, label string) error {
	if err := checkLabel(label); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	put := Put{Key: labelPrefix + key}
	if label != "" {
		put.Value = []byte(label)
	}
	if err := w.cfg.Store.Apply(ctx, []Put{put}); err != nil {
		return fmt.Errorf("store label: %w", err)
	}
	w.labels[key] = label
	if label == "" {
		delete(w.labels, key)
	}
	return nil
}

// Label returns the text beside an address.
func (w *Wallet) Label(address string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.labels[addressLabel(address)]
}

// Coin is an unspent coin of the wallet.
type Coin struct {
	At       settle.Outpoint
	Amount   pktcloud.Amount
	Address  string
	Label    string // of the address, or else of the transaction
	Account  uint32
	Change   bool // the address is one for change
	Depth    uint64
	Mature   bool // can be spent as far as the chain is concerned
	Reserved bool // for a channel or a payment under way
	Frozen   bool // by the owner
}

// Coins returns the unspent coins of all accounts, the largest of each first.
// Errors match settle.ErrLedgerUnavailable.
func (w *Wallet) Coins(ctx context.Context) ([]Coin, error) { return w.CoinsPart(ctx, 0, 0) }

// CoinsPart is Coins without the first skip, and of the others at most limit;
// zero means all.
func (w *Wallet) CoinsPart(ctx context.Context, skip, limit int) ([]Coin, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refresh(ctx); err != nil {
		return nil, err
	}
	var picked []*coin
	for account := range uint32(len(w.names)) {
		coins := w.index.coins(account)
		left := coins[min(max(skip, 0), len(coins)):]
		skip -= len(coins) - len(left)
		picked = append(picked, left...)
	}
	if limit > 0 {
		picked = picked[:min(limit, len(picked))]
	}
	all := make([]Coin, 0, len(picked))
	for _, c := range picked {
		script, err := w.keys.script(c.place)
		if err != nil {
			return nil, err
		}
		address, err := w.cfg.Network.Address(script)
		if err != nil {
			return nil, err
		}
		coin := Coin{
			At: c.at, Amount: c.amount, Address: address, Label: w.labels[addressLabel(address)], Account: c.place.account, Change: c.place.chain == change,
			Depth: w.index.depth(c.height), Mature: w.index.confirmed(c), Reserved: c.reserved, Frozen: c.frozen,
		}
		if coin.Label == "" {
			coin.Label = w.labels[txLabel(c.at.TxID)]
		}
		all = append(all, coin)
	}
	return all, nil
}

// Freeze keeps the wallet from spending a coin by itself, and from spending it
// at all until it is unfrozen. Errors match ErrCoin.
func (w *Wallet) Freeze(ctx context.Context, at settle.Outpoint, frozen bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refresh(ctx); err != nil {
		return err
	}
	c := w.index.outs[at]
	if c == nil || c.spender != nil {
		return fmt.Errorf("%w: %s: the wallet has none such", ErrCoin, FormatOutpoint(at))
	}
	put := Put{Key: frozenKey(at)}
	if frozen {
		put.Value = []byte{1}
	}
	if err := w.cfg.Store.Apply(ctx, []Put{put}); err != nil {
		return fmt.Errorf("store frozen coin: %w", err)
	}
	if frozen {
		w.frozen[at] = true
	} else {
		delete(w.frozen, at)
	}
	c.frozen = frozen
	return nil
}
