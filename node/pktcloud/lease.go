package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

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
			if args[0] == "" {
				return service.Errorf(service.CodeInvalid, "the lease's name is empty; \"pktcloud lease list\" has the names")
			}
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
	var wait bool
	c := &cobra.Command{
		Use: "create --image REF --max-price PKT [flags] [-- COMMAND...]", Short: "Agree a lease and start it",
		Long: `Create agrees a lease under an offer, by default the cheapest that matches, and
returns once the provider has acknowledged it, or with --wait once its service
runs. No more than --max-price an hour is ever agreed to. An interrupt ends the
command, not the lease: "pktcloud lease list" shows it, "pktcloud lease close"
ends it.`,
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
			if errors.Is(err, context.Canceled) {
				return fmt.Errorf("%w; %q shows whether the lease was begun: then it goes on without this command", errInterrupted, a.command("lease list"))
			}
			if err != nil {
				return err
			}
			if wait {
				if lease, err = a.awaitService(c.Context(), n, lease); err != nil {
					return err
				}
			}
			if capacity > 0 {
				a.warnShort(lease)
			}
			return a.showCreated(lease)
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
	f.BoolVar(&r.OwnChannel, "own-channel", false, "open a channel for this lease, also where the one that pays another lease\nwith this provider has room: else that one pays both")
	f.Var((*period)(&r.TermSeconds), "term", "how long at most, such as 10m, 2h or 30d; or seconds (default 1h)")
	f.Var((*period)(&r.IntervalSeconds), "interval", "time between payments (default 5s)")
	f.BoolVar(&wait, "wait", false, "return once the service runs; end with 9 when it never will")
	limits.add(f)
	for _, name := range []string{"image", "max-price"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // a flag of this command
		}
	}
	return c
}

// awaiter is what awaitService needs of a node.
type awaiter interface {
	AwaitLease(ctx context.Context, name string, most time.Duration) (service.Lease, error)
}

// awaitService waits until a lease's service runs.
func (a *app) awaitService(ctx context.Context, n awaiter, l service.Lease) (service.Lease, error) {
	for said := ""; l.Pending(); {
		if status := cmp.Or(l.Problem, "The lease is "+l.Phase+"."); status != said && isTerminal(a.err) {
			fmt.Fprintf(a.err, "%s: %s\n", l.Label, status)
			said = status
		}
		next, err := n.AwaitLease(ctx, l.ID.String(), 5*time.Second)
		if errors.Is(err, context.Canceled) {
			return l, fmt.Errorf("%w; the lease goes on: see %q, or end it with %q", errInterrupted, a.command("lease show", l.Label), a.command("lease close", l.Label))
		}
		if err != nil {
			return l, err
		}
		l = next
	}
	switch l.Phase {
	case "active", "suspended":
		return l, nil
	case "refused":
		return l, service.Errorf(service.CodeRefused, "the provider refused the lease: %s", l.Problem)
	}
	why := cmp.Or(l.Problem, "The reason is: "+l.CloseReason+".")
	return l, service.Errorf(service.CodeWorkload, "lease %s ended before its service ran. %s", l.Label, why)
}

// warnShort says that what was set aside does not last for the term.
func (a *app) warnShort(l service.Lease) {
	if l.Rate == 0 || l.Channel.Capacity == 0 {
		return
	}
	usable := l.Channel.Capacity.SubFloor(l.Channel.Reserve)
	hours := float64(usable) / float64(l.Rate)
	if seconds := uint64(hours * 3600); seconds < l.Term {
		fmt.Fprintf(a.err, "pktcloud: %s pay for %s of %s; the lease ends then\n", l.Channel.Capacity,
			time.Duration(seconds)*time.Second, time.Duration(l.Term)*time.Second)
	}
}

// showCreated shows a new lease and what to do next. One that the provider has
// not acknowledged ends the command with the code for what cannot be reached.
func (a *app) showCreated(l service.Lease) error {
	err := a.show(l, func(w io.Writer) {
		printLease(w, l)
		if l.Pending() {
			fmt.Fprintf(w, "\nThe service does not run yet. Next: %s\n", a.command("lease show", l.Label))
		}
	})
	if err == nil && l.Phase == "proposed" {
		fmt.Fprintf(a.err, "pktcloud: the provider has not answered; the node goes on asking, see %q\n", a.command("lease show", l.Label))
		err = exitCode(service.CodeUnreachable.Exit())
	}
	return err
}

// command is a command line for the node that this one asked.
func (a *app) command(name string, args ...string) string {
	line := "pktcloud " + name
	if a.dir != node.DefaultDir() {
		line += " --dir " + a.dir
	}
	return strings.Join(append([]string{line}, args...), " ")
}

// isTerminal reports whether somebody watches.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// limitFlags are those that say how much may be at risk.
type limitFlags struct{ credit, prepaid, unconfirmed uint64 }

func (l *limitFlags) add(f *pflag.FlagSet) {
	f.Var((*period)(&l.credit), "credit", "the price of how long the provider may be owed (default 10s, or two intervals)")
	f.Var((*period)(&l.prepaid), "prepaid", "the price of how long may be paid ahead (default what --credit lacks to one interval)")
	f.Var((*period)(&l.unconfirmed), "unconfirmed", "the price of how long may be paid on unconfirmed funding (default 15m, or the term)")
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
	if page, err := n.Offers(ctx, service.OfferQuery{Resources: r.Resources}); err == nil {
		for _, o := range page.Offers {
			if !o.Own {
				return pktcloud.ID{}, service.Errorf(service.CodeNotFound, "no offer has these resources at %s an hour or less, the cheapest costs %s; raise --max-price, or ask for less; see \"pktcloud market list\"",
					pktcloud.Amount(r.MaxRate), pktcloud.Amount(o.Rate))
			}
		}
	}
	return pktcloud.ID{}, service.Errorf(service.CodeNotFound, "no offer has these resources (%s) free; see \"pktcloud market list\"", resourceText(r.Resources))
}
