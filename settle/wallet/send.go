package wallet

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

const (
	// MaxOnceBytes is the longest word by which a payment is made once.
	MaxOnceBytes = 64
	// maxSentBytes bounds a stored payment.
	maxSentBytes = 128 << 10
)

// SendRequest is a payment to make.
type SendRequest struct {
	To  settle.Payment
	All bool // pay all that can be spent; To.Amount does not count
	// FeeRate is in units per 1000 virtual bytes; the ledger's own rate counts
	// if it is higher. MaxFee is what the payment may cost at most, and must be
	// stated: zero allows no fee, so no payment.
	FeeRate pktcloud.Amount
	MaxFee  pktcloud.Amount
	Account uint32
	// From are the coins to spend, all of them and no others; nil lets the
	// wallet choose.
	From []settle.Outpoint
	// Label is kept beside the payment.
	Label string
	// Once is a word of the caller's: a second request with it is answered with
	// the first one's payment, until that is settled [WALLET-18].
	Once string
}

// Plan is what a payment would be.
type Plan struct {
	Amount pktcloud.Amount // that arrives
	Fee    pktcloud.Amount
	Change pktcloud.Amount // that comes back to the wallet
	Inputs []settle.Outpoint
	VBytes uint64
	Left   pktcloud.Amount // of the account, change included
}

// payment is one that is under way.
type payment struct {
	sentRecord
	tx *wire.MsgTx
}

// sentRecord is a payment in the store.
type sentRecord struct {
	Version uint64 `cbor:"v"`
	Raw     []byte `cbor:"raw"`
	Once    string `cbor:"once"`
	Paid    uint64 `cbor:"paid"` // outputs asked for; one more is change
}

const sentVersion = 1

func (w *Wallet) loadSent(ctx context.Context) error {
	return w.cfg.Store.Load(ctx, sentPrefix, func(_ string, value []byte) error {
		p := &payment{}
		err := pktcloud.Unmarshal(value, &p.sentRecord, maxSentBytes)
		if err == nil && p.Version != sentVersion {
			err = fmt.Errorf("version %d", p.Version)
		}
		if err == nil {
			p.tx, err = decodeTx(p.Raw)
		}
		if err != nil {
			return fmt.Errorf("payment: %w", err)
		}
		w.sent[p.tx.TxHash()] = p
		w.mark(p.tx, true)
		return nil
	})
}

// Plan says what a payment would cost, and changes nothing. Its errors are
// those of Send, ErrFee apart.
func (w *Wallet) Plan(ctx context.Context, r SendRequest) (Plan, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, err := w.plan(ctx, r)
	if err != nil {
		return Plan{}, err
	}
	return w.planOf(d)
}

func (w *Wallet) planOf(d draft) (Plan, error) {
	p := Plan{Fee: d.fee, Change: d.rest, VBytes: d.size}
	for _, o := range d.outputs {
		p.Amount += o.Amount
	}
	b, err := w.balance(d.account)
	if err != nil {
		return Plan{}, err
	}
	p.Left = b.Confirmed + b.Unconfirmed + b.Frozen
	for _, c := range d.picked {
		p.Inputs = append(p.Inputs, c.at)
	}
	p.Left = p.Left.SubFloor(p.Amount).SubFloor(p.Fee)
	return p, nil
}

// plan drafts a payment. The caller holds w.mu.
func (w *Wallet) plan(ctx context.Context, r SendRequest) (draft, error) {
	if err := checkLabel(r.Label); err != nil {
		return draft{}, err
	}
	if len(r.Once) > MaxOnceBytes {
		return draft{}, settle.Refuse(settle.ErrMalformed, "a word of more than %d bytes", MaxOnceBytes)
	}
	if err := w.checkAccount(r.Account); err != nil {
		return draft{}, err
	}
	rate, err := w.cfg.Ledger.FeeRate(ctx)
	if err != nil {
		return draft{}, err
	}
	if err := w.refresh(ctx); err != nil {
		return draft{}, err
	}
	from, err := w.chosen(r)
	if err != nil {
		return draft{}, err
	}
	return w.draft(request{
		outputs: []settle.Payment{r.To}, all: r.All, rate: max(rate, r.FeeRate), account: r.Account, from: from, only: len(from) > 0,
		maxInputs: MaxSendInputs, ownChange: true, sequence: replaceableSequence,
	})
}

