package settle

import pktcloud "github.com/pkt-cash/pkt-cloud"

const (
	// RaiseBlocks is after how many blocks in vain a claim or refund pays more
	// [SETTLE-28].
	RaiseBlocks = 3
	// FeeShare is the part of the money, one in so many, that a fee is raised to
	// while there is time [SETTLE-36].
	FeeShare = 10
)

// Raise is what decides whether a transaction that ends a channel, and is not
// mined, is replaced by one that pays more.
type Raise struct {
	Fee    pktcloud.Amount // that it pays
	Made   uint64          // the height at which it was made
	Market pktcloud.Amount // what it would pay at the ledger's rate
	Step   pktcloud.Amount // the least that a replacement pays more
	Part   pktcloud.Amount // what fees are taken from, dust left out
	// Last is the height from which the other side may take the money, and Margin
	// the blocks before it in which a fee may rise beyond its share: both of a
	// claim. Nobody waits for the money of a refund.
	Last, Margin uint64
}

// Limit is the largest fee at a height [SETTLE-36]. A node that refuses a
// transaction for a reason that no fee can heal, or a chain on which no block has
// room for it, must not make a side burn its money while there is time.
func (r Raise) Limit(height uint64) pktcloud.Amount {
	limit := min(max(r.Part/FeeShare, r.Market), r.Part)
	begin := r.Last - min(r.Last, r.Margin)
	if r.Margin == 0 || height <= begin {
		return limit
	}
	if height >= r.Last {
		return r.Part
	}
	return limit + (r.Part-limit)/pktcloud.Amount(r.Margin)*pktcloud.Amount(height-begin)
}

// Next returns the fee of a replacement at a height; false when the transaction
// stays as it is and is broadcast again.
func (r Raise) Next(height uint64) (pktcloud.Amount, bool) {
	if height < r.Made+RaiseBlocks {
		return 0, false
	}
	fee := min(max(2*r.Fee, r.Market), r.Limit(height))
	return fee, fee >= r.Fee+r.Step
}
