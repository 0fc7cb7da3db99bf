package market_test

import (
	"errors"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/market/markettest"
)

func request(edit func(*market.Request)) market.Request {
	r := market.Request{
		Resources: market.Resources{MilliCPU: 1000, MemoryBytes: 1 << 30, DiskBytes: 1 << 30},
		MaxRate:   4_536_000, Rail: "pkt-devnet", IntervalSeconds: 10, CreditSeconds: 60,
	}
	if edit != nil {
		edit(&r)
	}
	return r
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*market.Request)
		want string
	}{
		{"all that is asked for", nil, "ok"},
		{"at every edge", func(r *market.Request) {
			r.Region, r.Isolation, r.TermSeconds = "DE-BE", "userns", 30*24*3600
			r.IntervalSeconds, r.ChannelCapacity = 1, pktcloud.UnitsPerPKT
		}, "ok"},
		{"the country of a subdivision", func(r *market.Request) { r.Region = "DE" }, "ok"},
		{"a processor too many", func(r *market.Request) { r.Resources.MilliCPU = 8001 }, "capacity"},
		{"a byte of memory too many", func(r *market.Request) { r.Resources.MemoryBytes = 16<<30 + 1 }, "capacity"},
		{"a byte of disk too many", func(r *market.Request) { r.Resources.DiskBytes = 100<<30 + 1 }, "capacity"},
		{"a unit too dear", func(r *market.Request) { r.MaxRate = 4_535_999 }, "price"},
		{"no money", func(r *market.Request) { r.MaxRate = 0 }, "price"},
		{"another country", func(r *market.Request) { r.Region = "AT" }, "region"},
		{"another subdivision", func(r *market.Request) { r.Region = "DE-B" }, "region"},
		{"another rail", func(r *market.Request) { r.Rail = "pkt" }, "rail"},
		{"a channel too small", func(r *market.Request) { r.ChannelCapacity = pktcloud.UnitsPerPKT - 1 }, "rail"},
		{"a channel too large", func(r *market.Request) { r.ChannelCapacity = 1000*pktcloud.UnitsPerPKT + 1 }, "rail"},
		{"too long", func(r *market.Request) { r.TermSeconds = 30*24*3600 + 1 }, "term"},
		{"another isolation", func(r *market.Request) { r.Isolation = "gvisor" }, "isolation"},
		{"all of the network", func(r *market.Request) {
			r.Network = market.Network{Egress: true, Ports: 100, BytesPerSecond: 12_500_000}
		}, "ok"},
		{"a port too many", func(r *market.Request) { r.Network.Ports = 101 }, "network"},
		{"a byte a second too many", func(r *market.Request) { r.Network.BytesPerSecond = 12_500_001 }, "network"},
		{"paid too often", func(r *market.Request) { r.IntervalSeconds = 0 }, "exposure"},
		{"too much credit", func(r *market.Request) { r.CreditSeconds = 61 }, "exposure"},
	} {
		rate, err := market.Match(provider.Offer(withNetwork), request(tt.edit))
		if got := outcome(err); got != tt.want {
			t.Errorf("%s: got %s (%v), want %s", tt.name, got, err, tt.want)
		}
		if err == nil && rate != 4_536_000 || err != nil && rate != 0 {
			t.Errorf("%s: got rate %d", tt.name, rate)
		}
	}
}

// TestNetworkOfAnOffer: what an offer does not state it does not grant
// [MARKET-25] [MARKET-27].
func TestNetworkOfAnOffer(t *testing.T) {
	bare, full := market.Network{}, market.Network{Egress: true, Ports: 2, BytesPerSecond: 2048}
	for _, tt := range []struct {
		name       string
		need, room market.Network
		want       bool
	}{
		{"nothing of nothing", bare, bare, true},
		{"nothing of all", bare, full, true},
		{"egress of nothing", market.Network{Egress: true}, bare, false},
		{"egress", market.Network{Egress: true}, full, true},
		{"a port of nothing", market.Network{Ports: 1}, bare, false},
		{"the last port", market.Network{Ports: 2}, full, true},
		{"one port more", market.Network{Ports: 3}, full, false},
		{"all bytes", market.Network{Egress: true, BytesPerSecond: 2048}, full, true},
		{"one byte more", market.Network{Egress: true, BytesPerSecond: 2049}, full, false},
		{"any bytes of no bound", market.Network{Egress: true, BytesPerSecond: 1 << 30}, market.Network{Egress: true}, true},
	} {
		offered := provider.Offer(func(o *market.Offer) { o.Network = tt.room })
		_, err := market.Match(offered, request(func(r *market.Request) { r.Network = tt.need }))
		said := tt.room.Lacks(tt.need)
		if tt.need.Within(tt.room) != tt.want || (said == "") != tt.want || (err == nil) != tt.want || err != nil && !errors.Is(err, market.CodeNetwork) {
			t.Errorf("%s: got %q, %v, want it granted %v", tt.name, said, err, tt.want)
		}
		book := market.NewBook(0)
		if _, err := book.Put(provider.Sealed(func(o *market.Offer) { o.Network = tt.room }), time.Unix(offered.Issued, 0)); err != nil {
			t.Fatal(err)
		}
		page, err := book.Query(market.Query{Network: tt.need}, time.Unix(offered.Issued, 0))
		if err != nil || (len(page.Listings) == 1) != tt.want {
			t.Errorf("%s: the book has %d, %v, want it found %v", tt.name, len(page.Listings), err, tt.want)
		}
	}
}

