// Package markettest makes offers and quotes for tests of whatever uses the
// package market.
package markettest

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
)

// Issued is when the records of this package are issued, in Unix seconds:
// 2026-01-01 00:00 UTC.
const Issued = 1_767_225_600

// Provider is a provider with known keys.
type Provider struct {
	Identity pktcloud.PrivateKey
	Device   pktcloud.PrivateKey
}

// NewProvider returns the provider of a number; equal numbers give equal keys.
func NewProvider(n byte) Provider {
	return Provider{
		Identity: pktcloud.NewPrivateKey([32]byte{0: 'i', 31: n}),
		Device:   pktcloud.NewPrivateKey([32]byte{0: 'd', 31: n}),
	}
}

// Offer returns a valid offer body of the provider, changed by edits.
func (p Provider) Offer(edits ...func(*market.Offer)) market.Offer {
	device := p.Device.Public()
	o := market.Offer{
		Version: market.OfferVersion, Provider: p.Identity.Public(), Device: device, Sequence: 1,
		Issued: Issued, Expires: Issued + 3600,
		Addresses: []string{"/ip4/127.0.0.1/tcp/4001/p2p/" + device.PeerID()},
		Region:    "DE-BE",
		Capacity:  market.Resources{MilliCPU: 8000, MemoryBytes: 16 << 30, DiskBytes: 100 << 30},
		Prices:    market.Prices{CPUPerCoreHour: 3_600_000, MemoryPerGiBHour: 900_000, DiskPerGiBHour: 36_000},
		Rails: []market.Rail{{
			Name: "pkt-devnet", MinDepth: 1, MaxUnconfirmed: pktcloud.UnitsPerPKT,
			MinCapacity: pktcloud.UnitsPerPKT, MaxCapacity: 1000 * pktcloud.UnitsPerPKT,
		}},
		Limits:         market.Limits{MaxCreditSeconds: 60, MinIntervalSeconds: 1},
		MaxTermSeconds: 30 * 24 * 3600,
		Isolation:      []string{"userns"},
		Software:       "pktcloud",
	}
	for _, edit := range edits {
		edit(&o)
	}
	return o
}

// Sealed returns the provider's signed offer, changed by edits. It panics when
// they make it invalid.
func (p Provider) Sealed(edits ...func(*market.Offer)) pktcloud.Signed[market.Offer] {
	s, err := pktcloud.Seal(p.Identity, p.Offer(edits...))
	if err != nil {
		panic("markettest: " + err.Error())
	}
	return s
}

// Quote returns a valid quote for offer, as the answer to request.
func (p Provider) Quote(offer, request pktcloud.ID, rate pktcloud.Rate) market.Quote {
	return market.Quote{
		Version: market.QuoteVersion, Provider: p.Identity.Public(), Device: p.Device.Public(),
		Offer: offer, Request: request, Rate: rate, PayeeDetail: []byte{1, 2, 3},
		Issued: Issued, Expires: Issued + 60,
	}
}
