package market

import (
	"slices"
	"strings"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// OfferVersion is the version of Offer that this package writes.
const OfferVersion = 1

// Offer is a provider's dated price list and free capacity [MARKET-1]. The
// provider's identity signs it; Device is the machine that serves it and the
// libp2p peer that its addresses lead to. A provider has up to [MaxSlots]
// offers at once; in each slot the highest sequence counts.
type Offer struct {
	Version        uint64             `cbor:"v" json:"v"`
	Provider       pktcloud.PublicKey `cbor:"provider" json:"provider"` // identity, signs
	Device         pktcloud.PublicKey `cbor:"device" json:"device"`     // its key is the libp2p peer id
	Slot           uint64             `cbor:"slot" json:"slot"`         // 0 to 15
	Sequence       uint64             `cbor:"sequence" json:"sequence"`
	Issued         int64              `cbor:"issued" json:"issued"`       // Unix seconds
	Expires        int64              `cbor:"expires" json:"expires"`     // Unix seconds, exclusive
	Addresses      []string           `cbor:"addresses" json:"addresses"` // multiaddrs that end in /p2p/<Device>
	Region         string             `cbor:"region" json:"region"`       // claimed; "DE", "DE-BE", or empty
	Capacity       Resources          `cbor:"capacity" json:"capacity"`
	Prices         Prices             `cbor:"prices" json:"prices"`
	Rails          []Rail             `cbor:"rails" json:"rails"` // ascending by name
	Limits         Limits             `cbor:"limits" json:"limits"`
	MinTermSeconds uint64             `cbor:"min_term" json:"min_term"`
	MaxTermSeconds uint64             `cbor:"max_term" json:"max_term"`
	Isolation      []string           `cbor:"isolation" json:"isolation"`               // ascending, such as "userns"
	Network        Network            `cbor:"network,omitzero" json:"network,omitzero"` // absent: leases have none
	Volumes        bool               `cbor:"volumes,omitzero" json:"volumes,omitzero"` // leases may have some, out of the disk [MARKET-28]; absent: none
	Software       string             `cbor:"software" json:"software"`
	Ext            map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// Rail is a way to be paid that a provider accepts, and the channels that it
// accepts there.
type Rail struct {
	Name           string          `cbor:"name" json:"name"`               // settle.Params.Rail
	MinDepth       uint64          `cbor:"min_depth" json:"min_depth"`     // confirmations until funding counts as settled
	DepthStep      pktcloud.Amount `cbor:"depth_step" json:"depth_step"`   // one more for each full step of the capacity, see settle.Depths; zero: none
	MaxUnconfirmed pktcloud.Amount `cbor:"unconfirmed" json:"unconfirmed"` // taken below MinDepth; zero: nothing
	MinCapacity    pktcloud.Amount `cbor:"min_capacity" json:"min_capacity"`
	MaxCapacity    pktcloud.Amount `cbor:"max_capacity" json:"max_capacity"`
}

// Limits bound what a lease under an offer may ask the provider to risk.
type Limits struct {
	MaxCreditSeconds   uint64 `cbor:"max_credit" json:"max_credit"`     // largest unpaid service, in seconds of price
	MinIntervalSeconds uint64 `cbor:"min_interval" json:"min_interval"` // shortest payment interval, at least 1
}

// RecordType returns "offer".
func (Offer) RecordType() string { return "offer" }

// Signer returns the provider's identity.
func (o Offer) Signer() pktcloud.PublicKey { return o.Provider }

// Key names what an offer replaces: the same provider's same slot.
func (o Offer) Key() Key { return Key{Provider: o.Provider, Slot: o.Slot} }

// Key is a provider's slot.
type Key struct {
	Provider pktcloud.PublicKey
	Slot     uint64
}

// Rate returns the price of r under this offer, rounded up once [MARKET-5].
func (o Offer) Rate(r Resources) (pktcloud.Rate, error) { return o.Prices.Rate(r) }

// Fits reports whether the offer's free capacity holds r.
func (o Offer) Fits(r Resources) bool { return r.Within(o.Capacity) }

// Rail returns the terms of a rail by name.
func (o Offer) Rail(name string) (Rail, bool) {
	i := slices.IndexFunc(o.Rails, func(r Rail) bool { return r.Name == name })
	if i < 0 {
		return Rail{}, false
	}
	return o.Rails[i], true
}

// Validate checks the offer's shape [MARKET-2] [MARKET-3]. Errors match
// [CodeMalformed].
func (o Offer) Validate() error {
	if o.Version != OfferVersion {
		return refuse(CodeMalformed, "offer version %d, want %d", o.Version, OfferVersion)
	}
	if o.Slot >= MaxSlots || o.Sequence == 0 {
		return refuse(CodeMalformed, "slot %d of %d, sequence %d: slots count from 0, sequences from 1", o.Slot, MaxSlots, o.Sequence)
	}
	if err := validateKeys(o.Provider, o.Device); err != nil {
		return err
	}
	if err := validateLifetime(o.Issued, o.Expires, MaxOfferLifetimeSeconds); err != nil {
		return err
	}
	if err := o.validateAddresses(); err != nil {
		return err
	}
	if !validRegion(o.Region) {
		return refuse(CodeMalformed, "region %q is no ISO 3166 code such as \"DE\" or \"DE-BE\"", o.Region)
	}
	if err := o.Capacity.Validate(); err != nil {
		return err
	}
	if err := o.Prices.Validate(); err != nil {
		return err
	}
	return o.validateConditions()
}

func (o Offer) validateAddresses() error {
	if len(o.Addresses) == 0 || len(o.Addresses) > MaxAddresses {
		return refuse(CodeMalformed, "an offer has 1 to %d addresses", MaxAddresses)
	}
	tail := "/p2p/" + o.Device.PeerID()
	for i, a := range o.Addresses {
		if len(a) > MaxAddress || !strings.HasPrefix(a, "/") || !strings.HasSuffix(a, tail) || len(a) == len(tail) || !printable(a) {
			return refuse(CodeMalformed, "address %d is no multiaddr of at most %d bytes that ends in the device's peer id", i, MaxAddress)
		}
		if slices.Contains(o.Addresses[:i], a) {
			return refuse(CodeMalformed, "address %d is listed twice", i)
		}
	}
	return nil
}

func (o Offer) validateConditions() error {
	if len(o.Rails) == 0 || len(o.Rails) > MaxRails {
		return refuse(CodeMalformed, "an offer has 1 to %d rails", MaxRails)
	}
	for i, r := range o.Rails {
		if err := r.validate(); err != nil {
			return err
		}
		if i > 0 && o.Rails[i-1].Name >= r.Name {
			return refuse(CodeMalformed, "rails are in ascending order of name, each once")
		}
	}
	if o.Limits.MinIntervalSeconds == 0 || o.Limits.MinIntervalSeconds > MaxIntervalSeconds || o.Limits.MaxCreditSeconds > MaxCreditSeconds {
		return refuse(CodeMalformed, "the interval is 1 to %d s, the credit at most %d s", MaxIntervalSeconds, MaxCreditSeconds)
	}
	if o.MinTermSeconds > o.MaxTermSeconds || o.MaxTermSeconds == 0 || o.MaxTermSeconds > MaxTermSeconds {
		return refuse(CodeMalformed, "a term of %d to %d s: the longest is 1 to %d s and not below the shortest",
			o.MinTermSeconds, o.MaxTermSeconds, MaxTermSeconds)
	}
	if len(o.Isolation) == 0 || len(o.Isolation) > MaxIsolation {
		return refuse(CodeMalformed, "an offer names 1 to %d isolation classes", MaxIsolation)
	}
	for i, c := range o.Isolation {
		if !validName(c) || i > 0 && o.Isolation[i-1] >= c {
			return refuse(CodeMalformed, "isolation classes are short names in ascending order, each once")
		}
	}
	if err := o.Network.Validate(); err != nil {
		return err
	}
	if len(o.Software) > MaxSoftware || !printable(o.Software) {
		return refuse(CodeMalformed, "software is at most %d printable characters", MaxSoftware)
	}
	return nil
}

func (r Rail) validate() error {
	if !validName(r.Name) {
		return refuse(CodeMalformed, "rail %q: a name is 1 to %d of a-z, 0-9 and '-'", r.Name, MaxName)
	}
	for _, a := range []pktcloud.Amount{r.DepthStep, r.MaxUnconfirmed, r.MinCapacity, r.MaxCapacity} {
		if err := a.Validate(); err != nil {
			return &Error{Code: CodeMalformed, Detail: "rail " + r.Name, Err: err}
		}
	}
	if r.MinCapacity > r.MaxCapacity || r.MaxCapacity == 0 {
		return refuse(CodeMalformed, "rail %s: channels of %s to %s", r.Name, r.MinCapacity, r.MaxCapacity)
	}
	return nil
}

// Admit says whether an offer may be stored, shown or relayed at now: not
// issued later than the clocks may differ, and not expired [MARKET-4]. Errors
// match [CodeEarly] or [CodeExpired].
func Admit(o Offer, now time.Time) error {
	return admit(o.Issued, o.Expires, now)
}

func admit(issued, expires int64, now time.Time) error {
	if issued > now.Unix()+MaxClockSkewSeconds {
		return refuse(CodeEarly, "issued %d s from now; check both clocks", issued-now.Unix())
	}
	if expires <= now.Unix() {
		return refuse(CodeExpired, "expired %d s ago", now.Unix()-expires)
	}
	return nil
}

// ParseOffer decodes and verifies an offer. It reads no clock: see [Admit].
// Errors match [CodeMalformed], or those of [pktcloud.ParseSigned].
func ParseOffer(data []byte) (pktcloud.Signed[Offer], error) {
	return pktcloud.ParseSigned[Offer](data, MaxOfferBytes)
}
