package leftover_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/internal/leftover"
)

// killed makes what a run leaves that was killed: its directory, marked, with
// nobody who holds the mark, and a process that goes on.
func killed(t *testing.T, keep bool) (dir string, ended <-chan error) {
	t.Helper()
	r, err := leftover.New("run-", keep)
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(r.Dir, "run.lock")
	text, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mark, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return r.Dir, sleeper(t, r.Env())
}

// sleeper starts a process with a variable in its environment.
func sleeper(t *testing.T, env string) <-chan error {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.Env = append(os.Environ(), env)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	return ended
}

func gone(ended <-chan error) bool {
	select {
	case <-ended:
		return true
	case <-time.After(100 * time.Millisecond):
		return false
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestSweep(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("containers run on Linux only")
	}
	t.Setenv("TMPDIR", t.TempDir())
	dead, process := killed(t, false)
	keep, second := killed(t, true)
	living, err := leftover.New("run-", false)
	if err != nil {
		t.Fatal(err)
	}
	third := sleeper(t, living.Env())
	exposed, fourth := killed(t, false)
	if err := os.Chmod(exposed, 0o777); err != nil {
		t.Fatal(err)
	}
	other := sleeper(t, "PKTCLOUD_RUN="+dead+"1")

	found, err := leftover.Sweep(t.Context(), "run-")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{dead, keep}
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("got %q, want %q", found, want)
	}
	if exists(dead) || !gone(process) {
		t.Error("a killed run's directory or process is left")
	}
	if !exists(keep) || !gone(second) {
		t.Error("a killed run whose directory was to stay: it is gone, or its process is left")
	}
	if !exists(living.Dir) || gone(third) {
		t.Error("a run that lives has lost its directory or process")
	}
	if !exists(exposed) || gone(fourth) {
		t.Error("a directory that others can write to was taken for one of ours")
	}
	if gone(other) {
		t.Error("a process of a directory whose name only begins the same was killed")
	}
	if found, err := leftover.Sweep(t.Context(), "run-"); err != nil || len(found) > 0 {
		t.Errorf("the second time: got %q, %v; want nothing", found, err)
	}
	if err := living.Close(); err != nil {
		t.Fatal(err)
	}
	if found, err := leftover.Sweep(t.Context(), "run-"); err != nil || len(found) > 0 {
		t.Errorf("after a run that ended in order: got %q, %v; want nothing", found, err)
	}
}
