//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/boxtest"
)

// disks are the two ways of a snapshot: by shared extents, and by copying.
var disks = map[string]func(*testing.T) string{
	"shared extents": func(t *testing.T) string { return onXFS(t, 8<<30) },
	"copied":         func(t *testing.T) string { return boxtest.OnFileSystem(t, "ext4", 8<<30) },
}

func eachDisk(t *testing.T, f func(w *world)) {
	for name, dir := range disks {
		t.Run(name, func(t *testing.T) {
			w := newWorldIn(t, dir(t))
			defer w.RemoveVolumes()
			f(w)
		})
	}
}

func (w *world) snapshot(names ...string) container.Snapshot {
	w.T.Helper()
	s, err := w.RT.Snapshot(w.T.Context(), "lease", names...)
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() { _ = s.Close() })
	w.T.Logf("programs held for %v", s.Pause())
	return s
}

func (w *world) tree(s container.Snapshot, name string) container.Tree {
	w.T.Helper()
	tree, err := s.Tree(name)
	if err != nil {
		w.T.Fatal(err)
	}
	return tree
}

// everyKind makes in the current directory all that a program inside can.
const everyKind = `
set -e
mkdir -p dir/sub "dir/a name with blanks" empty
echo hello > dir/file
head -c 3000000 /dev/urandom > dir/sub/random
: > zero
ln dir/file dir/sub/hard
ln dir/file "$(printf 'hard \377 \n')"
ln -s ../nowhere dir/symlink
ln -s /etc/passwd absolute
mkfifo dir/fifo
ln dir/fifo fifo-too
mknod whiteout c 0 0
dd if=/dev/urandom of=sparse bs=4096 count=1 seek=20000
dd if=/dev/urandom of=sparse bs=4096 count=3 seek=7 conv=notrunc
truncate -s 90000000 sparse
truncate -s 5000000 hole
chown 33:44 dir/file dir/fifo dir/sub
chown 65535:65535 zero
chown -h 5:6 dir/symlink
chmod 4755 zero
chmod 2770 dir/sub
chmod 1777 empty
chmod 0 hole
touch -d "2001-02-03 04:05:06" dir/file dir "dir/a name with blanks"
touch -h -d "1999-01-01 00:00:01" dir/symlink
`