// TestVolumesOfAnOffer: who needs volumes gets no offer without [MARKET-29].
func TestVolumesOfAnOffer(t *testing.T) {
	for _, has := range []bool{false, true} {
		for _, need := range []bool{false, true} {
			change := func(o *market.Offer) { o.Volumes = has }
			want := has || !need
			_, err := market.Match(provider.Offer(change), request(func(r *market.Request) { r.Volumes = need }))
			if (err == nil) != want || err != nil && !errors.Is(err, market.CodeCapacity) {
				t.Errorf("has %v, needs %v: got %v", has, need, err)
			}
			book := market.NewBook(0)
			now := time.Unix(provider.Offer().Issued, 0)
			if _, err := book.Put(provider.Sealed(change), now); err != nil {
				t.Fatal(err)
			}
			page, err := book.Query(market.Query{Volumes: need}, now)
			if err != nil || (len(page.Listings) == 1) != want {
				t.Errorf("has %v, needs %v: the book finds %d, %v", has, need, len(page.Listings), err)
			}
		}
	}
}

func TestAnythingInAnUnnamedRegion(t *testing.T) {
	nowhere := provider.Offer(func(o *market.Offer) { o.Region = "" })
	if err := nowhere.Validate(); err != nil {
		t.Error(err)
	}
	if _, err := market.Match(nowhere, request(func(r *market.Request) { r.Region = "DE" })); !errors.Is(err, market.CodeRegion) {
		t.Errorf("got %v, want CodeRegion", err)
	}
}

func TestAdmit(t *testing.T) {
	o := provider.Offer()
	for _, tt := range []struct {
		name string
		now  int64
		want string
	}{
		{"when issued", o.Issued, "ok"},
		{"by a clock that is behind", o.Issued - market.MaxClockSkewSeconds, "ok"},
		{"by a clock too far behind", o.Issued - market.MaxClockSkewSeconds - 1, "early"},
		{"in its last second", o.Expires - 1, "ok"},
		{"at its end", o.Expires, "expired"},
	} {
		if got := outcome(market.Admit(o, time.Unix(tt.now, 0))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestQuoteAnswers(t *testing.T) {
	offer := provider.Sealed()
	draft := pktcloud.IDOf([]byte("draft"))
	other := markettest.NewProvider(2)
	for _, tt := range []struct {
		name    string
		edit    func(*market.Quote)
		request pktcloud.ID
		now     int64
		want    string
	}{
		{"the draft", func(*market.Quote) {}, draft, markettest.Issued, "ok"},
		{"another draft", func(*market.Quote) {}, pktcloud.IDOf([]byte("x")), markettest.Issued, "mismatch"},
		{"another offer", func(q *market.Quote) { q.Offer = draft }, draft, markettest.Issued, "mismatch"},
		{"by another provider", func(q *market.Quote) { q.Provider = other.Identity.Public() }, draft, markettest.Issued, "mismatch"},
		{"by another device", func(q *market.Quote) { q.Device = other.Device.Public() }, draft, markettest.Issued, "mismatch"},
		{"too late", func(*market.Quote) {}, draft, markettest.Issued + 60, "expired"},
		{"too early", func(*market.Quote) {}, draft, markettest.Issued - 121, "early"},
	} {
		q := goodQuote(t)
		tt.edit(&q)
		if got := outcome(q.Answers(offer, tt.request, time.Unix(tt.now, 0))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestErrorsMatchTheirCode(t *testing.T) {
	cause := errors.New("cause")
	err := error(&market.Error{Code: market.CodePrice, Detail: "too dear", Err: cause})
	if !errors.Is(err, market.CodePrice) || errors.Is(err, market.CodeRail) || !errors.Is(err, cause) {
		t.Errorf("%v does not match its code and cause alone", err)
	}
}
