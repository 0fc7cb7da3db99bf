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
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/compose"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

func (a *app) leaseCommand() *cobra.Command {
	c := &cobra.Command{Use: "lease", Short: "Rent containers, show, amend and end the lease"}
	c.AddCommand(a.leaseCreate(), a.leaseServices(), a.leaseMetrics(), a.leaseVolumes(), a.leaseAmend(),
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

func (a *app) leaseServices() *cobra.Command {
	return &cobra.Command{
		Use: "services LEASE", Short: "Show how a lease's services stand, by its provider's word", Args: exactly("LEASE"),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			list, err := n.LeaseServices(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) {
				printServices(w, list)
				if volumes, err := n.LeaseVolumes(c.Context(), args[0]); err == nil && len(volumes) > 0 {
					fmt.Fprintln(w)
					printVolumes(w, volumes)
				}
			})
		},
	}
}

func (a *app) leaseVolumes() *cobra.Command {
	return &cobra.Command{
		Use: "volumes LEASE", Short: "Show how large and how free a lease's volumes are, by its provider's word", Args: exactly("LEASE"),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			list, err := n.LeaseVolumes(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) { printVolumes(w, list) })
		},
	}
}

func (a *app) leaseOne(name, about string, do func(context.Context, *client.Client, string) (service.Lease, error)) *cobra.Command {
	var all bool
	c := &cobra.Command{
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
			err = a.show(lease, func(w io.Writer) { printLease(w, lease, all) })
			if err == nil && name == "close" && lease.Phase == "proposed" {
				fmt.Fprintf(a.err, "pktcloud: the lease is not over: %s\n", lease.Problem)
				err = exitCode(service.CodeUnreachable.Exit())
			}
			return err
		},
	}
	c.Flags().BoolVar(&all, "all", false, "show the whole history, not only its end")
	return c
}

func (a *app) leaseCreate() *cobra.Command {
	var offer string
	var resources resourceFlags
	var most, capacity money
	var r service.LeaseRequest
	var limits limitFlags
	var wait bool
	var file string
	var volumes []string // excludes file
	var private registryFlags
	c := &cobra.Command{
		Use: "create {--image REF | --file FILE} --max-price PKT [flags] [-- COMMAND...]", Short: "Agree a lease and start it",
		Long: `Create agrees a lease under an offer, by default the cheapest that matches, and
returns once the provider has acknowledged it, or with --wait once its services
run. No more than --max-price an hour is ever agreed to. An interrupt ends the
command, not the lease: "pktcloud lease list" shows it, "pktcloud lease close"
ends it.

One service is said by flags, several by a file: YAML or JSON, in which each has
an image, what it may use, what it waits for, how to look whether it is healthy
and when it is started again. docs/services.md shows one.`,
		RunE: func(c *cobra.Command, command []string) error {
			r.MaxRate, r.Capacity, r.Command = pktcloud.Rate(most), pktcloud.Amount(capacity), command
			if err := cmp.Or(whatRuns(&r, file, resources.resources()), addVolumes(&r, volumes)); err != nil {
				return err
			}
			need, err := needs(r)
			if err != nil {
				return err
			}
			if r.Credentials, err = private.read(a); err != nil {
				return err
			}
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			if r.Offer, err = chooseOffer(c.Context(), n, offer, need); err != nil {
				return err
			}
			if r.Limits, err = limits.of(c.Context(), n, c.Flags(), r); err != nil {
				return err
			}
			if r.Resources = resources.resources(); file != "" { // the offer was chosen by the sum
				r.Resources = service.Resources{}
			}
			lease, err := n.CreateLease(c.Context(), r)
			if errors.Is(err, context.Canceled) {
				return fmt.Errorf("%w; %q shows whether the lease was begun: then it goes on without this command", errInterrupted, a.command("lease list"))
			}
			if err != nil {
				return err
			}
			return a.created(c.Context(), n, lease, wait, capacity > 0)
		},
	}
	resources = usual()
	f := c.Flags()
	resources.add(f)
	f.StringVar(&offer, "offer", "", "id of the offer (default the cheapest that matches)")
	f.StringVarP(&file, "file", "f", "", "services of the lease, YAML or JSON")
	f.StringVar(&r.Class, "class", "", "isolation to demand: userns, or gvisor for a kernel of its own (default what\nthe file demands, or the provider does by itself)")
	serviceFlags(f, &r)
	f.StringArrayVar(&volumes, "volume", nil, "NAME:PATH:SIZE, such as data:/var/lib/db:2GiB: a disk beside --disk that outlives\nrestarts of the program, and ends with the lease")
	private.add(c)
	f.Var(&most, "max-price", "PKT per hour that are not to be exceeded")
	f.Var(&capacity, "capacity", "PKT to lock (default what the term costs)")
	f.BoolVar(&r.OwnChannel, "own-channel", false, "open a channel for this lease, also where the one that pays another lease\nwith this provider has room: else that one pays both")
	f.Var((*period)(&r.TermSeconds), "term", "how long at most, such as 10m, 2h or 30d; or seconds (default 1h)")
	f.Var((*period)(&r.IntervalSeconds), "interval", "time between payments (default 5s)")
	f.BoolVar(&wait, "wait", false, "return once all services run, those with a health check are healthy, and jobs run or\nare done; end with 9 when that does not come about")
	limits.add(f)
	if err := c.MarkFlagRequired("max-price"); err != nil {
		panic(err) // a flag of this command
	}
	excludeFile(c)
	return c
}

