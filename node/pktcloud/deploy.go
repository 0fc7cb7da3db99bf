package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/compose"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// reachPatience is how long deploy waits, once the lease runs, until the provider
// says where its ports are.
const reachPatience = time.Minute

// deployment is what deploy was asked for, and what became of it.
type deployment struct {
	service.Conversion
	Offer *pktcloud.ID  `json:"offer,omitempty"`
	Rate  pktcloud.Rate `json:"rate,omitempty"` // of all, an hour

	Lease    *service.Lease     `json:"lease,omitempty"`
	Standing []service.Standing `json:"services,omitempty"`
}

// fileFlags say what a file is given from outside.
type fileFlags struct {
	variables             string
	set, profiles, egress []string
}

func (f *fileFlags) add(g *pflag.FlagSet) {
	g.StringVar(&f.variables, "variables", "", "file of NAME=VALUE for the ${NAME} of a file of Compose, such as .env; nothing of this\nmachine's environment is taken")
	g.StringArrayVar(&f.set, "set", nil, "NAME=VALUE, over that of --variables (repeat for several)")
	g.StringArrayVar(&f.profiles, "profile", nil, "profile of Compose whose services run, too (repeat for several)")
	g.StringArrayVar(&f.egress, "egress", nil, "where services of a file of Compose connect outside that do not say: public, or a place\nsuch as example.org:443 (repeat for several; default nowhere)")
}

// read reads a file of services of either form, "-" for standard input.
func (f *fileFlags) read(a *app, file string) (c service.Conversion, err error) {
	r := service.ConversionRequest{Profiles: f.profiles, Egress: f.egress}
	if r.Variables, err = f.values(); err != nil {
		return c, err
	}
	data, err := readUpTo(a.in, file, manifest.MaxFileBytes)
	if err != nil {
		return c, err
	}
	r.File = string(data)
	if c, err = service.Convert(r); err != nil {
		return c, service.Errorf(service.CodeInvalid, "%s: %s", file, strings.ReplaceAll(err.Error(), "\n", "\n"+file+": "))
	}
	return c, nil
}

func (f *fileFlags) values() (map[string]string, error) {
	values := map[string]string{}
	if f.variables != "" {
		data, err := readUpTo(nil, f.variables, compose.MaxVariablesBytes)
		if err != nil {
			return nil, err
		}
		if values, err = compose.ReadVariables(data); err != nil {
			return nil, wrongFile(f.variables, err)
		}
	}
	for _, text := range f.set {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, service.Errorf(service.CodeInvalid, "--set %.40q is not NAME=VALUE", name)
		}
		values[name] = value
	}
	return values, nil
}

// readUpTo reads a file that is not larger than it may be.
func readUpTo(in io.Reader, file string, most int64) ([]byte, error) {
	if file != "-" || in == nil {
		opened, err := os.Open(file)
		if err != nil {
			return nil, &service.Error{Code: service.CodeInvalid, Err: err}
		}
		defer opened.Close()
		in = opened
	}
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, &service.Error{Code: service.CodeInvalid, Err: err}
	}
	if int64(len(data)) > most {
		return nil, service.Errorf(service.CodeInvalid, "%s has more than %d KiB", file, most>>10)
	}
	return data, nil
}

func (a *app) deployCommand() *cobra.Command {
	var file fileFlags
	var d deploying
	c := &cobra.Command{
		Use: "deploy FILE [--max-price PKT] [flags]", Short: "Rent what a compose.yaml, or a file of services, says", Args: exactly("FILE"),
		Long: `Deploy reads a file of Compose, or of this project's own form, told apart by their
words; FILE is "-" for standard input. It says what services it has, what of the
file means here something else, and what they cost, asks, agrees a lease under the
cheapest offer that matches, waits until it runs, and says where its ports are
reached. Nothing is agreed before you say so; without a terminal it goes on only
with --yes, which needs --max-price. docs/compose.md has all keys of Compose,
"pktcloud schema" the own form.`,
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if d.Conversion, err = file.read(a, args[0]); err != nil {
				return err
			}
			return a.deploy(c.Context(), c.Flags(), &d)
		},
	}
	g := c.Flags()
	file.add(g)
	d.private.add(c)
	g.StringVar(&d.offer, "offer", "", "id of the offer (default the cheapest that matches)")
	g.StringVar(&d.request.Class, "class", "", "isolation to demand: userns, or gvisor (default what the file demands)")
	g.Var(&d.most, "max-price", "PKT per hour that are not to be exceeded (default what is shown, once you agree to it)")
	g.Var(&d.capacity, "capacity", "PKT to lock (default what the term costs)")
	g.BoolVar(&d.request.OwnChannel, "own-channel", false, "open a channel for this lease, also where another one has room")
	g.Var((*period)(&d.request.TermSeconds), "term", "how long at most, such as 10m, 2h or 30d; or seconds (default 1h)")
	g.Var((*period)(&d.request.IntervalSeconds), "interval", "time between payments (default 5s)")
	d.limits.add(g)
	g.BoolVar(&d.yes, "yes", false, "do not ask")
	g.BoolVar(&d.dry, "dry-run", false, "only say what it would be, and cost")
	g.BoolVar(&d.detach, "detach", false, "return once the lease is agreed")
	c.MarkFlagsMutuallyExclusive("dry-run", "yes")
	return c
}

