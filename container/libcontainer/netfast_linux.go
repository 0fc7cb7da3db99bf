//go:build cgo && amd64

package libcontainer

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container/internal/kernelnet"
	"github.com/pkt-cash/pkt-cloud/container/netstack"
)

// fastPath is what a keeper has of a group's fast path. The zero pointer is none.
type fastPath struct {
	router   *kernelnet.Router
	counters *os.File

	mu     sync.Mutex
	counts map[netip.Addr]*fastCount // of the containers that are there
}

// fastCount is what was written down of a container, and what the kernel's counters
// stood at then.
type fastCount struct {
	written [3]uint64
	then    kernelnet.Counts
}

// fastCounters is where the counters of the fast path are within a container's.
const fastCounters = 32

// openFast makes the group's fast path. Where the machine does not forward any
// more it refuses, and so does what asked for the group.
func (k *keeper) openFast() (*fastPath, error) {
	cfg := k.rec.Config
	if err := kernelnet.Check(cfg.KernelForwarded); err != nil {
		return nil, err
	}
	most := cfg.MaxConnections
	if most <= 0 {
		most = netstack.DefaultConnections
	}
	r, err := kernelnet.Open(k.router.ns, kernelnet.Config{
		Key: k.dir, Deny: cfg.Deny, DenyPorts: cfg.DenyPorts, MaxConnections: most, BytesPerSecond: cfg.BytesPerSecond,
	})
	if err != nil {
		return nil, err
	}
	return &fastPath{router: r, counters: k.counters, counts: map[netip.Addr]*fastCount{}}, nil
}

// join lets a container that is plugged in use the fast path.
func (f *fastPath) join(p *plugged) error {
	if f == nil {
		return nil
	}
	plan, err := kernelnet.Compile(p.member.Egress)
	if err != nil {
		return err
	}
	a := p.member.Address
	if err := f.router.Join(a, linkName(a), plan, p.member.BytesPerSecond); err != nil {
		return err
	}
	all, err := f.router.Counts()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &fastCount{then: all[a.As4()[3]]}
	if c.written, err = f.read(a); err != nil {
		return err
	}
	f.counts[a] = c
	return nil
}

// leave ends what a container has on the fast path, once that is written down.
func (f *fastPath) leave(a netip.Addr) error {
	if f == nil {
		return nil
	}
	err := f.router.Leave(a)
	f.save()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.counts, a)
	return err
}

func (f *fastPath) close() error {
	if f == nil {
		return nil
	}
	f.save()
	return f.router.Close()
}

func place64(a netip.Addr) int64 {
	return netRecord{Address: a}.offset() + fastCounters
}

func (f *fastPath) read(a netip.Addr) (out [3]uint64, err error) {
	var b [24]byte
	if _, err := f.counters.ReadAt(b[:], place64(a)); err != nil {
		return out, err
	}
	for i := range out {
		out[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
	return out, nil
}

// save writes down what the containers have sent and received by the fast path, so
// that it outlives this process [CONTAINER-103].
func (f *fastPath) save() {
	all, err := f.router.Counts()
	if err != nil {
		return // and again at the next
	}
	open, err := f.router.Open()
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for a, c := range f.counts {
		// Whoever made the counters begin anew did so for the next container.
		if there, err := f.read(a); err != nil || there != c.written {
			continue
		}
		now := all[a.As4()[3]]
		c.written[0] += now.In - c.then.In
		c.written[1] += now.Out - c.then.Out
		c.written[2] += now.Refused - c.then.Refused
		c.then = now
		var b []byte
		for _, v := range append(c.written[:], open[a.As4()[3]]) {
			b = binary.NativeEndian.AppendUint64(b, v)
		}
		_, _ = f.counters.WriteAt(b, place64(a))
	}
}

// listen hears from a carrier which addresses names have.
func (f *fastPath) listen(c *net.UnixConn) {
	for {
		var r netRequest
		files, err := receive(c, &r)
		if err != nil {
			return // the carrier is gone
		}
		closeAll(files)
		_ = f.router.Learn(r.Learned) // without it the stack carries what goes there
		if err := send(c, reply{}); err != nil {
			return
		}
	}
}

// count answers the node.
func (k *keeper) count() {
	if k.fast != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.fast.save()
	}
}

// tendFast keeps up with the machine's addresses, and writes the counts down from
// time to time.
func (k *keeper) tendFast() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-k.end:
			return
		}
		if err := k.fast.router.Refresh(); err != nil {
			k.complain("look for the machine's addresses", err)
		}
		k.count()
	}
}

// askCounts has a group's keeper write its counts down. Without a keeper they are
// as it left them.
func askCounts(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, done, err := call(ctx, dir, netRequest{Op: opCount})
	if err != nil {
		return
	}
	defer done()
	var out reply
	_, _ = receive(c, &out)
}

// teller is a carrier's side of listen.
type teller struct {
	mu sync.Mutex
	c  *net.UnixConn
}

// learned tells the keeper, and waits until the fast path knows.
func (t *teller) learned(member, addr netip.Addr, port uint16, hold time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.c.SetDeadline(time.Now().Add(time.Second))
	if send(t.c, netRequest{Op: opLearn, Learned: kernelnet.Learned{Member: member, Address: addr, Port: port, Hold: hold}}) != nil {
		return
	}
	var out reply
	_, _ = receive(t.c, &out)
}
