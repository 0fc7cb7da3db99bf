package market_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
)

// plainOffer is an offer of 4 cores, 8 GiB of memory and 100 GiB of disk at 1 PKT
// a core.
func plainOffer(edit func(*market.Offer)) market.Offer {
	o := market.Offer{
		Capacity: market.Resources{MilliCPU: 4000, MemoryBytes: 8 << 30, DiskBytes: 100 << 30},
		Prices:   market.Prices{CPUPerCoreHour: pktcloud.UnitsPerPKT}, Region: "DE-BE", Isolation: []string{"userns"},
		Rails: []market.Rail{{Name: "pkt-devnet"}}, Network: market.Network{Ports: 3},
	}
	if edit != nil {
		edit(&o)
	}
	return o
}

// TestExplain: what stands in the way is named, with the nearest that there is.
func TestExplain(t *testing.T) {
	small := plainOffer(func(o *market.Offer) { o.Capacity.MilliCPU, o.Network = 2000, market.Network{} })
	french := plainOffer(func(o *market.Offer) { o.Region, o.Capacity.MemoryBytes = "FR", 16<<30 })
	for _, c := range []struct {
		name   string
		offers []market.Offer
		query  market.Query
		want   string
		best   uint64
	}{
		{"nobody", nil, market.Query{}, "no provider has an offer that this node knows of; new ones come in by themselves", 0},
		{"one passes", []market.Offer{small, plainOffer(nil)}, market.Query{For: market.Resources{MilliCPU: 4000}}, "", 0},
		{"processor", []market.Offer{plainOffer(nil), small}, market.Query{For: market.Resources{MilliCPU: 8000}}, "2 offers, none has more than 4 cores free; ask for less", 4000},
		{
			"memory and disk",
			[]market.Offer{plainOffer(nil)},
			market.Query{For: market.Resources{MemoryBytes: 9 << 30, DiskBytes: 1 << 40}},
			"1 offer, none has more than 8 GiB of memory free and none has more than 100 GiB of disk free; ask for less", 8 << 30,
		},
		{
			"price",
			[]market.Offer{plainOffer(nil)},
			market.Query{For: market.Resources{MilliCPU: 2000}, MaxRate: pktcloud.UnitsPerPKT},
			"1 offer, none costs less than 2 PKT an hour; allow a higher price", 2 * pktcloud.UnitsPerPKT,
		},
		{"price of nothing in particular", []market.Offer{plainOffer(nil)}, market.Query{MaxRate: 1}, "1 offer, none costs less than 1 PKT an hour; allow a higher price", pktcloud.UnitsPerPKT},
		{"region", []market.Offer{plainOffer(nil), french}, market.Query{Region: "US"}, "2 offers, none says that it is in US; take any region", 0},
		{"class", []market.Offer{plainOffer(nil)}, market.Query{Isolation: "gvisor"}, "1 offer, none has isolation gvisor; take any isolation", 0},
		{"internet", []market.Offer{plainOffer(nil)}, market.Query{Network: market.Network{Egress: true}}, "1 offer, none lets services connect to the internet; do without the internet", 0},
		{"ports", []market.Offer{plainOffer(nil), small}, market.Query{Network: market.Network{Ports: 4}}, "2 offers, none has more than 3 ports to publish; ask for less", 3},
		{"no ports", []market.Offer{small}, market.Query{Network: market.Network{Ports: 4}}, "1 offer, none publishes ports; ask for less", 0},
		{
			"bandwidth",
			[]market.Offer{plainOffer(func(o *market.Offer) { o.Network.BytesPerSecond = 3 << 19 })},
			market.Query{Network: market.Network{BytesPerSecond: 2 << 20}},
			"1 offer, none carries more than 1.5 MiB a second for a lease; ask for less", 3 << 19,
		},
		{"no bound of bandwidth", []market.Offer{plainOffer(nil)}, market.Query{Network: market.Network{BytesPerSecond: 2 << 20}}, "", 0},
		{"volumes", []market.Offer{plainOffer(nil)}, market.Query{Volumes: true}, "1 offer, none has volumes; do without volumes", 0},
		{"rail", []market.Offer{plainOffer(nil)}, market.Query{Rail: "pkt"}, "1 offer, none is paid by pkt", 0},
		{
			"each alone",
			[]market.Offer{plainOffer(nil), french, small},
			market.Query{For: market.Resources{MemoryBytes: 12 << 30}, Region: "DE"},
			"3 offers, of those that have all the rest none has more than 8 GiB of memory free or none says that it is in DE; ask for less or take any region", 8 << 30,
		},
		{
			"nothing alone",
			[]market.Offer{small, french},
			market.Query{For: market.Resources{MilliCPU: 3000, MemoryBytes: 12 << 30}, Network: market.Network{Ports: 1}, Region: "DE", Volumes: false},
			"2 offers, of those that have all the rest none says that it is in DE; take any region", 0,
		},
		{
			"two of each",
			[]market.Offer{small, french},
			market.Query{For: market.Resources{MilliCPU: 3000, MemoryBytes: 20 << 30}, Region: "DE"},
			"2 offers, none has more than 16 GiB of memory free; ask for less", 16 << 30,
		},
		{
			"the nearest",
			[]market.Offer{
				small,
				plainOffer(func(o *market.Offer) { o.Capacity.MemoryBytes, o.Region, o.Network.Ports = 1<<30, "FR", 1 }),
			},
			market.Query{For: market.Resources{MilliCPU: 3000, MemoryBytes: 2 << 30}, Region: "DE", Network: market.Network{Ports: 1}},
			"2 offers, none has all of it, the nearest: 2 cores free, no ports to publish; ask for less", 2000,
		},
	} {
		got := market.Explain(slices.Values(c.offers), c.query)
		if got.String() != c.want || got.Offers != len(c.offers) {
			t.Errorf("%s: got %q of %d offers, want %q", c.name, got, got.Offers, c.want)
		}
		if c.best != 0 && (len(got.List) == 0 || got.List[0].Best != c.best) {
			t.Errorf("%s: got %+v, want %d as the nearest", c.name, got.List, c.best)
		}
	}
}

