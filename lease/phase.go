package lease

import "strconv"

// Role is a side of a lease.
type Role uint8

// The two sides.
const (
	RoleTenant   Role = 1
	RoleProvider Role = 2
)

// String returns the role in lower case.
func (r Role) String() string {
	switch r {
	case RoleTenant:
		return "tenant"
	case RoleProvider:
		return "provider"
	}
	return "role " + strconv.Itoa(int(r))
}

// Phase is where a lease stands [LEASE-6].
//
//	Proposed ──commit stored / ack──> Agreed ──funding──> Funded ──launch──> Starting
//	   │                                │                   │                  │
//	   │ refused                        └──────────┬────────┴──────────────────┤ runs / first statement
//	   v                                           │ close                     v
//	Refused                                        │                 ┌───── Active <──┐
//	                                               │           close │  freeze │      │ payment
//	                                               v                 v         v      │
//	Failed                                     Closing <─────────────┴──── Suspended ─┘
//	                                               │
//	                                               v
//	                                            Closed
//
// Failed is kept for a lease whose channel is lost; nothing leads there in this
// version.
//
// A tenant goes from Funded to Active: it sees no more of the start than its
// end, the first statement.
type Phase uint8

// The phases. The last three are final.
const (
	Proposed  Phase = 1
	Agreed    Phase = 2
	Funded    Phase = 3
	Starting  Phase = 4
	Active    Phase = 5
	Suspended Phase = 6
	Closing   Phase = 7
	Closed    Phase = 8
	Refused   Phase = 9
	Failed    Phase = 10
)

var phaseNames = [...]string{
	Proposed: "proposed", Agreed: "agreed", Funded: "funded", Starting: "starting", Active: "active",
	Suspended: "suspended", Closing: "closing", Closed: "closed", Refused: "refused", Failed: "failed",
}

// String returns the phase in lower case.
func (p Phase) String() string {
	if p < Proposed || p > Failed {
		return "phase " + strconv.Itoa(int(p))
	}
	return phaseNames[p]
}

// MarshalText returns the phase's name.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Final reports whether the lease is over.
func (p Phase) Final() bool { return p >= Closed }

// Running reports whether the workload runs or is merely frozen.
func (p Phase) Running() bool { return p == Active || p == Suspended }
