package settle

import "fmt"

// Phase says where a channel stands.
//
//	              depth reached          signed or seen          buried
//	┌─────────┐ ───────────────► ┌──────┐ ────────► ┌─────────┐ ────────► Closed
//	│ Opening │                  │ Open │           │ Closing │
//	└─────────┘ ◄─────────────── └──────┘           └─────────┘ ────────► Refunded
//	  │  ▲  │     reorganised                          ▲        (to payer)
//	  │  │  └───────── signed or seen ─────────────────┘
//	  ▼  │ funding seen after all
//	Abandoned
//
//	┌──────┐  roll signed  ┌─────────┐  roll buried   ┌────────┐
//	│ Open │ ────────────► │ Rolling │ ─────────────► │ Rolled │
//	└──────┘               └─────────┘ ◄───────────── └────────┘
//	                            │       reorganised
//	                            ▼ ended otherwise: Closing
//
// Vouchers are paid in Opening, up to the unconfirmed limit, and in Open.
// Closing begins when this side signs a close or claim, or sees the funding
// spent; no voucher passes from then on.
type Phase uint8

// The phases. Their numbers are stored.
const (
	Opening   Phase = 1
	Open      Phase = 2
	Closing   Phase = 3
	Closed    Phase = 4 // the payee was paid
	Refunded  Phase = 5 // the payer took everything back
	Abandoned Phase = 6 // the payer never committed
	Rolling   Phase = 7 // a successor is offered or accepted: payments are signed for both
	Rolled    Phase = 8 // the money is the successor's
)

// String returns the phase's name.
func (p Phase) String() string {
	switch p {
	case Opening:
		return "opening"
	case Open:
		return "open"
	case Closing:
		return "closing"
	case Closed:
		return "closed"
	case Refunded:
		return "refunded"
	case Abandoned:
		return "abandoned"
	case Rolling:
		return "rolling"
	case Rolled:
		return "rolled"
	}
	return fmt.Sprintf("phase %d", uint8(p))
}

// MarshalText returns the phase's name.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Final reports whether nothing can happen to the channel any more, but for
// the funding of an abandoned one turning up, and for a roll being taken back
// by a reorganisation.
func (p Phase) Final() bool {
	switch p {
	case Closed, Refunded, Abandoned, Rolled:
		return true
	case Opening, Open, Closing, Rolling:
		return false
	}
	return false
}

// Role is a side of a channel.
type Role uint8

// The two sides. Their numbers are stored.
const (
	Payer Role = 1
	Payee Role = 2
)

// String returns "payer" or "payee".
func (r Role) String() string {
	switch r {
	case Payer:
		return "payer"
	case Payee:
		return "payee"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// MarshalText returns the role's name.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Decision is what a channel needs now.
type Decision uint8

// The decisions.
const (
	// Wait means that nothing needs to be done.
	Wait Decision = iota
	// StopServing means that no further voucher can pass, and that there is
	// nothing to claim: the payee serves no more, the payer pays no more.
	StopServing
	// ClaimNow means that the payee must bring its latest voucher on the chain.
	ClaimNow
	// RefundNow means that the payer may take everything back.
	RefundNow
)

// String returns the decision's name.
func (d Decision) String() string {
	switch d {
	case Wait:
		return "wait"
	case StopServing:
		return "stop serving"
	case ClaimNow:
		return "claim now"
	case RefundNow:
		return "refund now"
	}
	return fmt.Sprintf("decision %d", uint8(d))
}