// chosen finds the coins that a request names.
func (w *Wallet) chosen(r SendRequest) (coins []*coin, err error) {
	if len(r.From) > MaxSendInputs {
		return nil, settle.Refuse(settle.ErrMalformed, "%d coins; one payment spends at most %d", len(r.From), MaxSendInputs)
	}
	seen := map[settle.Outpoint]bool{}
	for _, at := range r.From {
		c := w.index.outs[at]
		why := ""
		switch {
		case seen[at]:
			why = "it is named twice"
		case c == nil || c.place.account != r.Account:
			why = "the account has none such"
		case c.spender != nil:
			why = "it is spent"
		case c.reserved:
			why = "it is set aside for a channel or a payment under way"
		case c.frozen:
			why = "it is frozen"
		case !w.index.confirmed(c):
			why = "it is not confirmed yet"
		}
		if why != "" {
			return nil, fmt.Errorf("%w: %s: %s", ErrCoin, FormatOutpoint(at), why)
		}
		seen[at] = true
		coins = append(coins, c)
	}
	return coins, nil
}

// Send pays an output and returns the transaction's id, in internal byte order.
// The payment is durable before it is broadcast. An error matching
// settle.ErrLedgerUnavailable comes with the id once that is so: the payment is
// stored, and [Wallet.Rebroadcast] sends it; do not pay again. Other errors
// match ErrFunds, ErrFee, ErrCoin, ErrLocked, settle.ErrMalformed,
// settle.ErrDust, settle.ErrFee or settle.ErrRejected; nothing was paid then.
func (w *Wallet) Send(ctx context.Context, r SendRequest) ([32]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if txid, done, err := w.again(r); done || err != nil {
		return txid, err
	}
	d, err := w.plan(ctx, r)
	if err != nil {
		return [32]byte{}, err
	}
	if err := checkFee(d, r.MaxFee); err != nil {
		return [32]byte{}, err
	}
	tx, err := w.finish(ctx, d)
	if err != nil {
		return [32]byte{}, err
	}
	return w.commit(ctx, tx, sentRecord{Once: r.Once, Paid: uint64(len(d.outputs))}, nil, r.Label)
}

func checkFee(d draft, most pktcloud.Amount) error {
	if d.fee > most {
		return fmt.Errorf("%w: it would be %s, the limit is %s", ErrFee, d.fee, most)
	}
	return nil
}

// again finds the payment that was made with the same word.
func (w *Wallet) again(r SendRequest) (txid [32]byte, done bool, err error) {
	if r.Once == "" {
		return txid, false, nil
	}
	for id, p := range w.sent {
		if p.Once != r.Once {
			continue
		}
		first := p.tx.TxOut[0]
		if !bytes.Equal(first.PkScript, r.To.Script) || !r.All && pktcloud.Amount(first.Value) != r.To.Amount {
			return txid, false, settle.Refuse(settle.ErrMalformed, "the word %q belongs to payment %s, which pays something else", r.Once, id)
		}
		return id, true, nil
	}
	return txid, false, nil
}

// commit makes a payment durable in the place of old, if there is one, and
// broadcasts it.
func (w *Wallet) commit(ctx context.Context, tx *wire.MsgTx, rec sentRecord, old *payment, label string) ([32]byte, error) {
	raw, err := encodeTx(tx)
	if err != nil {
		return [32]byte{}, err
	}
	txid := tx.TxHash()
	rec.Version, rec.Raw = sentVersion, raw
	value, err := pktcloud.Marshal(rec)
	if err != nil {
		return [32]byte{}, err
	}
	puts := []Put{{Key: sentPrefix + txid.String(), Value: value}}
	if label != "" {
		puts = append(puts, Put{Key: labelPrefix + txLabel(txid), Value: []byte(label)})
	}
	if old != nil {
		puts = append(puts, Put{Key: sentPrefix + old.tx.TxHash().String()})
	}
	if err := w.cfg.Store.Apply(ctx, puts); err != nil {
		return [32]byte{}, fmt.Errorf("store payment: %w", err)
	}
	p := &payment{rec, tx}
	w.replaceSent(old, p)
	if label != "" {
		w.labels[txLabel(txid)] = label
	}
	err = w.cfg.Ledger.Broadcast(ctx, raw)
	if errors.Is(err, settle.ErrRejected) {
		return [32]byte{}, errors.Join(fmt.Errorf("send: %w", err), w.undo(ctx, p, old))
	}
	if err != nil {
		err = fmt.Errorf("payment %s is stored and goes out once the chain is back; do not send it again: %w", txid, err)
	}
	return txid, err
}

// replaceSent puts p in the place of old; either may be nil.
func (w *Wallet) replaceSent(old, p *payment) {
	if old != nil {
		delete(w.sent, old.tx.TxHash())
		w.mark(old.tx, false)
	}
	if p != nil {
		w.sent[p.tx.TxHash()] = p
		w.mark(p.tx, true)
	}
}

// undo takes back a payment that the chain refused.
func (w *Wallet) undo(ctx context.Context, p, old *payment) error {
	puts := []Put{{Key: sentPrefix + p.tx.TxHash().String()}, {Key: labelPrefix + txLabel(p.tx.TxHash())}}
	if old != nil {
		value, err := pktcloud.Marshal(old.sentRecord)
		if err != nil {
			return err
		}
		puts = append(puts, Put{Key: sentPrefix + old.tx.TxHash().String(), Value: value})
	}
	w.replaceSent(p, old)
	delete(w.labels, txLabel(p.tx.TxHash()))
	return w.cfg.Store.Apply(ctx, puts)
}

