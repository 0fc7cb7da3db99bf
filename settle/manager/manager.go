// Package manager runs payment channels: many of them, durable, over a
// settle.Ledger, a Store and a Wallet. It pays, accepts, closes, claims and
// refunds; what a voucher may say is decided by package settle, what goes on
// the chain by settle/pktchain.
//
// Start with [New], then run [Manager.Run] beside it. The rules are those of
// spec/settle.md.
package manager

import (
	"context"
	"errors"
	"log/slog"
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
	// change after them. It spends confirmed native segwit coins only, none
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
// DeviceKey are required; a payee that never opens channels may leave Wallet
// nil if it gives PayoutScript.
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
	// MarginBlocks is the safety distance in channels opened here and the least
	// one accepted; zero means DefaultMarginBlocks.
	MarginBlocks uint64
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
	Paid         pktcloud.Amount `json:"paid"`
	Room         pktcloud.Amount `json:"room"` // what a further voucher can add now
	Final        pktcloud.Amount `json:"final"`
	ClosingTxID  [32]byte        `json:"-"` // zero while nothing spends the funding
	ClosingDepth uint64          `json:"closing_depth"`
}

// Manager runs the channels of one device. Its methods may be called from
// several goroutines at once; those on one channel take turns.
type Manager struct{}

var errTodo = errors.New("not written yet")

// New loads the channels of a store.
func New(ctx context.Context, cfg Config) (*Manager, error) { return &Manager{}, nil }

// PayeeDetail returns the encoding of a fresh payee key and payout script.
func (m *Manager) PayeeDetail(ctx context.Context) ([]byte, error) { return nil, errTodo }

// Open makes a channel and its funding transaction; nothing is broadcast.
func (m *Manager) Open(ctx context.Context, r OpenRequest) (params settle.Params, funding []byte, err error) {
	return settle.Params{}, nil, errTodo
}

// Abandon gives up a channel that was never announced.
func (m *Manager) Abandon(ctx context.Context, channel pktcloud.ID) error { return errTodo }

// Announce broadcasts the funding transaction.
func (m *Manager) Announce(ctx context.Context, channel pktcloud.ID) error { return errTodo }

// Accept takes a channel as its payee.
func (m *Manager) Accept(ctx context.Context, p settle.Params, funding []byte) (pktcloud.ID, error) {
	return pktcloud.ID{}, errTodo
}

// Pay raises one lease's entry.
func (m *Manager) Pay(ctx context.Context, channel pktcloud.ID, e settle.Entry) (pktcloud.Signed[settle.Voucher], error) {
	return pktcloud.Signed[settle.Voucher]{}, errTodo
}

// Receive accepts a voucher.
func (m *Manager) Receive(ctx context.Context, v pktcloud.Signed[settle.Voucher]) error {
	return errTodo
}

// Latest returns the latest voucher of a channel.
func (m *Manager) Latest(channel pktcloud.ID) (pktcloud.Signed[settle.Voucher], bool) {
	return pktcloud.Signed[settle.Voucher]{}, false
}

// OfferClose signs a cooperative close that pays exactly final.
func (m *Manager) OfferClose(ctx context.Context, channel pktcloud.ID, final pktcloud.Amount) (settle.CloseOffer, error) {
	return settle.CloseOffer{}, errTodo
}

// CompleteClose signs and broadcasts a close.
func (m *Manager) CompleteClose(ctx context.Context, channel pktcloud.ID, o settle.CloseOffer) (txid [32]byte, err error) {
	return txid, errTodo
}

// Claim closes a channel by its latest voucher, without the payer.
func (m *Manager) Claim(ctx context.Context, channel pktcloud.ID) (txid [32]byte, err error) {
	return txid, errTodo
}

// Status returns what the manager knows of a channel.
func (m *Manager) Status(ctx context.Context, channel pktcloud.ID) (Status, error) {
	return Status{}, errTodo
}

// List returns all channels, newest last.
func (m *Manager) List() []Status { return nil }

// Run follows the ledger until ctx ends.
func (m *Manager) Run(ctx context.Context) error { return errTodo }
