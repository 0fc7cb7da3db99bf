package market_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/market"
)

// TestResourcesLeft: of what there is not enough nothing is left, and no more
// than there was.
func TestResourcesLeft(t *testing.T) {
	all := market.Resources{MilliCPU: 4000, MemoryBytes: 8 << 30, DiskBytes: 16 << 30}
	for _, tt := range []struct {
		name       string
		used, want market.Resources
	}{
		{"nothing used", market.Resources{}, all},
		{"some", market.Resources{MilliCPU: 500, MemoryBytes: 1 << 30, DiskBytes: 2 << 30}, market.Resources{MilliCPU: 3500, MemoryBytes: 7 << 30, DiskBytes: 14 << 30}},
		{"all", all, market.Resources{}},
		{"more processors than there are", market.Resources{MilliCPU: 4001}, market.Resources{MemoryBytes: 8 << 30, DiskBytes: 16 << 30}},
		{"more memory", market.Resources{MemoryBytes: 9 << 30}, market.Resources{MilliCPU: 4000, DiskBytes: 16 << 30}},
		{"more disk", market.Resources{DiskBytes: 17 << 30}, market.Resources{MilliCPU: 4000, MemoryBytes: 8 << 30}},
	} {
		if got := all.Minus(tt.used); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
