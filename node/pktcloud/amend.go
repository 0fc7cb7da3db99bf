package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// amendFlags say what shall change of a lease.
type amendFlags struct {
	resources       resourceFlags
	service, offer  string
	volumes         []string
	term            period
	credit, prepaid period
	most            money
}

func (a *app) leaseAmend() *cobra.Command {
	var flags amendFlags
	var plan, yes bool
	c := &cobra.Command{
		Use: "amend LEASE [flags]", Short: "Change a lease while it runs: its size, price, limits or term", Args: exactly("LEASE"),
		Long: `Amend changes a lease that runs, by an amendment that both sides sign. Nothing is
started again: programs get more or less processor time and memory, disks and
volumes grow. It says what that costs, asks, and asks the provider; without a
terminal it goes on only with --yes. Where the provider or its machine refuses,
everything is as it was. The new price counts from the second at which it is done.

The price follows from the lease's own offer, or with --offer from another one of the
same provider. Limits stay as many seconds of price as they are. A channel that has
too little for the rest of the term takes more with "pktcloud channel roll".`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := flags.request(c.Flags())
			if err != nil {
				return err
			}
			return a.withNode(c, func(ctx context.Context, n *client.Client) error { return a.amend(ctx, n, args[0], r, plan, yes) })
		},
	}
	f := c.Flags()
	flags.resources.add(f)
	f.StringVar(&flags.service, "service", "", "service to which --cpu, --memory and --disk go (default the only one)")
	f.StringArrayVar(&flags.volumes, "volume", nil, "NAME=SIZE, such as data=2GiB: a volume, larger than it is")
	f.Var(&flags.term, "term", "how long in all, from the start of the lease, such as 2h or 30d")
	f.Var(&flags.credit, "credit", "the price of how long the provider may be owed")
	f.Var(&flags.prepaid, "prepaid", "the price of how long may be paid ahead")
	f.StringVar(&flags.offer, "offer", "", "id of another offer of the same provider, for its prices")
	f.Var(&flags.most, "max-price", "PKT per hour that are not to be exceeded (default what is shown and agreed to)")
	f.BoolVar(&plan, "plan", false, "only say what it would cost; the provider is not asked")
	f.BoolVar(&yes, "yes", false, "do not ask; needs --max-price")
	return c
}

func (a *amendFlags) request(f *pflag.FlagSet) (service.AmendRequest, error) {
	r := service.AmendRequest{Term: uint64(a.term), MaxRate: pktcloud.Rate(a.most)}
	if a.service == "" {
		r.Resources = a.resources.resources()
	} else {
		r.Services = map[string]service.Resources{a.service: a.resources.resources()}
	}
	for _, text := range a.volumes {
		name, bytes, ok := strings.Cut(text, "=")
		var n size
		if !ok || name == "" || n.Set(bytes) != nil {
			return r, service.Errorf(service.CodeInvalid, "--volume %.80q: want NAME=SIZE, such as data=2GiB", text)
		}
		if r.Volumes == nil {
			r.Volumes = map[string]uint64{}
		}
		r.Volumes[name] = uint64(n)
	}
	for _, limit := range []struct {
		name string
		from *period
		to   **uint64
	}{{"credit", &a.credit, &r.Credit}, {"prepaid", &a.prepaid, &r.Prepaid}} {
		if f.Changed(limit.name) {
			*limit.to = (*uint64)(limit.from)
		}
	}
	if a.offer != "" {
		id, err := pktcloud.ParseID(a.offer)
		if err != nil {
			return r, &service.Error{Code: service.CodeInvalid, Detail: "--offer", Err: err}
		}
		r.Offer = &id
	}
	return r, nil
}

func (a *app) amend(ctx context.Context, n *client.Client, name string, r service.AmendRequest, plan, yes bool) error {
	if yes && r.MaxRate == 0 && !plan {
		return service.Errorf(service.CodeInvalid, "with --yes state the most that the lease may cost an hour, with --max-price")
	}
	r.Plan = true
	p, err := n.AmendLease(ctx, name, r)
	if err != nil {
		return err
	}
	if plan {
		return a.show(p, func(w io.Writer) { printAmendment(w, p) })
	}
	if !yes {
		printAmendment(a.err, p)
		if err := a.confirm("Change the lease so? [y/N] "); err != nil {
			return err
		}
	}
	if r.Plan = false; r.MaxRate == 0 {
		r.MaxRate = p.After.Rate // what was agreed to
	}
	done, err := n.AmendLease(ctx, name, r)
	if err != nil {
		return err
	}
	err = a.show(done, func(w io.Writer) { printAmendment(w, done) })
	if err == nil && done.Pending {
		fmt.Fprintf(a.err, "pktcloud: the provider has not answered; the node goes on asking, see %q\n", a.command("lease show", done.Lease))
		err = exitCode(service.CodeUnreachable.Exit())
	}
	return err
}

// printAmendment shows what changes, old and new.
func printAmendment(w io.Writer, m service.Amendment) {
	t := newTable(w)
	changed := func(name, before, after string) {
		if before != after {
			after = before + " -> " + after
		}
		t.row(name, after)
	}
	b, x := m.Before, m.After
	t.row("lease", m.Lease)
	changed("price an hour", pktcloud.Amount(b.Rate).String(), pktcloud.Amount(x.Rate).String())
	changed("resources", resourceText(b.Resources), resourceText(x.Resources))
	changed("term", (time.Duration(b.Term) * time.Second).String(), (time.Duration(x.Term) * time.Second).String())
	changed("credit", b.Credit.String(), x.Credit.String())
	changed("prepaid at most", b.Prepaid.String(), x.Prepaid.String())
	t.end()
}
