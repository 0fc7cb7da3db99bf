package market_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/market/markettest"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectors = "../spec/vectors/market"

// outcome is the vectors' word for an error.
func outcome(err error) string {
	var refusal *market.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &refusal):
		return string(refusal.Code)
	case errors.Is(err, pktcloud.ErrTooLarge):
		return "too-large"
	case errors.Is(err, pktcloud.ErrEncoding):
		return "encoding"
	case errors.Is(err, pktcloud.ErrSignature):
		return "signature"
	case errors.Is(err, pktcloud.ErrAmountRange):
		return "amount-range"
	default:
		return err.Error()
	}
}

// sign makes a record without the checks of Seal.
func sign[B pktcloud.Body](t *testing.T, recordType string, key pktcloud.PrivateKey, body B) []byte {
	t.Helper()
	b, err := pktcloud.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	record, err := pktcloud.Signed[B]{Body: body, Sig: pktcloud.Sign(key, recordType, b)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return record
}

var provider = markettest.NewProvider(1)

var offerFaults = []struct {
	name, about string
	edit        func(*market.Offer)
}{
	{"version", "version 2", func(o *market.Offer) { o.Version = 2 }},
	{"slot", "slot 16", func(o *market.Offer) { o.Slot = 16 }},
	{"sequence-zero", "sequence 0", func(o *market.Offer) { o.Sequence = 0 }},
	{"device-weak", "a device key of small order", func(o *market.Offer) { o.Device = pktcloud.PublicKey{0: 1} }},
	{"issued-negative", "issued before 1970", func(o *market.Offer) { o.Issued = -1 }},
	{"ends-when-issued", "expires when it is issued", func(o *market.Offer) { o.Expires = o.Issued }},
	{"lives-too-long", "a second more than 24 hours", func(o *market.Offer) { o.Expires = o.Issued + 86401 }},
	{"time-overflow", "from the beginning to the end of 64 bits", func(o *market.Offer) { o.Issued, o.Expires = math.MinInt64, math.MaxInt64 }},
	{"no-address", "no address", func(o *market.Offer) { o.Addresses = nil }},
	{"nine-addresses", "nine addresses", func(o *market.Offer) {
		for n := range 9 {
			o.Addresses = append(o.Addresses[:n], fmt.Sprintf("/ip4/192.0.2.%d/tcp/1/p2p/%s", n, o.Device.PeerID()))
		}
	}},
	{"address-twice", "an address stands twice", func(o *market.Offer) { o.Addresses = append(o.Addresses, o.Addresses[0]) }},
	{"address-of-another", "an address of another peer", func(o *market.Offer) { o.Addresses[0] = "/ip4/192.0.2.1/tcp/1/p2p/" + o.Provider.PeerID() }},
	{"address-without-peer", "an address without a peer id", func(o *market.Offer) { o.Addresses[0] = "/ip4/192.0.2.1/tcp/1" }},
	{"address-only-peer", "a peer id without an address", func(o *market.Offer) { o.Addresses[0] = "/p2p/" + o.Device.PeerID() }},
	{"address-control", "an address that steers a terminal", func(o *market.Offer) { o.Addresses[0] = "/dns4/\x1b[2J/tcp/1/p2p/" + o.Device.PeerID() }},
	{"address-long", "an address of more than 256 bytes", func(o *market.Offer) {
		o.Addresses[0] = "/dns4/" + strings.Repeat("a", 250) + "/tcp/1/p2p/" + o.Device.PeerID()
	}},
	{"region-lower-case", "a region in lower case", func(o *market.Offer) { o.Region = "de" }},
	{"region-name", "the name of a country", func(o *market.Offer) { o.Region = "Germany" }},
	{"region-empty-part", "a region without its second part", func(o *market.Offer) { o.Region = "DE-" }},
	{"region-long-part", "a subdivision of four characters", func(o *market.Offer) { o.Region = "DE-BERL" }},
	{"cpu", "more processors than an offer may have", func(o *market.Offer) { o.Capacity.MilliCPU = market.MaxMilliCPU + 1 }},
	{"memory", "more memory than an offer may have", func(o *market.Offer) { o.Capacity.MemoryBytes = market.MaxMemoryBytes + 1 }},
	{"disk", "more disk than an offer may have", func(o *market.Offer) { o.Capacity.DiskBytes = market.MaxDiskBytes + 1 }},
	{"price", "a price beyond the largest amount", func(o *market.Offer) { o.Prices.DiskPerGiBHour = market.MaxRate + 1 }},
	{"no-rail", "no way to be paid", func(o *market.Offer) { o.Rails = nil }},
	{"rails-unsorted", "rails out of order", func(o *market.Offer) { o.Rails = append(o.Rails, o.Rails[0]); o.Rails[1].Name = "a" }},
	{"rail-twice", "a rail stands twice", func(o *market.Offer) { o.Rails = append(o.Rails, o.Rails[0]) }},
	{"nine-rails", "nine rails", func(o *market.Offer) {
		for n := range 9 {
			o.Rails = append(o.Rails[:n], o.Rails[0])
			o.Rails[n].Name = fmt.Sprint(n)
		}
	}},
	{"rail-name", "the name of a rail in upper case", func(o *market.Offer) { o.Rails[0].Name = "PKT" }},
	{"rail-amount", "a channel beyond the largest amount", func(o *market.Offer) { o.Rails[0].MaxCapacity = pktcloud.MaxAmount + 1 }},
	{"rail-bounds", "the smallest channel above the largest", func(o *market.Offer) { o.Rails[0].MinCapacity = o.Rails[0].MaxCapacity + 1 }},
	{"rail-nothing", "no channel fits", func(o *market.Offer) { o.Rails[0].MinCapacity, o.Rails[0].MaxCapacity = 0, 0 }},
	{"interval-zero", "payment in no time", func(o *market.Offer) { o.Limits.MinIntervalSeconds = 0 }},
	{"interval-long", "an interval above an hour", func(o *market.Offer) { o.Limits.MinIntervalSeconds = 3601 }},
	{"credit-long", "more than a day of credit", func(o *market.Offer) { o.Limits.MaxCreditSeconds = 86401 }},
	{"term-order", "the shortest term above the longest", func(o *market.Offer) { o.MinTermSeconds = o.MaxTermSeconds + 1 }},
	{"term-zero", "a longest term of nothing", func(o *market.Offer) { o.MaxTermSeconds = 0 }},
	{"term-long", "more than 366 days", func(o *market.Offer) { o.MaxTermSeconds = market.MaxTermSeconds + 1 }},
	{"no-isolation", "no isolation class", func(o *market.Offer) { o.Isolation = nil }},
	{"isolation-unsorted", "isolation classes out of order", func(o *market.Offer) { o.Isolation = []string{"userns", "gvisor"} }},
	{"isolation-empty", "an isolation class without a name", func(o *market.Offer) { o.Isolation = []string{""} }},
	{"network-ports", "more ports than there are", func(o *market.Offer) { o.Network.Ports = market.MaxPorts + 1 }},
	{"network-bandwidth", "more bytes a second than an offer may state", func(o *market.Offer) {
		o.Network = market.Network{Egress: true, BytesPerSecond: market.MaxBandwidth + 1}
	}},
	{"network-bandwidth-small", "fewer bytes a second than are of use", func(o *market.Offer) {
		o.Network = market.Network{Egress: true, BytesPerSecond: market.MinBandwidth - 1}
	}},
	{"network-bandwidth-alone", "a bandwidth with nothing to bound", func(o *market.Offer) { o.Network = market.Network{BytesPerSecond: market.MinBandwidth} }},
	{"software-control", "software that steers a terminal", func(o *market.Offer) { o.Software = "\a" }},
	{"software-long", "software of 65 characters", func(o *market.Offer) { o.Software = strings.Repeat("a", 65) }},
}

func offerCases(t *testing.T) []vector.Case {
	t.Helper()
	offer := func(name, expect, about string, record []byte) vector.Case {
		return vector.New("offer-"+name, expect, about).With("record", record)
	}
	good := provider.Offer()
	body, err := pktcloud.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	cases := []vector.Case{
		offer("good", "ok", "an offer of one slot", sign(t, "offer", provider.Identity, good)).With("id", pktcloud.IDOf(body)),
		offer("network", "ok", "an offer of a network", sign(t, "offer", provider.Identity, provider.Offer(withNetwork))),
		offer("network-zero", "encoding", "a network of nothing, which is left out", sign(t, "offer", provider.Identity, spelledOffer{good, "network", market.Network{}})),
		offer("network-field", "encoding", "a network with a field more", sign(t, "offer", provider.Identity, spelledOffer{good, "network", map[string]any{
			"egress": true, "ports": uint64(0), "bandwidth": uint64(0), "price": uint64(0),
		}})),
		offer("volumes", "ok", "an offer of volumes", sign(t, "offer", provider.Identity, provider.Offer(withVolumes))),
		offer("volumes-false", "encoding", "no volumes, which is left out", sign(t, "offer", provider.Identity, spelledOffer{good, "volumes", false})),
		offer("volumes-number", "encoding", "how many volumes", sign(t, "offer", provider.Identity, spelledOffer{good, "volumes", uint64(4)})),
		offer("largest", "ok", "every bound reached", sign(t, "offer", provider.Identity, largestOffer())),
		offer("signed-by-device", "signature", "signed by the device in place of the identity", sign(t, "offer", provider.Device, good)),
		offer("other-type", "signature", "signed as a quote", sign(t, "quote", provider.Identity, good)),
		offer("too-large", "too-large", "longer than an offer may be",
			sign(t, "offer", provider.Identity, provider.Offer(func(o *market.Offer) { o.Ext = map[string][]byte{"x": make([]byte, market.MaxOfferBytes)} }))),
	}
	for _, f := range offerFaults {
		cases = append(cases, offer(f.name, "malformed", f.about, sign(t, "offer", provider.Identity, provider.Offer(f.edit))))
	}
	return cases
}

// withNetwork grants all that an offer can.
func withNetwork(o *market.Offer) {
	o.Network = market.Network{Egress: true, Ports: 100, BytesPerSecond: 12_500_000}
}

func withVolumes(o *market.Offer) { o.Volumes = true }

// spelledOffer is an offer of which one field is spelled out.
type spelledOffer struct {
	offer market.Offer
	field string
	value any
}

func (s spelledOffer) RecordType() string         { return s.offer.RecordType() }
func (s spelledOffer) Signer() pktcloud.PublicKey { return s.offer.Signer() }
func (s spelledOffer) Validate() error            { return nil }

func (s spelledOffer) MarshalCBOR() ([]byte, error) {
	b, err := pktcloud.Marshal(s.offer)
	if err != nil {
		return nil, err
	}
	fields := map[string]cbor.RawMessage{}
	if err := cbor.Unmarshal(b, &fields); err != nil {
		return nil, err
	}
	if fields[s.field], err = pktcloud.Marshal(s.value); err != nil {
		return nil, err
	}
	return pktcloud.Marshal(fields)
}

func largestOffer() market.Offer {
	return provider.Offer(func(o *market.Offer) {
		o.Slot, o.Sequence, o.Expires = 15, math.MaxUint64, o.Issued+86400
		o.Capacity = market.Resources{MilliCPU: market.MaxMilliCPU, MemoryBytes: market.MaxMemoryBytes, DiskBytes: market.MaxDiskBytes}
		o.Prices = market.Prices{CPUPerCoreHour: market.MaxRate, MemoryPerGiBHour: market.MaxRate, DiskPerGiBHour: market.MaxRate}
		o.MinTermSeconds, o.MaxTermSeconds = market.MaxTermSeconds, market.MaxTermSeconds
		o.Limits = market.Limits{MaxCreditSeconds: market.MaxCreditSeconds, MinIntervalSeconds: market.MaxIntervalSeconds}
		o.Rails[0].MinCapacity, o.Rails[0].MaxCapacity, o.Rails[0].MaxUnconfirmed = pktcloud.MaxAmount, pktcloud.MaxAmount, pktcloud.MaxAmount
		o.Isolation = []string{"gvisor", "userns"}
		o.Network = market.Network{Egress: true, Ports: market.MaxPorts, BytesPerSecond: market.MaxBandwidth}
		o.Volumes = true
	})
}

func TestOfferVectors(t *testing.T) {
	cases, err := vector.Sync(vectors, "offer-", offerCases(t), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		o, err := market.ParseOffer(c.Bytes("record"))
		if got := outcome(err); got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if id, _ := o.ID(); c.Value("id") != "" && id.String() != c.Value("id") {
			t.Errorf("%s: got id %s, want %s", c.Name, id, c.Value("id"))
		}
	}
}

var quoteFaults = []struct {
	name, about string
	edit        func(*market.Quote)
}{
	{"version", "version 2", func(q *market.Quote) { q.Version = 2 }},
	{"no-offer", "no offer", func(q *market.Quote) { q.Offer = pktcloud.ID{} }},
	{"no-request", "no request", func(q *market.Quote) { q.Request = pktcloud.ID{} }},
	{"provider-weak", "a provider of small order", func(q *market.Quote) { q.Provider = pktcloud.PublicKey{} }},
	{"rate", "a rate beyond the largest amount", func(q *market.Quote) { q.Rate = pktcloud.MaxRate + 1 }},
	{"payee-long", "a payee detail of 1025 bytes", func(q *market.Quote) { q.PayeeDetail = make([]byte, market.MaxPayeeDetail+1) }},
	{"ends-when-issued", "expires when it is issued", func(q *market.Quote) { q.Expires = q.Issued }},
	{"lives-too-long", "a second more than an hour", func(q *market.Quote) { q.Expires = q.Issued + 3601 }},
}

func goodQuote(t *testing.T) market.Quote {
	t.Helper()
	id, err := provider.Sealed().ID()
	if err != nil {
		t.Fatal(err)
	}
	return provider.Quote(id, pktcloud.IDOf([]byte("draft")), 5_000_000)
}

func quoteCases(t *testing.T) []vector.Case {
	t.Helper()
	quote := func(name, expect, about string, record []byte) vector.Case {
		return vector.New("quote-"+name, expect, about).With("record", record)
	}
	good := goodQuote(t)
	cases := []vector.Case{
		quote("good", "ok", "an answer to a draft", sign(t, "quote", provider.Device, good)),
		quote("signed-by-identity", "signature", "signed by the identity in place of the device", sign(t, "quote", provider.Identity, good)),
		quote("too-large", "too-large", "longer than a quote may be", make([]byte, market.MaxQuoteBytes+1)),
	}
	for _, f := range quoteFaults {
		q := good
		f.edit(&q)
		cases = append(cases, quote(f.name, "malformed", f.about, sign(t, "quote", provider.Device, q)))
	}
	return cases
}

func TestQuoteVectors(t *testing.T) {
	cases, err := vector.Sync(vectors, "quote-", quoteCases(t), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		_, err := market.ParseQuote(c.Bytes("record"))
		if got := outcome(err); got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
	}
}

func FuzzParseOffer(f *testing.F) {
	fuzzRecord(f, "offer-", market.ParseOffer)
}

func FuzzParseQuote(f *testing.F) {
	fuzzRecord(f, "quote-", market.ParseQuote)
}

func fuzzRecord[B pktcloud.Body](f *testing.F, prefix string, parse func([]byte) (pktcloud.Signed[B], error)) {
	f.Helper()
	cases, err := vector.Load(vectors, prefix)
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range cases {
		f.Add(c.Bytes("record"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		record, err := parse(data)
		if err != nil {
			return
		}
		if again, err := record.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want %x", again, err, data)
		}
	})
}
