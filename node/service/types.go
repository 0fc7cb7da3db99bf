package service

import (
	"io"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
)

// Resources is an amount of machine. In a query a zero field asks for nothing.
type Resources struct {
	MilliCPU    uint64 `json:"cpu" doc:"processor time in thousandths of a core"`
	MemoryBytes uint64 `json:"memory" doc:"bytes of memory"`
	DiskBytes   uint64 `json:"disk" doc:"bytes of disk"`
}

// OfferQuery filters the market. The zero value finds everything.
type OfferQuery struct {
	Resources Resources     `json:"resources"`
	MaxRate   pktcloud.Rate `json:"max_rate"` // for Resources; zero: any
	Region    string        `json:"region"`
	Limit     int           `json:"limit"` // zero: the book's default
	Cursor    string        `json:"cursor"`
}

// OfferPage is part of an answer; Next is empty on the last one.
type OfferPage struct {
	Offers []Offer `json:"offers"`
	Next   string  `json:"next,omitempty"`
}

// Offer is an offer and what it costs for the resources asked for.
type Offer struct {
	ID   pktcloud.ID   `json:"id"`
	Rate pktcloud.Rate `json:"rate" doc:"base units per hour for the resources asked for, or for one core, 1 GiB of memory and 10 GiB of disk"`
	Own  bool          `json:"own" doc:"made by this node"`
	Body market.Offer  `json:"offer"`
}

// OfferSpec is an offer to publish. A zero price gives that resource away; a
// zero capacity takes what the machine has free.
type OfferSpec struct {
	Slot             uint64        `json:"slot,omitempty"`
	Region           string        `json:"region,omitempty" doc:"ISO 3166 code such as DE or DE-BE"`
	Capacity         Resources     `json:"capacity,omitzero"`
	CPUPerCoreHour   pktcloud.Rate `json:"cpu_price" doc:"base units per core and hour"`
	MemoryPerGiBHour pktcloud.Rate `json:"memory_price" doc:"base units per GiB and hour"`
	DiskPerGiBHour   pktcloud.Rate `json:"disk_price" doc:"base units per GiB and hour"`
	MinTermSeconds   uint64        `json:"min_term,omitempty"`
	MaxTermSeconds   uint64        `json:"max_term,omitempty"`
	LifetimeSeconds  uint64        `json:"lifetime,omitempty" doc:"until the offer expires; at most a day"`
}

// Image is a container image that a provider has.
type Image struct {
	Ref       string `json:"ref"`
	Digest    string `json:"digest"`
	SizeBytes uint64 `json:"size" doc:"compressed bytes"`
}

// LeaseRequest asks for a lease under an offer. MaxRate is a limit on money
// and must be stated.
type LeaseRequest struct {
	Offer           pktcloud.ID      `json:"offer"`
	Image           string           `json:"image" doc:"OCI image reference"`
	Command         []string         `json:"command,omitempty" doc:"replaces the image's own command"`
	Env             []string         `json:"env,omitempty" doc:"NAME=value"`
	Port            uint16           `json:"port,omitempty" doc:"TCP port that the service listens on"`
	Resources       Resources        `json:"resources"`
	MaxRate         pktcloud.Rate    `json:"max_rate" doc:"base units per hour that are not to be exceeded"`
	IntervalSeconds uint64           `json:"interval,omitempty" doc:"seconds between payments; 5 when absent"`
	TermSeconds     uint64           `json:"term,omitempty" doc:"one hour when absent"`
	Capacity        pktcloud.Amount  `json:"capacity,omitempty" doc:"base units to lock in a new channel; what the term costs when absent. What a lease does not need of it pays further leases with the same provider"`
	OwnChannel      bool             `json:"own_channel,omitempty" doc:"open a channel also where one is open to the provider that has room"`
	Limits          *ExposureRequest `json:"limits,omitempty"`
}

// ExposureRequest states how much may be at risk, in seconds of price. It is
// taken whole: a field left out is a limit of zero. When a request has none, 10
// seconds or two intervals of credit, nothing prepaid, and 15 minutes or the
// term unconfirmed are proposed. Unconfirmed is never more than the capacity.
type ExposureRequest struct {
	CreditSeconds      uint64 `json:"credit"`
	PrepaidSeconds     uint64 `json:"prepaid"`
	UnconfirmedSeconds uint64 `json:"unconfirmed"`
}

// Lease is a lease as this node sees it.
type Lease struct {
	ID          pktcloud.ID        `json:"id"`
	Label       string             `json:"label" doc:"short name, unique on this node"`
	Role        string             `json:"role" enum:"tenant,provider"`
	Phase       string             `json:"phase"`
	Peer        pktcloud.PublicKey `json:"peer" doc:"the other side"`
	Offer       pktcloud.ID        `json:"offer"`
	Image       string             `json:"image"`
	Port        uint16             `json:"port"`
	Resources   Resources          `json:"resources"`
	Rate        pktcloud.Rate      `json:"rate"`
	Interval    uint64             `json:"interval" doc:"seconds between payments"`
	Term        uint64             `json:"term" doc:"seconds"`
	Created     int64              `json:"created" doc:"Unix seconds"`
	Ends        int64              `json:"ends" doc:"Unix seconds"`
	Served      uint64             `json:"served" doc:"seconds of service so far"`
	Intervals   uint64             `json:"intervals" doc:"statements so far"`
	Due         pktcloud.Amount    `json:"due"`
	Paid        pktcloud.Amount    `json:"paid"`
	Exposure    []Exposure         `json:"exposure"`
	Channel     Channel            `json:"channel"`
	Endpoint    string             `json:"endpoint,omitempty" doc:"address to open in a browser on this machine"`
	History     []Entry            `json:"history"`
	CloseReason string             `json:"close_reason,omitempty"`
	Fault       *Fault             `json:"fault,omitempty" doc:"why the workload did not start, or ended, by the provider's signed word"`
	Problem     string             `json:"problem,omitempty" doc:"what is wrong now and what to do"`
}

