package nodetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pkt-cash/pkt-cloud/settle/pktd"
)

const (
	// Version is the btcd that is built when none is named.
	Version = "v0.26.2"

	startLimit = 3 * time.Minute // a machine may stand still
	stopLimit  = 10 * time.Second
)

// process is a btcd of ours.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed once the process has ended
}

// runBtcd runs a node whose files lie in dir, until close.
func (n *Node) runBtcd(ctx context.Context, dir string, options []string) error {
	binary, err := Binary(ctx)
	if err != nil {
		return err
	}
	rpc, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	var secret [16]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return err
	}
	n.cfg = pktd.Config{
		URL: "http://" + rpc, User: "test", Password: hex.EncodeToString(secret[:]), Magic: n.Network.Magic, PollInterval: pollInterval,
	}
	config := filepath.Join(dir, "btcd.conf") // empty: the user's own must not count
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return err
	}
	logPath := filepath.Join(dir, "btcd.out")
	out, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer out.Close()
	p := &process{exited: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), binary, append([]string{
		"--regtest", "--rejectnonstd", "--notls", "--nolisten", "--nodnsseed",
		"--configfile=" + config, "--datadir=" + filepath.Join(dir, "data"), "--logdir=" + filepath.Join(dir, "log"),
		"--rpclisten=" + rpc, "--rpcuser=" + n.cfg.User, "--rpcpass=" + n.cfg.Password,
	}, options...)...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", binary, err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // its exit code says nothing about the test
	}()
	n.btcd = p
	return n.answers(ctx, logPath)
}

// answers waits until a btcd that was started does.
func (n *Node) answers(ctx context.Context, logPath string) error {
	deadline := time.Now().Add(startLimit)
	for {
		err := n.call(ctx, nil, "getblockcount")
		if err == nil {
			return nil
		}
		select {
		case <-n.btcd.exited:
			text, _ := os.ReadFile(logPath)
			return fmt.Errorf("btcd ended at once: %s", text)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), n.close())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("btcd does not answer: %w", err), n.close())
		}
	}
}

func (p *process) close() error {
	select {
	case <-p.exited:
		return nil
	default:
	}
	err := p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopLimit):
		err = errors.Join(err, p.cmd.Process.Kill())
		<-p.exited
		return err
	}
}

// freeAddress has a port below those that systems hand out: no outgoing connection
// takes it before the node listens there.
func freeAddress(ctx context.Context) (string, error) {
	var err error
	for range 1000 {
		var l net.Listener
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+mathrand.N(12_000)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", err
}

// Binary returns the path of btcd: what the environment variable PKTCLOUD_BTCD
// names, or else one that is built once into the user's cache folder, for which
// the Go module proxy must be reachable or the module in the cache.
func Binary(ctx context.Context) (string, error) {
	if path := os.Getenv("PKTCLOUD_BTCD"); path != "" {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "pkt-cloud", "btcd-"+Version)
	path := filepath.Join(dir, "btcd")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// go install writes the file in one step, so that two tests may race.
	cmd := exec.CommandContext(ctx, "go", "install", "github.com/btcsuite/btcd@"+Version)
	cmd.Dir = dir // outside of this module
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod", "GOOS=", "GOARCH=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build btcd %s (set PKTCLOUD_BTCD to a binary to avoid it): %w: %s", Version, err, strings.TrimSpace(string(out)))
	}
	return path, nil
}
