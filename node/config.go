package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

// Names of the files in a data directory.
const (
	keystoreFile = "keystore.age"
	passwordFile = "password" // of an unattended keystore
	deviceFile   = "device.key"
	databaseFile = "node.db"
	lockFile     = "lock"
	birthdayFile = "birthday" // of the phrase: a height, or newPhrase
	portFile     = "port"     // where peers connect unless Config.Listen says otherwise
	runtimeDir   = "runtime"
	imagesDir    = "images"
	secretsDir   = "credentials" // of leases, for registries
)

// Defaults of a [Config].
const (
	DefaultNetwork  = "pkt-devnet"
	DefaultChainURL = "http://127.0.0.1:7392" // where "pktcloud devnet" listens
	// DefaultReserve is set aside for the closing fee in each channel: about
	// what 400 bytes cost at 25 times the relay floor.
	DefaultReserve = 10_000
	// DefaultOfferLifetime is how long an offer lives before it is renewed.
	DefaultOfferLifetime = time.Hour
	// DefaultMinDepth is the confirmations at which a provider takes a channel
	// as settled.
	DefaultMinDepth = 1
	// DefaultDepthStep is the part of a channel's capacity for which a provider
	// wants one confirmation more: less than what a block pays its miner, so that
	// taking blocks back costs more than the channel holds.
	DefaultDepthStep = 100 * pktcloud.UnitsPerPKT
)

// Config says what a node is. Its zero value is a tenant on the devnet of this
// machine, with its data in the home directory.
type Config struct {
	// Dir is the data directory; empty means [DefaultDir].
	Dir string
	// Password opens the keystore; empty means the one that an unattended
	// [Init] left in the directory.
	Password string
	// Network is the rail that pays; empty means [DefaultNetwork].
	Network string
	// Ledger is the chain. When it is nil, the node at Chain is asked.
	Ledger settle.Ledger
	Chain  Chain
	// Chains, where there are two or more, are asked together instead of Chain:
	// what more than half of them say counts.
	Chains []Chain
	// Listen are the multiaddrs to listen on; nil means a TCP port of the
	// loopback interface, a free one at the first start and that one from then
	// on. Announce are those that offers name instead.
	Listen   []string
	Announce []string
	// Bootstrap are nodes to stay connected to, multiaddrs with /p2p/.
	Bootstrap []string
	// Provider runs containers for others. It needs root on Linux.
	Provider bool
	// Runtime runs the containers of a provider; nil means the driver of
	// container/libcontainer. The caller closes its own.
	Runtime container.Runtime
	// Monitor and Files are libcontainer.Config.Monitor and Files of that driver.
	Monitor, Files []byte
	// Runsc is where gVisor's program is; empty looks for it in PATH, and offers
	// no class gvisor where it is not.
	Runsc string
	// ImageBytes bounds the space that a provider's images take; those that no
	// lease uses go first. Zero means image.MaxStoreBytes.
	ImageBytes uint64
	// ContainerIO bounds the bytes a second that each container of a provider
	// reads, and those that it writes; zero means unbounded.
	ContainerIO uint64
	// LeaseNetwork is what a provider lets leases have of its network.
	LeaseNetwork LeaseNetwork
	// LockAfter is how long after the last payment or unlocking the wallet
	// locks itself; zero means never. An unattended keystore takes none.
	LockAfter time.Duration
	// ChannelBlocks is the life of the channels that a tenant opens: as long as
	// its money can be locked when a provider is lost. Zero means
	// peer.DefaultLifetimeBlocks.
	ChannelBlocks uint64
	// Depth is how deep the funding of a channel must lie for a provider to take
	// it as settled; the zero value means DefaultMinDepth and DefaultDepthStep.
	Depth settle.Depths
	// AllowDial lists "host:port" pairs that are no public addresses and may be
	// dialled all the same when a peer's data says so: registries on this
	// machine or in the own network.
	AllowDial []string
	// Towers keep this node's channels safe while it is away: multiaddrs with
	// /p2p/, each of a node that is a tower.
	Towers []string
	// DepositEvery is what a provider earns on a channel, in units, until it
	// deposits again; zero means that it never does.
	DepositEvery pktcloud.Amount
	// Tower keeps what others deposit, within TowerQuota.
	Tower      bool
	TowerQuota tower.Quota
	// TowerMinValue is the least capacity of a channel that it keeps deposits
	// for: what each place in the quota costs whoever wants to fill it. Zero
	// means any.
	TowerMinValue pktcloud.Amount
	// ProxyPort is where the local proxy listens, for the addresses of leases;
	// zero means that there is none.
	ProxyPort int
	// Pages is the address of the web pages, if they are served.
	Pages string
	// Patience is how long CreateLease waits for a provider's answer to the
	// commit; zero means peer.DefaultPatience.
	Patience time.Duration

	renewEvery time.Duration // zero: renewInterval
	// Log receives what a person should know; nil means none.
	Log *slog.Logger
}

// Chain says which node of the chain to ask.
type Chain struct {
	URL string // empty means DefaultChainURL
	// CookieFile, or User and Password, say who asks. With none of them, the
	// cookie of the devnet in [DefaultDir] is used.
	CookieFile     string
	User, Password string
	CertFile       string
	// PollInterval is the time between questions for a new block; zero means
	// the driver's default.
	PollInterval time.Duration
}

func (c Chain) withDefaults() Chain {
	if c.URL == "" {
		c.URL = DefaultChainURL
	}
	if c.CookieFile == "" && c.User == "" {
		c.CookieFile = DevnetCookie(DevnetDir())
	}
	return c
}

// DefaultDir is PKTCLOUD_DIR, or .pktcloud in the home directory.
func DefaultDir() string {
	if dir := os.Getenv("PKTCLOUD_DIR"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	return filepath.Join(home, ".pktcloud")
}

// DevnetDir is where "pktcloud devnet" keeps its chain unless told otherwise,
// and DevnetCookie the file in a devnet's directory that lets others ask it.
func DevnetDir() string { return filepath.Join(DefaultDir(), "devnet") }

// DevnetCookie returns the cookie file of a devnet's directory.
func DevnetCookie(dir string) string { return filepath.Join(dir, "rpc.cookie") }

func (c Config) withDefaults() Config {
	if c.Dir == "" {
		c.Dir = DefaultDir()
	}
	if c.Network == "" {
		c.Network = DefaultNetwork
	}
	if len(c.Chains) == 1 {
		c.Chain = c.Chains[0]
	}
	c.Chain = c.Chain.withDefaults()
	c.Chains = slices.Clone(c.Chains)
	for i := range c.Chains {
		c.Chains[i] = c.Chains[i].withDefaults()
	}
	c.LeaseNetwork = c.LeaseNetwork.withDefaults()
	if c.Depth == (settle.Depths{}) {
		c.Depth = settle.Depths{Least: DefaultMinDepth, Step: DefaultDepthStep}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
