package image

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
)

// killedEnv makes this test's binary a process that pulls: directory, address of
// the registry, reference.
const killedEnv = "PKTCLOUD_TEST_PULL"

// TestKilledPull kills a real process with SIGKILL while it pulls: at each
// request that it makes, in the middle of a layer, and while layers are unpacked
// and merged. The next one finds nothing left, goes on where that one was, and
// has the whole image.
func TestKilledPull(t *testing.T) {
	if job := os.Getenv(killedEnv); job != "" {
		pullToBeKilled(t, strings.Split(job, "\n"))
		return
	}
	f := newFront(t)
	var many []tarEntry
	for i := range 400 {
		many = append(many, file(fmt.Sprintf("many/%d", i), "x"))
	}
	img := layered(t, hostileLayer(t, []tarEntry{file("one", strings.Repeat("0123456789abcdef", 1<<14))}, ""), hostileLayer(t, many, ""))
	ref := f.addr + "/app:1"
	push(t, ref, img)
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	first := read(t, img)
	// at kills when a request comes that is meant.
	at := func(kill func(), meant func(*http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		return func(_ http.ResponseWriter, r *http.Request) bool {
			if meant(r) {
				kill()
				return true
			}
			return false
		}
	}
	blob := func(i int) func(*http.Request) bool {
		return func(r *http.Request) bool { return isBlob(r, m.Layers[i].Digest) }
	}
	for _, c := range []struct {
		name    string
		tamper  func(kill func()) func(http.ResponseWriter, *http.Request) bool
		watch   string // or: kill when this appears in the store
		resumes bool   // the next one asks for the rest of a blob only
	}{
		{name: "at the manifest", tamper: func(kill func()) func(http.ResponseWriter, *http.Request) bool { return at(kill, isManifest) }},
		{name: "at the configuration", tamper: func(kill func()) func(http.ResponseWriter, *http.Request) bool {
			return at(kill, func(r *http.Request) bool { return isBlob(r, m.Config.Digest) })
		}},
		{name: "at the first layer", tamper: func(kill func()) func(http.ResponseWriter, *http.Request) bool { return at(kill, blob(0)) }},
		{name: "at the second layer", tamper: func(kill func()) func(http.ResponseWriter, *http.Request) bool { return at(kill, blob(1)) }},
		{name: "within a layer", resumes: true, tamper: func(kill func()) func(http.ResponseWriter, *http.Request) bool {
			return at(kill, func(*http.Request) bool { return false })
		}},
		{name: "while a layer is unpacked", watch: "tmp/layer-*"},
		{name: "while files are unpacked", watch: "tmp/layer-*/rootfs/many"},
		{name: "when a layer is there", watch: "layers/*"},
		{name: "while layers are merged", watch: "tmp/sha256-*"},
		{name: "when the image is there", watch: "images/*"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			p := startPull(t, dir, f.addr, ref)
			var tamper func(http.ResponseWriter, *http.Request) bool
			if c.tamper != nil {
				tamper = c.tamper(p.kill)
			}
			if c.resumes {
				tamper = func(w http.ResponseWriter, r *http.Request) bool {
					if !blob(0)(r) {
						return false
					}
					w.Header().Set("Content-Length", fmt.Sprint(len(first)))
					_, _ = w.Write(first[:len(first)/2])
					w.(http.Flusher).Flush()
					p.whenThere("partial/*", func(size int64) bool { return size > 0 })
					return true
				}
			}
			f.set(tamper)
			p.begin(t)
			if c.watch != "" {
				p.whenThere(c.watch, nil)
			}
			if killed := p.wait(); !killed && c.watch == "" {
				t.Fatalf("the process was not killed: %s", p.out.String())
			}
			var ranges []string
			f.set(func(_ http.ResponseWriter, r *http.Request) bool {
				if blob(0)(r) {
					ranges = append(ranges, r.Header.Get("Range"))
				}
				return false
			})
			goesOn(t, dir, f, ref)
			if c.resumes && (len(ranges) != 1 || !strings.HasPrefix(ranges[0], "bytes=") || strings.HasPrefix(ranges[0], "bytes=0-")) {
				t.Errorf("got ranges %q, want the rest of the layer only", ranges)
			}
		})
	}
}

