//go:build cgo && amd64

package libcontainer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupPaths are a container's directories by controller, or by "" for the
// unified hierarchy of cgroup v2.
type cgroupPaths map[string]string

// unified returns the directory of cgroup v2, if it is what keeps the limits.
// On a hybrid machine it is there too, without the controllers.
func (p cgroupPaths) unified() (string, bool) {
	dir, ok := p[""]
	_, hybrid := p["memory"]
	return dir, ok && !hybrid
}

// checkCgroups refuses a machine where limits could not be kept.
func checkCgroups() error {
	need := []string{"cpu", "memory", "pids"}
	if cgroups.IsCgroup2UnifiedMode() {
		have, _ := readFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
		for _, c := range need {
			if !slices.Contains(strings.Fields(string(have)), c) {
				return &container.Error{Code: container.CodeNoCgroups, Detail: "cgroup v2 has no controller " + c}
			}
		}
		return nil
	}
	for _, c := range append(need, "cpuacct", "freezer", "devices") {
		var st unix.Statfs_t
		dir := filepath.Join(cgroupRoot, c)
		if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.CGROUP_SUPER_MAGIC {
			return &container.Error{Code: container.CodeNoCgroups, Detail: "no cgroup controller at " + dir}
		}
	}
	return nil
}

// groupPaths finds the directories of a control group, which need not be there.
func groupPaths(group string) (cgroupPaths, error) {
	m, err := manager.New(&cgroups.Cgroup{Path: group, Resources: &cgroups.Resources{}})
	if err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	return m.GetPaths(), nil
}

// below returns the directories of a group in this one.
func (p cgroupPaths) below(name string) cgroupPaths {
	out := cgroupPaths{}
	for controller, dir := range p {
		out[controller] = filepath.Join(dir, name)
	}
	return out
}

// paused reports whether the container's processes are frozen, by whomever.
func (p cgroupPaths) paused() bool {
	if dir, ok := p.unified(); ok {
		return readField(filepath.Join(dir, "cgroup.events"), "frozen") == 1
	}
	b, err := readFile(filepath.Join(p["freezer"], "freezer.state"))
	return err == nil && strings.TrimSpace(string(b)) != "THAWED"
}

// freeze freezes or thaws, and waits until it is so. Where that does not come
// about in time the group is left as it was.
func (p cgroupPaths) freeze(ctx context.Context, frozen bool) error {
	file, value, settled := filepath.Join(p["freezer"], "freezer.state"), "THAWED", func() bool {
		b, err := readFile(filepath.Join(p["freezer"], "freezer.state"))
		want := map[bool]string{true: "FROZEN", false: "THAWED"}[frozen]
		return err == nil && strings.TrimSpace(string(b)) == want
	}
	if frozen {
		value = "FROZEN"
	}
	undo := "THAWED"
	if dir, ok := p.unified(); ok {
		file, value = filepath.Join(dir, "cgroup.freeze"), map[bool]string{true: "1", false: "0"}[frozen]
		settled = func() bool { return p.paused() == frozen }
		undo = "0"
	}
	was := p.paused()
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		// v1 may need the word again when a fork raced with the freezer.
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			return err
		}
		if settled() {
			return nil
		}
		select {
		case <-ctx.Done():
			if frozen && !was {
				_ = os.WriteFile(file, []byte(undo), 0)
			}
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// usage returns processor time and memory in use; zero when unknown.
func (p cgroupPaths) usage() (time.Duration, uint64) {
	if dir, ok := p.unified(); ok {
		return time.Duration(readField(filepath.Join(dir, "cpu.stat"), "usage_usec")) * time.Microsecond,
			readNumber(filepath.Join(dir, "memory.current"))
	}
	return time.Duration(readNumber(filepath.Join(p["cpuacct"], "cpuacct.usage"))),
		readNumber(filepath.Join(p["memory"], "memory.usage_in_bytes"))
}

// oomKilled reports whether the kernel killed a process for memory.
func (p cgroupPaths) oomKilled() bool {
	if dir, ok := p.unified(); ok {
		return readField(filepath.Join(dir, "memory.events"), "oom_kill") > 0
	}
	return readField(filepath.Join(p["memory"], "memory.oom_control"), "oom_kill") > 0
}

// socketBytes is the part of a container's memory that data in its sockets may
// have beside the rest [CONTAINER-24].
func socketBytes(memory uint64) uint64 { return max(memory/8, 4<<20) }

// limitSockets bounds the memory of sockets. In cgroup v2 it is part of memory;
// in v1 it is not counted at all unless it has a limit, and one container could
// have all that the machine's sockets share.
func (p cgroupPaths) limitSockets(most uint64) error {
	if _, ok := p.unified(); ok || most == 0 {
		return nil
	}
	err := os.WriteFile(filepath.Join(p["memory"], "memory.kmem.tcp.limit_in_bytes"), []byte(strconv.FormatUint(most, 10)), 0)
	if errors.Is(err, fs.ErrNotExist) { // a kernel that has given it up
		return nil
	}
	return err
}

// remove kills what is left in the container's groups and removes them.
func (p cgroupPaths) remove() error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		var busy error
		for _, dir := range p {
			busy = errors.Join(busy, removeCgroup(dir))
		}
		if busy == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("control groups still in use: %w", busy)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// removeCgroup makes one attempt.
func removeCgroup(dir string) error {
	if !strings.HasPrefix(dir, cgroupRoot+"/") || !strings.Contains(dir, "/pktcloud-") {
		return fmt.Errorf("%q is no control group of ours", dir)
	}
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	children, _ := os.ReadDir(dir)
	for _, c := range children {
		if c.IsDir() {
			_ = removeCgroup(filepath.Join(dir, c.Name()))
		}
	}
	killIn(dir)
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// killAll kills what is left in the container's groups.
func (p cgroupPaths) killAll() {
	for _, dir := range p {
		if strings.HasPrefix(dir, cgroupRoot+"/") && strings.Contains(dir, "/pktcloud-") {
			killIn(dir)
		}
	}
}

// killIn kills the processes of one group, not of those below.
func killIn(dir string) {
	// Neither frozen nor short of processor time can they end.
	for f, value := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0", "cpu.cfs_quota_us": "-1", "cpu.max": "max"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err == nil {
			_ = os.WriteFile(filepath.Join(dir, f), []byte(value), 0)
		}
	}
	pids, _ := readFile(filepath.Join(dir, "cgroup.procs"))
	for f := range bytes.FieldsSeq(pids) {
		if pid, err := strconv.Atoi(string(f)); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// cgroupDirs guesses the directories of a container of which no started.json
// tells, in every hierarchy.
func cgroupDirs(path string) cgroupPaths {
	out := cgroupPaths{}
	mounts, _ := filepath.Glob(cgroupRoot + "/*")
	for _, m := range append(mounts, cgroupRoot) {
		if dir := filepath.Join(m, path); isDir(dir) {
			out[dir] = dir
		}
	}
	return out
}

func isDir(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.IsDir()
}

func readNumber(file string) uint64 {
	b, err := readFile(file)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// readField reads a number from lines of "key value".
func readField(file, key string) uint64 {
	b, err := readFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == key {
			n, _ := strconv.ParseUint(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// thaw undoes a freeze without waiting long for it.
func (p cgroupPaths) thaw() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return p.freeze(ctx, false)
}
