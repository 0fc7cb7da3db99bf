package market

import (
	"fmt"
	"math/bits"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Resources is an amount of machine: processor time in thousandths of a core,
// memory and disk in bytes.
type Resources struct {
	MilliCPU    uint64 `cbor:"cpu" json:"cpu"`
	MemoryBytes uint64 `cbor:"memory" json:"memory"`
	DiskBytes   uint64 `cbor:"disk" json:"disk"`
}

// Reference is the machine whose price stands for an offer where nobody has
// said what they need: one core, 1 GiB of memory, 10 GiB of disk.
var Reference = Resources{MilliCPU: 1000, MemoryBytes: 1 << 30, DiskBytes: 10 << 30}

// Validate checks the bounds. Errors match [CodeMalformed].
func (r Resources) Validate() error {
	if r.MilliCPU > MaxMilliCPU || r.MemoryBytes > MaxMemoryBytes || r.DiskBytes > MaxDiskBytes {
		return refuse(CodeMalformed, "resources beyond %d mCPU, %d bytes of memory or %d bytes of disk",
			MaxMilliCPU, uint64(MaxMemoryBytes), uint64(MaxDiskBytes))
	}
	return nil
}

// IsZero reports whether nothing is asked for.
func (r Resources) IsZero() bool { return r == Resources{} }

// Within reports whether r needs no more than room has, of anything.
func (r Resources) Within(room Resources) bool {
	return r.MilliCPU <= room.MilliCPU && r.MemoryBytes <= room.MemoryBytes && r.DiskBytes <= room.DiskBytes
}

// Minus is what of r is left beside o: nothing of what o has more of.
func (r Resources) Minus(o Resources) Resources {
	return Resources{
		MilliCPU:    r.MilliCPU - min(r.MilliCPU, o.MilliCPU),
		MemoryBytes: r.MemoryBytes - min(r.MemoryBytes, o.MemoryBytes),
		DiskBytes:   r.DiskBytes - min(r.DiskBytes, o.DiskBytes),
	}
}

// Prices are what a provider asks, in base units per hour.
type Prices struct {
	CPUPerCoreHour   pktcloud.Rate `cbor:"cpu" json:"cpu"`
	MemoryPerGiBHour pktcloud.Rate `cbor:"memory" json:"memory"`
	DiskPerGiBHour   pktcloud.Rate `cbor:"disk" json:"disk"`
}

// Validate checks the bounds. Errors match [CodeMalformed].
func (p Prices) Validate() error {
	for _, r := range []pktcloud.Rate{p.CPUPerCoreHour, p.MemoryPerGiBHour, p.DiskPerGiBHour} {
		if err := r.Validate(); err != nil {
			return &Error{Code: CodeMalformed, Detail: "a price is out of range", Err: err}
		}
	}
	return nil
}

// rateDivisor is the least common multiple of 1000 mCPU and 2^30 bytes: one
// unit of price is rateDivisor parts, so that all three resources add up
// without rounding.
const (
	rateDivisor = 125 << 30
	cpuParts    = 1 << 27 // rateDivisor / 1000
	byteParts   = 125     // rateDivisor / 2^30
)

// Rate returns the price of r: the exact sum over the three resources, rounded
// up once [MARKET-5]. Errors match [CodeMalformed] for resources or prices out
// of bounds and [pktcloud.ErrAmountRange] for a rate beyond the maximum.
func (p Prices) Rate(r Resources) (pktcloud.Rate, error) {
	if err := r.Validate(); err != nil {
		return 0, err
	}
	if err := p.Validate(); err != nil {
		return 0, err
	}
	// Every product stays below 2^126, so three of them fit 128 bits.
	var sum wide
	sum.addProduct(r.MilliCPU*cpuParts, uint64(p.CPUPerCoreHour))
	sum.addProduct(r.MemoryBytes*byteParts, uint64(p.MemoryPerGiBHour))
	sum.addProduct(r.DiskBytes*byteParts, uint64(p.DiskPerGiBHour))
	if sum.hi >= rateDivisor {
		return 0, fmt.Errorf("%w: the rate exceeds the maximum", pktcloud.ErrAmountRange)
	}
	quo, rem := bits.Div64(sum.hi, sum.lo, rateDivisor)
	if rem != 0 {
		quo++
	}
	rate := pktcloud.Rate(quo)
	return rate, rate.Validate()
}

// wide is a 128-bit unsigned number.
type wide struct{ hi, lo uint64 }

func (w *wide) addProduct(a, b uint64) {
	hi, lo := bits.Mul64(a, b)
	var carry uint64
	w.lo, carry = bits.Add64(w.lo, lo, 0)
	w.hi, _ = bits.Add64(w.hi, hi, carry)
}
