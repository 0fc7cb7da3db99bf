package lease

import pktcloud "github.com/pkt-cash/pkt-cloud"

// Exposure is money at risk, one figure for each of the four limits [LEASE-12].
type Exposure struct {
	Credit      pktcloud.Amount `cbor:"credit" json:"credit"`           // served and not paid
	Prepaid     pktcloud.Amount `cbor:"prepaid" json:"prepaid"`         // paid and not yet served
	Unconfirmed pktcloud.Amount `cbor:"unconfirmed" json:"unconfirmed"` // paid on funding below its depth
	HoldDeposit pktcloud.Amount `cbor:"hold" json:"hold"`
}

// Most returns the larger figure of each.
func (e Exposure) Most(o Exposure) Exposure {
	return Exposure{
		Credit:      max(e.Credit, o.Credit),
		Prepaid:     max(e.Prepaid, o.Prepaid),
		Unconfirmed: max(e.Unconfirmed, o.Unconfirmed),
		HoldDeposit: max(e.HoldDeposit, o.HoldDeposit),
	}
}
