package market

import (
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Request is what a tenant needs, to be matched against offers. It never
// leaves the tenant: a provider sees the draft terms made from it.
type Request struct {
	Resources       Resources
	MaxRate         pktcloud.Rate // of all resources together; zero pays nothing
	Region          string        // "DE" also takes "DE-BE"; empty takes any
	Rail            string
	ChannelCapacity pktcloud.Amount // of the channel to open; zero when one is at hand
	TermSeconds     uint64          // zero: as long as the offer allows
	IntervalSeconds uint64          // between payments
	CreditSeconds   uint64          // service the provider shall advance, in seconds of price
	Isolation       string          // empty takes any
	Network         Network         // the least; zero takes any
	Volumes         bool            // it needs some
}

// Match returns the rate at which an offer serves a request, or the first
// reason why it cannot [MARKET-7]. Errors match [CodeCapacity], [CodePrice],
// [CodeRegion], [CodeRail], [CodeTerm], [CodeIsolation], [CodeNetwork],
// [CodeExposure] or [CodeMalformed]. Whether the offer is still live is for [Admit].
func Match(o Offer, r Request) (pktcloud.Rate, error) {
	if !o.Fits(r.Resources) {
		return 0, refuse(CodeCapacity, "asked for %d mCPU, %d bytes of memory, %d of disk; free are %d, %d, %d",
			r.Resources.MilliCPU, r.Resources.MemoryBytes, r.Resources.DiskBytes,
			o.Capacity.MilliCPU, o.Capacity.MemoryBytes, o.Capacity.DiskBytes)
	}
	rate, err := o.Rate(r.Resources)
	if err != nil {
		return 0, err
	}
	if rate > r.MaxRate {
		return 0, refuse(CodePrice, "it costs %s an hour, at most %s is allowed", pktcloud.Amount(rate), pktcloud.Amount(r.MaxRate))
	}
	if !inRegion(o.Region, r.Region) {
		return 0, refuse(CodeRegion, "the offer is for %q, wanted is %q", o.Region, r.Region)
	}
	if err := o.matchRail(r); err != nil {
		return 0, err
	}
	if r.TermSeconds != 0 && (r.TermSeconds < o.MinTermSeconds || r.TermSeconds > o.MaxTermSeconds) {
		return 0, refuse(CodeTerm, "asked for %d s, offered are %d to %d s", r.TermSeconds, o.MinTermSeconds, o.MaxTermSeconds)
	}
	if r.Isolation != "" && !slices.Contains(o.Isolation, r.Isolation) {
		return 0, refuse(CodeIsolation, "%q is not among %q", r.Isolation, o.Isolation)
	}
	if !r.Network.Within(o.Network) {
		return 0, refuse(CodeNetwork, "%s", o.Network.Lacks(r.Network))
	}
	if r.Volumes && !o.Volumes {
		return 0, refuse(CodeCapacity, "the provider makes no volumes")
	}
	if r.IntervalSeconds < o.Limits.MinIntervalSeconds || r.CreditSeconds > o.Limits.MaxCreditSeconds {
		return 0, refuse(CodeExposure, "asked for an interval of %d s and a credit of %d s; the offer allows no less than %d s and no more than %d s",
			r.IntervalSeconds, r.CreditSeconds, o.Limits.MinIntervalSeconds, o.Limits.MaxCreditSeconds)
	}
	return rate, nil
}

func (o Offer) matchRail(r Request) error {
	rail, ok := o.Rail(r.Rail)
	if !ok {
		return refuse(CodeRail, "the provider is not paid by %q", r.Rail)
	}
	if r.ChannelCapacity != 0 && (r.ChannelCapacity < rail.MinCapacity || r.ChannelCapacity > rail.MaxCapacity) {
		return refuse(CodeRail, "a channel of %s; the provider takes %s to %s", r.ChannelCapacity, rail.MinCapacity, rail.MaxCapacity)
	}
	return nil
}
