//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// withSetuid adds a layer with a setuid copy of a program.
func withSetuid(img v1.Image, binary string) (v1.Image, error) {
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err = w.WriteHeader(&tar.Header{Name: "setuid", Mode: 0o4755, Size: int64(len(data))})
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return mutate.AppendLayers(img, static.NewLayer(b.Bytes(), types.OCIUncompressedLayer))
}

// The neighbour serves this on its own loopback.
const (
	servedPort   = 7007
	servedAnswer = "the neighbour's secret"
)

// watch asks the neighbour again and again.
type watch struct {
	stop func()

	mu      sync.Mutex // guards what follows
	asked   int
	longest time.Duration
	wrong   []string
}

// watchNeighbour asks the neighbour for its secret until it is stopped.
func (s *siege) watchNeighbour() *watch {
	w := &watch{}
	end, ended := make(chan struct{}), make(chan struct{})
	w.stop = sync.OnceFunc(func() { close(end); <-ended })
	s.T.Cleanup(w.stop)
	go func() {
		defer close(ended)
		for {
			begun := time.Now()
			err := s.askNeighbour()
			w.note(time.Since(begun), err)
			select {
			case <-end:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return w
}

func (w *watch) note(took time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	w.longest = max(w.longest, took)
	if err != nil {
		w.wrong = append(w.wrong, err.Error())
	}
}

func (s *siege) askNeighbour() error {
	c, err := s.RT.Dial(s.T.Context(), "neighbour", servedPort)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(boxtest.Patience)); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err == nil && string(got) != servedAnswer {
		err = fmt.Errorf("it answered %.80q", got)
	}
	return err
}

// checkNeighbour shows that the neighbour answered throughout, runs on, and that
// its limits and its counters are its own.
func (s *siege) checkNeighbour(w *watch) {
	s.T.Helper()
	w.stop()
	if len(w.wrong) > 0 || w.asked < 2 {
		s.T.Errorf("the neighbour failed %d of %d times: %.500q", len(w.wrong), w.asked, w.wrong)
	}
	s.T.Logf("the neighbour answered %d times, the slowest after %v", w.asked, w.longest)
	if st, err := s.RT.Status(s.T.Context(), "neighbour"); err != nil || st.State != container.Running || st.OOMKilled {
		s.T.Errorf("the neighbour is %+v, %v", st, err)
	}
	if got := readText(fmt.Sprintf("/proc/%d/cmdline", s.neighbour)); got != "/attack\x00neighbour\x00" {
		s.T.Errorf("the neighbour was process %d, which is now %q", s.neighbour, got)
	}
	if out, code := s.Exec("neighbour", "/attack", "list"); code != 0 || out == "" {
		s.T.Errorf("the neighbour runs no program any more: exit %d", code)
	}
}

// moving are settings that the kernel changes by itself.
var moving = regexp.MustCompile(`/proc/sys/(fs/(dentry-state|file-nr|inode-nr|inode-state|aio-nr|quota/)|` +
	`kernel/(random/|ns_last_pid|pty/nr|cad_pid|perf_event_max_sample_rate)|net/.*/(conf|neigh)/|net/netfilter/|net/nf_conntrack|dev/cdrom|sunrpc)`)

// machineState is what no lease may change, by name.
func (s *siege) machineState() map[string]string {
	s.T.Helper()
	state := map[string]string{}
	_ = filepath.WalkDir("/proc/sys", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || moving.MatchString(path) {
			return nil //nolint:nilerr // what is gone meanwhile is not compared
		}
		if text, err := os.ReadFile(path); err == nil {
			state[path] = string(text)
		}
		return nil
	})
	for _, name := range []string{
		"/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/mm/ksm/run",
		"/sys/kernel/profiling", "/sys/power/state", "/proc/cmdline", "/proc/self/oom_score_adj", "/proc/1/oom_score_adj",
	} {
		if text, err := os.ReadFile(name); err == nil {
			state[name] = string(text)
		}
	}
	for _, name := range []string{"/proc/swaps", "/proc/modules"} {
		var names []string
		for line := range strings.Lines(readText(name)) { // what else is told changes by itself: users of a module, use of a swap
			names = append(names, strings.Fields(line)[0])
		}
		slices.Sort(names)
		state[name] = strings.Join(names, " ")
	}
	s.groupState(state)
	s.fileState(state)
	for line := range strings.Lines(readText("/proc/self/mountinfo")) {
		if inGuest() || strings.Contains(line, s.Dir) { // others may be at work on a machine that is not ours alone
			state["mount "+line] = "mounted"
		}
	}
	if inGuest() {
		names, _ := filepath.Glob("/sys/class/net/*")
		state["network"] = strings.Join(names, " ")
		names, _ = filepath.Glob("/sys/module/*")
		state["modules"] = strings.Join(names, " ")
		state["hostname"] = readText("/proc/sys/kernel/hostname")
	}
	return state
}

func readText(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// groupState adds the limits of the neighbour and of all above it, and how often
// the kernel had to kill for them.
func (s *siege) groupState(state map[string]string) {
	limit := regexp.MustCompile(`\.(max|high|low|min|weight|limit_in_bytes|cfs_quota_us|cfs_period_us|shares|oom_control|list|cpus|mems)$|release|subtree_control|cgroup.type|swappiness$`)
	for line := range strings.Lines(readText(fmt.Sprintf("/proc/%d/cgroup", s.neighbour))) {
		// Those above count what the hostile lease did to itself.
		own := filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(strings.TrimSpace(line), "0::"), "memory.events")
		if text := readText(own); text != "" {
			state[own] = text
		}
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		root := "/sys/fs/cgroup"
		if f[1] != "" {
			root = filepath.Join(root, strings.TrimPrefix(f[1], "name="))
		}
		for dir := filepath.Join(root, f[2]); len(dir) >= len(root); dir = filepath.Dir(dir) {
			files, _ := os.ReadDir(dir)
			for _, e := range files {
				if limit.MatchString(e.Name()) && !strings.Contains(e.Name(), "usage") {
					state[filepath.Join(dir, e.Name())] = readText(filepath.Join(dir, e.Name()))
				}
			}
			if dir != root && !inGuest() && filepath.Dir(dir) == root {
				break // the machine's own groups may be changed by others
			}
		}
	}
}

// fileState adds files of the machine that an escape would change first, and
// those that leases share: the image.
func (s *siege) fileState(state map[string]string) {
	trees := []string{s.machine, filepath.Join(s.Dir, "images")}
	if inGuest() {
		trees = append(trees, "/etc", "/root", "/bin", "/sbin", "/usr", "/guest")
	}
	for _, tree := range trees {
		_ = filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && filepath.Base(path) != "image.json" { // whose time tells when it was last used
				state[path] = fileFacts(path)
			}
			return nil
		})
	}
	names, _ := filepath.Glob("/dev/*")
	for _, name := range append(names, "/etc/passwd", "/etc/shadow", "/etc/group", "/etc/ld.so.preload", "/etc/crontab", "/root/.ssh/authorized_keys", "/", "/usr", "/etc") {
		state[name] = fileFacts(name)
	}
	state["secret"] = readText(s.targets.Secret)
}