// deploying is one run of deploy.
type deploying struct {
	deployment
	request          service.LeaseRequest
	offer            string
	most, capacity   money
	private          registryFlags
	limits           limitFlags
	yes, dry, detach bool
}

func (a *app) deploy(ctx context.Context, flags *pflag.FlagSet, d *deploying) error {
	if d.yes && d.most == 0 {
		return service.Errorf(service.CodeInvalid, "--yes needs --max-price: what nobody is asked about has a limit")
	}
	r := &d.request
	r.Manifest, r.Resources, r.MaxRate, r.Capacity = &d.Manifest, d.Conversion.Resources, pktcloud.Rate(d.most), pktcloud.Amount(d.capacity)
	r.Class = cmp.Or(r.Class, d.Manifest.Isolation())
	n, err := a.node()
	if err == nil {
		defer n.Close()
		err = a.priced(ctx, n, d)
	}
	if d.dry {
		return a.show(d.deployment, func(w io.Writer) {
			printDeployment(w, d.deployment)
			if err != nil {
				fmt.Fprintf(w, "No price: %s\n", strings.TrimSpace(err.Error()))
			}
		})
	}
	if !d.yes || !a.json {
		printDeployment(a.err, d.deployment)
	}
	if err != nil {
		return err
	}
	if !d.yes {
		if err := a.ask("Deploy this? [y/N] ", "nothing was agreed. Give --yes and --max-price to deploy without a question, or --dry-run to look only"); err != nil {
			return err
		}
	}
	if r.MaxRate == 0 {
		r.MaxRate = d.Rate // what was shown and agreed to
	}
	if r.Limits, err = d.limits.of(ctx, n, flags, *r); err != nil {
		return err
	}
	if r.Credentials, err = d.private.read(a); err != nil {
		return err
	}
	r.Resources = service.Resources{} // the manifest has them
	l, err := n.CreateLease(ctx, *r)
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w; %q shows whether the lease was begun: then it goes on without this command", errInterrupted, a.command("lease list"))
	}
	if err != nil {
		return err
	}
	return a.deployed(ctx, n, d, l)
}

// priced chooses the offer, and what it costs.
func (a *app) priced(ctx context.Context, n *client.Client, d *deploying) error {
	need, err := needs(d.request)
	if err != nil {
		return err
	}
	if d.request.Offer, err = chooseOffer(ctx, n, d.offer, need); err != nil {
		return err
	}
	o, err := n.Offer(ctx, d.request.Offer, d.Conversion.Resources)
	if err != nil {
		return err
	}
	d.deployment.Offer, d.Rate = &d.request.Offer, o.Rate
	return nil
}

// deployed waits until the lease runs, and says where it is reached.
func (a *app) deployed(ctx context.Context, n *client.Client, d *deploying, l service.Lease) (err error) {
	if !d.detach {
		if l, err = a.awaitService(ctx, n, l); err != nil {
			return err
		}
		if d.Standing, err = a.reached(ctx, n, d.Manifest, l.Label); err != nil {
			return err
		}
	}
	if d.capacity > 0 {
		a.warnShort(l)
	}
	if d.Lease = &l; a.json {
		return a.printJSON(d.deployment)
	}
	if d.detach {
		return a.showCreated(l)
	}
	a.printReach(d.deployment)
	return nil
}

