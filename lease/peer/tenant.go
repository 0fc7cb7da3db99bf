package peer

import (
	"context"
	"errors"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

var errTodo = errors.New("not written yet")

// Tenant runs the tenant's side of leases. Its methods may be called from
// several goroutines at once.
type Tenant struct{ cfg TenantConfig }

// NewTenant loads the leases of the store. Nothing runs before Run.
func NewTenant(ctx context.Context, cfg TenantConfig) (*Tenant, error) { return &Tenant{cfg: cfg}, nil }

// Run follows all leases until ctx ends.
func (t *Tenant) Run(ctx context.Context) error { return errTodo }

// Create agrees a lease: it returns once the provider has acknowledged it.
func (t *Tenant) Create(ctx context.Context, r Request) (pktcloud.ID, error) {
	return pktcloud.ID{}, errTodo
}

// WaitActive returns once the provider has stated that the workload runs.
func (t *Tenant) WaitActive(ctx context.Context, id pktcloud.ID) error { return errTodo }

// Close ends a lease and returns once it is over.
func (t *Tenant) Close(ctx context.Context, id pktcloud.ID) error { return errTodo }

// List returns all leases, oldest first.
func (t *Tenant) List() []View { return nil }

// Lease returns one lease.
func (t *Tenant) Lease(id pktcloud.ID) (View, bool) { return View{}, false }

// Subscribe returns a channel that receives the id of each lease that changed,
// and a function that ends it. A slow reader misses ids, not the last one.
func (t *Tenant) Subscribe() (<-chan pktcloud.ID, func()) { return nil, func() {} }
