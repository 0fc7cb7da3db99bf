// Package manager runs payment channels: many of them, durable, over a
// settle.Ledger, a Store and a Wallet. It pays, accepts, closes, claims and
// refunds; what a voucher may say is decided by package settle, what goes on
// the chain by settle/pktchain.
//
// Start with [New], then run [Manager.Run] beside it. The rules are those of
// spec/settle.md.
package manager

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// DefaultMarginBlocks is the margin of a Config without one.
const DefaultMarginBlocks = 144

// Put is one change of a [Store]. A nil value deletes the key.
type Put = struct {
	Key   string
	Value []byte
}

// Store keeps what must survive a crash. The manager's keys begin with
// "settle/". Apply may be called from several goroutines at once, so that one
// sync to disk serves many channels.
type Store interface {
	// Apply makes all puts durable, all or none, before it returns.
	Apply(ctx context.Context, puts []Put) error
	// Load calls fn for each key with the prefix, in ascending order of key.
	Load(ctx context.Context, prefix string, fn func(key string, value []byte) error) error
}

// Wallet gives a channel its coins. All methods may be called from several
// goroutines at once.
type Wallet interface {
	// Fund builds and signs a transaction with these outputs first, in order,
	// change after them. It spends confirmed P2WPKH coins only, none
	// signalling replacement (sequence 0xfffffffe). feeRate is in units per
	// 1000 virtual bytes. Its coins are reserved until Release, or until they
	// are spent on the chain.
	Fund(ctx context.Context, outputs []settle.Payment, feeRate pktcloud.Amount) (raw []byte, err error)
	// Reserve reserves the coins of a transaction again after a restart.
	Reserve(ctx context.Context, raw []byte) error
	// Release gives the coins of a transaction back. It is idempotent.
	Release(ctx context.Context, raw []byte) error
	// ReceiveScript returns a fresh script of the wallet.
	ReceiveScript(ctx context.Context) ([]byte, error)
}

// Config is what a Manager works with. Ledger, Store, Wallet, Keychain and
// DeviceKey are required.
type Config struct {
	Network  pktchain.Network
	Ledger   settle.Ledger
	Store    Store
	Wallet   Wallet
	Keychain *pktchain.Keychain
	// DeviceKey signs vouchers as payer and names this side in channels.
	DeviceKey pktcloud.PrivateKey
	// Reserve is set aside in channels opened here for the closing fee. Zero
	// means none: a claim then pays its fee from the payee's money.
	Reserve pktcloud.Amount
	// Birthday is a height below which the phrase has funded no channel: a store
	// that is new searches the chain from there on for those of earlier stores.
	// Zero is always right; a height above the best block means now.
	Birthday uint64
	// MarginBlocks is the safety distance in channels opened here and the least
	// one accepted; zero means DefaultMarginBlocks.
	MarginBlocks uint64
	// Depth is how deep the funding of a channel that is accepted must lie before
	// it counts as settled. The zero value takes what the payer names.
	Depth settle.Depths
	// DepositEvery is after how many further units a payee wants a late proof
	// to deposit at towers: what it can lose when all of them are hostile. Zero
	// means that it deposits nothing.
	DepositEvery pktcloud.Amount
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log receives what a person should know; nil means none.
	Log *slog.Logger
}

// OpenRequest says what channel the payer wants.
type OpenRequest struct {
	Payee          pktcloud.PublicKey // payee's device key
	PayeeDetail    []byte             // encoded pktchain.PayeeDetail, from the payee's quote
	Capacity       pktcloud.Amount
	Unconfirmed    pktcloud.Amount // zero means none
	MinDepth       uint64
	LifetimeBlocks uint64 // expiry = tip + this
}

