package secondrail

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"sync"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// marginBlocks is the margin of the channels opened here.
const marginBlocks = 10

// OpenRequest says what channel a payer opens.
type OpenRequest struct {
	Payee          pktcloud.PublicKey
	PayeeDetail    []byte
	Capacity       pktcloud.Amount
	Unconfirmed    pktcloud.Amount
	MinDepth       uint64
	LifetimeBlocks uint64
}

// Status is what a side knows of a channel.
type Status struct {
	Params     settle.Params
	Phase      settle.Phase
	Funded     bool
	Depth      uint64
	Height     uint64
	OutOfSight bool // never, on this rail
	Paid       pktcloud.Amount
	ClosingTx  [32]byte
}

// World is the chain and what both sides keep. It survives the programs that
// use it. It may be used from several goroutines at once.
type World struct {
	mu       sync.Mutex
	chain    ledger
	nonces   map[Account]uint64 // handed out
	payers   map[pktcloud.ID]*kept
	payees   map[pktcloud.ID]*kept
	refusing bool
}

// kept is one side's channel.
type kept struct {
	state   settle.Channel
	funding transaction
}

// New returns a world without money.
func New() *World {
	return &World{
		chain:  ledger{height: 1, accounts: map[Account]*account{}, locks: map[pktcloud.ID]*lock{}},
		nonces: map[Account]uint64{}, payers: map[pktcloud.ID]*kept{}, payees: map[pktcloud.ID]*kept{},
	}
}

// Confirm makes all receipts final where n is above zero.
func (w *World) Confirm(n uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n > 0 {
		w.chain.finalize()
	}
}

// Pass lets n blocks come.
func (w *World) Pass(n uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chain.height += n
}

// Refuse makes the payer's Pay fail, or ends that.
func (w *World) Refuse(refuse bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusing = refuse
}

// Settled returns what the chain paid to a channel's payee.
func (w *World) Settled(channel pktcloud.ID) (pktcloud.Amount, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lk := w.chain.locks[channel]
	if lk == nil || lk.end == nil {
		return 0, false
	}
	return lk.paid, true
}

// Announced reports whether the chain has the channel's money.
func (w *World) Announced(channel pktcloud.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.chain.locks[channel] != nil
}

// Balance is what an account has besides what it locked.
func (w *World) Balance(a Account) pktcloud.Amount {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.chain.account(a).balance
}

// announce brings a funding on the chain.
func (w *World) announce(list map[pktcloud.ID]*kept, id pktcloud.ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := find(list, id)
	if err != nil {
		return err
	}
	if k.state.Phase == settle.Abandoned {
		return settle.Refuse(settle.ErrClosed, "the channel was abandoned")
	}
	return w.chain.submit(k.funding)
}

func (w *World) status(list map[pktcloud.ID]*kept, id pktcloud.ID) (Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := find(list, id)
	if err != nil {
		return Status{}, err
	}
	w.look(k)
	c := k.state
	return Status{
		Params: c.Params, Phase: c.Phase, Funded: c.Funded, Depth: c.Depth, Height: c.Height, Paid: c.Paid(), ClosingTx: c.Spent.TxID,
	}, nil
}

func (w *World) latest(list map[pktcloud.ID]*kept, id pktcloud.ID) (pktcloud.Signed[settle.Voucher], bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := list[id]
	if k == nil || k.state.Latest.Body.Sequence == 0 {
		return pktcloud.Signed[settle.Voucher]{}, false
	}
	return k.state.Latest, true
}

func (w *World) look(k *kept) { k.state = k.state.Observe(w.chain.observe(k.state.ID, k.state.Params)) }

func find(list map[pktcloud.ID]*kept, id pktcloud.ID) (*kept, error) {
	if k := list[id]; k != nil {
		return k, nil
	}
	return nil, settle.Refuse(settle.ErrUnknown, "no channel %s here", id)
}

// accountOf derives a device's account key, which is another than the device's.
func accountOf(device pktcloud.PrivateKey) (ed25519.PrivateKey, Account) {
	seed := device.Seed()
	other := sha256.Sum256(append([]byte("account of "), seed[:]...))
	key := ed25519.NewKeyFromSeed(other[:])
	return key, Account(key.Public().(ed25519.PublicKey))
}

// Payer opens channels and pays. Its methods are those of peer.Payer in package
// lease/peer, in this package's own types.
type Payer struct {
	world   *World
	device  pktcloud.PrivateKey
	key     ed25519.PrivateKey
	account Account
}

// Payer returns a payer that has money.
func (w *World) Payer(device pktcloud.PrivateKey) *Payer {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &Payer{world: w, device: device}
	p.key, p.account = accountOf(device)
	if a := w.chain.account(p.account); a.nonce == 0 && a.balance == 0 {
		a.balance = 1 << 50
	}
	return p
}

// Account is the payer's account.
func (p *Payer) Account() Account { return p.account }