// reached asks until the provider says where each published port is.
func (a *app) reached(ctx context.Context, n *client.Client, m lease.Manifest, label string) (list []service.Standing, err error) {
	want := 0
	for _, s := range m.Services {
		want += len(s.Publish)
	}
	for deadline := time.Now().Add(reachPatience); ; {
		list, err = n.LeaseServices(ctx, label)
		have := 0
		for _, s := range list {
			if s.Network != nil {
				have += len(s.Network.Published)
			}
		}
		if err == nil && have >= want {
			return list, nil
		}
		if time.Now().After(deadline) {
			return list, nil // those that are known, and what is said of the others
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return list, ctx.Err()
		}
	}
}

// printDeployment shows services, warnings and price.
func printDeployment(w io.Writer, d deployment) {
	t := newTable(w)
	t.row("SERVICE", "IMAGE", "CPU", "MEMORY", "DISK", "PORTS")
	for _, s := range d.Manifest.Services {
		name := s.Name
		if s.Job {
			name += " (ends)"
		}
		t.row(name, s.Image, coreText(s.Resources.MilliCPU), byteText(s.Resources.MemoryBytes), byteText(s.Resources.DiskBytes), orDash(portText(s)))
	}
	for _, v := range d.Manifest.Volumes {
		t.row("volume "+v.Name, "", "", "", byteText(v.SizeBytes), "")
	}
	t.end()
	p := d.Manifest.Probe
	switch {
	case p.Port == 0:
		fmt.Fprintf(w, "Your node looks at no port: that %s runs is its provider's word.\n", p.Service)
	case p.HTTPPath == "":
		fmt.Fprintf(w, "Your node looks at %s, by connecting to its port %d.\n", p.Service, p.Port)
	default:
		fmt.Fprintf(w, "Your node looks at %s, by asking its port %d for %s.\n", p.Service, p.Port, p.HTTPPath)
	}
	if len(d.Warnings) > 0 {
		fmt.Fprintf(w, "\nNot quite as in the file:\n")
	}
	lines := newTable(w)
	for _, warning := range d.Warnings {
		lines.row("  " + warning.String())
	}
	lines.end()
	if d.Offer != nil {
		month, err := d.Rate.For(30 * 24 * 3600)
		if err != nil {
			month = 0
		}
		fmt.Fprintf(w, "\nPrice: %s an hour, %s in 30 days, under offer %s\n", pktcloud.Amount(d.Rate), month, d.Offer)
	}
}

func portText(s lease.Service) string {
	var out []string
	for _, p := range s.Publish {
		out = append(out, fmt.Sprintf("%d/%s published", p.Port, p.Protocol))
	}
	for _, p := range s.Ports {
		if !slices.Contains(s.Publish, lease.PublishedPort{Port: p, Protocol: lease.TCP}) {
			out = append(out, fmt.Sprint(p))
		}
	}
	return strings.Join(out, ", ")
}

// printReach says how each port of a lease that runs is reached.
func (a *app) printReach(d deployment) {
	l := *d.Lease
	a.printf("lease %s runs\n", l.Label)
	t := newTable(a.out)
	for _, s := range d.Standing {
		if s.Network != nil {
			for _, p := range s.Network.Published {
				t.row("  "+s.Name, fmt.Sprintf("%d/%s", p.Port, p.Protocol), "everybody", p.Address)
			}
		}
	}
	for _, s := range d.Manifest.Services {
		for _, p := range s.Ports {
			how := a.command("forward", l.Label+"/"+s.Name, fmt.Sprint(p))
			if s.Name == d.Manifest.Probe.Service && p == d.Manifest.Probe.Port && l.Endpoint != "" {
				how = l.Endpoint
			}
			t.row("  "+s.Name, fmt.Sprintf("%d/tcp", p), "you alone", how)
		}
	}
	t.end()
	a.printf("Look after it: %s, %s, %s\n", a.command("lease services", l.Label), a.command("logs", l.Label), a.command("lease close", l.Label))
}

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of files of services", Args: cobra.NoArgs,
		Long: `Schema prints the JSON Schema of the files that "pktcloud deploy" and
"pktcloud lease create --file" read, other than those of Compose: for an editor
that completes and checks them.`,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.out.Write(manifest.Schema)
			return err
		},
	}
}
