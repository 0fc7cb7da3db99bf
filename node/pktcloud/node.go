package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/api"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/web"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

// Where the API and the proxy listen unless told otherwise.
const (
	defaultAPI   = "127.0.0.1:7390"
	defaultProxy = "127.0.0.1:7391"
)

// nodeFlags are those of "pktcloud node".
type nodeFlags struct {
	config       node.Config
	api, proxy   string
	passwordFile string
	chains       chainFlags
	lend         lendFlags
	noPages      bool
	verbose      bool
}

func (a *app) nodeCommand() *cobra.Command {
	var f nodeFlags
	c := &cobra.Command{
		Use: "node", Short: "Run a node until it is interrupted", Args: cobra.NoArgs,
		Long: `Node runs a node on the data directory that "pktcloud init" made. The other
commands find it there. Open its pages with "pktcloud login".`,
		RunE: func(c *cobra.Command, _ []string) error { return a.runNode(c.Context(), f) },
	}
	g, d := c.Flags(), &f.config
	g.BoolVar(&d.Provider, "provider", false, "run containers for others (root on Linux)")
	g.StringArrayVar(&d.Listen, "listen", nil, "multiaddr to listen on for peers (default a loopback port that is free at the\nfirst start, and the same from then on)")
	g.StringArrayVar(&d.Announce, "announce", nil, "multiaddr that offers name instead of those of --listen")
	g.StringArrayVar(&d.Bootstrap, "bootstrap", nil, "multiaddr with /p2p/ of a node to stay connected to")
	g.StringArrayVar(&d.AllowDial, "allow-dial", nil, "address, address:port or prefix that is not public and may be dialled for a peer all the same")
	d.ImageBytes = image.MaxStoreBytes
	g.StringVar(&d.Runsc, "runsc", "", "program of gVisor, with --provider, for leases that demand the class gvisor\n(default the one in PATH, if there is one)")
	g.Var((*size)(&d.ImageBytes), "image-space", "disk that images may take, with --provider; those that no lease uses go first")
	g.Var((*size)(&d.ContainerIO), "container-io", "bytes a second that each container may read, and write, with --provider; 0: any")
	f.lend.add(g, &d.LeaseNetwork)
	g.StringArrayVar(&d.Towers, "tower", nil, "multiaddr with /p2p/ of a node that keeps this one's channels safe while it is away; several are safer")
	d.DepositEvery = node.DefaultDepositEvery
	g.Var((*money)(&d.DepositEvery), "deposit-every", "earned on a channel until the next deposit at the towers; 0: none")
	d.Depth = settle.Depths{Least: node.DefaultMinDepth, Step: node.DefaultDepthStep}
	g.Uint64Var(&d.Depth.Least, "min-depth", d.Depth.Least, "confirmations from which a channel's funding counts, with --provider")
	g.Var((*money)(&d.Depth.Step), "depth-step", "one confirmation more for each so many PKT in the channel, with --provider; 0: none")
	g.BoolVar(&d.Tower, "serve-tower", false, "be a tower for others")
	g.Uint64Var(&d.TowerQuota.Deposits, "tower-deposits", tower.DefaultDeposits, "deposits to keep for others, with --serve-tower")
	g.Uint64Var(&d.TowerQuota.Bytes, "tower-bytes", tower.DefaultBytes, "bytes to keep for others, with --serve-tower")
	d.TowerMinValue = node.DefaultTowerMinValue
	g.Var((*money)(&d.TowerMinValue), "tower-min-value", "least money in a channel to keep deposits for, with --serve-tower; 0: any")
	g.StringVar(&d.Network, "network", node.DefaultNetwork, "chain that settles: pkt-devnet or pkt")
	g.StringArrayVar(&f.chains.urls, "chain", []string{node.DefaultChainURL}, "RPC address of a node of the chain; give it several times to ask several\ntogether: what more than half of them say counts")
	g.StringArrayVar(&f.chains.cookies, "chain-cookie", nil, "cookie file of that node (default the one of \"pktcloud devnet\"); this and\nthe next three: once for all nodes, or once for each, in the order of --chain")
	g.StringArrayVar(&f.chains.users, "chain-user", nil, "user at that node, with --chain-password-file")
	g.StringArrayVar(&f.chains.secrets, "chain-password-file", nil, "password at that node, the first line of this file")
	g.StringArrayVar(&f.chains.certs, "chain-cert", nil, "certificate of that node, PEM")
	g.DurationVar(&d.Chain.PollInterval, "chain-poll", 0, "time between questions for a new block")
	g.Uint64Var(&d.ChannelBlocks, "channel-blocks", 0, "life of the channels opened here, in blocks: as long as their money can be\nlocked when a provider is lost (default 43200, thirty days)")
	g.StringVar(&f.api, "api", defaultAPI, "loopback address of the API and the pages")
	g.StringVar(&f.proxy, "proxy", defaultProxy, "loopback address of the proxy that opens leases; empty: none")
	g.StringVar(&f.passwordFile, "password-file", "", "password of the keystore, the first line of this file")
	g.DurationVar(&d.LockAfter, "lock-after", 0, "time without a payment after which the wallet locks itself, such as 15m (default never)")
	g.BoolVar(&f.noPages, "no-pages", false, "serve the API only")
	g.BoolVarP(&f.verbose, "verbose", "v", false, "log more")
	return c
}