// Open makes a channel and the transaction that locks its money. Its nonce is
// taken: Abandon uses it up for nothing.
func (p *Payer) Open(_ context.Context, r OpenRequest) (params settle.Params, funding []byte, err error) {
	w := p.world
	w.mu.Lock()
	defer w.mu.Unlock()
	var payee Account
	if len(r.PayeeDetail) != len(payee) {
		return params, nil, settle.Refuse(settle.ErrMalformed, "a payee's account of %d bytes", len(r.PayeeDetail))
	}
	d := detail{Payer: p.account, Nonce: w.nonces[p.account], Payee: Account(r.PayeeDetail)}
	params = settle.Params{
		Version: settle.ParamsVersion, Rail: Name, Payer: p.device.Public(), Payee: r.Payee, Capacity: r.Capacity,
		ExpiryHeight: w.chain.height + r.LifetimeBlocks, MarginBlocks: marginBlocks, MinDepth: r.MinDepth, Unconfirmed: r.Unconfirmed,
	}
	if params.Detail, err = pktcloud.Marshal(d); err != nil {
		return params, nil, err
	}
	c, err := settle.NewChannel(params, settle.Payer, w.chain.height)
	if err != nil {
		return params, nil, err
	}
	tx := transaction{
		Kind: openLock, From: p.account, Nonce: d.Nonce, Channel: c.ID, To: d.Payee, Amount: params.Capacity, Height: params.ExpiryHeight,
	}.signed(p.key)
	if funding, err = pktcloud.Marshal(tx); err != nil {
		return params, nil, err
	}
	w.nonces[p.account]++
	w.payers[c.ID] = &kept{state: c, funding: tx}
	return params, funding, nil
}

// Abandon gives up a channel that was never announced.
func (p *Payer) Abandon(_ context.Context, channel pktcloud.ID) error {
	w := p.world
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.payers[channel]
	if k == nil || k.state.Phase == settle.Abandoned {
		return nil
	}
	w.look(k)
	next, err := k.state.Abandon()
	if err != nil {
		return err
	}
	k.state = next
	return w.chain.submit(transaction{Kind: nothing, From: p.account, Nonce: k.funding.Nonce}.signed(p.key))
}

// Announce locks the money on the chain.
func (p *Payer) Announce(_ context.Context, channel pktcloud.ID) error {
	return p.world.announce(p.world.payers, channel)
}

// Pay raises a lease's entry.
func (p *Payer) Pay(_ context.Context, channel pktcloud.ID, e settle.Entry) (pktcloud.Signed[settle.Voucher], error) {
	var none pktcloud.Signed[settle.Voucher]
	w := p.world
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := find(w.payers, channel)
	if err != nil {
		return none, err
	}
	if w.refusing {
		return none, settle.Refuse(settle.ErrCapacity, "the payer has no money")
	}
	w.look(k)
	v, err := k.state.Next(e)
	if err != nil {
		return none, err
	}
	if v.Sequence == k.state.Latest.Body.Sequence {
		return k.state.Latest, nil
	}
	if v.Proof, err = (Signer{channel, p.key}).SignVoucher(v.Total); err != nil {
		return none, err
	}
	s, err := pktcloud.Seal(p.device, v)
	if err != nil {
		return none, err
	}
	k.state, err = k.state.Issue(s)
	return s, err
}

// Latest returns the channel's newest voucher.
func (p *Payer) Latest(channel pktcloud.ID) (pktcloud.Signed[settle.Voucher], bool) {
	return p.world.latest(p.world.payers, channel)
}

// OfferClose signs a close that pays exactly final.
func (p *Payer) OfferClose(_ context.Context, channel pktcloud.ID, final pktcloud.Amount) (settle.CloseOffer, error) {
	w := p.world
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := find(w.payers, channel)
	if err != nil {
		return settle.CloseOffer{}, err
	}
	if c := k.state.Close; c.Version != 0 && c.Final == final {
		return c, nil
	}
	o := settle.CloseOffer{Version: settle.CloseOfferVersion, Channel: channel, Final: final}
	if o.Signature, err = (Signer{channel, p.key}).SignClose(final, 0); err != nil {
		return settle.CloseOffer{}, err
	}
	k.state, err = k.state.OfferClose(o)
	return o, err
}

// Refund takes everything back after expiry.
func (p *Payer) Refund(_ context.Context, channel pktcloud.ID) error {
	w := p.world
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := find(w.payers, channel)
	if err != nil {
		return err
	}
	w.look(k)
	next, err := k.state.Refund()
	if err != nil {
		return err
	}
	tx := transaction{Kind: refund, From: p.account, Nonce: w.nonces[p.account], Channel: channel}.signed(p.key)
	if err := w.chain.submit(tx); err != nil {
		return err
	}
	w.nonces[p.account]++
	k.state = next
	return nil
}

// ChannelStatus reports on one channel.
func (p *Payer) ChannelStatus(_ context.Context, channel pktcloud.ID) (Status, error) {
	return p.world.status(p.world.payers, channel)
}
