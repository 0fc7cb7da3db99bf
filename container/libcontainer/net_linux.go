//go:build cgo && amd64

package libcontainer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/netstack"
	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

// A group of containers has a keeper: a small process of this binary that
// holds the group's router, a network namespace to which each container is
// connected, and starts the process that carries the group's traffic. It
// outlives the node as monitors do.

// trafficFile holds the group's counters, see netstack.Counters.
const trafficFile = "traffic"

// groupRecord is what a keeper needs to know. It is written before the keeper
// starts.
type groupRecord struct {
	Group  string
	Cgroup string
	Config NetworkConfig
}

// netRecord is a container's place in its group; the zero value is none.
type netRecord struct {
	Dir     string // of the group
	Address netip.Addr
	Publish []container.PublishedPort
	Fast    bool `json:",omitempty"` // the keeper has counts that it has to be asked for
}

// groups are the groups of a runtime, with their members by id.
type groups struct {
	dir string

	stop    chan struct{} // closed by close
	once    sync.Once
	tending sync.WaitGroup

	mu      sync.Mutex
	members map[string]map[string]place
}

// place is that of one container in its group.
type place struct {
	name    string
	address netip.Addr
}

// load finds which containers of an earlier runtime are in which group.
func (g *groups) load(rec *record) {
	if rec.Net.Address.IsValid() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.put(rec.Spec.Network.Group, rec.Spec.ID, place{rec.Spec.Network.Name, rec.Net.Address})
	}
}

func (g *groups) put(group, id string, p place) {
	if g.members[group] == nil {
		g.members[group] = map[string]place{}
	}
	g.members[group][id] = p
}

// add finds a container a place in its group.
func (g *groups) add(group, id, name string) (place, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	taken := map[netip.Addr]bool{}
	for other, p := range g.members[group] {
		if p.name == name && other != id {
			return place{}, &container.Error{Code: container.CodeConflict, Detail: fmt.Sprintf("%s: the group %s has a %q already, %s", id, group, name, other)}
		}
		taken[p.address] = true
	}
	if len(taken) >= container.MaxGroup {
		return place{}, &container.Error{Code: container.CodeCapacity, Detail: fmt.Sprintf("the group %s has %d containers", group, len(taken))}
	}
	a := netstack.Gateway.Next()
	for taken[a] {
		a = a.Next()
	}
	p := place{name, a}
	g.put(group, id, p)
	return p, nil
}

// drop takes a container out of its group, and tells which that was and whether
// it has nobody left.
func (g *groups) drop(id string) (group string, empty bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, members := range g.members {
		if _, ok := members[id]; ok {
			delete(members, id)
			if len(members) == 0 {
				delete(g.members, name)
			}
			return name, len(members) == 0
		}
	}
	return "", false
}

func (g *groups) of(id string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, members := range g.members {
		if _, ok := members[id]; ok {
			return name
		}
	}
	return ""
}

func (g *groups) has(group string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.members[group]) > 0
}

func (g *groups) names() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for name := range g.members {
		out = append(out, name)
	}
	return out
}

// enterGroup gives a container that is about to start its place in its group,
// whose keeper then runs.
func (r *Runtime) enterGroup(ctx context.Context, rec *record) error {
	n := rec.Spec.Network
	if n.Group == "" {
		return nil
	}
	publish, err := r.cfg.Network.published(n.Publish)
	if err != nil {
		return err
	}
	defer r.hold(groupLock(n.Group))()
	p, err := r.groups.add(n.Group, rec.Spec.ID, n.Name)
	if err != nil {
		return err
	}
	rec.Net = netRecord{Dir: filepath.Join(r.groups.dir, n.Group), Address: p.address, Publish: publish, Fast: r.cfg.Network.Kernel}
	if err := r.ensureKeeper(ctx, n.Group); err != nil {
		return err
	}
	return rec.Net.clearTraffic()
}

// groupLock names the lock of a group; no container has such an id.
func groupLock(group string) string { return "/" + group }

// leaveGroup takes a container of which nothing runs out of its group. The
// last one takes the keeper along.
func (r *Runtime) leaveGroup(id string) error {
	group := r.groups.of(id)
	if group == "" {
		return nil
	}
	defer r.hold(groupLock(group))()
	if _, empty := r.groups.drop(id); !empty {
		return nil
	}
	return r.removeGroup(group)
}

