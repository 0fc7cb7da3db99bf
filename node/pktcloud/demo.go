package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/internal/leftover"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

const (
	demoPrefix       = "pktcloud-demo-" // of directories
	demoPort         = 8080
	demoBlocks       = 5 * time.Second // between blocks of the demo's chain
	demoFunds        = 20 * pktcloud.UnitsPerPKT
	demoPoll         = 10 * time.Millisecond
	demoPatience     = 2 * time.Minute // for any one step
	cleanupPatience  = time.Minute
	defaultIntervals = 10
)

// demoOptions are the flags of "pktcloud demo".
type demoOptions struct {
	intervals uint64
	image     string
	command   []string
	port      uint16
	keep      bool
	blocks    time.Duration
}

func (a *app) demoCommand() *cobra.Command {
	o := demoOptions{}
	c := &cobra.Command{
		Use: "demo [flags] [-- COMMAND...]", Short: "Show the whole story on this machine, on real parts",
		Long: `Demo starts a chain, a provider and a tenant as separate processes, each with its
own directory and keys, and a registry with a small image. The tenant finds the
provider's offer, agrees a lease, opens a channel, and a real container runs;
it pays interval by interval, both close, and the chain pays out. Every step is
told with the time that it took. Nothing is left behind; what a demo leaves that
was killed, the next one removes.`,
		RunE: func(c *cobra.Command, command []string) error {
			o.command = command
			return a.runDemo(c.Context(), o)
		},
	}
	f := c.Flags()
	f.Uint64Var(&o.intervals, "intervals", defaultIntervals, "payments to wait for, one a second")
	f.StringVar(&o.image, "image", "", "run this image instead of the demo's own; the provider must reach its registry")
	f.Uint16Var(&o.port, "port", demoPort, "port that the image serves, over HTTP")
	f.BoolVar(&o.keep, "keep", false, "keep everything running until interrupted, and the directories after that")
	f.DurationVar(&o.blocks, "block-interval", demoBlocks, "time between blocks of the demo's chain")
	return c
}

// demo is one run of the story.
type demo struct {
	*app
	o        demoOptions
	dir      string
	run      *leftover.Run
	start    time.Time
	last     time.Time
	family   *family
	registry *registry

	provider, tenant *client.Client
	login            string // one-time address of the tenant's pages
	execArgs         []string
	lease            service.Lease
	offer            service.Offer
	address          string // of the tenant's wallet
	result           demoResult
}

// demoResult is the last line of "pktcloud demo --json".
type demoResult struct {
	OK            bool   `json:"ok"`
	AgreeMS       int64  `json:"agree_ms"`
	RunningMS     int64  `json:"running_ms"`
	PaidUnits     uint64 `json:"paid_units"`
	ClaimedUnits  uint64 `json:"claimed_units"`
	FeesUnits     uint64 `json:"fees_units"`
	MaxCredit     uint64 `json:"max_credit_units"`
	MaxPrepaid    uint64 `json:"max_prepaid_units"`
	Intervals     uint64 `json:"intervals"`
	BlockInterval int64  `json:"block_interval_ms"`
	Audit         string `json:"audit"`
	TotalMS       int64  `json:"total_ms"`
}

func (a *app) runDemo(ctx context.Context, o demoOptions) (err error) {
	if r := node.Examine(); !r.Provider {
		return service.Errorf(service.CodeMissing, "%s", whatIsMissing(r))
	}
	if o.intervals == 0 {
		return service.Errorf(service.CodeInvalid, "at least one interval must be paid")
	}
	d := &demo{app: a, o: o, start: time.Now(), last: time.Now()}
	d.result.BlockInterval = o.blocks.Milliseconds()
	if err := d.sweep(ctx); err != nil {
		return err
	}
	if d.run, err = leftover.New(demoPrefix, o.keep); err != nil {
		return err
	}
	d.dir = d.run.Dir
	d.family = newFamily(d.run.Env())
	defer func() { err = d.finish(ctx, err) }()
	for _, step := range []struct {
		name string
		run  func(context.Context) (string, error)
	}{
		{"image", d.makeImage},
		{"chain", d.startChain},
		{"provider", d.startProvider},
		{"tenant", d.startTenant},
		{"pull", d.prePull},
		{"fund", d.fund},
		{"offer", d.publish},
		{"market", d.find},
		{"lease", d.create},
		{"exec", d.exec1},
		{"logs", d.logs},
		{"pay", d.pay},
		{"close", d.close},
		{"payout", d.payout},
	} {
		text, err := step.run(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("%w during step %q", errInterrupted, step.name)
			}
			return &service.Error{Code: service.CodeOf(err), Detail: "step " + step.name, Err: err}
		}
		d.tell(step.name, text)
	}
	if o.keep {
		d.tell("keep", "everything goes on until you interrupt it, in "+d.dir+"; pages: "+d.login)
		<-ctx.Done()
	}
	return nil
}

func whatIsMissing(r service.Report) string {
	var missing []string
	for _, c := range r.Checks {
		if !c.OK && c.Needed != "volumes" {
			missing = append(missing, c.Name+" ("+c.Remedy+")")
		}
	}
	return "this machine cannot run containers; it lacks " + strings.Join(missing, ", ") + ". See \"pktcloud doctor\"."
}