func (a *app) runNode(ctx context.Context, f nodeFlags) (err error) {
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	f.config.Dir, f.config.Monitor, f.config.Files = a.dir, monitorProgram, filesProgram
	if f.config.Provider {
		lateTimers()
	}
	if err := f.lend.read(&f.config.LeaseNetwork); err != nil {
		return err
	}
	if len(f.lend.on) > 0 && !f.config.Provider {
		return service.Errorf(service.CodeInvalid, "--publish-on needs --provider: only a provider has services to publish")
	}
	if f.config.Chains, err = a.readChains(f.chains, f.config.Chain.PollInterval); err != nil {
		return err
	}
	f.config.Log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
	if f.passwordFile != "" {
		if f.config.Password, err = a.readSecret("--password-file", f.passwordFile); err != nil {
			return err
		}
	} else if f.config.Password, err = a.storedPassword(); err != nil {
		return err
	}
	listeners, err := openListeners(&f)
	if err != nil {
		return a.whyNoPort(ctx, err)
	}
	defer listeners.close()
	n, err := node.Open(ctx, f.config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	return a.serveNode(ctx, n, f, listeners)
}

// whyNoPort prefers, to a port that is taken, what is wrong with the directory.
func (a *app) whyNoPort(ctx context.Context, taken error) error {
	if _, err := os.Stat(keystoreIn(a.dir)); errors.Is(err, fs.ErrNotExist) {
		return service.Errorf(service.CodeNoNode, "%s holds no keystore; make one with \"pktcloud init --dir %s\"", a.dir, a.dir)
	}
	if n, err := a.node(); err == nil {
		defer n.Close()
		if _, err := n.Info(ctx); err == nil {
			return service.Errorf(service.CodeConflict, "a node runs on %s already; stop it, or choose another directory with --dir", a.dir)
		}
	}
	return taken
}

// chainFlags say which nodes of the chain to ask.
type chainFlags struct{ urls, cookies, users, secrets, certs []string }

// readChains returns the nodes, with the passwords that their files hold.
func (a *app) readChains(f chainFlags, poll time.Duration) ([]node.Chain, error) {
	for flag, list := range map[string][]string{
		"--chain-cookie": f.cookies, "--chain-user": f.users, "--chain-password-file": f.secrets, "--chain-cert": f.certs,
	} {
		if n := len(list); n > 1 && n != len(f.urls) {
			return nil, service.Errorf(service.CodeInvalid, "%s is given %d times for %d nodes of the chain; give it once, or once for each --chain", flag, n, len(f.urls))
		}
	}
	of := func(list []string, i int) string {
		if len(list) == 0 {
			return ""
		}
		return list[min(i, len(list)-1)]
	}
	var chains []node.Chain
	for i, url := range f.urls {
		c := node.Chain{URL: url, CookieFile: of(f.cookies, i), User: of(f.users, i), CertFile: of(f.certs, i), PollInterval: poll}
		if c.CookieFile == "" && c.User == "" {
			c.CookieFile = ownDevnet(a.dir)
		}
		if path := of(f.secrets, i); path != "" {
			var err error
			if c.Password, err = a.readSecret("--chain-password-file", path); err != nil {
				return nil, err
			}
		}
		chains = append(chains, c)
	}
	return chains, nil
}

// ownDevnet is the cookie of the devnet in a data directory, or nothing.
func ownDevnet(dir string) string {
	cookie := node.DevnetCookie(filepath.Join(dir, "devnet"))
	if _, err := os.Stat(cookie); err != nil {
		return ""
	}
	return cookie
}

// storedPassword asks for the password when there is a terminal and no file of
// an unattended keystore.
func (a *app) storedPassword() (string, error) {
	if _, err := os.Stat(passwordBeside(a.dir)); err == nil {
		return "", nil
	}
	if _, err := os.Stat(keystoreIn(a.dir)); err != nil {
		return "", nil // Open says what is missing
	}
	return a.askPassword("Password of the keystore: ")
}

type listeners struct{ api, proxy net.Listener }

func (l listeners) close() {
	l.api.Close()
	if l.proxy != nil {
		l.proxy.Close()
	}
}

// openListeners claims the ports before anything else is opened, and tells the
// configuration which they are.
func openListeners(f *nodeFlags) (l listeners, err error) {
	if l.api, err = listenLoopback(f.api, "--api"); err != nil {
		return l, err
	}
	if f.proxy != "" {
		if l.proxy, err = listenLoopback(f.proxy, "--proxy"); err != nil {
			l.api.Close()
			return l, err
		}
		f.config.ProxyPort = l.proxy.Addr().(*net.TCPAddr).Port
	}
	if !f.noPages {
		f.config.Pages = fmt.Sprintf("http://localhost:%d/", l.api.Addr().(*net.TCPAddr).Port)
	}
	return l, nil
}

func listenLoopback(address, flag string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, service.Errorf(service.CodeInvalid, "%s takes a loopback address and a port such as 127.0.0.1:0, not %q", flag, address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, &service.Error{Code: service.CodeConflict, Detail: "choose another port with " + flag, Err: err}
	}
	return l, nil
}

func (a *app) serveNode(ctx context.Context, n *node.Node, f nodeFlags, l listeners) error {
	token, err := api.LoadToken(a.dir)
	if err != nil {
		return err
	}
	guard, err := api.NewGuard(token, l.api.Addr())
	if err != nil {
		return err
	}
	server := &api.Server{API: api.New(n, guard, node.Version()), Guard: guard}
	if !f.noPages {
		if server.Pages, err = web.New(n, f.config.Log); err != nil {
			return err
		}
	}
	forget, err := api.WriteAddress(a.dir, l.api.Addr())
	if err != nil {
		return err
	}
	defer forget() //nolint:errcheck // a stale file is found out by the client

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	start := func(run func() error) {
		wg.Go(func() { cancel(cmp.Or(run(), context.Canceled)) })
	}
	start(func() error { return n.Run(ctx) })
	start(func() error { return api.Serve(ctx, l.api, server.Handler()) })
	if l.proxy != nil {
		start(func() error { return api.Serve(ctx, l.proxy, api.NewProxy(n, f.config.Log)) })
	}
	err = a.announce(ctx, n)
	if err == nil {
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	cancel(nil)
	if ending := n.Ending(); ending > 0 {
		fmt.Fprintf(a.err, "The services of %s are ending; this takes up to %s.\n", counted(uint64(ending), "lease"), node.EndLimit)
	}
	wg.Wait()
	if errors.Is(err, context.Canceled) {
		a.farewell(n)
		return nil
	}
	return err
}

// farewell says what goes on without the node.
func (a *app) farewell(n *node.Node) {
	if ending := n.Ending(); ending > 0 {
		fmt.Fprintf(a.err, "Stopped. The services of %s have not ended yet; start this node again to have them removed.\n", counted(uint64(ending), "lease"))
	}
	leases, err := n.Leases(context.Background())
	if err != nil {
		return
	}
	running := uint64(0)
	for _, l := range leases {
		if l.Role == "provider" && (l.Phase == "active" || l.Phase == "suspended") {
			running++
		}
	}
	if running > 0 {
		fmt.Fprintf(a.err, "Stopped. The containers of %s go on running, and nobody pays for them until this node runs again.\n", counted(running, "lease"))
	}
}

func (a *app) announce(ctx context.Context, n *node.Node) error {
	info, err := n.Info(ctx)
	if err != nil {
		return err
	}
	return a.show(info, func(io.Writer) {
		a.printf("Node of %s on %s.\n", info.Identity, info.Network)
		for _, address := range info.Addresses {
			a.printf("  peers  %s\n", address)
		}
		if onlyHere(info.Addresses) {
			a.printf("         (only this machine reaches these; --listen and --announce are for others)\n")
		}
		if info.Pages != "" {
			a.printf("  pages  %s (log in with \"pktcloud login --dir %s\")\n", info.Pages, a.dir)
		}
		if info.Problem != "" {
			a.printf("  %s\n", info.Problem)
		}
	})
}

// onlyHere reports whether no other machine can connect.
func onlyHere(addresses []string) bool {
	for _, a := range addresses {
		if !strings.HasPrefix(a, "/ip4/127.") && !strings.HasPrefix(a, "/ip6/::1/") {
			return false
		}
	}
	return len(addresses) > 0
}

func (a *app) loginCommand() *cobra.Command {
	return &cobra.Command{
		Use: "login", Short: "Print an address that logs a browser in, once, within ten minutes", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			link, err := n.LoginLink(c.Context())
			if err != nil {
				return err
			}
			return a.show(link, func(io.Writer) { a.printf("%s\n", link.URL) })
		},
	}
}