// created shows a lease that was agreed, with wait once its service runs.
func (a *app) created(ctx context.Context, n *client.Client, lease service.Lease, wait, warn bool) (err error) {
	if wait {
		if lease, err = a.awaitService(ctx, n, lease); err != nil {
			return err
		}
	}
	if warn {
		a.warnShort(lease)
	}
	return a.showCreated(lease)
}

// excludeFile wants a file, or an image and what else says one service.
func excludeFile(c *cobra.Command) {
	c.MarkFlagsOneRequired("image", "file")
	for _, one := range oneService {
		c.MarkFlagsMutuallyExclusive("file", one)
	}
}

// oneService are the flags that say what one service is; a file says it of several.
var oneService = []string{"image", "port", "env", "cpu", "memory", "disk", "restart", "egress", "publish", "bandwidth", "volume"}

// serviceFlags say what one service is, and has of the world outside.
func serviceFlags(f *pflag.FlagSet, r *service.LeaseRequest) {
	f.StringVar(&r.Image, "image", "", "OCI image reference")
	f.StringVar(&r.Restart, "restart", "", "when the program is started again: no, on-failure or always (default no: the lease ends with it)")
	f.Uint16Var(&r.Port, "port", 0, "TCP port that the service listens on, over HTTP")
	f.StringArrayVar(&r.Env, "env", nil, "NAME=value")
	f.StringArrayVar(&r.Egress, "egress", nil, "where the service may connect outside: public, or a place such as example.org:443,\n*.example.org:443, 192.0.2.0/24:* (repeat for several; default nowhere)")
	f.StringArrayVar(&r.Publish, "publish", nil, "port of the service to be reached from outside, such as 8080 or 53/udp; the provider\nchooses the address, \"lease services\" shows it")
	f.Var((*size)(&r.Bandwidth), "bandwidth", "bytes a second that the service may send, and receive, such as 2MiB (default as the provider has it)")
}

// registryFlags say how the provider gets at private images.
type registryFlags struct{ registry, user, file string }

func (r *registryFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&r.registry, "registry", "", "registry of private images (default the one from which all come)")
	f.StringVar(&r.user, "registry-user", "", "user at that registry")
	f.StringVar(&r.file, "registry-password-file", "", "password or token there, the first line of this file, or with - of standard input;\nthe provider gets it, and keeps it until the lease is over")
	c.MarkFlagsRequiredTogether("registry-user", "registry-password-file")
}

