package service

import (
	"io"
	"slices"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/compose"
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
	Resources Resources      `json:"resources"`
	MaxRate   pktcloud.Rate  `json:"max_rate"` // for Resources; zero: any
	Region    string         `json:"region"`
	Class     string         `json:"class"`   // of isolation; empty: any
	Network   market.Network `json:"network"` // the least
	Volumes   bool           `json:"volumes"` // only offers that have volumes
	Limit     int            `json:"limit"`   // zero: the book's default
	Cursor    string         `json:"cursor"`
}

// OfferPage is part of an answer; Next is empty on the last one.
type OfferPage struct {
	Offers []Offer `json:"offers"`
	Next   string  `json:"next,omitempty"`
	// Lacks is there when no offer of another provider matches.
	Lacks *market.Lacks `json:"lacks,omitempty" doc:"when no offer of another provider matches: what lacks those that there are"`
}

// OffersOfOthers returns those that can be rented from here.
func (p OfferPage) OffersOfOthers() []Offer {
	return slices.DeleteFunc(slices.Clone(p.Offers), func(o Offer) bool { return o.Own })
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

// ImageStore is what images a provider has, and the space they take.
type ImageStore struct {
	Images    []StoredImage `json:"images" doc:"the last used first"`
	UsedBytes uint64        `json:"used" doc:"bytes of the disk, with layers that images share counted once"`
	MaxBytes  uint64        `json:"max" doc:"bytes that they may take"`
}

// StoredImage is an image of a provider's store.
type StoredImage struct {
	Image
	UnpackedBytes uint64 `json:"unpacked"`
	Layers        int    `json:"layers"`
	InUse         bool   `json:"in_use" doc:"a container was started from it"`
	Private       bool   `json:"private" doc:"it came with credentials"`
	LastUsed      int64  `json:"last_used" doc:"Unix seconds"`
}

// PrunedImages is what was removed.
type PrunedImages struct {
	Digests    []string `json:"digests"`
	FreedBytes uint64   `json:"freed"`
}

// LeaseRequest asks for a lease under an offer. MaxRate is a limit on money
// and must be stated.
type LeaseRequest struct {
	Offer     pktcloud.ID     `json:"offer"`
	Image     string          `json:"image" doc:"OCI image reference"`
	Command   []string        `json:"command,omitempty" doc:"replaces the image's own command"`
	Env       []string        `json:"env,omitempty" doc:"NAME=value"`
	Port      uint16          `json:"port,omitempty" doc:"TCP port that the service listens on"`
	Class     string          `json:"class,omitempty" doc:"isolation that the offer must have, such as gvisor; any when absent" maxLength:"32"`
	Resources Resources       `json:"resources,omitzero"`
	Volumes   []VolumeRequest `json:"volumes,omitempty" doc:"disks that outlive the program's restarts, and end with the lease"`
	Restart   string          `json:"restart,omitempty" enum:"no,on-failure,always" doc:"when the program is started again after its end; with no, the default, the lease ends with it"`
	Egress    []string        `json:"egress,omitempty" doc:"where the service may connect outside: public, or places such as example.org:443 and 192.0.2.0/24:*; nowhere when absent"`
	Publish   []string        `json:"publish,omitempty" doc:"ports of the service that shall be reached from outside, such as 8080 or 53/udp; the provider chooses the address and port, and tells them with the services"`
	Bandwidth uint64          `json:"bandwidth,omitempty" doc:"bytes a second that the service may send, and receive; as the provider has it when absent"`
	Manifest  *lease.Manifest `json:"manifest,omitempty" doc:"what is to run, instead of image, command, env, port, resources, volumes, restart, egress, publish and bandwidth: several services, with what each waits for"`
	// Credentials are of registries from which private images come.
	Credentials     []RegistryCredential `json:"credentials,omitempty" doc:"of the registries of private images; the provider keeps them until the lease is over"`
	MaxRate         pktcloud.Rate        `json:"max_rate" doc:"base units per hour that are not to be exceeded"`
	IntervalSeconds uint64               `json:"interval,omitempty" doc:"seconds between payments; 5 when absent"`
	TermSeconds     uint64               `json:"term,omitempty" doc:"one hour when absent"`
	Capacity        pktcloud.Amount      `json:"capacity,omitempty" doc:"base units to lock in a new channel; what the term costs when absent. What a lease does not need of it pays further leases with the same provider"`
	OwnChannel      bool                 `json:"own_channel,omitempty" doc:"open a channel also where one is open to the provider that has room"`
	Limits          *ExposureRequest     `json:"limits,omitempty"`
}

// RegistryCredential lets the provider of one lease pull its images from a
// registry. No answer contains it.
type RegistryCredential struct {
	Registry string `json:"registry,omitempty" doc:"host of the registry, with its port; when absent the one from which all images of the lease come"`
	Username string `json:"user"`
	Password string `json:"password" doc:"or token; sent to the provider alone, over an encrypted connection, and never shown again"`
}

// String tells the registry alone.
func (c RegistryCredential) String() string { return "credentials of " + c.Registry }

// VolumeRequest asks for a volume of the only service of a lease.
type VolumeRequest struct {
	Name string `json:"name"`
	Path string `json:"path" doc:"where the service has it, absolute"`
	Size uint64 `json:"size" doc:"bytes, whole MiB"`
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
	Peer        pktcloud.PublicKey `json:"peer" doc:"the identity of the other side"`
	Connected   bool               `json:"connected" doc:"the other side is connected now"`
	Offer       pktcloud.ID        `json:"offer"`
	Image       string             `json:"image" doc:"of the service that is probed"`
	Port        uint16             `json:"port" doc:"that is probed; 0: none"`
	Class       string             `json:"class,omitempty" doc:"isolation that was demanded"`
	Resources   Resources          `json:"resources" doc:"of all services, and the volumes of the disk"`
	Services    []LeaseService     `json:"services"`
	Volumes     []LeaseVolume      `json:"volumes,omitempty"`
	Rate        pktcloud.Rate      `json:"rate"`
	Interval    uint64             `json:"interval" doc:"seconds between payments"`
	Term        uint64             `json:"term" doc:"seconds"`
	Revision    uint64             `json:"revision,omitempty" doc:"how often it was amended"`
	Amending    bool               `json:"amending,omitempty" doc:"an amendment is under way; what is shown stands until it is carried out"`
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

// LeaseService is a service of a lease, as it was agreed.
type LeaseService struct {
	Name      string    `json:"name"`
	Image     string    `json:"image"`
	Job       bool      `json:"job" doc:"it is meant to end"`
	Ports     []uint16  `json:"ports"`
	Resources Resources `json:"resources"`
	Egress    []string  `json:"egress,omitempty" doc:"where it may connect outside the lease; absent: nowhere"`
	Publish   []string  `json:"publish,omitempty" doc:"ports that are reached from outside, such as 8080/tcp"`
	Bandwidth uint64    `json:"bandwidth,omitempty" doc:"bytes a second that it may send, and receive"`
}

// LeaseVolume is a volume of a lease, as it was agreed.
type LeaseVolume struct {
	Name   string       `json:"name"`
	Size   uint64       `json:"size" doc:"bytes"`
	Mounts []LeaseMount `json:"mounts"`
}

// LeaseMount is where a service has a volume.
type LeaseMount struct {
	Service  string `json:"service"`
	Path     string `json:"path"`
	ReadOnly bool   `json:"ro"`
}

// VolumeStanding is how a volume of a lease stands, by its provider's word.
type VolumeStanding struct {
	LeaseVolume
	Free  uint64 `json:"free" doc:"bytes that can still be written; of a volume that no service has mounted, as it was when one last had"`
	Full  bool   `json:"full" doc:"less than 1 MiB is free, so that writes fail or are about to"`
	Ready bool   `json:"ready" doc:"it was made and is there"`
}

// Standing is how a service of a lease stands, by its provider's word.
type Standing struct {
	Name     string `json:"name"`
	Job      bool   `json:"job" doc:"it is meant to end"`
	State    string `json:"state" enum:"waiting,starting,running,stopping,backoff,done,failed,stopped"`
	Health   string `json:"health,omitempty" enum:"starting,healthy,unhealthy" doc:"absent: it has no check, or does not run"`
	Restarts uint64 `json:"restarts"`
	Looping  bool   `json:"looping" doc:"it ends again and again soon after its start"`
	Exit     *int   `json:"exit,omitempty" doc:"exit code of the last run that ended"`
	OOM      bool   `json:"oom" doc:"that run had too little memory"`
	Since    int64  `json:"since" doc:"Unix seconds: in this state"`
	Text     string `json:"text,omitempty" doc:"why it does not run, or is not healthy"`
	CPU      uint64 `json:"cpu_time" doc:"milliseconds of processor time that the present run has used"`
	Memory   uint64 `json:"memory" doc:"bytes that it has now"`

	Network *StandingNetwork `json:"network,omitempty" doc:"with the world outside its lease; absent: it has none"`
}

// StandingNetwork is a service's network with the world outside its lease.
type StandingNetwork struct {
	BytesIn   uint64        `json:"in" doc:"bytes that the present run has received"`
	BytesOut  uint64        `json:"out" doc:"bytes that it has sent"`
	Refused   uint64        `json:"refused" doc:"connections and datagrams that nothing let through"`
	Open      uint64        `json:"open" doc:"connections that are open"`
	Published []PublishedAt `json:"published"`
}

// PublishedAt is a port of a service, and where it is reached.
type PublishedAt struct {
	Port     uint16 `json:"port" doc:"of the service"`
	Protocol string `json:"protocol" enum:"tcp,udp"`
	Address  string `json:"address" doc:"address and port of the provider that lead there"`
}

// Pending reports whether the lease's service may still begin to run.
func (l Lease) Pending() bool {
	switch l.Phase {
	case "proposed", "agreed", "funded", "starting":
		return true
	}
	return false
}

// Away reports whether a lease that is under way waits for its other side to
// connect.
func (l Lease) Away() bool {
	switch l.Phase {
	case "agreed", "funded", "starting", "active", "suspended":
		return !l.Connected
	}
	return false
}

// Other is what the other side of the lease is.
func (l Lease) Other() string {
	if l.Role == "tenant" {
		return "provider"
	}
	return "tenant"
}

// Fault is why a workload did not run.
type Fault struct {
	Code string `json:"code" enum:"image,program,port,exit,machine,done"`
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
	Args []string `json:"args,omitempty"`
	// Files asks for a file server instead, which speaks SFTP: nothing else is set.
	Files bool     `json:"files,omitempty"`
	Env   []string `json:"env,omitempty"`
	TTY   bool     `json:"tty,omitempty"`
	Cols  uint16   `json:"cols,omitempty"`
	Rows  uint16   `json:"rows,omitempty"`
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
	Needed string `json:"needed" enum:"tenant,provider,volumes" doc:"who cannot do without; volumes: a provider, for leases that ask for them"`
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

// ConversionRequest is a file of services, and what it is given from outside:
// nothing of the machine on which the node runs.
type ConversionRequest struct {
	File      string            `json:"file" doc:"a file of Compose, or of services; told apart by their words" maxLength:"262144"`
	Variables map[string]string `json:"variables,omitempty" doc:"for the ${NAME} of a file of Compose"`
	Profiles  []string          `json:"profiles,omitempty" doc:"profiles of Compose whose services run"`
	Egress    []string          `json:"egress,omitempty" doc:"where services of a file of Compose connect outside that do not say: public, or places such as example.org:443"`
}

// Conversion is what a file of services means.
type Conversion struct {
	Format    string            `json:"format" enum:"compose,native"`
	Manifest  lease.Manifest    `json:"manifest" doc:"for a lease request"`
	Resources Resources         `json:"resources" doc:"of all services and volumes together"`
	Warnings  []compose.Warning `json:"warnings,omitempty" doc:"what means here not quite what it means to Compose"`
}
