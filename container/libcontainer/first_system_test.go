//go:build system && linux && cgo && amd64

package libcontainer

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// TestFirstProcess begins processes in namespaces: one that runs, with nothing of
// this process's signals, and one that cannot.
func TestFirstProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ids := []configs.IDMap{{ContainerID: 0, HostID: 0x6ffe0000, Size: idsPerContainer}}
	begin := func(args ...string) (*os.Process, string, error) {
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		const flags = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS
		p, err := firstProcess(args, []string{"PATH=/usr/bin:/bin"}, []*os.File{null, w, w}, flags, nil, firstIDs{ids, ids})
		_ = w.Close()
		if err != nil {
			return nil, "", err
		}
		out, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return p, string(out), nil
	}
	p, out, err := begin("/bin/sh", "-c", "pwd; echo $$; id -u; cat /proc/self/uid_map; exit 7")
	if err != nil {
		t.Fatal(err)
	}
	state, err := p.Wait()
	if err != nil || state.ExitCode() != 7 {
		t.Errorf("got %v, %v; want exit 7", state, err)
	}
	const want = "/ 1 0 0 1878917120 65536"
	if got := strings.Join(strings.Fields(out), " "); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// No shell, some of which let all signals through for themselves.
	if p, out, err := begin("/bin/grep", "SigBlk", "/proc/self/status"); err != nil || out != "SigBlk:\t0000000000000000\n" {
		t.Errorf("blocked signals: got %q, %v, want none", out, err)
	} else if _, err := p.Wait(); err != nil {
		t.Error(err)
	}
	if _, _, err := begin("/no/such/program"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no program: got %v, want ENOENT", err)
	}
	ids[0].Size = 0
	if _, _, err := begin("/bin/sh"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("no ids: got %v, want EINVAL", err)
	}
}
