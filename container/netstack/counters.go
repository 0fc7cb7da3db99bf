package netstack

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Traffic is what one container sent and received; see
// container.NetworkStatus. It lies in memory that other processes see, so that
// it outlives this one.
type Traffic struct {
	In, Out, Refused, Open atomic.Uint64

	// Fast are the same of what does not come through the stack, which whoever
	// carries that counts.
	Fast [4]atomic.Uint64
}

// CounterBytes is the size of a group's counters: one [Traffic] for each
// address of [Subnet], by its last byte.
const CounterBytes = 256 * int(unsafe.Sizeof(Traffic{}))

// Counters is memory of [CounterBytes], which [OpenCounters] lays out.
type Counters struct{ all *[256]Traffic }

// OpenCounters uses b, aligned to 8 bytes, as counters.
func OpenCounters(b []byte) (Counters, error) {
	if len(b) < CounterBytes || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%8 != 0 {
		return Counters{}, fmt.Errorf("%d bytes are no counters", len(b))
	}
	return Counters{(*[256]Traffic)(unsafe.Pointer(unsafe.SliceData(b)))}, nil
}

// Of returns the counters of the address of [Subnet] with the given last byte.
func (c Counters) Of(last byte) *Traffic { return &c.all[last] }
