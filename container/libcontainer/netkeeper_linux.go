//go:build cgo && amd64

package libcontainer

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/kernelnet"
	"github.com/pkt-cash/pkt-cloud/container/netstack"
)

// How a process of this binary knows that it is a keeper, or the one that
// carries a group's traffic.
const (
	keeperArg  = "pktcloud-network"
	carrierArg = "pktcloud-netstack"
)

const (
	opPlug    = "plug"    // a monitor's, with the container's network
	opConfig  = "config"  // a keeper's to the carrier; so are those below
	opJoin    = "join"    // a container is there
	opPublish = "publish" // with a socket
	opLeave   = "leave"
	opLearn   = "learn" // a carrier's to its keeper: what a name's address is
	opCount   = "count" // the node's to a keeper: write down what was carried
)

// netRequest is what monitors ask of keepers, and keepers of carriers.
type netRequest struct {
	Op     string
	Config netstack.Config           `json:",omitzero"`
	Member netstack.Member           `json:",omitzero"`
	Behind bool                      `json:",omitempty"` // the network forwards to the member's
	Ports  []container.PublishedPort `json:",omitempty"`

	Fast    bool              `json:",omitempty"` // there is a fast path to tell of names
	Learned kernelnet.Learned `json:",omitzero"`
}

func init() {
	if len(os.Args) == 2 && os.Getenv(MonitorEnv) != "" {
		switch os.Args[0] {
		case keeperArg:
			os.Exit(keeperMain(os.Args[1]))
		case carrierArg:
			os.Exit(carrierMain())
		}
	}
}

// keeper holds a group's network together. It reads no packet.
type keeper struct {
	dir      string
	rec      groupRecord
	alive    *os.File
	router   *router
	fast     *fastPath // nil without one
	counters *os.File
	socket   net.Listener
	conns    connSet
	end      chan struct{}
	once     sync.Once

	mu      sync.Mutex
	members map[netip.Addr]*plugged
	carrier *carrier // nil while there is none
}

// plugged is a container that is connected.
type plugged struct {
	member  netstack.Member
	ports   []container.PublishedPort
	sockets []*os.File // one for each port
}

// debugBytes is how far keepers and carriers write files, of which they have one
// for what they complain of.
const debugBytes = 1 << 20

// boundFiles keeps whoever takes a carrier over, or makes it fail again and again,
// from filling the machine's disk.
func boundFiles() error {
	signal.Ignore(unix.SIGXFSZ) // the write fails then, and that is all
	return unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: debugBytes, Max: debugBytes})
}

func keeperMain(dir string) int {
	debug.SetGCPercent(25)
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	ready := os.NewFile(3, "ready")
	k := &keeper{dir: dir, alive: os.NewFile(4, "alive"), members: map[netip.Addr]*plugged{}, end: make(chan struct{})}
	if err := k.start(); err != nil {
		_ = json.NewEncoder(ready).Encode(newAnswer(err))
		return 1
	}
	go answerAll(k.socket, &k.conns, func(f func()) { go f() }, k.handle)
	if k.fast != nil {
		go k.tendFast()
	}
	_ = json.NewEncoder(ready).Encode(answer{})
	_ = ready.Close()
	k.superviseCarrier()
	return 0
}

