package node

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/host"

	"github.com/pkt-cash/pkt-cloud/node/p2p"
)

// listenKept opens the host where the last start without Config.Listen did:
// the other sides of leases know that address and no other. A port that another
// program has meanwhile is given up for a new one.
func (n *Node) listenKept(c p2p.Config) (host.Host, error) {
	kept := filepath.Join(n.cfg.Dir, portFile)
	if port, ok := readPort(kept); ok {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
		err := free(address)
		if err == nil {
			c.Listen = []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)}
			var h host.Host
			if h, err = p2p.New(c); err == nil {
				return h, nil
			}
		}
		n.cfg.Log.Warn("another program has the port of the last start; this node takes a new one, and leases whose other side knows only the old one stand still: "+
			"end that program and start again with --listen", "taken", address, "error", err)
	}
	c.Listen = nil
	h, err := p2p.New(c)
	if err != nil {
		return nil, err
	}
	if err := keepPort(kept, h); err != nil {
		n.cfg.Log.Warn("the port to listen on cannot be kept; the next start takes another one", "error", err)
	}
	return h, nil
}

// free reports an address that somebody listens on. The host would share it:
// it lets the kernel give several of its kind one port.
func free(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// readPort reads a port that keepPort wrote.
func readPort(path string) (uint16, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	port, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16)
	return uint16(port), err == nil && port > 0
}

// keepPort writes down the port that a host listens on.
func keepPort(path string, h host.Host) error {
	for _, a := range h.Network().ListenAddresses() {
		fields := strings.Split(a.String(), "/")
		if _, err := strconv.ParseUint(fields[len(fields)-1], 10, 16); err != nil {
			continue
		}
		next := path + ".new"
		if err := os.WriteFile(next, []byte(fields[len(fields)-1]+"\n"), 0o600); err != nil {
			return err
		}
		return os.Rename(next, path)
	}
	return nil
}
