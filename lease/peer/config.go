package peer

import (
	"context"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
)

// ProtocolID names the lease protocol on libp2p.
const ProtocolID protocol.ID = "/pktcloud/lease/1"

// Defaults of a provider.
const (
	DefaultMaxLeases    = 64
	DefaultQuoteSeconds = 120
)

// DefaultPatience is that of a tenant's config without one.
const DefaultPatience = 20 * time.Second

// ProviderConfig is what a [Provider] works with. Host, Device, Account, Store,
// Payee, Workload and Offer are required.
type ProviderConfig struct {
	// Host serves [ProtocolID]. The caller owns it.
	Host host.Host
	// Device signs. It is the key of Host.
	Device pktcloud.PrivateKey
	// Account is the encoded account record that lists Device.
	Account  []byte
	Store    Store
	Payee    Payee
	Workload Workload
	// Offer returns an own offer by its id, and whether it is still open.
	Offer func(id pktcloud.ID) (pktcloud.Signed[market.Offer], bool)
	// Admit lets the owner refuse: no room, an image that is not welcome. It is
	// asked at the proposal and again at the commit, and may be called from
	// several goroutines. Nil admits what the offer does.
	// The credentials are for this look at the manifest's images.
	Admit func(ctx context.Context, t lease.Terms, m lease.Manifest, c lease.Credentials) error
	// AdmitAmendment lets the owner refuse an amendment of a lease: it gets the
	// offer that makes the price, and the terms and the manifest as they would
	// stand. Nil admits what the offer does. Of several amendments and commits,
	// one is asked about at a time.
	AdmitAmendment func(ctx context.Context, id pktcloud.ID, o market.Offer, t lease.Terms, m lease.Manifest) error
	// MaxLeases bounds the leases that are not yet over; zero means DefaultMaxLeases.
	MaxLeases int
	// QuoteSeconds is how long a quote stands; zero means DefaultQuoteSeconds.
	QuoteSeconds int64
	Clock        Clock        // nil: SystemClock
	Log          *slog.Logger // nil: none
}

// TenantConfig is what a [Tenant] works with. Host, Device, Account, Store and
// Payer are required.
type TenantConfig struct {
	Host    host.Host // the caller owns it
	Device  pktcloud.PrivateKey
	Account []byte
	Store   Store
	Payer   Payer
	Prober  Prober // nil: SessionProber
	// Patience is how long Create waits for an answer to the commit; zero means
	// DefaultPatience.
	Patience time.Duration
	Clock    Clock        // nil: SystemClock
	Log      *slog.Logger // nil: none
}