// TestExplainAgrees: an explanation is empty exactly where a query finds
// something, and whoever asks for the nearest of what lacks alone finds it.
func TestExplainAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_800_000_000, 0)
		book := market.NewBook(0)
		for _, o := range rapid.SliceOfN(offerGen(now.Unix()), 0, 6).Draw(t, "offers") {
			book.Put(o, now) // refused ones are not there
		}
		q := market.Query{
			For: market.Resources{
				MilliCPU:    rapid.Uint64Range(0, 8000).Draw(t, "cpu"),
				MemoryBytes: rapid.Uint64Range(0, 1<<32).Draw(t, "memory"),
				DiskBytes:   rapid.Uint64Range(0, 1<<34).Draw(t, "disk"),
			},
			MaxRate: pktcloud.Rate(rapid.Uint64Range(0, 10_000_000).Draw(t, "price")),
			Region:  rapid.SampledFrom([]string{"", "DE", "DE-BE", "FR"}).Draw(t, "region"),
			Network: market.Network{Egress: rapid.Bool().Draw(t, "egress"), Ports: rapid.Uint64Range(0, 3).Draw(t, "ports")},
			Volumes: rapid.Bool().Draw(t, "volumes"), Isolation: rapid.SampledFrom([]string{"", "userns", "gvisor"}).Draw(t, "class"),
			Rail: rapid.SampledFrom([]string{"", "pkt-devnet", "pkt"}).Draw(t, "rail"),
		}
		page, err := book.Query(q, now)
		if err != nil {
			t.Fatal(err)
		}
		lacks := market.Explain(book.All(now), q)
		if found := len(page.Listings) > 0; found == (len(lacks.List) > 0) && lacks.Offers > 0 {
			t.Fatalf("%d offers found of %d, and %q lacks", len(page.Listings), lacks.Offers, lacks)
		}
		if lacks.Of != market.LacksAlone {
			return
		}
		less := q
		switch l := lacks.List[0]; l.Criterion {
		case market.ByCPU:
			less.For.MilliCPU = l.Best
		case market.ByMemory:
			less.For.MemoryBytes = l.Best
		case market.ByDisk:
			less.For.DiskBytes = l.Best
		case market.ByPrice:
			less.MaxRate = pktcloud.Rate(l.Best)
		case market.ByRegion:
			less.Region = ""
		case market.ByIsolation:
			less.Isolation = ""
		case market.ByEgress:
			less.Network.Egress = false
		case market.ByPorts:
			less.Network.Ports = l.Best
		case market.ByBandwidth:
			less.Network.BytesPerSecond = l.Best
		case market.ByVolumes:
			less.Volumes = false
		case market.ByRail:
			less.Rail = ""
		}
		if page, err := book.Query(less, now); err != nil || len(page.Listings) == 0 && !less.For.IsZero() {
			t.Fatalf("got nothing for %+v (%v), and %q", less, err, lacks)
		}
	})
}
