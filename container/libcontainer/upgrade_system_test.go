//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"bufio"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// process is one of the host's, as nothing else ever is.
type process struct {
	pid   int
	began string // in ticks since the machine began
}

func (w *world) process(cmdline string) process {
	w.T.Helper()
	pid := w.hostPID(cmdline)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		w.T.Fatal(err)
	}
	return process{pid, strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[19]}
}

// buildNode builds testdata/node as a version.
func buildNode(t *testing.T, path, version string) {
	t.Helper()
	out, err := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", path, "./testdata/node").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestUpgrade kills a node under 20 services, and puts another version in its
// place. No service is started again. What ended meanwhile, and what was written,
// the new version knows, and it does with the services what the old one could.
func TestUpgrade(t *testing.T) {
	w := newWorld(t)
	w.CloseAll()
	defer w.OpenAll()
	path := filepath.Join(w.Dir, "node")
	buildNode(t, path, "one")
	buildNode(t, path+".next", "two")
	noLibseccomp(t, path)

	const services = 20
	id := func(i int) string { return fmt.Sprintf("service-%d", i) }
	script := func(i int) string {
		return fmt.Sprintf("trap 'echo last; exit %d' USR1; trap 'echo gap' USR2; echo ready; while :; do sleep 0.1; done # service %d of the upgrade", i, i)
	}
	cmdline := func(i int) string { return "sh\x00-c\x00" + script(i) }
	args := []string{w.Dir, "start"}
	for i := range services {
		args = append(args, id(i), script(i))
	}
	node := exec.Command(path, args...)
	node.Stderr = os.Stderr
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "version one" {
		t.Fatalf("the node wrote %q", lines.Text())
	}
	_ = node.Process.Kill()
	_ = node.Wait()
	before := map[int]process{}
	for i := range services {
		before[i] = w.process(cmdline(i))
	}
	if err := os.Rename(path+".next", path); err != nil {
		t.Fatal(err)
	}
	// In the gap every fourth ends, and the one after it writes.
	gap := time.Now()
	await := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(boxtest.Patience); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("waited too long for ", what)
			}
		}
	}
	log := func(i int) string {
		b, _ := os.ReadFile(filepath.Join(w.Box(id(i)), "log.0"))
		return string(b)
	}
	for i := range services {
		await("ready", func() bool { return strings.Contains(log(i), "ready") })
		if i%4 > 1 {
			continue
		}
		if err := unix.Kill(before[i].pid, []unix.Signal{unix.SIGUSR1, unix.SIGUSR2}[i%4]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range services {
		await("the gap", func() bool {
			return i%4 > 1 || i%4 == 0 && !w.running(cmdline(i)) || i%4 == 1 && strings.Contains(log(i), "gap")
		})
	}
	found, err := exec.Command(path, w.Dir, "look").Output()
	if err != nil {
		if bad, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("%v: %s", err, bad.Stderr)
		}
		t.Fatal(err)
	}
	var now struct {
		Version  string
		Services map[string]struct {
			Status    container.Status
			Usage     container.Usage
			Log, Exec string
		}
	}
	if err := json.Unmarshal(found, &now); err != nil || now.Version != "two" || len(now.Services) != services {
		t.Fatalf("got version %q, %d services, %v", now.Version, len(now.Services), err)
	}
	for i := range services {
		s := now.Services[id(i)]
		if i%4 == 0 {
			if s.Status.State != container.Exited || s.Status.End != container.EndExit || s.Status.ExitCode != i || s.Status.FinishedAt.Before(gap) || s.Usage.CPUTime == 0 {
				t.Errorf("service %d: got %+v, want it ended in the gap with code %d", i, s.Status, i)
			}
		} else if s.Status.State != container.Running || w.process(cmdline(i)) != before[i] || s.Exec != id(i)+"\n" {
			t.Errorf("service %d: got %+v, process %v, %q; want process %v on", i, s.Status, w.process(cmdline(i)), s.Exec, before[i])
		}
		// What a plain go build makes has the filter.
		if status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", before[i].pid)); i%4 != 0 && !strings.Contains(string(status), "\nSeccomp:\t2\n") {
			t.Errorf("service %d runs without the filter:\n%s", i, status)
		}
		want := []string{"last", "gap", "ready", "ready"}[i%4]
		last := s.Log[strings.LastIndexByte(strings.TrimSuffix(s.Log, "\n"), '\n')+1:]
		l, err := container.ParseLogLine([]byte(last))
		if err != nil || string(l.Text) != want || want != "ready" && l.Time.Before(gap) {
			t.Errorf("service %d: got the last line %q, %v, want %q", i, last, err, want)
		}
	}
}

// noLibseccomp shows that a plain go build has nothing in it that needs the
// headers of libseccomp.
func noLibseccomp(t *testing.T, path string) {
	t.Helper()
	info, err := buildinfo.ReadFile(path)
	if err != nil || len(info.Deps) < 5 {
		t.Fatalf("got %v, %v, want the modules of the build", info, err)
	}
	for _, d := range info.Deps {
		if strings.Contains(d.Path, "libseccomp") {
			t.Errorf("a plain build has %s in it", d.Path)
		}
	}
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			t.Errorf("the build has the tags %s, which proves nothing", s.Value)
		}
	}
}
