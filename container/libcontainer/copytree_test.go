//go:build system && linux && cgo && amd64

package libcontainer

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var unixTime = time.Unix(1_000_000_000, 0)

// TestCopyShifted is what kernels without idmapped overlays depend on.
func TestCopyShifted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	from, to := t.TempDir(), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(from, "d"), 0o1777))
	must(os.Chmod(filepath.Join(from, "d"), os.ModeSticky|0o777))
	must(os.WriteFile(filepath.Join(from, "d/f"), []byte("text"), 0o640))
	must(os.Link(filepath.Join(from, "d/f"), filepath.Join(from, "d/g")))
	must(os.Symlink("/etc/passwd", filepath.Join(from, "l")))
	must(unix.Mkfifo(filepath.Join(from, "p"), 0o600))
	must(os.Chown(filepath.Join(from, "d/f"), 1007, 1008))
	must(os.Chtimes(filepath.Join(from, "d"), unixTime, unixTime))
	must(copyShifted(from, to, 100000))
	var f, g, d, l, p unix.Stat_t
	for name, st := range map[string]*unix.Stat_t{"d/f": &f, "d/g": &g, "d": &d, "l": &l, "p": &p} {
		must(unix.Lstat(filepath.Join(to, name), st))
	}
	if f.Uid != 101007 || f.Gid != 101008 || f.Mode&0o7777 != 0o640 || f.Ino != g.Ino || f.Size != 4 {
		t.Errorf("got file %+v", f)
	}
	if d.Mode&0o7777 != 0o1777 || d.Mtim.Sec != unixTime.Unix() {
		t.Errorf("got directory %o at %d", d.Mode, d.Mtim.Sec)
	}
	if link, err := os.Readlink(filepath.Join(to, "l")); err != nil || link != "/etc/passwd" || l.Uid != 100000 {
		t.Errorf("got link %q, %v, owner %d", link, err, l.Uid)
	}
	if p.Mode&unix.S_IFMT != unix.S_IFIFO {
		t.Errorf("got mode %o, want a pipe", p.Mode)
	}
}
