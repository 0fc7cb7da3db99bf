package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// TestLostContainers: what runs on after its directory is gone is named with all
// its processes, and what has its directory is not.
func TestLostContainers(t *testing.T) {
	proc, here, gone := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "runtime")
	process := func(pid, cmdline, cgroup string) {
		t.Helper()
		dir := filepath.Join(proc, pid)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"cmdline": cmdline, "cgroup": cgroup} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	process("10", watcher+"\x00"+here+"/boxes/a\x00", "0::/\n")
	process("11", "serve\x00", "0::/"+libcontainer.Group(here)+"/a\n")
	process("12", "sh\x00"+watcher+"\x00", "0::/\n")
	process("self", "", "")
	if got := checkLost(proc); len(got) != 0 {
		t.Fatalf("nothing is lost: got %+v", got)
	}
	process("20", "serve\x00", "4:freezer:/"+libcontainer.Group(gone)+"/b\n")
	process("21", watcher+"\x00"+gone+"/boxes/b\x00", "0::/\n")
	got := checkLost(proc)
	if len(got) != 1 || got[0].OK || got[0].Remedy != "put it back, or end them: kill -9 21 20" || got[0].Detail != gone+" is gone, and containers that were started from it run on" {
		t.Errorf("got %+v, want the watcher 21 and then 20", got)
	}
}
