package service

import (
	"context"
	"io"
	"net"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Service is a node as its owner sees it. All methods may be called at once.
// Errors are *[Error].
type Service interface {
	Market
	Leases
	Sessions
	Wallet
	Towers
	Node
}

// Market reads and writes the offers.
type Market interface {
	// Offers returns offers that match, cheapest first.
	Offers(ctx context.Context, q OfferQuery) (OfferPage, error)
	// Offer returns one offer by id, priced for the resources of q.
	Offer(ctx context.Context, id pktcloud.ID, q Resources) (Offer, error)
	// PublishOffer signs an offer of this node and tells the peers. It
	// replaces the offer in the same slot.
	PublishOffer(ctx context.Context, s OfferSpec) (Offer, error)
	// PullImage brings an image to this provider ahead of the first lease.
	PullImage(ctx context.Context, ref string) (Image, error)
	// Images lists what images this provider has.
	Images(ctx context.Context) (ImageStore, error)
	// PruneImages removes those that no container was started from and that were
	// not used for so long.
	PruneImages(ctx context.Context, unused time.Duration) (PrunedImages, error)
}

// MaxWait bounds one wait for a lease.
const MaxWait = time.Minute

// Leases makes, shows and ends leases. A lease is named by its id, by a unique
// prefix of its label, or by the label.
type Leases interface {
	// CreateLease agrees a lease and returns once the provider has
	// acknowledged it; starting goes on by itself. A provider that was sent the
	// commit and does not answer is asked on and on: the lease is returned,
	// "proposed", after about 20 seconds.
	CreateLease(ctx context.Context, r LeaseRequest) (Lease, error)
	Lease(ctx context.Context, name string) (Lease, error)
	// AwaitLease returns a lease as soon as its service runs, or never will, and
	// as it then is after so long, at most [MaxWait].
	AwaitLease(ctx context.Context, name string, most time.Duration) (Lease, error)
	Leases(ctx context.Context) ([]Lease, error)
	// CloseLease ends a lease and returns once the other side has signed or
	// ctx has ended; the closing then goes on by itself. It is idempotent. A lease
	// that its provider has not answered is returned at once, still "proposed": it
	// ends as soon as the provider answers.
	CloseLease(ctx context.Context, name string) (Lease, error)
	// AmendLease changes size, price, limits or term of a lease that runs, by an
	// amendment that both sides sign, or with Plan says what that would cost. It
	// returns once the provider has answered; where it refuses, all is as it was.
	// An amendment without an answer is returned as pending after about 20 seconds.
	AmendLease(ctx context.Context, name string, r AmendRequest) (Amendment, error)
	// LeaseServices says how a lease's services stand now, in the manifest's
	// order.
	LeaseServices(ctx context.Context, name string) ([]Standing, error)
	// LeaseMetrics says what a lease's services have used over time, in the
	// manifest's order; by LEASE/SERVICE what one has.
	LeaseMetrics(ctx context.Context, name string) ([]Metrics, error)
	// LeaseVolumes says how a lease's volumes stand now, in the manifest's
	// order.
	LeaseVolumes(ctx context.Context, name string) ([]VolumeStanding, error)
}

// Sessions reaches into a running lease. A name may be that of a lease, or
// LEASE/SERVICE. Without a service, Exec and Forward mean the one that is
// probed, and Logs means all.
type Sessions interface {
	// Exec runs a program and returns its exit code.
	Exec(ctx context.Context, name string, r ExecRequest, s Streams) (int, error)
	// Logs writes lines to w until the newest, or on and on with Follow.
	Logs(ctx context.Context, name string, r LogRequest, w io.Writer) error
	// Forward connects to a TCP port of a service. The caller closes it.
	Forward(ctx context.Context, name string, port uint16) (net.Conn, error)
}

// Wallet shows and moves the money.
type Wallet interface {
	WalletBalance(ctx context.Context) (Balance, error)
	// WalletAddress returns a fresh receiving address.
	WalletAddress(ctx context.Context, r AddressRequest) (Address, error)
	// WalletHistory returns transactions, newest first.
	WalletHistory(ctx context.Context, q HistoryQuery) ([]Movement, error)
	// WalletPlan says what a payment would cost, and WalletSend makes it. A
	// payment that is stored and waits for the chain is no error.
	WalletPlan(ctx context.Context, r PaymentRequest) (Plan, error)
	WalletSend(ctx context.Context, r PaymentRequest) (Payment, error)
	// WalletReplace raises the fee of a payment that waits for a block.
	WalletReplace(ctx context.Context, r ReplaceRequest) (Payment, error)
	// WalletCoins returns unspent coins, the largest of each account first.
	WalletCoins(ctx context.Context, q CoinQuery) ([]Coin, error)
	// WalletFreeze sets a coin aside or back, and WalletLabel names an address
	// or a transaction. Both answer with what they did.
	WalletFreeze(ctx context.Context, r FreezeRequest) (FreezeRequest, error)
	WalletLabel(ctx context.Context, r LabelRequest) (LabelRequest, error)
	WalletAccounts(ctx context.Context) ([]WalletAccount, error)
	WalletAddAccount(ctx context.Context, r AccountRequest) (WalletAccount, error)
	// WalletSweep takes what a private key from elsewhere holds, or says what
	// it would take.
	WalletSweep(ctx context.Context, r SweepRequest) (Sweep, error)
	// WalletLock, WalletUnlock and WalletPassword guard the keys. They answer
	// with the state that they leave.
	WalletLock(ctx context.Context) (LockState, error)
	WalletUnlock(ctx context.Context, r UnlockRequest) (LockState, error)
	WalletPassword(ctx context.Context, r PasswordRequest) (LockState, error)
	// Channels returns the payment channels, newest first, and Channel one of
	// them by its id or a unique beginning of the id's hexadecimal form.
	Channels(ctx context.Context) ([]ChannelView, error)
	Channel(ctx context.Context, name string) (ChannelView, error)
	// CloseChannel closes a channel that came back with the phrase, together
	// with its other side, which showed it and is connected.
	CloseChannel(ctx context.Context, name string) (ChannelView, error)
	// RollChannel adds money or time to a channel that this node pays by, or with
	// Plan says what that would cost. The leases on it go on meanwhile.
	RollChannel(ctx context.Context, name string, r RollRequest) (Roll, error)
}

// Towers shows what keeps the channels safe while this node is away.
type Towers interface {
	// Towers returns how each tower is supplied, and what this node keeps for
	// others.
	Towers(ctx context.Context) (TowerReport, error)
	// Deposit brings all towers up to date now, and returns what Towers does.
	// Towers that are not reached are no error.
	Deposit(ctx context.Context) (TowerReport, error)
}

// Node tells about the node itself.
type Node interface {
	Info(ctx context.Context) (Info, error)
	Doctor(ctx context.Context) (Report, error)
	// Events calls fn for what happens from now on, until ctx ends or fn
	// returns an error, which it returns.
	Events(ctx context.Context, fn func(Event) error) error
}
