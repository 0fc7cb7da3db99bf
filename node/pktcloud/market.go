package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// resourceFlags are those that say how much of a machine.
type resourceFlags struct {
	cpu          cores
	memory, disk size
}

func (r *resourceFlags) add(f *pflag.FlagSet) {
	f.Var(&r.cpu, "cpu", "processor cores, such as 0.5")
	f.Var(&r.memory, "memory", "memory, such as 512MiB")
	f.Var(&r.disk, "disk", "disk, such as 10GiB")
}

func (r *resourceFlags) resources() service.Resources {
	return service.Resources{MilliCPU: uint64(r.cpu), MemoryBytes: uint64(r.memory), DiskBytes: uint64(r.disk)}
}

// usual is what "lease create" asks for and "market list" prices, unless told
// otherwise.
func usual() resourceFlags { return resourceFlags{cpu: 500, memory: 256 << 20, disk: 1 << 30} }

func (a *app) marketCommand() *cobra.Command {
	c := &cobra.Command{Use: "market", Short: "Look at the offers"}
	r := usual()
	var most money
	var query service.OfferQuery
	list := &cobra.Command{
		Use: "list", Short: "List offers that match, cheapest first", Args: cobra.NoArgs,
		Long: `List shows the offers that have the resources free, and what these would cost an
hour under each. The columns CORES, MEMORY and DISK are all that is free; NETWORK
is whether services may connect to the public internet, how many ports can be
published, and the bytes a second of a lease; VOLUMES whether leases may have disks
that outlive restarts of their programs.`,
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			query.Resources, query.MaxRate = r.resources(), pktcloud.Rate(most)
			page, err := n.Offers(c.Context(), query)
			if err != nil {
				return err
			}
			return a.show(page, func(w io.Writer) {
				printOffers(w, page.Offers, query.Resources)
				if len(page.Offers) == 0 && query.Cursor == "" {
					why := whyNone(c.Context(), n, page)
					a.printf("%s.\n", strings.ToUpper(why[:1])+why[1:])
				}
			})
		},
	}
	f := list.Flags()
	r.add(f)
	f.Var(&most, "max-price", "PKT per hour for these resources, at most")
	f.StringVar(&query.Region, "region", "", "ISO 3166 code; DE also finds DE-BE")
	f.StringVar(&query.Class, "class", "", "isolation that the offer must have: userns, or gvisor for a kernel of its own")
	f.BoolVar(&query.Network.Egress, "egress", false, "only where services may connect to the public internet")
	f.Uint64Var(&query.Network.Ports, "publish", 0, "only where so many ports can be published")
	f.Var((*size)(&query.Network.BytesPerSecond), "bandwidth", "only where a lease has so many bytes a second, such as 10MiB")
	f.BoolVar(&query.Volumes, "volumes", false, "only where leases may have volumes")
	f.IntVar(&query.Limit, "limit", 0, "offers to list (default 50)")
	f.StringVar(&query.Cursor, "cursor", "", "\"next\" of the page before")
	c.AddCommand(list)
	return c
}

// asker is what whyNone needs of a node.
type asker interface {
	Info(ctx context.Context) (service.Info, error)
}

// whyNone says why no offer of another provider matches, and what to do.
func whyNone(ctx context.Context, n asker, page service.OfferPage) string {
	if page.Lacks != nil && page.Lacks.Offers > 0 {
		return page.Lacks.String()
	}
	if info, err := n.Info(ctx); err == nil && info.Peers == 0 {
		return "this node is connected to no other: start it with --bootstrap and the address behind \"peers\" of a node that is in the market"
	}
	return market.Lacks{}.String()
}

func (a *app) offerCommand() *cobra.Command {
	c := &cobra.Command{Use: "offer", Short: "Offer this machine"}
	var r resourceFlags
	var cpu, memory, disk money
	var spec service.OfferSpec
	var free bool
	publish := &cobra.Command{
		Use: "publish", Short: "Sign an offer and tell the peers; it is renewed until it is replaced", Args: cobra.NoArgs,
		Long: `Publish signs an offer and tells the peers at once. State at least one price, or
--free; a price that is not stated gives that resource away. Of what --cpu,
--memory and --disk do not state, all cores but one, three quarters of the memory
and half of the free disk are offered.`,
		RunE: func(c *cobra.Command, _ []string) error {
			switch priced := cpu+memory+disk > 0; {
			case !priced && !free:
				return service.Errorf(service.CodeInvalid, "the offer has no price; give --cpu-price, --memory-price or --disk-price, or --free to give this machine away")
			case priced && free:
				return service.Errorf(service.CodeInvalid, "a price and --free exclude each other")
			}
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			spec.Capacity = r.resources()
			spec.CPUPerCoreHour, spec.MemoryPerGiBHour, spec.DiskPerGiBHour = pktcloud.Rate(cpu), pktcloud.Rate(memory), pktcloud.Rate(disk)
			offer, err := n.PublishOffer(c.Context(), spec)
			if err != nil {
				return err
			}
			priced := usual()
			shown := offer
			if shown.Rate, err = offer.Body.Rate(market.Resources(priced.resources())); err != nil {
				return err
			}
			return a.show(offer, func(w io.Writer) { printOffers(w, []service.Offer{shown}, priced.resources()) })
		},
	}
	f := publish.Flags()
	r.add(f)
	f.Var(&cpu, "cpu-price", "PKT per core and hour")
	f.Var(&memory, "memory-price", "PKT per GiB of memory and hour")
	f.Var(&disk, "disk-price", "PKT per GiB of disk and hour")
	f.BoolVar(&free, "free", false, "ask for no money")
	f.StringVar(&spec.Region, "region", "", "ISO 3166 code such as DE or DE-BE")
	f.Uint64Var(&spec.Slot, "slot", 0, "which of this node's 16 offers")
	f.Var((*period)(&spec.MinTermSeconds), "min-term", "shortest lease, such as 1h; or seconds")
	f.Var((*period)(&spec.MaxTermSeconds), "max-term", "longest lease (default 30d)")
	f.Var((*period)(&spec.LifetimeSeconds), "lifetime", "until it expires unless renewed (default 1h)")
	c.AddCommand(publish)
	return c
}
