package peer

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Request is what a tenant wants of an offer.
type Request struct {
	Offer    pktcloud.Signed[market.Offer]
	Manifest lease.Manifest
	// Credentials go to the provider with the proposal and the commit, and are
	// nowhere kept on this side: when the process ends before the provider has
	// answered the commit, they are gone, and it refuses a private image.
	Credentials lease.Credentials
	// Limits of the lease. With Limits all zero they are derived from the
	// price: a credit of lease.DefaultCreditSeconds and unconfirmed payments of
	// lease.DefaultUnconfirmed, both no more than the offer allows.
	Limits          lease.Limits
	IntervalSeconds uint64          // zero: lease.DefaultIntervalSeconds, or the offer's least
	TermSeconds     uint64          // of service; zero: as long as Capacity pays, within the offer's terms
	GraceSeconds    uint64          // zero: lease.DefaultGraceSeconds
	NoticeSeconds   uint64          //
	MaxRate         pktcloud.Rate   // the quote may not be dearer; zero pays nothing
	Capacity        pktcloud.Amount // of the channel to open
	Rail            string          // empty: the offer's first
	LifetimeBlocks  uint64          // of the channel; zero: DefaultLifetimeBlocks
	// OwnChannel opens a channel also where one is open to the same provider that
	// has room for the lease; else that one pays it, and none is opened.
	OwnChannel bool
}

// DefaultLifetimeBlocks is the life of a channel whose request names none:
// thirty days of 60-second blocks.
const DefaultLifetimeBlocks = 30 * 24 * 60

// View is what a person or an API sees of a lease. It is a copy.
type View struct {
	ID        pktcloud.ID    `json:"id"`
	Role      lease.Role     `json:"-"`
	RoleName  string         `json:"role"`
	Phase     lease.Phase    `json:"phase"`
	Terms     lease.Terms    `json:"terms"` // that stand: as amended
	Manifest  lease.Manifest `json:"manifest"`
	Channel   pktcloud.ID    `json:"channel"` // that pays it: of the terms, or what that one rolled into
	Connected bool           `json:"connected"`

	// Exposure is at risk now, Max the most that ever was.
	Exposure lease.Exposure  `json:"exposure"`
	Max      lease.Exposure  `json:"max"`
	Due      pktcloud.Amount `json:"due"`  // stated (provider) or accepted (tenant)
	Paid     pktcloud.Amount `json:"paid"` // by vouchers
	// Served counts the seconds stated or accepted, Forfeited those conceded.
	Served    uint64 `json:"served_seconds"`
	Forfeited uint64 `json:"forfeited_seconds"`
	Sequence  uint64 `json:"sequence"`  // of the last statement
	Confirmed bool   `json:"confirmed"` // the funding has the agreed depth
	Agreed    int64  `json:"agreed"`    // Unix seconds
	Cancelled bool   `json:"cancelled"` // its owner ended it before the commit was answered

	Revision uint64           `json:"revision"`           // amendments that stand
	Amending *lease.Amendment `json:"amending,omitempty"` // the one under way; nil: none
	Declined lease.Decline    `json:"declined,omitzero"`  // why the last one was refused

	By            lease.Role        `json:"-"`
	Reason        lease.Reason      `json:"reason,omitempty"`
	Text          string            `json:"text,omitempty"` // of the last refusal, dispute or fault
	Fault         lease.Fault       `json:"fault,omitzero"` // why the workload did not start, or ended, by the provider's word
	Record        lease.CloseRecord `json:"record"`
	Countersigned bool              `json:"countersigned"`
	Events        []Event           `json:"events"`

	wants  pktcloud.Amount // of its channel
	prices market.Offer    // that make the rate
}

// share is what the lease may take of its channel, also for an amendment that is
// under way [LEASE-26] [AMEND-6].
func (v View) share(p settle.Params) pktcloud.Amount { return min(v.wants, p.Spendable()) }

// Event is one entry of a lease's history.
type Event struct {
	At    int64       `cbor:"at" json:"at"` // Unix milliseconds
	Phase lease.Phase `cbor:"phase" json:"phase"`
	Kind  string      `cbor:"kind" json:"kind"` // such as "statement", "voucher", "freeze"
	Text  string      `cbor:"text" json:"text"`
}
