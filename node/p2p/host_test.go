package p2p_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/p2p"
)

func key(n byte) pktcloud.PrivateKey { return pktcloud.NewPrivateKey([32]byte{n}) }

func open(t *testing.T, c p2p.Config) host.Host {
	t.Helper()
	h, err := p2p.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func connect(from, to host.Host) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	info, err := p2p.AddrInfo(p2p.Addresses(to)[0])
	if err != nil {
		return err
	}
	return from.Connect(ctx, info)
}

func TestHostsMeetAsTheirDeviceKeys(t *testing.T) {
	a, b := open(t, p2p.Config{Key: key(1)}), open(t, p2p.Config{Key: key(2)})
	if err := connect(a, b); err != nil {
		t.Fatal(err)
	}
	conn := a.Network().ConnsToPeer(b.ID())[0]
	if got := string(conn.ConnState().Security); got != "/tls/1.0.0" {
		t.Errorf("got security %s, want TLS", got)
	}
	got, err := p2p.PeerKey(conn.RemotePeer())
	if err != nil || got != key(2).Public() {
		t.Errorf("got peer key %s, %v, want %s", got, err, key(2).Public())
	}
}

func TestPeerIDIsThatOfTheRootPackage(t *testing.T) {
	for n := range byte(20) {
		public := key(n).Public()
		id, err := p2p.PeerID(public)
		if err != nil || id.String() != public.PeerID() {
			t.Errorf("got %s, %v, want %s", id, err, public.PeerID())
		}
	}
}

func TestPeerKeyRefusesOtherKeys(t *testing.T) {
	_, other, err := crypto.GenerateSecp256k1Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	otherID, err := peer.IDFromPublicKey(other)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := crypto.UnmarshalEd25519PublicKey(append([]byte{1}, make([]byte, 31)...))
	if err != nil {
		t.Fatal(err)
	}
	weakID, err := peer.IDFromPublicKey(weak)
	if err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]peer.ID{"secp256k1": otherID, "small order": weakID, "empty": "", "garbage": "x"} {
		if _, err := p2p.PeerKey(id); !errors.Is(err, pktcloud.ErrKey) {
			t.Errorf("%s: got %v, want ErrKey", name, err)
		}
	}
}

func TestPublicOnlyHostDialsNoPrivateAddress(t *testing.T) {
	a, b := open(t, p2p.Config{Key: key(1), PublicOnly: true}), open(t, p2p.Config{Key: key(2)})
	if err := connect(a, b); err == nil {
		t.Error("a public-only host dialled the loopback interface")
	}
	if err := connect(b, a); err != nil {
		t.Errorf("it must still accept: %v", err)
	}
}

func TestListenFailures(t *testing.T) {
	busy, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	_, port, _ := net.SplitHostPort(busy.Addr().String())
	for _, tt := range []struct{ name, addr, want string }{
		{"busy port beside a free one", "/ip4/127.0.0.1/tcp/" + port, "port in use"},
		{"QUIC", "/ip4/127.0.0.1/udp/0/quic-v1", "want a form"},
		{"a name", "/dns4/localhost/tcp/0", "want a form"},
		{"no multiaddr", "127.0.0.1:1", "listen address"},
	} {
		h, err := p2p.New(p2p.Config{Key: key(1), Listen: []string{p2p.DefaultListen, tt.addr}})
		if err == nil {
			_ = h.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// TestHostIsQuietAndLight wants one socket for a default host, none for one
// that listens nowhere, few goroutines, and none of either after Close.
func TestHostIsQuietAndLight(t *testing.T) {
	before, goroutines := sockets(t), runtime.NumGoroutine()
	h, err := p2p.New(p2p.Config{Key: key(1)})
	if err != nil {
		t.Fatal(err)
	}
	if got := sockets(t) - before; got != 1 {
		t.Errorf("got %d sockets of a default host, want 1", got)
	}
	if got := h.Network().ListenAddresses(); len(got) != 1 || !strings.HasPrefix(got[0].String(), "/ip4/127.0.0.1/tcp/") {
		t.Errorf("got listeners %v, want one on loopback", got)
	}
	if got := runtime.NumGoroutine() - goroutines; got > 40 {
		t.Errorf("got %d goroutines of an idle host, want at most 40", got)
	}
	silent, err := p2p.New(p2p.Config{Key: key(2), Listen: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if got := sockets(t) - before; got != 1 {
		t.Errorf("got %d sockets after a silent host opened, want 1", got)
	}
	if err := errors.Join(h.Close(), silent.Close()); err != nil {
		t.Error(err)
	}
	deadline := time.Now().Add(2 * time.Minute)
	for sockets(t) != before || runtime.NumGoroutine() > goroutines+2 {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("got %d sockets and %d goroutines left over\n%s", sockets(t)-before,
				runtime.NumGoroutine()-goroutines, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// sockets counts this process's own open sockets; elsewhere than on Linux it
// skips.
func sockets(t *testing.T) int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(links) == 0 {
		t.Skip("needs /proc")
	}
	var found []string
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil && strings.HasPrefix(target, "socket:") {
			found = append(found, target)
		}
	}
	slices.Sort(found)
	return len(slices.Compact(found))
}