func (k *keeper) start() error {
	if err := boundFiles(); err != nil {
		return err
	}
	if ok, err := readJSON(k.dir, recordFile, &k.rec); err != nil || !ok {
		return fmt.Errorf("read the group's record: %w", errors.Join(err, os.ErrNotExist))
	}
	if _, err := fmt.Fprintln(k.alive, os.Getpid()); err != nil {
		return err
	}
	var err error
	if k.counters, err = os.OpenFile(filepath.Join(k.dir, trafficFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := k.counters.Truncate(int64(netstack.CounterBytes)); err != nil {
		return err
	}
	if k.router, err = newRouter(); err != nil {
		return err
	}
	if k.rec.Config.Kernel {
		if k.fast, err = k.openFast(); err != nil {
			return err
		}
	}
	if k.carrier, err = k.startCarrier(); err != nil {
		return err
	}
	k.socket, err = listenIn(k.dir)
	return err
}

// handle answers monitors and the node.
func (k *keeper) handle(c *net.UnixConn, r netRequest, files []*os.File) {
	switch r.Op {
	case opPlug:
		if len(files) != 1 {
			return
		}
		p, err := k.plug(r, files[0])
		if err != nil {
			a := newAnswer(err)
			_ = send(c, reply{Code: a.Code, Detail: a.Detail})
			return
		}
		_ = send(c, reply{})
		var b [1]byte
		_, _ = c.Read(b[:]) // until the monitor ends
		k.unplug(p)
	case opCount:
		k.count()
		_ = send(c, reply{})
	case opStop:
		k.stop()
	}
}

// plug connects a container to the group.
func (k *keeper) plug(r netRequest, ns *os.File) (*plugged, error) {
	p := &plugged{member: r.Member, ports: r.Ports}
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.members[p.member.Address]; old != nil {
		k.drop(old)
	}
	for _, port := range p.ports {
		s, err := listenPublished(port)
		if err != nil {
			closeAll(p.sockets)
			return nil, err
		}
		p.sockets = append(p.sockets, s)
	}
	if err := k.router.plug(ns, p.member.Address, r.Behind); err != nil {
		closeAll(p.sockets)
		return nil, err
	}
	if err := k.fast.join(p); err != nil {
		k.router.unplug(p.member.Address)
		closeAll(p.sockets)
		return nil, err
	}
	k.members[p.member.Address] = p
	k.tell(func(c *carrier) error { return c.join(p) })
	return p, nil
}

// unplug forgets a container whose monitor has ended.
func (k *keeper) unplug(p *plugged) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.members[p.member.Address] == p {
		k.drop(p)
	}
}

func (k *keeper) drop(p *plugged) {
	delete(k.members, p.member.Address)
	closeAll(p.sockets)
	k.tell(func(c *carrier) error {
		return c.ask(netRequest{Op: opLeave, Member: netstack.Member{Address: p.member.Address}})
	})
	if err := k.fast.leave(p.member.Address); err != nil {
		k.complain("end the connections of "+p.member.Name, err)
	}
	k.router.unplug(p.member.Address)
}

// tell asks the carrier. One that does not answer is killed; the next is told
// everything.
func (k *keeper) tell(f func(*carrier) error) {
	if k.carrier == nil {
		return
	}
	if err := f(k.carrier); err != nil {
		k.complain("the carrier", err)
		k.carrier.kill()
	}
}

// superviseCarrier starts the carrier anew whenever it has ended, until the
// group does.
func (k *keeper) superviseCarrier() {
	wait := 50 * time.Millisecond
	for {
		k.mu.Lock()
		c := k.carrier
		k.mu.Unlock()
		begun := time.Now()
		if c != nil {
			err := c.wait()
			k.mu.Lock()
			k.carrier = nil
			k.mu.Unlock()
			if !k.ending() {
				k.complain("the carrier ended", err)
			}
		}
		if time.Since(begun) > time.Minute {
			wait = 50 * time.Millisecond
		}
		select {
		case <-k.end:
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, 5*time.Second)
		k.restartCarrier()
	}
}

func (k *keeper) restartCarrier() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending() {
		return
	}
	c, err := k.startCarrier()
	if err != nil {
		k.complain("start the carrier", err)
		return
	}
	k.carrier = c
	for _, p := range k.members {
		k.tell(func(c *carrier) error { return c.join(p) })
	}
}

func (k *keeper) ending() bool {
	select {
	case <-k.end:
		return true
	default:
		return false
	}
}

// stop ends the keeper.
func (k *keeper) stop() {
	k.once.Do(func() {
		close(k.end)
		_ = k.socket.Close()
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.carrier != nil {
			k.carrier.kill()
		}
		if err := k.fast.close(); err != nil {
			k.complain("take the fast path away", err)
		}
	})
}

func (k *keeper) complain(what string, err error) {
	fmt.Fprintf(os.Stderr, "%s %s: %v\n", time.Now().UTC().Format(time.RFC3339), what, err)
}

// listenPublished opens the socket of a published port. Errors are
// [container.CodePortTaken] and [container.CodePortForbidden].
func listenPublished(p container.PublishedPort) (*os.File, error) {
	at := netip.AddrPortFrom(p.Host, p.Port)
	var f *os.File
	var err error
	if p.Protocol == container.TCP {
		var l *net.TCPListener
		if l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at)); err == nil {
			f, err = l.File()
			_ = l.Close()
		}
	} else {
		var c *net.UDPConn
		if c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err == nil {
			f, err = c.File()
			_ = c.Close()
		}
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		err = &container.Error{Code: container.CodePortTaken, Detail: p.String()}
	case errors.Is(err, unix.EADDRNOTAVAIL):
		err = &container.Error{Code: container.CodePortForbidden, Detail: p.String() + ": not an address of this machine"}
	}
	return f, err
}
