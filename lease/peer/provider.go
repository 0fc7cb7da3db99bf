package peer

import (
	"context"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease/session"
)

// Provider runs the provider's side of leases. Its methods may be called from
// several goroutines at once.
type Provider struct{ cfg ProviderConfig }

// NewProvider loads the leases of the store. Nothing runs before Run.
func NewProvider(ctx context.Context, cfg ProviderConfig) (*Provider, error) {
	return &Provider{cfg: cfg}, nil
}

// Run serves the protocol and all leases until ctx ends. Workloads go on.
func (p *Provider) Run(ctx context.Context) error { return errTodo }

// Close ends a lease for the owner and returns once it is over.
func (p *Provider) Close(ctx context.Context, id pktcloud.ID) error { return errTodo }

// List returns all leases, oldest first.
func (p *Provider) List() []View { return nil }

// Lease returns one lease.
func (p *Provider) Lease(id pktcloud.ID) (View, bool) { return View{}, false }

// Subscribe is as [Tenant.Subscribe].
func (p *Provider) Subscribe() (<-chan pktcloud.ID, func()) { return nil, func() {} }

// Authorize implements session.Authorizer: the tenant's device may exec,
// forward and read logs while the lease is active, and read logs while it is
// suspended [SESSION-3].
func (p *Provider) Authorize(ctx context.Context, id pktcloud.ID, device pktcloud.PublicKey, c session.Command) error {
	return errTodo
}