// goesOn opens a store after its process was killed, and pulls again.
func goesOn(t *testing.T, dir string, f *front, ref string) {
	t.Helper()
	s := openStore(t, Config{Dir: dir, Dial: f.dialer.DialContext})
	if left, err := os.ReadDir(s.path(tmpDir)); err != nil || len(left) != 0 {
		t.Errorf("got %v, %v; want nothing left over", left, err)
	}
	checkNoChild(t, dir)
	checkUnmounted(t, "killed", s)
	img, err := s.Pull(t.Context(), ref, container.PullOptions{})
	if err != nil {
		t.Fatalf("the pull does not go on: %v", err)
	}
	_, root, _, err := s.Root(img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "one")); err != nil || len(b) != 1<<18 {
		t.Errorf("the first layer: got %d bytes, %v", len(b), err)
	}
	if files, err := os.ReadDir(filepath.Join(root, "many")); err != nil || len(files) != 400 {
		t.Errorf("the second layer: got %d files, %v", len(files), err)
	}
	for _, d := range []string{tmpDir, partialsDir} {
		if left, err := os.ReadDir(s.path(d)); err != nil || len(left) != 0 {
			t.Errorf("%s: got %v, %v; want nothing left over", d, left, err)
		}
	}
	checkCounted(t, s)
}

// checkNoChild shows that no process of a killed one unpacks on.
func checkNoChild(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := childrenIn(dir)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("processes %v of the killed one are left", left)
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			return
		}
	}
}

// childrenIn finds processes whose root is below a directory.
func childrenIn(dir string) []int {
	var out []int
	list, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range list {
		root, _ := os.Readlink(filepath.Join(p, "root"))
		if pid, err := strconv.Atoi(filepath.Base(p)); err == nil && strings.HasPrefix(root, dir) {
			out = append(out, pid)
		}
	}
	return out
}

// pullToBeKilled is the process.
func pullToBeKilled(t *testing.T, job []string) {
	d, err := dialer.New([]string{job[1]})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Dir: job[0], Dial: d.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(t.Context(), job[2], container.PullOptions{}); err != nil {
		t.Fatal(err)
	}
}

// victim is a process that pulls.
type victim struct {
	dir  string
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{}
	once sync.Once
	err  error
	here chan struct{} // closed when it has begun
}

func startPull(t *testing.T, dir, addr, ref string) *victim {
	t.Helper()
	v := &victim{dir: dir, done: make(chan struct{}), here: make(chan struct{})}
	v.cmd = exec.Command("/proc/self/exe", "-test.run=^TestKilledPull$", "-test.count=1")
	v.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GOCOVERDIR=") }),
		killedEnv+"="+strings.Join([]string{dir, addr, ref}, "\n"))
	v.cmd.Stdout, v.cmd.Stderr = &v.out, &v.out
	return v
}

func (v *victim) begin(t *testing.T) {
	t.Helper()
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	close(v.here)
	t.Cleanup(func() { v.kill(); <-v.done })
	go func() {
		v.err = v.cmd.Wait()
		close(v.done)
	}()
}

// kill ends the process as a crash would.
func (v *victim) kill() {
	<-v.here
	v.once.Do(func() { _ = v.cmd.Process.Kill() })
}

// whenThere kills as soon as a file is there, if the process lives so long.
func (v *victim) whenThere(pattern string, want func(size int64) bool) {
	for {
		select {
		case <-v.done:
			return
		default:
		}
		found, _ := filepath.Glob(filepath.Join(v.dir, pattern))
		for _, name := range found {
			if st, err := os.Stat(name); err == nil && (want == nil || want(st.Size())) {
				for _, pid := range childrenIn(v.dir) {
					_ = syscall.Kill(pid, syscall.SIGSTOP) // so that it does not just end in time
				}
				v.kill()
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// wait returns whether it was killed; one that ended before is none the worse.
func (v *victim) wait() bool {
	<-v.done
	e := (*exec.ExitError)(nil)
	if !errors.As(v.err, &e) {
		return false
	}
	ws, ok := e.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled()
}
