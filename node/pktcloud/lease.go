package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

func (a *app) leaseCommand() *cobra.Command {
	c := &cobra.Command{Use: "lease", Short: "Rent a container, show it, end it"}
	c.AddCommand(a.leaseCreate(),
		a.leaseOne("show", "Show a lease", func(ctx context.Context, n *client.Client, name string) (service.Lease, error) {
			return n.Lease(ctx, name)
		}),
		a.leaseOne("close", "End a lease; what is served is paid, the rest comes back", func(ctx context.Context, n *client.Client, name string) (service.Lease, error) {
			return n.CloseLease(ctx, name)
		}),
		&cobra.Command{
			Use: "list", Short: "List all leases, newest first", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				n, err := a.node()
				if err != nil {
					return err
				}
				defer n.Close()
				leases, err := n.Leases(c.Context())
				if err != nil {
					return err
				}
				return a.show(leases, func(w io.Writer) { printLeases(w, leases) })
			},
		})
	return c
}

func (a *app) leaseOne(name, about string, do func(context.Context, *client.Client, string) (service.Lease, error)) *cobra.Command {
	return &cobra.Command{
		Use: name + " LEASE", Short: about, Args: exactly("LEASE"),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			lease, err := do(c.Context(), n, args[0])
			if err != nil {
				return err
			}
			return a.show(lease, func(w io.Writer) { printLease(w, lease) })
		},
	}
}

func (a *app) leaseCreate() *cobra.Command {
	var offer string
	var resources resourceFlags
	var most, capacity money
	var r service.LeaseRequest
	var limits limitFlags
	c := &cobra.Command{
		Use: "create --image REF --max-price PKT [flags] [-- COMMAND...]", Short: "Agree a lease and start it",
		Long: `Create agrees a lease under an offer, by default the cheapest that matches, and
returns once the provider has acknowledged it. No more than --max-price an hour
is ever agreed to.`,
		RunE: func(c *cobra.Command, command []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			r.Resources, r.MaxRate, r.Capacity, r.Command = resources.resources(), pktcloud.Rate(most), pktcloud.Amount(capacity), command
			if r.Offer, err = chooseOffer(c.Context(), n, offer, r); err != nil {
				return err
			}
			if r.Limits, err = limits.of(c.Context(), n, c.Flags(), r); err != nil {
				return err
			}
			lease, err := n.CreateLease(c.Context(), r)
			if err != nil {
				return err
			}
			return a.show(lease, func(w io.Writer) { printLease(w, lease) })
		},
	}
	resources = usual()
	f := c.Flags()
	resources.add(f)
	f.StringVar(&offer, "offer", "", "id of the offer (default the cheapest that matches)")
	f.StringVar(&r.Image, "image", "", "OCI image reference")
	f.Uint16Var(&r.Port, "port", 0, "TCP port that the service listens on, over HTTP")
	f.StringArrayVar(&r.Env, "env", nil, "NAME=value")
	f.Var(&most, "max-price", "PKT per hour that are not to be exceeded")
	f.Var(&capacity, "capacity", "PKT to lock (default what the term costs)")
	f.Uint64Var(&r.TermSeconds, "term", 0, "seconds (default an hour)")
	f.Uint64Var(&r.IntervalSeconds, "interval", 0, "seconds between payments (default 5)")
	limits.add(f)
	for _, name := range []string{"image", "max-price"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // a flag of this command
		}
	}
	return c
}

// limitFlags are those that say how much may be at risk.
type limitFlags struct{ credit, prepaid, unconfirmed uint64 }

func (l *limitFlags) add(f *pflag.FlagSet) {
	f.Uint64Var(&l.credit, "credit", 0, "seconds of price that the provider may be owed (default 10, or two intervals)")
	f.Uint64Var(&l.prepaid, "prepaid", 0, "seconds of price that may be paid ahead (default what --credit lacks to one interval)")
	f.Uint64Var(&l.unconfirmed, "unconfirmed", 0, "seconds of price that may be paid on unconfirmed funding (default 900, or the term)")
}

// of returns the limits when one was given, each of the others at its default.
func (l *limitFlags) of(ctx context.Context, n *client.Client, f *pflag.FlagSet, r service.LeaseRequest) (*service.ExposureRequest, error) {
	given := func(name string, v *uint64) *uint64 {
		if f.Changed(name) {
			return v
		}
		return nil
	}
	g := node.GivenExposure{Credit: given("credit", &l.credit), Prepaid: given("prepaid", &l.prepaid), Unconfirmed: given("unconfirmed", &l.unconfirmed)}
	if g == (node.GivenExposure{}) {
		return nil, nil // the node has the defaults
	}
	offer, err := n.Offer(ctx, r.Offer, r.Resources)
	if err != nil {
		return nil, err
	}
	limits := node.Exposure(offer.Body, r, g)
	return &limits, nil
}

func chooseOffer(ctx context.Context, n *client.Client, name string, r service.LeaseRequest) (pktcloud.ID, error) {
	if name != "" {
		id, err := pktcloud.ParseID(name)
		if err != nil {
			return id, &service.Error{Code: service.CodeInvalid, Detail: "--offer", Err: err}
		}
		return id, nil
	}
	page, err := n.Offers(ctx, service.OfferQuery{Resources: r.Resources, MaxRate: r.MaxRate})
	if err != nil {
		return pktcloud.ID{}, err
	}
	for _, o := range page.Offers {
		if !o.Own {
			return o.ID, nil
		}
	}
	return pktcloud.ID{}, service.Errorf(service.CodeNotFound, "no offer has these resources at %s an hour or less; see \"pktcloud market list\"", pktcloud.Amount(r.MaxRate))
}
