//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"unsafe"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

// nextFile is a record that is not in force yet.
const nextFile = "spec.next"

// update changes the limits, all or none [CONTAINER-73]. The monitor does it, so
// that it is whole whatever happens to the node meanwhile; with the monitor the
// container ends.
func (m *monitor) update(l container.Limits) (err error) {
	m.updating.Lock()
	defer m.updating.Unlock()
	was := m.rec.Spec.Limits
	if l == was {
		return nil
	}
	if err := m.meter.usage().CheckFit(was, l); err != nil {
		return err
	}
	if m.engine != nil {
		if err := m.checkEngineUpdate(was, l); err != nil {
			return err
		}
	}
	next := m.rec
	next.Spec.Limits = l
	if err := writeJSON(m.dir, nextFile, &next); err != nil {
		return container.Wrap(startCode(err), "record the limits", err)
	}
	defer func() { _ = os.Remove(filepath.Join(m.dir, nextFile)) }()
	var undo []func()
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				f()
			}
		}
	}()
	for _, step := range []func(was, l container.Limits) error{m.setMemory, m.setShared, m.setProcessor, m.setPids, m.growDisk} {
		if err := step(was, l); err != nil {
			_ = step(l, was) // what of it was done
			return err
		}
		undo = append(undo, func() { _ = step(l, was) })
	}
	// The disk does not shrink again, so nothing that may fail comes after it
	// but this.
	if err := os.Rename(filepath.Join(m.dir, nextFile), filepath.Join(m.dir, recordFile)); err != nil {
		return err
	}
	m.rec.Spec.Limits = l
	return durable.SyncDir(m.dir)
}

// setting is a number in a file of a control group.
type setting struct{ file, value string }

func write(list ...setting) error {
	for _, s := range list {
		if err := os.WriteFile(s.file, []byte(s.value), 0); err != nil {
			return err
		}
	}
	return nil
}

// setMemory changes the memory limit. The kernel first frees what it can; what
// is left must fit.
func (m *monitor) setMemory(was, l container.Limits) error {
	if was.MemoryBytes == l.MemoryBytes {
		return nil
	}
	misfit := func(err error) error {
		return &container.Error{Code: container.CodeDoesNotFit, Detail: fmt.Sprintf("memory in use does not fit into %d bytes", l.MemoryBytes), Err: err}
	}
	value := strconv.FormatUint(l.MemoryBytes, 10)
	if dir, ok := m.cgroups.unified(); ok {
		// A lower memory.max would kill at once; memory.high only takes away.
		high := filepath.Join(dir, "memory.high")
		if err := write(setting{high, value}); err != nil {
			return err
		}
		fits := readNumber(filepath.Join(dir, "memory.current")) <= l.MemoryBytes
		var err error
		if fits {
			err = write(setting{filepath.Join(dir, "memory.max"), value})
		}
		err = errors.Join(err, write(setting{high, "max"}))
		if !fits {
			return misfit(nil)
		}
		return err
	}
	dir := m.cgroups["memory"]
	memory, both := setting{filepath.Join(dir, "memory.limit_in_bytes"), value}, setting{filepath.Join(dir, "memory.memsw.limit_in_bytes"), value}
	order := []setting{memory, both}
	if l.MemoryBytes > was.MemoryBytes { // the second may never be the lower one
		order = []setting{both, memory}
	}
	if !fileExists(both.file) {
		order = []setting{memory}
	}
	err := write(order...)
	if errors.Is(err, unix.EBUSY) {
		return misfit(err)
	}
	if err != nil {
		return err
	}
	return m.cgroups.limitSockets(socketBytes(l.MemoryBytes))
}