// Replace pays the same as a payment that waits for a block, at a higher fee,
// and returns the new transaction's id [WALLET-19]. feeRate is raised to the
// least that nodes take in place of the old one. Errors match ErrReplace, which
// a channel's funding always meets, ErrFee or those of Send.
func (w *Wallet) Replace(ctx context.Context, txid [32]byte, feeRate, maxFee pktcloud.Amount) ([32]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refresh(ctx); err != nil {
		return [32]byte{}, err
	}
	old, err := w.replaceable(txid)
	if err != nil {
		return [32]byte{}, err
	}
	d, err := w.dearer(old, feeRate)
	if err != nil {
		return [32]byte{}, err
	}
	if err := checkFee(d, maxFee); err != nil {
		return [32]byte{}, err
	}
	tx, err := w.finish(ctx, d)
	if err != nil {
		return [32]byte{}, err
	}
	return w.commit(ctx, tx, sentRecord{Once: old.Once, Paid: old.Paid}, old, w.labels[txLabel(txid)])
}

// replaceable finds a payment of the wallet that waits for a block and that
// nothing builds on.
func (w *Wallet) replaceable(txid chainhash.Hash) (*payment, error) {
	no := func(why string) (*payment, error) {
		return nil, fmt.Errorf("%w: %s", ErrReplace, why)
	}
	if w.fundings[txid] {
		return no("it funds a channel, and another fee would give it another id, which the channel's vouchers do not know")
	}
	old := w.sent[txid]
	if old == nil {
		return no("no payment of this wallet with that id waits for a block")
	}
	if tx := w.index.txs[txid]; tx != nil && tx.height > 0 {
		return no("it is in a block already")
	}
	for i := range old.tx.TxOut {
		at := settle.Outpoint{TxID: txid, Index: uint32(i)}
		if next, spent := w.index.spends[at]; spent || w.reserved[at] {
			why := "its change is set aside for another payment"
			if spent {
				why = fmt.Sprintf("transaction %s spends its change", next)
			}
			return no(why + "; wait for a block")
		}
	}
	return old, nil
}

// dearer drafts a payment again, from the same coins and as many more as the
// higher fee needs.
func (w *Wallet) dearer(old *payment, feeRate pktcloud.Amount) (draft, error) {
	r := request{maxInputs: MaxSendInputs, sequence: replaceableSequence}
	var in, out pktcloud.Amount
	for _, i := range old.tx.TxIn {
		c := w.index.outs[settle.Outpoint{TxID: i.PreviousOutPoint.Hash, Index: i.PreviousOutPoint.Index}]
		if c == nil {
			return draft{}, fmt.Errorf("%w: a coin that it spends is not the wallet's any more", ErrReplace)
		}
		r.from, r.account = append(r.from, c), c.place.account
		in += c.amount
	}
	for i, o := range old.tx.TxOut {
		out += pktcloud.Amount(o.Value)
		if uint64(i) < old.Paid {
			r.outputs = append(r.outputs, settle.Payment{Script: o.PkScript, Amount: pktcloud.Amount(o.Value)})
		} else {
			r.change = o.PkScript
		}
	}
	size := pktcloud.Amount(vsize(old.tx))
	least := ((in-out)*1000+size-1)/size + w.cfg.Network.RelayFloor
	r.rate = max(feeRate, least)
	return w.draft(r)
}

// Rebroadcast offers the payments under way to the chain again and forgets
// those that are settled. Call it at start and after new blocks: a node loses
// its mempool when it restarts.
func (w *Wallet) Rebroadcast(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, p := range w.sent {
		if err := w.rebroadcast(ctx, p); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (w *Wallet) rebroadcast(ctx context.Context, p *payment) error {
	at := p.tx.TxIn[0].PreviousOutPoint
	out, err := w.cfg.Ledger.Output(ctx, settle.Outpoint{TxID: at.Hash, Index: at.Index})
	if err != nil {
		return fmt.Errorf("look for payment %s: %w", p.tx.TxHash(), err)
	}
	if s := out.Spend; s != nil && s.Depth >= SettledDepth { // by this payment, or by another in its place
		if err := w.cfg.Store.Apply(ctx, []Put{{Key: sentPrefix + p.tx.TxHash().String()}}); err != nil {
			return fmt.Errorf("forget a settled payment: %w", err)
		}
		w.replaceSent(p, nil)
		return nil
	}
	if err := w.cfg.Ledger.Broadcast(ctx, p.Raw); err != nil {
		return fmt.Errorf("broadcast payment %s again: %w", p.tx.TxHash(), err)
	}
	return nil
}