func (r *registryFlags) read(a *app) ([]service.RegistryCredential, error) {
	if r.file == "" && r.registry == "" {
		return nil, nil
	}
	if r.file == "" {
		return nil, service.Errorf(service.CodeInvalid, "--registry needs --registry-user and --registry-password-file")
	}
	password, err := "", error(nil)
	if r.file == "-" {
		password, err = firstLine(a.in)
	} else {
		password, err = a.readSecret("--registry-password-file", r.file)
	}
	if err == nil && password == "" {
		err = service.Errorf(service.CodeInvalid, "the password of --registry-password-file is empty")
	}
	return []service.RegistryCredential{{Registry: r.registry, Username: r.user, Password: password}}, err
}

// whatRuns fills in what a request wants to run, and its resources.
func whatRuns(r *service.LeaseRequest, file string, given service.Resources) error {
	r.Resources = given
	if file == "" {
		return nil
	}
	if len(r.Command) != 0 {
		return service.Errorf(service.CodeInvalid, "a command and --file exclude each other; the file has the commands of its services")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return &service.Error{Code: service.CodeInvalid, Detail: "--file", Err: err}
	}
	m, err := manifest.Read(data)
	if err != nil && compose.Detect(data) == compose.Compose {
		return service.Errorf(service.CodeInvalid, "%v\n%s is a file of Compose; \"pktcloud deploy %[2]s\" takes it, see docs/compose.md", wrongFile(file, err), file)
	}
	if err != nil {
		return wrongFile(file, err)
	}
	r.Manifest, r.Resources = &m, service.Resources(m.Resources())
	r.Class = cmp.Or(r.Class, m.Isolation())
	return nil
}

// wrongFile says what is wrong with a file of services, and at which line.
func wrongFile(file string, err error) error {
	if at, ok := errors.AsType[*manifest.LineError](err); ok {
		file, err = fmt.Sprintf("%s: line %d", file, at.Line), at.Err
	}
	return service.Errorf(service.CodeInvalid, "%s: %s", file, lease.Plainly(err))
}

// addVolumes reads the volumes of the flags. Their bytes count when an offer is
// chosen; of a request the disk is without them.
func addVolumes(r *service.LeaseRequest, volumes []string) error {
	for _, text := range volumes {
		v, m, err := manifest.ReadVolume(text)
		if err != nil {
			return service.Errorf(service.CodeInvalid, "--volume: %s", lease.Plainly(err))
		}
		if r.Resources.DiskBytes+v.SizeBytes < v.SizeBytes {
			return service.Errorf(service.CodeInvalid, "--volume %.80q: too large", text)
		}
		r.Resources.DiskBytes += v.SizeBytes
		r.Volumes = append(r.Volumes, service.VolumeRequest{Name: v.Name, Path: m.Path, Size: v.SizeBytes})
	}
	return nil
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
		printLease(w, l, false)
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

// needs is what a request asks of an offer.
func needs(r service.LeaseRequest) (service.OfferQuery, error) {
	q := service.OfferQuery{Resources: r.Resources, MaxRate: r.MaxRate, Class: r.Class}
	if r.Manifest == nil {
		m, err := node.Manifest(r)
		q.Network, q.Volumes = m.Network(), len(m.Volumes) > 0
		return q, err
	}
	q.Network, q.Volumes = r.Manifest.Network(), len(r.Manifest.Volumes) > 0
	return q, nil
}

func chooseOffer(ctx context.Context, n *client.Client, name string, need service.OfferQuery) (pktcloud.ID, error) {
	if name != "" {
		id, err := pktcloud.ParseID(name)
		if err != nil {
			return id, &service.Error{Code: service.CodeInvalid, Detail: "--offer", Err: err}
		}
		return id, nil
	}
	page, err := n.Offers(ctx, need)
	if err != nil {
		return pktcloud.ID{}, err
	}
	if others := page.OffersOfOthers(); len(others) > 0 {
		return others[0].ID, nil
	}
	return pktcloud.ID{}, service.Errorf(service.CodeNotFound, "no offer matches: %s; see \"pktcloud market list\"", whyNone(ctx, n, page))
}
