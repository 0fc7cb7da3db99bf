package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container/services"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/market/gossip"
	"github.com/pkt-cash/pkt-cloud/node/keystore"
	"github.com/pkt-cash/pkt-cloud/node/p2p"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/store"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

const (
	accountKey = "node/account"
	// renewAccount is how long before its end a device's entry is renewed.
	renewAccount = 60 * 24 * time.Hour
	// EndLimit is how long a node that stops waits for leases that are being
	// ended: their services may have some time to end by themselves.
	EndLimit = 30 * time.Second
)

type put = store.Put

// version is set by who builds from no repository: -ldflags "-X github.com/pkt-cash/pkt-cloud/node.version=v1.2.3".
var version string

// Version is that of the build.
func Version() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(devel)"
}

// Node is a running node. It implements service.Service; its methods may be
// called from several goroutines at once, before Run as well.
type Node struct {
	cfg      Config
	network  pktchain.Network
	keys     *keystore.Keystore // forgotten once the node is open
	identity pktcloud.PrivateKey
	vault    vault
	device   pktcloud.PrivateKey
	account  []byte // encoded pktcloud.Signed[pktcloud.Account]
	isNew    bool   // the phrase was made here and not yet seen on the chain
	birthday uint64 // of the phrase, as the data directory says

	lock    *os.File
	store   *store.Store
	ledger  settle.Ledger
	servers []*pktd.Driver // those of ledger
	wallet  *wallet.Wallet
	manager *manager.Manager
	host    host.Host
	book    *market.Book
	gossip  *gossip.Gossip
	tenant  *peer.Tenant
	towers  towers

	provider *peer.Provider // nil unless Config.Provider, as all below
	sessions *session.Server
	work     *workload
	looking  looking
	release  func() error // of the container runtime
	own      ownOffers
	stands   standings
	shown    shownOffers

	hub  hub
	once sync.Once
	done error // of Close
}

var _ service.Service = (*Node)(nil)

// Open opens a node over its data directory. Nothing runs before [Node.Run].
// Errors are *service.Error.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	n := &Node{cfg: cfg.withDefaults(), book: market.NewBook(0), vault: vault{stored: make(chan struct{}, 1)}}
	if err := n.open(ctx); err != nil {
		n.Close() //nolint:errcheck // the first error is the one to tell
		return nil, translate(err)
	}
	return n, nil
}