// Pending reports whether the lease's service may still begin to run.
func (l Lease) Pending() bool {
	switch l.Phase {
	case "proposed", "agreed", "funded", "starting":
		return true
	}
	return false
}

// Fault is why a workload did not run.
type Fault struct {
	Code string `json:"code" enum:"image,program,port,exit,machine"`
	Text string `json:"text" doc:"the provider's sentence, printable ASCII"`
}

// Exposure is one of the lease's limits: who risks it, how much is at risk
// now, the most that ever was, and the limit that both sides enforce.
type Exposure struct {
	Name  string          `json:"name" enum:"credit,prepaid,unconfirmed,hold"`
	Bears string          `json:"bears" enum:"tenant,provider"`
	Now   pktcloud.Amount `json:"now"`
	Peak  pktcloud.Amount `json:"peak"`
	Limit pktcloud.Amount `json:"limit"`
}

// Channel is the money behind a lease.
type Channel struct {
	ID       pktcloud.ID     `json:"id"`
	Capacity pktcloud.Amount `json:"capacity"`
	Paid     pktcloud.Amount `json:"paid"`
	Phase    string          `json:"phase"`
	Funding  string          `json:"funding,omitempty" doc:"transaction id"`
	Depth    uint64          `json:"depth" doc:"confirmations of the funding"`
	Closing  string          `json:"closing,omitempty" doc:"transaction id"`
	Closed   uint64          `json:"closed_depth" doc:"confirmations of the closing"`
	Claimed  pktcloud.Amount `json:"claimed" doc:"what the payee receives by the closing, before its fee"`
	Fee      pktcloud.Amount `json:"fee" doc:"the closing's fee"`
	FundFee  pktcloud.Amount `json:"funding_fee"`
	Reserve  pktcloud.Amount `json:"reserve" doc:"part of the capacity that goes to the payee when it ends the channel alone, and back to the payer, less the fee, when both end it"`
}

// Entry is a line of a lease's history.
type Entry struct {
	Time int64  `json:"time" doc:"Unix milliseconds"`
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// ExecRequest is a program to run in a lease.
type ExecRequest struct {
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	TTY  bool     `json:"tty,omitempty"`
	Cols uint16   `json:"cols,omitempty"`
	Rows uint16   `json:"rows,omitempty"`
}

// Streams are a program's standard streams. Nil reads nothing, or discards.
type Streams struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Resize <-chan Size
}

// Size is that of a terminal, in characters.
type Size struct {
	Cols uint16 `json:"cols"`
	Rows uint16 `json:"rows"`
}

// LogRequest chooses log lines: those from Since on, of them the last Tail
// (zero: all), then new ones while Follow.
type LogRequest struct {
	Follow bool
	Since  time.Time
	Tail   int
}

// TowerReport is how a node stands with towers.
type TowerReport struct {
	Towers []TowerSupply   `json:"towers"`
	Every  pktcloud.Amount `json:"every" doc:"earned on a channel until the next deposit; 0: none is made"`
	Kept   *TowerKept      `json:"kept,omitempty" doc:"for others, if this node is a tower"`
	// Undeposited are channels of which a deposit that was asked for did not
	// come about.
	Undeposited []string `json:"undeposited,omitempty" doc:"channels whose tenant gave no proof to deposit just now"`
}

// TowerSupply is how one tower is supplied.
type TowerSupply struct {
	Address  string `json:"address"`
	Receipts int    `json:"receipts" doc:"newest deposits that it has"`
	Missing  int    `json:"missing" doc:"newest deposits that it lacks"`
	Problem  string `json:"problem,omitempty" doc:"of the last attempt"`
	Told     bool   `json:"told" doc:"it said what it keeps for this phrase"`
	Kept     int    `json:"kept" doc:"deposits that it showed"`
	Bad      int    `json:"bad" doc:"what it showed that does not hold: it lies, or is damaged"`
}

// TowerKept is what a node keeps for others.
type TowerKept struct {
	Deposits int    `json:"deposits"`
	Bytes    uint64 `json:"bytes"`
	Sent     int    `json:"sent" doc:"broadcast, and not yet mined"`
	Ended    int    `json:"ended" doc:"of channels that have ended"`
}

// Info is the node itself.
type Info struct {
	Version   string             `json:"version"`
	Identity  pktcloud.PublicKey `json:"identity"`
	Device    pktcloud.PublicKey `json:"device"`
	PeerID    string             `json:"peer_id"`
	Addresses []string           `json:"addresses"`
	Peers     int                `json:"peers"`
	Network   string             `json:"network"`
	Height    uint64             `json:"height"`
	Provider  bool               `json:"provider"`
	Pages     string             `json:"pages,omitempty" doc:"address of the web pages"`
	Problem   string             `json:"problem,omitempty"`
}

// Report is what Doctor found.
type Report struct {
	OK       bool    `json:"ok" doc:"nothing that renting needs is missing"`
	Provider bool    `json:"provider" doc:"nothing that providing needs is missing"`
	Checks   []Check `json:"checks"`
}

// Check is one thing that a machine needs.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Needed string `json:"needed" enum:"tenant,provider" doc:"who cannot do without"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// Event is something that happened.
type Event struct {
	Sequence uint64 `json:"sequence"`
	Time     int64  `json:"time" doc:"Unix milliseconds"`
	Kind     string `json:"kind" enum:"lease,offer,wallet,chain"`
	Lease    string `json:"lease,omitempty"`
	Text     string `json:"text"`
}
