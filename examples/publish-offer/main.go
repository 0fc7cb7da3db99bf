// Publish-offer signs an offer and asks what a small machine costs under it.
package main

import (
	"fmt"
	"log"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
)

func main() {
	key := pktcloud.NewPrivateKey([32]byte{1}) // yours comes from node/keystore
	offer, err := pktcloud.Seal(key, market.Offer{
		Version: market.OfferVersion, Provider: key.Public(), Device: key.Public(), Sequence: 1,
		Issued: 1_767_225_600, Expires: 1_767_229_200, Region: "DE-BE", MaxTermSeconds: 86400, Isolation: []string{"userns"},
		Addresses: []string{"/ip4/192.0.2.1/tcp/4001/p2p/" + key.Public().PeerID()},
		Capacity:  market.Resources{MilliCPU: 8000, MemoryBytes: 16 << 30, DiskBytes: 100 << 30},
		Prices:    market.Prices{CPUPerCoreHour: pktcloud.UnitsPerPKT / 2, MemoryPerGiBHour: pktcloud.UnitsPerPKT / 8},
		Rails:     []market.Rail{{Name: "pkt-devnet", MaxCapacity: 100 * pktcloud.UnitsPerPKT}},
		Limits:    market.Limits{MaxCreditSeconds: 60, MinIntervalSeconds: 1},
	})
	if err != nil {
		log.Fatal(err)
	}
	need := market.Resources{MilliCPU: 500, MemoryBytes: 1 << 30}
	if err := offer.Verify(); err != nil {
		log.Fatal(err)
	}
	rate, err := market.Match(offer.Body, market.Request{Resources: need, MaxRate: pktcloud.UnitsPerPKT, Rail: "pkt-devnet", IntervalSeconds: 10})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("The offer is signed by its provider; half a core and 1 GiB cost %s an hour under it.\n", pktcloud.Amount(rate))
}