func (n *Node) open(ctx context.Context) error {
	network, ok := pktchain.NetworkOf(n.cfg.Network)
	if !ok {
		return service.Errorf(service.CodeInvalid, "there is no network %q; use \"pkt\" or %q", n.cfg.Network, DefaultNetwork)
	}
	n.network = network
	for _, step := range []func(context.Context) error{
		n.openIdentity, n.openMoney, n.openPeers, n.openProvider, n.openTenant, n.openTowers,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// openIdentity opens what lies in the data directory.
func (n *Node) openIdentity(ctx context.Context) (err error) {
	if n.keys, err = openKeystore(n.cfg.Dir, n.cfg.Password); err != nil {
		return err
	}
	n.identity = n.keys.Identity()
	if n.lock, err = os.OpenFile(filepath.Join(n.cfg.Dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	held, err := lockExclusive(n.lock)
	if err != nil {
		return fmt.Errorf("lock %s: %w", n.cfg.Dir, err)
	}
	if !held {
		return service.Errorf(service.CodeConflict, "another node uses %s; stop it, or choose another directory with --dir", n.cfg.Dir)
	}
	if n.store, err = store.Open(filepath.Join(n.cfg.Dir, databaseFile)); err != nil {
		return err
	}
	if n.device, err = keystore.OpenDevice(filepath.Join(n.cfg.Dir, deviceFile), nil); err != nil {
		return err
	}
	return nil
}

// openMoney opens chain, wallet and channels, and with them the account.
func (n *Node) openMoney(ctx context.Context) (err error) {
	n.ledger = n.cfg.Ledger
	if n.ledger == nil {
		if n.ledger, err = n.openChain(); err != nil {
			return &service.Error{Code: service.CodeInvalid, Detail: "--chain", Err: err}
		}
	}
	seed := n.keys.Seed()
	defer clear(seed)
	chain, err := pktchain.NewKeychain(n.network, seed)
	if err != nil {
		return err
	}
	birthday, isNew, err := readBirthday(n.cfg.Dir)
	if err != nil {
		return err
	}
	n.isNew, n.birthday = isNew, birthday
	n.wallet, err = wallet.Open(ctx, seed, wallet.Config{
		Network: n.network, Ledger: n.ledger, Store: n.store, Birthday: birthday, New: isNew,
	})
	if err != nil {
		return err
	}
	n.manager, err = manager.New(ctx, manager.Config{
		Network: n.network, Ledger: n.ledger, Store: n.store, Wallet: n.wallet, Keychain: chain, DeviceKey: n.device,
		Reserve: DefaultReserve, Depth: n.cfg.Depth, DepositEvery: n.depositEvery(), Log: n.cfg.Log, Birthday: channelBirthday(birthday, isNew),
	})
	if err != nil {
		return err
	}
	if err := n.openAccount(ctx, chain); err != nil {
		return err
	}
	if n.towers.key, err = chain.TowerKey(); err != nil {
		return err
	}
	n.keys.Forget()
	return n.openVault()
}

// openAccount loads the record that ties this device to the identity, or makes
// the next one.
func (n *Node) openAccount(ctx context.Context, chain *pktchain.Keychain) error {
	now := time.Now()
	var sequence uint64
	var devices []pktcloud.Device
	err := n.store.Load(ctx, accountKey, func(_ string, value []byte) error {
		signed, err := pktcloud.ParseAccount(value)
		if err != nil {
			return fmt.Errorf("the stored account record: %w", err)
		}
		sequence, devices = signed.Body.Sequence, signed.Body.Devices
		if signed.Body.Identity == n.identity.Public() && signed.Body.Allows(n.device.Public(), now.Add(renewAccount)) == nil {
			n.account = value
		}
		return nil
	})
	if err != nil || n.account != nil {
		return err
	}
	devices = slices.DeleteFunc(devices, func(d pktcloud.Device) bool { return d.Key == n.device.Public() || d.Expires <= now.Unix() })
	name, err := os.Hostname()
	if err != nil || len(name) > pktcloud.MaxDeviceName {
		name = "this machine"
	}
	devices = append(devices, keystore.NewDevice(n.device.Public(), name, now))
	money, err := chain.MoneyKey(n.identity.Public())
	if err != nil {
		return err
	}
	// The time makes sequences of two machines with one phrase ascend.
	sequence = max(sequence+1, uint64(now.Unix()))
	signed, err := n.keys.Account(sequence, now, devices, []pktcloud.MoneyKey{money})
	if err != nil {
		return err
	}
	value, err := signed.Encode()
	if err != nil {
		return err
	}
	if err := n.store.Apply(ctx, []put{{Key: accountKey, Value: value}}); err != nil {
		return err
	}
	n.account = value
	return nil
}

func (n *Node) openPeers(context.Context) (err error) {
	config := p2p.Config{
		Key: n.device, Listen: n.cfg.Listen, UserAgent: "pktcloud/" + Version(),
		PublicOnly: n.cfg.Network == "pkt" && len(n.cfg.AllowDial) == 0,
	}
	if config.Listen == nil {
		n.host, err = n.listenKept(config)
	} else {
		n.host, err = p2p.New(config)
	}
	switch {
	case errors.Is(err, p2p.ErrAddress):
		return service.Errorf(service.CodeInvalid, "--listen takes multiaddrs such as %s: %s", p2p.DefaultListen, bare(err))
	case err != nil:
		return service.Errorf(service.CodeConflict, "choose another port with --listen: %s", bare(err))
	}
	if err := n.checkBootstrap(); err != nil {
		return err
	}
	n.gossip, err = gossip.New(gossip.Config{Host: n.host, Book: n.book, Log: n.cfg.Log})
	return err
}

func (n *Node) openProvider(ctx context.Context) (err error) {
	if !n.cfg.Provider {
		return nil
	}
	if n.work, n.release, err = openRuntime(n.cfg); err != nil {
		return err
	}
	n.work.secrets = filepath.Join(n.cfg.Dir, secretsDir)
	n.work.volumes = canVolumes(ctx, n.work.runtime)
	n.work.sets, err = services.New(ctx, services.Config{
		Runtime: n.work.runtime, Store: n.store, Fetch: n.work.fetch, EndLimit: EndLimit, Log: n.cfg.Log,
	})
	if err != nil {
		return err
	}
	if err := n.loadOffers(ctx); err != nil {
		return err
	}
	n.provider, err = peer.NewProvider(ctx, peer.ProviderConfig{
		Host: n.host, Device: n.device, Account: n.account, Store: n.store, Payee: channels{n.manager}, Workload: n.work,
		Offer: n.openOffer, Admit: n.admit, AdmitAmendment: n.admitAmendment, Log: n.cfg.Log,
	})
	if err != nil {
		return err
	}
	n.sweepCredentials(time.Now().Add(agreeTime)) // nothing is being agreed yet
	n.sessions, err = session.NewServer(session.ServerConfig{Host: n.host, Workload: n.work, Authorizer: n.provider, Log: n.cfg.Log})
	return err
}

func (n *Node) openTenant(ctx context.Context) (err error) {
	n.tenant, err = peer.NewTenant(ctx, peer.TenantConfig{
		Host: n.host, Device: n.device, Account: n.account, Store: n.store, Payer: channels{n.manager}, Patience: n.cfg.Patience, Log: n.cfg.Log,
	})
	return err
}

// Run runs everything until ctx ends or a part fails for good. Containers and
// leases go on without it and are taken up again by the next Run; for those
// that are being ended it waits [EndLimit].
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	start := func(name string, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(&service.Error{Code: codeOf(err), Detail: name, Err: err})
			}
		})
	}
	start("channels", n.manager.Run)
	start("offers", n.gossip.Run)
	start("leases", n.tenant.Run)
	start("peers", n.stayConnected)
	start("wallet", n.keepWallet)
	for _, server := range n.servers {
		start("new blocks", server.Run)
	}
	start("late proofs", n.answerLate)
	start("channels shown", n.answerResume)
	start("channels asked for", n.askResume)
	start("rolls offered", n.askRolls)
	if n.towers.depositor != nil {
		start("deposits", n.towers.depositor.Run)
		start("late proofs wanted", n.askLate)
		start("deposits given back", n.recallDeposits)
	}
	if n.towers.own != nil {
		start("tower", n.runTower)
	}
	watch := func(changed <-chan pktcloud.ID, stop func()) func(context.Context) error {
		return func(ctx context.Context) error { n.watch(ctx, changed, stop); return nil }
	}
	start("events", watch(n.tenant.Subscribe()))
	if n.provider != nil {
		start("events", watch(n.provider.Subscribe()))
		start("services", n.work.sets.Run)
		start("provider", n.provider.Run)
		start("sessions", n.sessions.Run)
		start("own offers", n.renewOffers)
		start("rolls signed", n.answerRolls)
	}
	<-ctx.Done()
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Ending returns how many leases this provider is still ending: their services
// have not all gone.
func (n *Node) Ending() int {
	if n.work == nil {
		return 0
	}
	return n.work.sets.Ending()
}

// watch tells of leases that changed.
func (n *Node) watch(ctx context.Context, changed <-chan pktcloud.ID, stop func()) {
	defer stop()
	for {
		select {
		case id, ok := <-changed:
			if !ok {
				return
			}
			for _, v := range n.views() {
				if v.ID == id {
					n.hub.tell("lease", n.labels()[id], v.Phase.String())
				}
			}
		case <-ctx.Done():
			return
		}
	}
}

// Close lets go of everything. Call it after Run has returned. It is
// idempotent.
func (n *Node) Close() error {
	n.once.Do(func() {
		var errs []error
		if n.host != nil {
			errs = append(errs, n.host.Close())
		}
		if n.release != nil {
			errs = append(errs, n.release())
		}
		if n.store != nil {
			errs = append(errs, n.store.Close())
		}
		if n.lock != nil {
			errs = append(errs, n.lock.Close())
		}
		n.done = errors.Join(errs...)
	})
	return n.done
}