// Status is what a manager knows of a channel.
type Status struct {
	ID           pktcloud.ID     `json:"id"`
	Params       settle.Params   `json:"params"`
	Role         settle.Role     `json:"role"`
	Phase        settle.Phase    `json:"phase"`
	FundingTxID  [32]byte        `json:"-"` // internal byte order, as in settle.Outpoint
	Funded       bool            `json:"funded"`
	Depth        uint64          `json:"depth"`
	Height       uint64          `json:"height"`
	OutOfSight   bool            `json:"out_of_sight"` // the chain is, and Height an estimate
	Paid         pktcloud.Amount `json:"paid"`
	Room         pktcloud.Amount `json:"room"`    // what a further voucher can add now
	Final        pktcloud.Amount `json:"final"`   // of a signed cooperative close, else zero
	Settled      pktcloud.Amount `json:"settled"` // what the payee's script received on the chain
	Announced    bool            `json:"announced"`
	Into         pktcloud.ID     `json:"into,omitzero"` // the channel that it rolls into, or rolled
	From         pktcloud.ID     `json:"from,omitzero"` // the channel that rolled into it
	ClosingTxID  [32]byte        `json:"-"`             // zero while there is none
	ClosingDepth uint64          `json:"closing_depth"`
	End          pktchain.End    `json:"-"` // what the transaction that ended the channel paid; zero while the chain has none
}

// Manager runs the channels of one device. Its methods may be called from
// several goroutines at once; those on one channel take turns, those on
// different channels run side by side, so that a Store can group their syncs.
// What a method reports as done is durable. Errors match the codes of package
// settle, [settle.ErrLedgerUnavailable], [settle.ErrRejected], or are those of
// the Store, the Wallet and the context.
type Manager struct {
	cfg  Config
	self pktcloud.PublicKey

	reviving  sync.Mutex // held while the restored channels are followed, or others taken back
	beginning sync.Mutex // held while an index is handed out or a channel begins, the sync included

	mu       sync.Mutex
	next     indexes
	payees   map[string]payeeRecord // by public key
	channels map[pktcloud.ID]*channel
	funded   map[settle.Outpoint]pktcloud.ID
	order    uint64
	sight    settle.Sight
	stale    bool   // the last answer of the ledger was too old
	stored   uint64 // height of the tip in the store
	lates    map[pktcloud.ID]lateState
	rolls    map[pktcloud.ID]rollRecord // by predecessor

	search       searchRecord // how far the chain was searched
	searchStored uint64       // height of the one in the store
	found        bool         // the search came to the best block
	restored     map[settle.Outpoint]*restored
	recalled     map[settle.Outpoint]*recalled
	twin         bool // another machine asked for a channel of this one

	searching chan struct{} // holds one token while nobody searches
	blocks    chan struct{} // a token when there was a new block
	judging   chan struct{} // holds a token for each roll that is being judged
}

// New loads the channels of a store and reserves the coins of those that are
// not funded yet. A ledger out of reach is no error.
func New(ctx context.Context, cfg Config) (*Manager, error) {
	if cfg.Ledger == nil || cfg.Store == nil || cfg.Wallet == nil || cfg.Keychain == nil || cfg.DeviceKey.IsZero() {
		return nil, settle.Refuse(settle.ErrParams, "a manager needs a ledger, a store, a wallet, a keychain and a device key")
	}
	if cfg.Keychain.Network() != cfg.Network {
		return nil, settle.Refuse(settle.ErrParams, "the keychain is of %s, the manager of %s", cfg.Keychain.Network().Rail, cfg.Network.Rail)
	}
	if cfg.MarginBlocks == 0 {
		cfg.MarginBlocks = DefaultMarginBlocks
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		cfg: cfg, self: cfg.DeviceKey.Public(),
		payees: map[string]payeeRecord{}, channels: map[pktcloud.ID]*channel{}, funded: map[settle.Outpoint]pktcloud.ID{},
		sight: settle.Sight{Lost: true}, lates: map[pktcloud.ID]lateState{}, rolls: map[pktcloud.ID]rollRecord{}, judging: make(chan struct{}, MaxRollJudgements),
		restored: map[settle.Outpoint]*restored{}, recalled: map[settle.Outpoint]*recalled{}, searching: make(chan struct{}, 1), blocks: make(chan struct{}, 1),
	}
	m.searching <- struct{}{}
	if err := m.load(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(m.loadLates(ctx), m.loadRolls(ctx)); err != nil {
		return nil, err
	}
	_, _ = m.askTip(ctx) // the height of the store serves until the ledger is back
	return m, nil
}

// Latest returns the latest voucher of a channel, made or accepted; false when
// there is none.
func (m *Manager) Latest(channel pktcloud.ID) (pktcloud.Signed[settle.Voucher], bool) {
	ch, err := m.channel(channel)
	if err != nil {
		return pktcloud.Signed[settle.Voucher]{}, false
	}
	latest := ch.state.Load().Channel.Latest
	return latest, latest.Body.Sequence > 0
}

// Status returns what the manager knows of a channel. It asks nobody: Run
// keeps it fresh.
func (m *Manager) Status(_ context.Context, channel pktcloud.ID) (Status, error) {
	ch, err := m.channel(channel)
	if err != nil {
		return Status{}, err
	}
	return m.status(ch), nil
}

func (m *Manager) status(ch *channel) Status {
	st := ch.state.Load()
	height, blind := m.estimate()
	c := st.Channel.At(height)
	s := Status{
		ID: c.ID, Params: c.Params, Role: c.Role, Phase: c.Phase, FundingTxID: ch.chain.Detail.Funding.TxID,
		Funded: c.Funded, Depth: c.Depth, Height: c.Height, Paid: c.Paid(), Room: c.Room(), Final: c.Close.Final,
		OutOfSight: blind, Settled: st.Settled, ClosingTxID: st.EndTx, ClosingDepth: c.Spent.Depth, Announced: st.Announced,
		Into: c.Into.Channel, From: c.From.Channel,
		End: pktchain.End(st.seen.End),
	}
	if c.Spent.Known {
		s.ClosingTxID = c.Spent.TxID
	}
	return s
}

// List returns all channels, oldest first.
func (m *Manager) List() []Status {
	var list []Status
	for _, ch := range m.all() {
		list = append(list, m.status(ch))
	}
	return list
}

// all returns the channels, oldest first.
func (m *Manager) all() []*channel {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*channel, 0, len(m.channels))
	for _, ch := range m.channels {
		list = append(list, ch)
	}
	slices.SortFunc(list, func(a, b *channel) int {
		return cmp.Or(cmp.Compare(a.order, b.order), bytes.Compare(a.id[:], b.id[:]))
	})
	return list
}