// describe lists a tree by the tools of the system: type, mode, owner, times to
// the nanosecond, size, links and, of files, sum and extents of data; then all
// attributes.
func describe(t *testing.T, dir string) string {
	t.Helper()
	script := `cd "$1" && find . -printf '%y %m %U:%G %s %n %T@ %A@ %p -> %l\n' | LC_ALL=C sort -k 8
find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
find . -type f -size +1000k -print0 | LC_ALL=C sort -z | xargs -0 du -k
true`
	out, err := exec.Command("bash", "-c", script, "bash", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err = filepath.WalkDir(dir+"/.", func(path string, _ fs.DirEntry, err error) error {
		list := make([]byte, 1<<16)
		n, lerr := unix.Llistxattr(path, list)
		for name := range strings.FieldsFuncSeq(string(list[:max(n, 0)]), func(r rune) bool { return r == 0 }) {
			value := make([]byte, 1<<16)
			n, verr := unix.Lgetxattr(path, name, value)
			out = fmt.Appendf(out, "%q %s=%x\n", strings.TrimPrefix(path, dir), name, value[:max(n, 0)])
			err = errors.Join(err, verr)
		}
		return errors.Join(err, lerr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestSnapshotRestored restores a snapshot and compares it with the volume, by
// other eyes than the runtime's.
func TestSnapshotRestored(t *testing.T) {
	eachDisk(t, func(w *world) {
		w.create(volumeOf("data"))
		w.Start(with(w.Spec("a"), "data:/data"))
		w.must("a", "cp /bin/busybox /data/busybox; cd /data; PATH=/data/tools:$PATH; mkdir tools; /data/busybox --install -s tools; "+everyKind)
		snap := w.snapshot("data")
		dir := w.tree(snap, "data").(container.LocalTree).Dir()
		// Attributes and sockets that busybox cannot make come from outside, in
		// a second round.
		first := volumeOf("first")
		first.SizeBytes *= 2
		if err := w.RT.RestoreVolume(w.T.Context(), first, w.tree(snap, "data")); err != nil {
			w.T.Fatal(err)
		}
		decorated := &decorated{w.tree(snap, "data")}
		second := volumeOf("second")
		if err := w.RT.RestoreVolume(w.T.Context(), second, decorated); err != nil {
			w.T.Fatal(err)
		}
		again := w.snapshot("first", "second")
		if got, want := describe(w.T, w.tree(again, "first").(container.LocalTree).Dir()), describe(w.T, dir); got != want {
			w.T.Errorf("restored:\n%s\nwant:\n%s", got, want)
		} else if !strings.Contains(want, "dir/fifo") || !strings.Contains(want, "c 6") {
			w.T.Errorf("the volume has not all kinds: %s", want)
		}
		if err := w.RT.RestoreVolume(w.T.Context(), volumeOf("third"), w.tree(again, "second")); err != nil {
			w.T.Fatal(err)
		}
		last := w.snapshot("third")
		got, want := describe(w.T, w.tree(last, "third").(container.LocalTree).Dir()), describe(w.T, w.tree(again, "second").(container.LocalTree).Dir())
		if got != want || !strings.Contains(got, "user.note") || !strings.Contains(got, "posix_acl") || !strings.Contains(got, "\ns ") {
			w.T.Errorf("restored twice:\n%s\nwant:\n%s", got, want)
		}
		// The volume itself, through its container, is what the snapshot was.
		w.Start(with(w.Spec("b"), "first:/data"))
		const sums = "cd /data; find . -type f -exec sha256sum {} + | sort; ls -lnR | grep -v ^total"
		if a, b := w.must("a", "PATH=/data/tools:$PATH; "+sums), w.must("b", "PATH=/data/tools:$PATH; "+sums); a != b {
			w.T.Errorf("inside: got\n%s\nwant\n%s", b, a)
		}
	})
}

// decorated adds what no program of the image makes.
type decorated struct{ container.Tree }

// acl gives user 7 the right to read.
const acl = "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\x07\x00\x00\x00" +
	"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"

// Walk adds attributes to directories and files, and a socket.
func (d *decorated) Walk(ctx context.Context, f func(*container.Entry) error) error {
	err := d.Tree.Walk(ctx, func(e *container.Entry) error {
		if e.Path == "sparse" || e.Path == "hole" {
			return nil // leave some out, so that it fits
		}
		c := *e
		if c.Type == container.EntryDir {
			c.Xattrs = []container.Xattr{{Name: "system.posix_acl_default", Value: []byte(acl)}, {Name: "user.note", Value: []byte("a directory")}}
		}
		if c.Type == container.EntryFile {
			c.Xattrs = []container.Xattr{{Name: "system.posix_acl_access", Value: []byte(acl)}, {Name: "user.empty", Value: nil}, {Name: "user.note", Value: []byte("x\x00y")}}
			c.Mode = c.Mode&^0o777 | 0o644
		}
		return f(&c)
	})
	if err != nil {
		return err
	}
	return f(&container.Entry{Path: "socket", Type: container.EntrySocket, Mode: 0o640, UID: 9, GID: 8, Modified: time.Unix(1, 1), Accessed: time.Unix(2, 2)})
}

// TestSnapshotInStep has a writer that keeps files of two volumes in step, and
// shows that no snapshot has them more than one step apart, that the programs go
// on,.
func TestSnapshotInStep(t *testing.T) {
	eachDisk(t, func(w *world) {
		w.create(volumeOf("left"))
		w.create(volumeOf("right"))
		w.Start(with(w.Spec("writer", boxtest.Sh("i=0; while :; do i=$((i+1)); echo $i > /l/t; busybox mv /l/t /l/n; echo $i > /r/t; busybox mv /r/t /r/n; echo $i; done")...), "left:/l", "right:/r"))
		w.Await("writer", func(container.Status) bool { return strings.Count(w.Logs("writer"), "\n") > 10 })
		for range 20 {
			s, err := w.RT.Snapshot(w.T.Context(), "lease", "left", "right")
			if err != nil {
				w.T.Fatal(err)
			}
			left, right := w.number(s, "left"), w.number(s, "right")
			if left < 10 || left != right && left != right+1 {
				w.T.Errorf("got %d and %d, want them in step", left, right)
			}
			if err := s.Close(); err != nil {
				w.T.Error(err)
			}
			before := strings.Count(w.Logs("writer"), "\n")
			w.Await("writer", func(s container.Status) bool {
				return s.State == container.Running && strings.Count(w.Logs("writer"), "\n") > before
			})
		}
	})
}

// number reads the file n.
func (w *world) number(s container.Snapshot, volume string) int {
	w.T.Helper()
	b, err := fs.ReadFile(os.DirFS(w.tree(s, volume).(container.LocalTree).Dir()), "n")
	n, aerr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || aerr != nil {
		w.T.Fatalf("got %q, %v", b, err)
	}
	return n
}

// TestSnapshotUnnoticed runs programs while snapshots are taken: none is refused
// for a pause that its owner did not ask for.
func TestSnapshotUnnoticed(t *testing.T) {
	w := newWorldIn(t, onXFS(t, 8<<30))
	defer w.RemoveVolumes()
	w.create(volumeOf("data"))
	w.Start(with(w.Spec("a"), "data:/data"))
	done := make(chan error, 1)
	go func() {
		var err error
		for range 15 {
			s, serr := w.RT.Snapshot(context.Background(), "lease", "data")
			if err = serr; err != nil {
				break
			}
			_ = s.Close()
		}
		done <- err
	}()
	for busy := true; busy; {
		if _, code := w.Exec("a", "true"); code != 0 {
			t.Errorf("got exit code %d", code)
		}
		if s, err := w.RT.Status(t.Context(), "a"); err != nil || s.State != container.Running {
			t.Errorf("got %+v, %v", s, err)
		}
		select {
		case err := <-done:
			if busy = false; err != nil {
				t.Error(err)
			}
		default:
		}
	}
	if err := w.RT.Pause(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	w.snapshot("data")
	if s, err := w.RT.Status(t.Context(), "a"); err != nil || s.State != container.Paused {
		t.Errorf("after a snapshot of a paused container: got %+v, %v", s, err)
	}
}

// TestSnapshotHolderKilled leaves programs held, as if the process that holds
// them had been killed. The next runtime lets them go.
func TestSnapshotHolderKilled(t *testing.T) {
	w := newWorld(t)
	defer w.RemoveVolumes()
	w.create(volumeOf("data"))
	w.Start(with(w.Spec("held"), "data:/data"))
	var from struct{ Cgroups map[string]string }
	b, err := os.ReadFile(filepath.Join(w.Dir, "run/boxes/held/started.json"))
	if err == nil {
		err = json.Unmarshal(b, &from)
	}
	if err != nil {
		t.Fatal(err)
	}
	order, err := json.Marshal(map[string]any{"Groups": []any{from.Cgroups}, "Volumes": 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.RT.Pause(t.Context(), "held"), w.RT.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.Dir, "run/volumes/pause.json"), order, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Open()
	if s, err := w.RT.Status(t.Context(), "held"); err != nil || s.State != container.Running {
		t.Errorf("got %+v, %v, want it running", s, err)
	}
	if _, err := os.Stat(filepath.Join(w.Dir, "run/volumes/pause.json")); err == nil {
		t.Error("the order to hold programs is still there")
	}
}

// TestSnapshotClaims shows that the space which a snapshot may come to need is
// promised to nobody else until it is closed.
func TestSnapshotClaims(t *testing.T) {
	w := newWorldIn(t, onXFS(t, 1<<30))
	defer w.RemoveVolumes()
	w.create(volumeOf("data"))
	s := w.snapshot("data")
	more := volumeOf("more")
	more.SizeBytes = 450 << 20
	if err := w.RT.CreateVolume(t.Context(), more); !errors.Is(err, container.CodeDiskFull) {
		t.Errorf("beside a snapshot: got %v, want %q", err, string(container.CodeDiskFull))
	}
	if err := errors.Join(s.Close(), s.Close(), w.RT.CreateVolume(t.Context(), more)); err != nil {
		t.Errorf("after it was closed: %v", err)
	}
}

// listTree is a tree of given entries.
type listTree []container.Entry

// Walk passes the entries on.
func (l listTree) Walk(_ context.Context, f func(*container.Entry) error) error {
	for _, e := range l {
		if err := f(&e); err != nil {
			return err
		}
	}
	return nil
}

// TestHostileTree restores trees that try to leave their volume, or make no
// sense. Nothing of the machine changes, and no volume remains.
func TestHostileTree(t *testing.T) {
	w := newWorld(t)
	outside := filepath.Join(w.Dir, "outside")
	if err := errors.Join(os.MkdirAll(outside+"/sub", 0o777), os.WriteFile(outside+"/f", []byte("x"), 0o666)); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20) + outside[1:]
	root := container.Entry{Path: ".", Type: container.EntryDir, Mode: 0o755}
	dir := func(p string) container.Entry { return container.Entry{Path: p, Type: container.EntryDir, Mode: 0o755} }
	link := func(p, to string) container.Entry {
		return container.Entry{Path: p, Type: container.EntrySymlink, Target: to}
	}
	file := func(p string) container.Entry {
		return container.Entry{Path: p, Type: container.EntryFile, Mode: 0o644}
	}
	hard := func(p, to string) container.Entry {
		return container.Entry{Path: p, Type: container.EntryLink, Target: to}
	}
	before := treeOf(t, outside)
	for name, tree := range map[string]listTree{
		"nothing":                 {},
		"no root":                 {dir("d")},
		"two roots":               {root, root},
		"up":                      {root, file("../f")},
		"up within":               {root, dir("d"), file("d/../../f")},
		"absolute":                {root, file(outside + "/new")},
		"through a link":          {root, link("l", outside), file("l/new")},
		"through a link up":       {root, link("l", up), file("l/new")},
		"below a link":            {root, link("l", outside), file("l/sub/new")},
		"below a link up":         {root, link("l", up), dir("l/sub/new")},
		"directory over a link":   {root, link("l", outside), dir("l")},
		"file over a link":        {root, link("l", outside+"/new"), file("l")},
		"hard link out":           {root, hard("h", "../"+up+"/f")},
		"hard link through":       {root, link("l", outside), hard("h", "l/f")},
		"hard link to a link out": {root, hard("h", "none")},
		"hard link to directory":  {root, dir("d"), hard("h", "d")},
		"twice":                   {root, file("f"), file("f")},
		"below a file":            {root, file("f"), file("f/g")},
		"no parent":               {root, file("d/f")},
		"owner":                   {root, {Path: "f", Type: container.EntryFile, UID: 1 << 16}},
		"attribute":               {root, {Path: "f", Type: container.EntryFile, Xattrs: []container.Xattr{{Name: "security.capability"}}}},
		"attribute of overlays":   {root, {Path: "f", Type: container.EntryFile, Xattrs: []container.Xattr{{Name: "trusted.overlay.opaque"}}}},
		"no type":                 {root, {Path: "f"}},
		"size without content":    {root, {Path: "f", Type: container.EntryFile, Size: 1}},
		"content that lies":       {root, {Path: "f", Type: container.EntryFile, Size: 9, Content: liar{0, 5, 3}}},
		"content beyond its size": {root, {Path: "f", Type: container.EntryFile, Size: 9, Content: liar{0, 99, 99}}},
		"content backwards":       {root, {Path: "f", Type: container.EntryFile, Size: 9, Content: liar{5, 5, 9}}},
	} {
		err := w.RT.RestoreVolume(t.Context(), volumeOf("hostile"), tree)
		if !errors.Is(err, container.CodeBadTree) {
			t.Errorf("%s: got %v, want %q", name, err, string(container.CodeBadTree))
		}
	}
	full := listTree{root, {Path: "f", Type: container.EntryFile, Size: 1 << 30, Content: liar{0, 1 << 30, 1 << 30}}}
	if err := w.RT.RestoreVolume(t.Context(), volumeOf("hostile"), full); !errors.Is(err, container.CodeVolumeFull) {
		t.Errorf("a tree that does not fit: got %v, want %q", err, string(container.CodeVolumeFull))
	}
	if after := treeOf(t, outside); after != before {
		t.Errorf("the machine changed: got %s, want %s", after, before)
	}
	if all, err := w.RT.Volumes(t.Context(), ""); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v, want no volume", all, err)
	}
	if left, _ := os.ReadDir(filepath.Join(w.Dir, "run/trash")); len(left) != 0 {
		t.Errorf("left in the trash: %v", left)
	}
}

// liar says that it has data from start to end, and has bytes up to have.
type liar struct{ start, end, have int64 }

// NextData returns the one run.
func (l liar) NextData(int64) (int64, int64, error) { return l.start, l.end, nil }

// ReadAt returns zeros.
func (l liar) ReadAt(b []byte, off int64) (int, error) {
	return int(max(0, min(int64(len(b)), l.have-off))), nil
}