// fileFacts are those that a write, a change of rights or another file in its
// place would change. Directories of devices change by themselves.
func fileFacts(path string) string {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return err.Error()
	}
	facts := fmt.Sprintf("mode %o owner %d:%d device %x", st.Mode, st.Uid, st.Gid, st.Rdev)
	if st.Mode&syscall.S_IFMT == syscall.S_IFREG {
		facts += fmt.Sprintf(" inode %d links %d size %d changed %d.%d", st.Ino, st.Nlink, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
	}
	return facts
}

// checkMachine compares two states.
func (s *siege) checkMachine(before, after map[string]string) {
	s.T.Helper()
	for name, want := range before {
		got, ok := after[name]
		if inGuest() || strings.HasPrefix(name, s.Dir) || strings.HasPrefix(name, "/proc/") || strings.HasPrefix(name, "mount") {
			if !ok {
				s.T.Errorf("%s is gone", name)
				continue
			}
		}
		if ok && got != want {
			s.T.Errorf("%s is not as before: got %q, want %q", name, got, want)
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok && (inGuest() || strings.HasPrefix(name, s.Dir) || strings.HasPrefix(name, "mount")) {
			s.T.Errorf("%s is new: %q", name, after[name])
		}
	}
	if len(s.known) == 0 {
		s.T.Log("the kernel's messages cannot be read here, or there are none")
	}
	if len(before) < 300 {
		s.T.Errorf("only %d things were compared", len(before))
	}
	s.T.Logf("%d settings, limits, files and mounts of the machine are as before", len(before))
	s.checkKernelLog()
}

// kernelLog returns the kernel's messages.
func kernelLog() []string {
	b := make([]byte, 1<<18)
	n, err := syscall.Klogctl(3, b) // SYSLOG_ACTION_READ_ALL
	if err != nil {
		return nil
	}
	return slices.Collect(strings.Lines(string(b[:n])))
}

// checkKernelLog looks for what the kernel says when it is harmed, or when all
// the machine's memory was used up.
func (s *siege) checkKernelLog() {
	s.T.Helper()
	for _, line := range kernelLog() {
		for _, bad := range []string{"BUG:", "Oops", "general protection", "] Out of memory: Killed", "Kernel panic", "blocked for more than"} {
			if strings.Contains(line, bad) && !slices.Contains(s.known, line) {
				s.T.Errorf("the kernel says: %s", line)
			}
		}
	}
}

// strangers are the processes of the hostile program that are not the
// neighbour's.
func (s *siege) strangers() []string {
	var all []string
	own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", s.neighbour))
	list, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range list {
		exe, _ := os.Readlink(p + "/exe")
		users, _ := os.Readlink(p + "/ns/user")
		if (exe == "/attack" || exe == "/setuid-copy" || exe == "/setuid") && users != own && s.ours(p) {
			all = append(all, p+" "+exe)
		}
	}
	return all
}

// ours reports whether a process is in a control group of this test's runtime.
func (s *siege) ours(proc string) bool {
	_, group, _ := strings.Cut(readText(fmt.Sprintf("/proc/%d/cgroup", s.neighbour)), ":/")
	group = filepath.Dir(strings.TrimSpace(strings.SplitN(group, "\n", 2)[0]))
	return strings.Contains(readText(proc+"/cgroup"), group)
}