// removeGroup ends a group's keeper and removes what it had.
func (r *Runtime) removeGroup(group string) error {
	dir := filepath.Join(r.groups.dir, group)
	if err := stopMonitor(dir); err != nil {
		return err
	}
	if err := cgroupDirs(r.groupCgroup(group)).remove(); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (r *Runtime) groupCgroup(group string) string { return filepath.Join(r.group, "_net."+group) }

// openGroups removes what groups without containers left, and sees to it that
// those with one have a keeper.
func (r *Runtime) openGroups() error {
	left, err := os.ReadDir(r.groups.dir)
	if err != nil {
		return err
	}
	for _, e := range left {
		if !r.groups.has(e.Name()) {
			if err := r.removeGroup(e.Name()); err != nil {
				return err
			}
		}
	}
	for _, group := range r.groups.names() {
		if err := r.reviveKeeper(group); err != nil {
			return err
		}
	}
	r.groups.tending.Go(r.tendGroups)
	return nil
}

// tendGroups gives a group whose keeper has died another one.
func (r *Runtime) tendGroups() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.groups.stop:
			return
		}
		for _, group := range r.groups.names() {
			if _, alive, err := monitorAlive(filepath.Join(r.groups.dir, group)); err == nil && !alive {
				_ = r.reviveKeeper(group) // and again at the next tick
			}
		}
	}
}

// close ends tendGroups; keepers stay.
func (g *groups) close() {
	g.once.Do(func() { close(g.stop) })
	g.tending.Wait()
}

// reviveKeeper starts a keeper for a group that should have one; its
// containers connect to it by themselves.
func (r *Runtime) reviveKeeper(group string) error {
	defer r.hold(groupLock(group))()
	if !r.groups.has(group) {
		return nil
	}
	return r.ensureKeeper(context.Background(), group)
}

// ensureKeeper starts a group's keeper unless it runs. The caller holds the
// group's lock.
func (r *Runtime) ensureKeeper(ctx context.Context, group string) error {
	dir := filepath.Join(r.groups.dir, group)
	if _, alive, err := monitorAlive(dir); err != nil || alive {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	rec := groupRecord{Group: group, Cgroup: r.groupCgroup(group), Config: r.cfg.Network}
	if err := errors.Join(writeJSON(dir, recordFile, rec), durable.SyncDir(r.groups.dir)); err != nil {
		return err
	}
	if err := r.launchProcess(ctx, dir, child{name: "the keeper", program: "/proc/self/exe", arg: keeperArg}); err != nil {
		return fmt.Errorf("the network of group %s: %w", group, err)
	}
	return nil
}

// processEnv is that of the processes that outlive this one. What their
// goroutines do is little and mostly one after the other: to wake another
// processor for the next costs more than it gains. GORACE matters to
// race-detector builds only, which else end a second late.
func processEnv() []string {
	return []string{MonitorEnv + "=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=1", "GODEBUG=containermaxprocs=0,updatemaxprocs=0", "GORACE=atexit_sleep_ms=0"}
}

// offset is where a container's counters are in the group's file.
func (n netRecord) offset() int64 {
	return int64(n.Address.As4()[3]) * int64(netstack.CounterBytes/256)
}

// clearTraffic makes the counters of an address that another container had
// begin anew.
func (n netRecord) clearTraffic() error {
	f, err := os.OpenFile(filepath.Join(n.Dir, trafficFile), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(make([]byte, netstack.CounterBytes/256), n.offset())
	return err
}

// status reads what a container's network has carried.
func (n netRecord) status() container.NetworkStatus {
	if !n.Address.IsValid() {
		return container.NetworkStatus{}
	}
	out := container.NetworkStatus{Address: n.Address}
	if n.Fast {
		askCounts(n.Dir)
	}
	f, err := os.Open(filepath.Join(n.Dir, trafficFile))
	if err != nil {
		return out
	}
	defer f.Close()
	var b [64]byte
	if _, err := f.ReadAt(b[:], n.offset()); err != nil {
		return out
	}
	for i, field := range []*uint64{&out.BytesIn, &out.BytesOut, &out.Refused, &out.Connections} {
		*field = binary.NativeEndian.Uint64(b[8*i:]) + binary.NativeEndian.Uint64(b[fastCounters+8*i:])
	}
	return out
}