func (m *Manager) channel(id pktcloud.ID) (*channel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ch, ok := m.channels[id]
	if !ok {
		return nil, settle.Refuse(settle.ErrUnknown, "no channel %s here", id)
	}
	return ch, nil
}

// height is the best block's height; while the chain is out of sight, what it
// may have become.
func (m *Manager) height() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sight.Height(m.cfg.Now().Unix(), m.cfg.Network.BlockTime)
}

// estimate is height, and whether it is no more than an estimate.
func (m *Manager) estimate() (height uint64, outOfSight bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.cfg.Now().Unix()
	return m.sight.Height(now, m.cfg.Network.BlockTime), m.sight.OutOfSight(now, m.cfg.Network.BlockTime)
}

// askTip asks the ledger for its best block and keeps the answer. A block that
// is too old is no answer [SETTLE-35].
func (m *Manager) askTip(ctx context.Context) (settle.Tip, error) {
	tip, err := m.cfg.Ledger.Tip(ctx)
	if err != nil {
		return settle.Tip{}, err
	}
	if sight := m.see(tip); sight.Stale(sight.Last, m.cfg.Network.BlockTime) {
		return settle.Tip{}, fmt.Errorf("%w: its best block %d is of %s; its node stands still or is still reading the chain, or this machine's clock is wrong",
			settle.ErrLedgerUnavailable, tip.Height, time.Unix(tip.Time, 0).UTC().Format(time.DateTime))
	}
	return tip, nil
}

// see takes in a best block that the ledger named.
func (m *Manager) see(tip settle.Tip) settle.Sight {
	now := m.cfg.Now().Unix()
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.stale
	m.sight = m.sight.See(tip, now)
	if m.stale = m.sight.Stale(now, m.cfg.Network.BlockTime); m.stale && !was {
		m.cfg.Log.Warn("the chain is out of sight: its best block is old", "height", tip.Height, "time", time.Unix(tip.Time, 0).UTC())
	}
	return m.sight
}

// rate is the fee rate to pay now, at least least times the relay floor.
func (m *Manager) rate(ctx context.Context, least pktcloud.Amount) (pktcloud.Amount, error) {
	rate, err := m.cfg.Ledger.FeeRate(ctx)
	if err != nil {
		return 0, err
	}
	return max(rate, least*m.cfg.Network.RelayFloor), nil
}
