package node

import (
	"context"

	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// Info tells about the node itself.
func (n *Node) Info(ctx context.Context) (service.Info, error) {
	i := service.Info{
		Version: Version(), Identity: n.identity.Public(), Device: n.device.Public(), PeerID: n.device.Public().PeerID(),
		Addresses: n.announced(), Peers: len(n.host.Network().Peers()), Network: n.network.Rail, Provider: n.provider != nil, Pages: n.cfg.Pages,
	}
	tip, err := n.ledger.Tip(ctx)
	if err != nil {
		i.Problem = "The chain cannot be reached; leases go on, payments are limited until it is back: " + err.Error()
	}
	i.Height = tip.Height
	if told := n.chainProblem(tip); err == nil && told != "" {
		i.Problem = told
	}
	return i, nil
}

// Doctor says what this machine lacks.
func (n *Node) Doctor(ctx context.Context) (service.Report, error) {
	r := Examine()
	c := service.Check{Name: "chain", Needed: "tenant", OK: true, Detail: "a node of " + n.network.Rail + " answers at " + n.chainNames()}
	tip, err := n.ledger.Tip(ctx)
	if told := n.chainProblem(tip); told != "" {
		c.Detail += ". " + told
	}
	if err != nil {
		c.OK, c.Detail = false, err.Error()
		c.Remedy = "start the chain's node, or name it with --chain; for the devnet run \"pktcloud devnet\""
		r.OK = false
	}
	r.Checks = append(r.Checks, c)
	if n.cfg.LeaseNetwork.Kernel && n.cfg.Provider && n.cfg.Runtime == nil {
		c := checkLeaseNetwork(libcontainer.CheckNetwork(n.cfg.LeaseNetwork.config()))
		r.Checks, r.Provider = append(r.Checks, c), r.Provider && c.OK
	}
	return r, nil
}

// checkLeaseNetwork says whether leases can have the kernel's network, which the
// owner has asked for.
func checkLeaseNetwork(err error) service.Check {
	c := service.Check{Name: "lease network", Needed: "provider", OK: err == nil, Detail: "the kernel forwards for leases"}
	if err != nil {
		c.Detail, c.Remedy = err.Error(), "until then new leases with a network cannot start; or run the node without --lease-network kernel"
	}
	return c
}
