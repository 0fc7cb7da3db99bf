package market_test

import (
	"fmt"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/market"
)

func rateCases() []vector.Case {
	const gib = 1 << 30
	rate := func(name, about, want string, r market.Resources, p market.Prices) vector.Case {
		expect := "ok"
		if want == "" {
			expect = "amount-range"
		}
		c := vector.New("rate-"+name, expect, about).
			With("cpu", r.MilliCPU).With("memory", r.MemoryBytes).With("disk", r.DiskBytes).
			With("cpu_price", uint64(p.CPUPerCoreHour)).With("memory_price", uint64(p.MemoryPerGiBHour)).With("disk_price", uint64(p.DiskPerGiBHour))
		if want != "" {
			c = c.With("rate", want)
		}
		return c
	}
	one := market.Prices{CPUPerCoreHour: 1, MemoryPerGiBHour: 1, DiskPerGiBHour: 1}
	most := market.Prices{CPUPerCoreHour: market.MaxRate, MemoryPerGiBHour: market.MaxRate, DiskPerGiBHour: market.MaxRate}
	return []vector.Case{
		rate("whole", "a core, a GiB of memory, ten of disk", "12", market.Resources{MilliCPU: 1000, MemoryBytes: gib, DiskBytes: 10 * gib}, one),
		rate("nothing", "nothing costs nothing", "0", market.Resources{}, most),
		rate("rounded-up", "a thousandth of a core", "1", market.Resources{MilliCPU: 1}, one),
		rate("rounded-once", "three parts that sum to just one unit", "1", market.Resources{MilliCPU: 500, MemoryBytes: gib / 4, DiskBytes: gib / 4}, one),
		rate("rounded-once-up", "the same and one byte", "2", market.Resources{MilliCPU: 500, MemoryBytes: gib / 4, DiskBytes: gib/4 + 1}, one),
		rate("free", "no price", "0", market.Resources{MilliCPU: 8000, MemoryBytes: 1 << 40, DiskBytes: 1 << 50}, market.Prices{}),
		rate("carry", "two parts just below 2^64 each", "274877906", market.Resources{MilliCPU: 1000, MemoryBytes: gib},
			market.Prices{CPUPerCoreHour: 137438953, MemoryPerGiBHour: 137438953}),
		rate("maximum", "the dearest core", "6442450944000000000", market.Resources{MilliCPU: 1000}, most),
		rate("above-maximum", "a thousandth more than the dearest core", "", market.Resources{MilliCPU: 1001}, most),
		rate("everything", "every bound reached", "", market.Resources{MilliCPU: market.MaxMilliCPU, MemoryBytes: market.MaxMemoryBytes, DiskBytes: market.MaxDiskBytes}, most),
	}
}

func TestRateVectors(t *testing.T) {
	cases, err := vector.Sync(vectors, "rate-", rateCases(), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		n := func(key string) (v uint64) {
			if _, err := fmt.Sscan(c.Value(key), &v); err != nil {
				t.Fatal(c.Name, key, err)
			}
			return v
		}
		r := market.Resources{MilliCPU: n("cpu"), MemoryBytes: n("memory"), DiskBytes: n("disk")}
		p := market.Prices{
			CPUPerCoreHour: pktcloud.Rate(n("cpu_price")), MemoryPerGiBHour: pktcloud.Rate(n("memory_price")), DiskPerGiBHour: pktcloud.Rate(n("disk_price")),
		}
		got, err := p.Rate(r)
		if outcome(err) != c.Value("expect") || err == nil && uint64(got) != n("rate") {
			t.Errorf("%s: got %d, %v, want %s %s", c.Name, got, err, c.Value("expect"), c.Value("rate"))
		}
	}
}

// TestRateIsExact compares with a computation in fractions.
func TestRateIsExact(t *testing.T) {
	amount := func(t *rapid.T, name string, limit uint64) uint64 {
		return rapid.OneOf(rapid.Uint64Range(0, min(limit, 5000)), rapid.Uint64Range(0, limit)).Draw(t, name)
	}
	rapid.Check(t, func(t *rapid.T) {
		r := market.Resources{MilliCPU: amount(t, "cpu", market.MaxMilliCPU), MemoryBytes: amount(t, "memory", market.MaxMemoryBytes), DiskBytes: amount(t, "disk", market.MaxDiskBytes)}
		p := market.Prices{
			CPUPerCoreHour: pktcloud.Rate(amount(t, "cpu price", uint64(market.MaxRate))), MemoryPerGiBHour: pktcloud.Rate(amount(t, "memory price", uint64(market.MaxRate))),
			DiskPerGiBHour: pktcloud.Rate(amount(t, "disk price", uint64(market.MaxRate))),
		}
		sum := new(big.Rat)
		for _, part := range [][3]uint64{{r.MilliCPU, uint64(p.CPUPerCoreHour), 1000}, {r.MemoryBytes, uint64(p.MemoryPerGiBHour), 1 << 30}, {r.DiskBytes, uint64(p.DiskPerGiBHour), 1 << 30}} {
			product := new(big.Int).Mul(new(big.Int).SetUint64(part[0]), new(big.Int).SetUint64(part[1]))
			sum.Add(sum, new(big.Rat).SetFrac(product, new(big.Int).SetUint64(part[2])))
		}
		want := new(big.Int).Add(sum.Num(), new(big.Int).Sub(sum.Denom(), big.NewInt(1)))
		want.Quo(want, sum.Denom())
		got, err := p.Rate(r)
		fits := want.IsUint64() && want.Uint64() <= uint64(market.MaxRate)
		if fits != (err == nil) || fits && uint64(got) != want.Uint64() {
			t.Fatalf("%+v at %+v: got %d, %v, want %s", r, p, got, err, want)
		}
	})
}
