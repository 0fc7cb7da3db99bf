//go:build system

package systemtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/internal/leftover"
)

// TestKilledDemo kills a demo while its container runs, frozen. The next demo
// says what it found, and removes all of it.
func TestKilledDemo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: real containers are started")
	}
	temp := t.TempDir()
	bin := binary(t, "")
	cmd := exec.Command(bin, "demo", "--json", "--intervals", "1000")
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	steps, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer late.Stop()
	reached := false
	for lines := bufio.NewScanner(steps); !reached && lines.Scan(); {
		var line struct{ Step string }
		reached = json.Unmarshal(lines.Bytes(), &line) == nil && line.Step == "logs"
	}
	runtimes, _ := filepath.Glob(filepath.Join(temp, "pktcloud-demo-*", "provider", "runtime"))
	for _, r := range runtimes {
		freezeAll(t, r)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if !reached {
		t.Fatal("the demo did not get to its logs")
	}
	dirs, err := filepath.Glob(filepath.Join(temp, "pktcloud-demo-*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("got the directories %q, %v; want one", dirs, err)
	}
	runtime := filepath.Join(dirs[0], "provider", "runtime")
	left := append(leftover.What(dirs[0]), leftover.Groups(runtime)...)
	t.Logf("the killed demo left %s", strings.Join(left, ", "))
	if all := strings.Join(left, " "); !strings.Contains(all, "process") || !strings.Contains(all, "loop device") || !strings.Contains(all, "cgroup") {
		t.Errorf("this is no test: the killed demo left only %s", all)
	}

	next := exec.Command(bin, "demo", "--json", "--intervals", "1")
	next.Env = append(os.Environ(), "TMPDIR="+temp)
	out, err := next.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), dirs[0]) {
		t.Errorf("the next demo: got %v and %s, want it to name %s", err, out, dirs[0])
	}
	eventually(t, "nothing is left after it", func() (bool, error) { // the kernel takes its time with what has ended
		if left := append(leftover.What(temp), leftover.Groups(runtime)...); len(left) > 0 {
			return false, errors.New(strings.Join(left, ", "))
		}
		return true, nil
	})
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("after it: %v, %v; want no directory", left, err)
	}
}

// freezeAll freezes the containers of a runtime from outside.
func freezeAll(t *testing.T, runtime string) {
	t.Helper()
	frozen := 0
	for _, group := range leftover.Groups(runtime) {
		for pattern, word := range map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"} {
			files, _ := filepath.Glob(filepath.Join(group, "*", pattern))
			for _, f := range files {
				if err := os.WriteFile(f, []byte(word), 0); err != nil {
					t.Fatal(err)
				}
				frozen++
			}
		}
	}
	if frozen == 0 {
		t.Error("no container to freeze")
	}
}
