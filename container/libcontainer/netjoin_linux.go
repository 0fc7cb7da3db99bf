//go:build cgo && amd64

package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/pkt-cash/pkt-cloud/container/netstack"
)

// joinNetwork connects a container whose first stage waits to its group.
func (m *monitor) joinNetwork(pid int) error {
	if !m.rec.Net.Address.IsValid() {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	return m.keepPlugged(ns)
}

// keepPlugged connects a network to the group, and keeps it connected as long as
// the monitor lives.
func (m *monitor) keepPlugged(ns *os.File) error {
	c, err := m.plug(ns)
	if err != nil {
		return err
	}
	go func() {
		for {
			var b [1]byte
			_, _ = c.Read(b[:]) // until the keeper is gone
			_ = c.Close()
			for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
				time.Sleep(wait)
				if c, err = m.plug(ns); err == nil {
					break
				}
			}
		}
	}()
	return nil
}

// plug asks the group's keeper to connect the container. It stays so as long
// as the connection is open.
func (m *monitor) plug(ns *os.File) (*net.UnixConn, error) {
	n := m.rec.Spec.Network
	member := netstack.Member{Address: m.rec.Net.Address, Name: n.Name, Egress: n.Egress, BytesPerSecond: n.BytesPerSecond}
	c, _, err := call(context.Background(), m.rec.Net.Dir, netRequest{Op: opPlug, Member: member, Ports: m.rec.Net.Publish, Behind: m.engine != nil}, ns)
	if err != nil {
		return nil, fmt.Errorf("the group's network: %w", err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var out reply
	if _, err = receive(c, &out); err == nil {
		err = out.err()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, c.SetReadDeadline(time.Time{})
}

// resolvConf is what programs inside read to find names.
const resolvConf = "etc/resolv.conf"

// writeResolvers points a container at its group's gateway for names. What an
// image has in that place is replaced, a link itself and not what it leads to
// [CONTAINER-30] [CONTAINER-54].
func writeResolvers(root *os.Root, r *record) error {
	if !r.Net.Address.IsValid() {
		return nil
	}
	if err := makeDirs(root, "/etc", int(r.FirstID), int(r.FirstID)); err != nil {
		return err
	}
	if err := root.Remove(resolvConf); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // an image may have made the place unusable, as with hosts
	}
	f, err := root.OpenFile(resolvConf, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "nameserver %s\n", netstack.Gateway); err != nil {
		return err
	}
	return f.Chown(int(r.FirstID), int(r.FirstID))
}
