//go:build cgo && amd64

package libcontainer

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// meterEvery is how often a meter looks at what the kernel does not count.
const meterEvery = time.Second

// fullBytes is what a file system may still have free when it is full: less than
// programs commonly write at once.
const fullBytes = 128 << 10

// meter reads what a container uses, and looks now and then at what no counter
// of the kernel tells.
type meter struct {
	groups  cgroupPaths
	disk    string // a path on the writable layer
	ioRate  uint64
	devices []device
	pid     int // the first process, as long as it was not waited for

	// engine: the kernel inside counts the processes, not the machine's, and
	// what is killed for memory is all of it.
	engine bool

	// network adds what the container's network counts; nil where it has none.
	network func(*container.Usage)

	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	hits    container.Hits // Disk and IO
	full    bool
	last    container.Usage
	lastAt  time.Time
	oomSeen uint64 // of which the first process is known to be no victim
	pids    uint64 // the most seen, where the kernel keeps no peak
	memory  uint64
}

func newMeter(m *monitor, pid int) (*meter, error) {
	r := &meter{groups: m.cgroups, engine: m.engine != nil, disk: m.stage.path("disk"), ioRate: m.rec.IORate, pid: pid, stop: make(chan struct{})}
	return r, r.watch(r.disk)
}

// run looks until close.
func (m *meter) run() {
	m.done.Go(func() {
		tick := time.NewTicker(meterEvery)
		defer tick.Stop()
		for {
			select {
			case <-m.stop:
				return
			case <-tick.C:
				m.look()
			}
		}
	})
}

// close is called once, and before the groups are removed.
func (m *meter) close() {
	close(m.stop)
	m.done.Wait()
}

// look counts a second in which the container did input and output as fast as
// it may, and takes note of processes killed for memory that were not its first.
func (m *meter) look() {
	u, at := m.usage(), time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if most := float64(m.ioRate) * at.Sub(m.lastAt).Seconds() * 9 / 10; m.ioRate > 0 && !m.lastAt.IsZero() {
		if float64(u.ReadBytes-m.last.ReadBytes) >= most || float64(u.WrittenBytes-m.last.WrittenBytes) >= most {
			m.hits.IO++
		}
	}
	m.last, m.lastAt = u, at
	if !m.engine && !dying(m.pid) {
		m.oomSeen = u.OOMKills
	}
}

// victim reports whether a first process that SIGKILL ended was killed for
// memory: a process was, since it was last seen not to be dying.
func (m *meter) victim() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.groups.oomKills() > m.oomSeen
}

// usage reads all counters.
func (m *meter) usage() container.Usage {
	u := m.groups.counters()
	if m.engine {
		u.Pids, u.PidsPeak, u.Hits.Pids = 0, 0, 0
	}
	m.readDisk(&u)
	for _, d := range m.devices {
		read, written := d.bytes()
		u.ReadBytes += read - d.read
		u.WrittenBytes += written - d.written
	}
	m.mu.Lock()
	m.pids, m.memory = max(m.pids, u.Pids, u.PidsPeak), max(m.memory, u.MemoryBytes, u.MemoryPeakBytes)
	u.PidsPeak, u.MemoryPeakBytes = m.pids, m.memory
	u.Hits.Disk, u.Hits.IO = m.hits.Disk, m.hits.IO
	m.mu.Unlock()
	if m.network != nil {
		m.network(&u)
	}
	return u
}

// readDisk looks how full the writable layer is, and counts when it has become
// so.
func (m *meter) readDisk(u *container.Usage) {
	var st unix.Statfs_t
	if err := unix.Statfs(m.disk, &st); err != nil {
		return
	}
	block := uint64(st.Bsize)
	u.DiskBytes = (st.Blocks - st.Bfree) * block
	u.DiskSizeBytes = u.DiskBytes + st.Bavail*block
	full := st.Bavail*block < fullBytes || st.Files > 0 && st.Ffree == 0
	m.mu.Lock()
	defer m.mu.Unlock()
	if full && !m.full {
		m.hits.Disk++
	}
	m.full = full
}

// counters reads the kernel's numbers; zero what it does not have.
func (p cgroupPaths) counters() container.Usage {
	var u container.Usage
	u.CPUTime, u.MemoryBytes = p.usage()
	u.OOMKills = p.oomKills()
	stat, pids, memory := filepath.Join(p["cpu"], "cpu.stat"), p["pids"], p["memory"]
	dir, unified := p.unified()
	if unified {
		stat, pids, memory = filepath.Join(dir, "cpu.stat"), dir, dir
		u.ThrottledTime = time.Duration(readField(stat, "throttled_usec")) * time.Microsecond
		u.MemoryPeakBytes = readNumber(filepath.Join(memory, "memory.peak"))
		u.Hits.Memory = readField(filepath.Join(memory, "memory.events"), "max")
	} else {
		u.ThrottledTime = time.Duration(readField(stat, "throttled_time"))
		u.MemoryPeakBytes = readNumber(filepath.Join(memory, "memory.max_usage_in_bytes"))
		// Which of the two is asked first depends on whether swap is counted.
		u.Hits.Memory = readNumber(filepath.Join(memory, "memory.failcnt")) + readNumber(filepath.Join(memory, "memory.memsw.failcnt"))
		// Newer kernels do not count either; a kill is a hit in any case.
		u.Hits.Memory = max(u.Hits.Memory, u.OOMKills)
	}
	u.Hits.CPU = readField(stat, "nr_throttled")
	u.Pids, u.PidsPeak = readNumber(filepath.Join(pids, "pids.current")), readNumber(filepath.Join(pids, "pids.peak"))
	u.Hits.Pids = readField(filepath.Join(pids, "pids.events"), "max")
	return u
}

// oomKills counts the processes that the kernel killed for memory.
func (p cgroupPaths) oomKills() uint64 {
	if dir, ok := p.unified(); ok {
		return readField(filepath.Join(dir, "memory.events"), "oom_kill")
	}
	return readField(filepath.Join(p["memory"], "memory.oom_control"), "oom_kill")
}

// device is a disk of the container's own.
type device struct {
	stat          string // the kernel's file of its counters
	read, written uint64 // what it had done for others before
}

// watch adds the device that path is on to what is counted.
func (m *meter) watch(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	d := device{stat: fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev))}
	d.read, d.written = d.bytes()
	m.devices = append(m.devices, d)
	return nil
}

// bytes reads what a device has done since it was last made.
func (d device) bytes() (read, written uint64) {
	const sector = 512
	b, err := readFile(d.stat)
	f := strings.Fields(string(b))
	if err != nil || len(f) < 7 {
		return d.read, d.written
	}
	read, _ = strconv.ParseUint(f[2], 10, 64)
	written, _ = strconv.ParseUint(f[6], 10, 64)
	return read * sector, written * sector
}

// exiting is the kernel's mark of a process that has begun to end.
const exiting = 0x4

// dying reports whether a process has ended, is ending, or has SIGKILL before
// it.
func dying(pid int) bool {
	b, err := readFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	// pid (name) state ppid pgrp session tty tpgid flags; a name may be anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 7 || f[0] == "Z" || f[0] == "X" {
		return true
	}
	if flags, err := strconv.ParseUint(f[6], 10, 64); err != nil || flags&exiting != 0 {
		return true
	}
	status, err := readFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if name == "SigPnd" || name == "ShdPnd" {
			bits, _ := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if bits&(1<<(unix.SIGKILL-1)) != 0 {
				return true
			}
		}
	}
	return false
}
