package peer

import (
	"context"
	"net"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Put is one change of a [Store]. A nil value deletes the key.
type Put = struct {
	Key   string
	Value []byte
}

// Store keeps what must survive a crash. Keys of this package begin with
// "lease/". Apply may be called from several goroutines at once.
type Store interface {
	// Apply makes all puts durable, all or none, before it returns.
	Apply(ctx context.Context, puts []Put) error
	// Load calls fn for each key with the prefix, in ascending order of key.
	Load(ctx context.Context, prefix string, fn func(key string, value []byte) error) error
}

// OpenRequest says what channel a tenant opens. Its fields are those of
// manager.OpenRequest, so that one converts to the other.
type OpenRequest struct {
	Payee          pktcloud.PublicKey // the provider's device
	PayeeDetail    []byte             // from the provider's quote
	Capacity       pktcloud.Amount
	Unconfirmed    pktcloud.Amount
	MinDepth       uint64
	LifetimeBlocks uint64 // expiry = tip + this
}

// ChannelStatus is what a lease needs to know of its channel.
type ChannelStatus struct {
	Params settle.Params
	Phase  settle.Phase
	Funded bool // the chain knows the funding output
	Depth  uint64
	Height uint64
	// OutOfSight says that the chain is, and Height an estimate: nothing ends for it.
	OutOfSight bool
	Paid       pktcloud.Amount
	ClosingTx  [32]byte // zero while nothing spends the funding
}

// Payer pays: the channels of a tenant. All methods are durable before they
// return, idempotent, and may be called from several goroutines at once.
type Payer interface {
	// Open reserves coins and makes a channel; nothing is broadcast.
	Open(ctx context.Context, r OpenRequest) (params settle.Params, funding []byte, err error)
	// Abandon gives up a channel that was never announced: its coins are free.
	Abandon(ctx context.Context, channel pktcloud.ID) error
	// Announce broadcasts the funding transaction.
	Announce(ctx context.Context, channel pktcloud.ID) error
	// Pay raises a lease's entry; the same entry gives the same voucher.
	Pay(ctx context.Context, channel pktcloud.ID, e settle.Entry) (pktcloud.Signed[settle.Voucher], error)
	// Latest returns the channel's newest voucher.
	Latest(channel pktcloud.ID) (pktcloud.Signed[settle.Voucher], bool)
	// OfferClose signs a close that pays exactly final; the channel pays no
	// more afterwards.
	OfferClose(ctx context.Context, channel pktcloud.ID, final pktcloud.Amount) (settle.CloseOffer, error)
	// ChannelStatus reports on one channel.
	ChannelStatus(ctx context.Context, channel pktcloud.ID) (ChannelStatus, error)
}

// Payee is paid: the channels of a provider. The same promises hold as for
// [Payer].
type Payee interface {
	// PayeeDetail returns a fresh payment key for a quote.
	PayeeDetail(ctx context.Context) ([]byte, error)
	// Accept verifies a channel and the vouchers that come with it, and keeps
	// all of them or nothing.
	Accept(ctx context.Context, p settle.Params, funding []byte, first ...pktcloud.Signed[settle.Voucher]) (pktcloud.ID, error)
	// Announce broadcasts the funding transaction.
	Announce(ctx context.Context, channel pktcloud.ID) error
	// Receive accepts a voucher; an equal one again gives nil.
	Receive(ctx context.Context, v pktcloud.Signed[settle.Voucher]) error
	// Latest returns the channel's newest voucher.
	Latest(channel pktcloud.ID) (pktcloud.Signed[settle.Voucher], bool)
	// CompleteClose signs and broadcasts a cooperative close.
	CompleteClose(ctx context.Context, channel pktcloud.ID, o settle.CloseOffer) (txid [32]byte, err error)
	// Claim ends a channel by its newest voucher, without the payer.
	Claim(ctx context.Context, channel pktcloud.ID) (txid [32]byte, err error)
	// ChannelStatus reports on one channel.
	ChannelStatus(ctx context.Context, channel pktcloud.ID) (ChannelStatus, error)
}

// Payment is a channel's voucher and, while another channel rolls into that one,
// the predecessor's latest; else From has sequence 0.
type Payment struct {
	To   pktcloud.Signed[settle.Voucher]
	From pktcloud.Signed[settle.Voucher]
}

// Rolls is what a [Payer] or a [Payee] may do besides: tell what its channels
// rolled into.
type Rolls interface {
	// Successors returns what a channel rolled into, link by link: the last one
	// pays in its place. A roll counts once both sides have signed it. It asks
	// nobody, and is cheap.
	Successors(channel pktcloud.ID) []settle.Params
	// Payment returns a channel's newest voucher, with its predecessor's while
	// their roll is under way.
	Payment(channel pktcloud.ID) (Payment, bool)
}

// RollingPayer is a [Payer] whose channels roll.
type RollingPayer interface {
	Rolls
	// PayRolling is Pay over a channel that another one rolled into: durable for
	// both together while the roll is under way.
	PayRolling(ctx context.Context, successor pktcloud.ID, e settle.Entry) (Payment, error)
}

// RollingPayee is a [Payee] whose channels roll.
type RollingPayee interface {
	Rolls
	// ReceiveRolling is Receive for both vouchers of a payment.
	ReceiveRolling(ctx context.Context, p Payment) error
}

// WorkloadStatus is what a workload does now.
type WorkloadStatus uint8

// States of a workload.
const (
	WorkloadUnknown WorkloadStatus = 0 // the runtime cannot say: nothing is concluded from it [LEASE-15]
	WorkloadRunning WorkloadStatus = 1
	WorkloadFrozen  WorkloadStatus = 2
	WorkloadEnded   WorkloadStatus = 3 // what it is for has ended, or there is none
)

// CredentialKeeper is a [Workload] whose images may need credentials.
type CredentialKeeper interface {
	// KeepCredentials keeps them for the images of a lease that is about to be
	// agreed, durably, for nobody else to read, until Destroy; none removes those
	// that are kept [LEASE-45].
	KeepCredentials(ctx context.Context, id pktcloud.ID, c lease.Credentials) error
}

// Workload runs what manifests say, on the provider's machine. Calls about one
// lease come from one goroutine, those about several at once. All methods are
// idempotent.
type Workload interface {
	// Start brings up the services of a manifest, and returns once the one that
	// its probe names runs, or has ended as a job may. For a lease that was started before, by this process or an earlier one, it
	// returns nil and leaves the workload as it is, frozen or not. The tenant is
	// told of an error only what a [lease.Fault] within it says.
	Start(ctx context.Context, id pktcloud.ID, m lease.Manifest) error
	// Freeze stops all processes of the lease where they are.
	Freeze(ctx context.Context, id pktcloud.ID) error
	// Resume lets them go on.
	Resume(ctx context.Context, id pktcloud.ID) error
	// Status says what the workload does [SERVICE-11]. With WorkloadEnded the error
	// may be a [lease.Fault] that says why.
	Status(ctx context.Context, id pktcloud.ID) (WorkloadStatus, error)
	// Destroy ends the workload and removes all that belongs to it.
	Destroy(ctx context.Context, id pktcloud.ID) error
	// Dial connects to a TCP port of a service.
	Dial(ctx context.Context, id pktcloud.ID, service string, port uint16) (net.Conn, error)
}

// Resizer is a [Workload] whose leases may get other sizes while they run.
type Resizer interface {
	// Resize gives services and volumes the sizes of a manifest that differs from
	// the present one in these alone, all of them or none, and returns once they
	// hold. It is idempotent. A [lease.Error] is a refusal for good: all is as it was,
	// but for disks that have grown. After any other error, and after a crash, the
	// same is asked again until there is an answer [AMEND-5].
	Resize(ctx context.Context, id pktcloud.ID, m lease.Manifest) error
}

// Prober looks, for the tenant, whether a lease serves.
type Prober interface {
	// Probe returns nil when the service answered as its manifest promises. It
	// must notice a frozen process: what a kernel answers does not count.
	Probe(ctx context.Context, v View) error
}

// Clock tells the time. Its methods may be called from several goroutines.
type Clock interface {
	// Now is the wall clock, for commitBy and for people.
	Now() time.Time
	// Boot is a clock that neither jumps nor sleeps, CLOCK_BOOTTIME, and the
	// name of the boot that it counts from.
	Boot() (since time.Duration, boot string)
}
