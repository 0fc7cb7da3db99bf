package settle

import pktcloud "github.com/pkt-cash/pkt-cloud"

// Depths is a payee's rule for how deep a funding must lie before it counts as
// settled: the more money, the deeper [SETTLE-38]. The zero value asks for
// nothing.
type Depths struct {
	Least uint64          // of any channel
	Step  pktcloud.Amount // one block more for each full step of the capacity; zero: none
}

// For returns the depth that a capacity needs. No step asks for more than
// [ReorgMargin] blocks: nothing here reckons with deeper reorganisations.
func (d Depths) For(capacity pktcloud.Amount) uint64 {
	if d.Step == 0 {
		return d.Least
	}
	return max(d.Least, min(d.Least+uint64(capacity/d.Step), ReorgMargin))
}