// tell prints a step and the time that it took.
func (d *demo) tell(step, text string) {
	now := time.Now()
	took := now.Sub(d.last)
	d.last = now
	if d.json {
		d.printJSON(map[string]any{ //nolint:errcheck // standard output
			"step": step, "ms": took.Milliseconds(), "at_ms": now.Sub(d.start).Milliseconds(), "text": text,
		})
		return
	}
	d.printf("%7.2fs  %-9s %s (%d ms)\n", now.Sub(d.start).Seconds(), step, text, took.Milliseconds())
}

// finish stops everything, looks whether anything is left, and prints the
// result.
func (d *demo) finish(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil {
		d.family.dump(d.err)
	}
	stopped := d.stopAll()
	if err == nil && stopped == nil {
		err = d.audit()
	}
	if ctx.Err() == nil { // otherwise they were stopped halfway and say so
		err = errors.Join(err, stopped)
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupPatience)
	defer cancel()
	err = errors.Join(err, d.cleanup(end))
	if err != nil {
		return err
	}
	if !d.o.keep {
		d.tell("clean", "no process, mount, cgroup, loop device or directory is left")
	}
	d.result.OK, d.result.TotalMS = true, time.Since(d.start).Milliseconds()
	if d.json {
		return d.printJSON(d.result)
	}
	r := d.result
	d.printf("\nPaid %s, claimed the same on the chain; fees %s. Agreed in %d ms, running after %d ms, %d intervals of 1 s.\n"+
		"Most at risk: %s of service unpaid (provider), %s paid ahead (tenant). Blocks every %s.\n",
		pktcloud.Amount(r.PaidUnits), pktcloud.Amount(r.FeesUnits), r.AgreeMS, r.RunningMS, r.Intervals,
		pktcloud.Amount(r.MaxCredit), pktcloud.Amount(r.MaxPrepaid), d.o.blocks)
	return nil
}

func (d *demo) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}

// wait polls until a condition holds.
func wait(ctx context.Context, pause time.Duration, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	var last error
	for {
		ok, err := done(ctx)
		if ok {
			return err
		}
		if err != nil {
			last = err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			if last == nil {
				last = ctx.Err()
			}
			return fmt.Errorf("%s: %w", what, last)
		}
	}
}

// startNode starts a node process and returns a client of it.
func (d *demo) startNode(ctx context.Context, name string, args ...string) (*client.Client, service.Info, error) {
	dir := d.path(name)
	if err := d.family.run(ctx, name+" init", "--dir", dir, "init", "--unattended", "--json"); err != nil {
		return nil, service.Info{}, err
	}
	args = append([]string{
		"--dir", dir, "node", "--json", "--api", "127.0.0.1:0", "--proxy", "127.0.0.1:0",
		"--chain", d.chainURL(), "--chain-cookie", node.DevnetCookie(d.path("chain")), "--chain-poll", "100ms",
	}, args...)
	if err := d.family.start(name, args...); err != nil {
		return nil, service.Info{}, err
	}
	var c *client.Client
	var info service.Info
	err := wait(ctx, 10*time.Millisecond, "the "+name+" does not answer", func(ctx context.Context) (bool, error) {
		if err := d.family.alive(name); err != nil {
			return true, err
		}
		n, err := client.Dial(dir)
		if err != nil {
			return false, err
		}
		c = n
		info, err = n.Info(ctx)
		return err == nil, err
	})
	return c, info, err
}

func (d *demo) chainURL() string {
	b, err := os.ReadFile(d.path("chain", rpcAddressFile))
	if err != nil {
		return ""
	}
	return "http://" + strings.TrimSpace(string(b))
}

func (d *demo) startChain(ctx context.Context) (string, error) {
	if err := d.family.start("chain", "--dir", d.dir, "devnet", "--json", "--chain-dir", d.path("chain"), "--rpc", "127.0.0.1:0", "--block-interval", d.o.blocks.String()); err != nil {
		return "", err
	}
	err := wait(ctx, 10*time.Millisecond, "the chain does not answer", func(ctx context.Context) (bool, error) {
		if err := d.family.alive("chain"); err != nil {
			return true, err
		}
		var height uint64
		err := devnetRPC{d.path("chain")}.call(ctx, &height, "getblockcount")
		return err == nil, err
	})
	return fmt.Sprintf("a devnet with a block every %s, process %d", d.o.blocks, d.family.pid("chain")), err
}

func (d *demo) startProvider(ctx context.Context) (string, error) {
	args := []string{"--provider"}
	if d.registry != nil {
		args = append(args, "--allow-dial", d.registry.address())
	} else if host, _, ok := strings.Cut(d.o.image, "/"); ok {
		if _, _, err := net.SplitHostPort(host); err == nil && strings.HasPrefix(host, "127.") {
			args = append(args, "--allow-dial", host)
		}
	}
	c, info, err := d.startNode(ctx, "provider", args...)
	d.provider = c
	return fmt.Sprintf("identity %s, process %d", short(info.Identity.String()), d.family.pid("provider")), err
}

func (d *demo) startTenant(ctx context.Context) (string, error) {
	info, err := d.provider.Info(ctx)
	if err != nil {
		return "", err
	}
	if len(info.Addresses) == 0 {
		return "", errors.New("the provider listens nowhere")
	}
	c, own, err := d.startNode(ctx, "tenant", "--bootstrap", info.Addresses[0])
	if err != nil {
		return "", err
	}
	d.tenant = c
	link, err := c.LoginLink(ctx)
	d.login = link.URL
	return fmt.Sprintf("identity %s, process %d; its pages: %s", short(own.Identity.String()), d.family.pid("tenant"), link.URL), err
}