// setShared changes the size of /dev/shm, which is a part of the memory
// [CONTAINER-26].
func (m *monitor) setShared(was, l container.Limits) error {
	size := sharedBytes(l.MemoryBytes)
	if size == sharedBytes(was.MemoryBytes) || m.engine != nil { // whose mounts are inside
		return nil
	}
	shm, err := unix.Fspick(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/root/dev/shm", m.meter.pid), unix.FSPICK_CLOEXEC|unix.FSPICK_SYMLINK_NOFOLLOW|unix.FSPICK_NO_AUTOMOUNT)
	if err != nil {
		return fmt.Errorf("find /dev/shm: %w", err)
	}
	defer func() { _ = unix.Close(shm) }()
	err = unix.FsconfigSetString(shm, "size", strconv.FormatUint(size, 10))
	if err == nil {
		err = unix.FsconfigReconfigure(shm)
	}
	if err != nil {
		return &container.Error{Code: container.CodeDoesNotFit, Detail: fmt.Sprintf("/dev/shm does not fit into %d bytes, half the memory", size), Err: err}
	}
	return nil
}

// sharedBytes is the size of /dev/shm beside the given memory.
func sharedBytes(memory uint64) uint64 { return min(64<<20, memory/2) }

// setProcessor changes processor time and what counts when all want it.
func (m *monitor) setProcessor(was, l container.Limits) error {
	if was.MilliCPU == l.MilliCPU {
		return nil
	}
	quota := strconv.FormatUint(l.MilliCPU*cpuPeriod/1000, 10)
	shares := cpuShares(l.MilliCPU)
	if dir, ok := m.cgroups.unified(); ok {
		return write(setting{filepath.Join(dir, "cpu.max"), quota + " " + strconv.Itoa(cpuPeriod)},
			setting{filepath.Join(dir, "cpu.weight"), strconv.FormatUint(cgroups.ConvertCPUSharesToCgroupV2Value(shares), 10)})
	}
	dir := m.cgroups["cpu"]
	return write(setting{filepath.Join(dir, "cpu.cfs_quota_us"), quota}, setting{filepath.Join(dir, "cpu.shares"), strconv.FormatUint(shares, 10)})
}

func (m *monitor) setPids(was, l container.Limits) error {
	if was.Pids == l.Pids {
		return nil
	}
	dir, ok := m.cgroups.unified()
	if !ok {
		dir = m.cgroups["pids"]
	}
	return write(setting{filepath.Join(dir, "pids.max"), strconv.FormatUint(l.Pids, 10)})
}

// growDisk makes the writable layer larger while it is in use. Where it cannot,
// the file and its device are as they were; undoing it does nothing.
func (m *monitor) growDisk(was, l container.Limits) error {
	if l.DiskBytes <= was.DiskBytes {
		return nil
	}
	return growDisk(filepath.Join(m.dir, diskFile), m.stage.path("disk"), was.DiskBytes, l.DiskBytes)
}

// resizeExt4 is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64).
const resizeExt4 = 0x40086610

// growDisk makes the file system mounted at mount larger, which is ext4 on a
// loop device over file, of blocks of 4096 bytes.
func growDisk(file, mount string, from, to uint64) error {
	disk, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	loop, err := openDevice(mount)
	if err != nil {
		return err
	}
	defer loop.Close()
	err = unix.Fallocate(int(disk.Fd()), 0, 0, int64(to))
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = disk.Truncate(int64(to))
	}
	if err != nil {
		err = &container.Error{Code: container.CodeDiskFull, Detail: fmt.Sprintf("reserve %d bytes for the writable layer", to), Err: err}
	}
	if err == nil {
		err = unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_CAPACITY, 0)
	}
	if err == nil {
		err = resizeFS(mount, to/4096)
	}
	if err != nil {
		_ = disk.Truncate(int64(from))
		_ = unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_CAPACITY, 0)
	}
	return err
}

func resizeFS(mount string, blocks uint64) error {
	dir, err := os.Open(mount)
	if err != nil {
		return err
	}
	defer dir.Close()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), resizeExt4, uintptr(unsafe.Pointer(&blocks)))
	if errno == 0 {
		return nil
	}
	if errno == unix.EPERM {
		return &container.Error{Code: container.CodeMissingFeature, Detail: "the node lacks the capability CAP_SYS_RESOURCE, without which the kernel grows no disk in use", Err: errno}
	}
	return fmt.Errorf("grow the file system: %w", errno)
}

// openDevice opens the device that path is on.
func openDevice(path string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is on no device", path)
	}
	if err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join("/dev", filepath.Base(link)), os.O_RDWR, 0)
}
