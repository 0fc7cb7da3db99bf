package containertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// VolumeRuntime is a runtime with volumes.
type VolumeRuntime interface {
	container.Runtime
	container.Volumes
	container.Snapshots
}

// TestVolumes checks a runtime against the promises of container.Volumes and
// container.Snapshots, as [TestRuntime] does for the rest. The error names the
// first promise that was broken.
func TestVolumes(rt VolumeRuntime, f Fixture) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	if f.Limits == (container.Limits{}) {
		f.Limits = container.SmallLimits()
	}
	img, err := rt.Pull(ctx, f.Ref, container.PullOptions{})
	if err != nil {
		return err
	}
	k := &volumeKit{kit: kit{rt: rt, f: f, image: img}, rt: rt}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"create", k.create},
		{"mount", k.mount},
		{"outlive", k.outlive},
		{"full and grown", k.grow},
		{"snapshot", k.snapshot},
		{"restore", k.restore},
		{"bad trees", k.badTrees},
		{"remove", k.remove},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

type volumeKit struct {
	kit
	rt   VolumeRuntime
	snap container.Snapshot
}

func volume(lease, name string, times uint64) container.VolumeSpec {
	return container.VolumeSpec{VolumeID: container.VolumeID{Lease: lease, Name: name}, SizeBytes: times * container.MinVolumeBytes}
}

// spec is a container of lease with one volume.
func (k *volumeKit) spec(id, lease string, m ...container.Mount) container.Spec {
	s := k.kit.spec(id, k.f.Serve)
	s.Lease, s.Volumes = lease, m
	return s
}

// wants compares an error with the code that it should have.
func wants(what string, err error, code container.Code) error {
	if !errors.Is(err, code) {
		return fmt.Errorf("%s: got %w, want %q", what, err, string(code))
	}
	return nil
}

func (k *volumeKit) create(ctx context.Context) error {
	for range 2 {
		if err := k.rt.CreateVolume(ctx, volume("one", "data", 1)); err != nil {
			return err
		}
	}
	if err := k.rt.CreateVolume(ctx, volume("two", "data", 2)); err != nil {
		return err
	}
	odd := volume("one", "odd", 1)
	odd.SizeBytes++
	err := errors.Join(
		wants("another size", k.rt.CreateVolume(ctx, volume("one", "data", 2)), container.CodeVolumeConflict),
		wants("no size", k.rt.CreateVolume(ctx, volume("one", "none", 0)), container.CodeInvalidSpec),
		wants("an odd size", k.rt.CreateVolume(ctx, odd), container.CodeInvalidSpec),
		wants("a name that climbs", k.rt.CreateVolume(ctx, volume("one", "../x", 1)), container.CodeInvalidSpec),
		wants("no lease", k.rt.CreateVolume(ctx, volume("", "x", 1)), container.CodeInvalidSpec),
		k.rt.CheckVolumes(ctx, container.MinVolumeBytes),
		wants("more than any disk has", k.rt.CheckVolumes(ctx, 1<<60), container.CodeDiskFull),
		wants("growing nothing", k.rt.GrowVolume(ctx, volume("one", "none", 1)), container.CodeNoVolume),
		k.rt.RemoveVolume(ctx, container.VolumeID{Lease: "one", Name: "none"}),
	)
	if err != nil {
		return err
	}
	if _, err := k.rt.Snapshot(ctx, "one", "none"); !errors.Is(err, container.CodeNoVolume) {
		return fmt.Errorf("a snapshot of nothing: got %w", err)
	}
	all, err := k.rt.Volumes(ctx, "")
	if err != nil || len(all) != 2 || all[0].VolumeSpec != volume("one", "data", 1) || all[1].VolumeSpec != volume("two", "data", 2) {
		return fmt.Errorf("got %+v, %w; want both volumes", all, err)
	}
	one, err := k.rt.Volumes(ctx, "one")
	if err != nil || len(one) != 1 || one[0].Full() || one[0].FreeBytes > one[0].SizeBytes || one[0].CreatedAt.IsZero() || len(one[0].Containers) != 0 {
		return fmt.Errorf("got %+v, %w; want an empty volume", one, err)
	}
	return nil
}

func (k *volumeKit) mount(ctx context.Context) error {
	refuse := func(what string, s container.Spec, code container.Code) error {
		return wants(what, k.rt.Start(ctx, s), code)
	}
	err := errors.Join(
		refuse("a volume that is not there", k.spec("kit-no", "one", container.Mount{Volume: "none", Path: "/data"}), container.CodeNoVolume),
		refuse("a volume of a lease that has none", k.spec("kit-no", "three", container.Mount{Volume: "data", Path: "/data"}), container.CodeNoVolume),
		refuse("a volume without a lease", k.spec("kit-no", "", container.Mount{Volume: "data", Path: "/data"}), container.CodeInvalidSpec),
		refuse("a volume over everything", k.spec("kit-no", "one", container.Mount{Volume: "data", Path: "/"}), container.CodeInvalidSpec),
		refuse("a volume in /proc", k.spec("kit-no", "one", container.Mount{Volume: "data", Path: "/proc/x"}), container.CodeInvalidSpec),
		refuse("a path that climbs", k.spec("kit-no", "one", container.Mount{Volume: "data", Path: "/a/../../b"}), container.CodeInvalidSpec),
	)
	if err != nil {
		return err
	}
	return errors.Join(
		k.rt.Start(ctx, k.spec("kit-a", "one", container.Mount{Volume: "data", Path: "/data"})),
		k.rt.Start(ctx, k.spec("kit-b", "one", container.Mount{Volume: "data", Path: "/mnt/other", ReadOnly: true})),
		k.rt.Start(ctx, k.spec("kit-c", "two", container.Mount{Volume: "data", Path: "/data"})),
		k.write(ctx, "kit-a", "/data/f", "first"),
		k.reads(ctx, "kit-a", "/data/f", "first"),
		k.reads(ctx, "kit-b", "/mnt/other/f", "first"),
		k.fails(ctx, "writing to a read-only volume", "kit-b", k.f.Write("/mnt/other/f", "no")),
		k.fails(ctx, "reading another lease's volume", "kit-c", k.f.Read("/data/f")),
		k.reads(ctx, "kit-a", "/data/f", "first"),
	)
}

// do runs a program that should succeed and returns what it wrote.
func (k *volumeKit) do(ctx context.Context, id string, args []string) (string, int, error) {
	var b bytes.Buffer
	code, err := k.rt.Exec(ctx, id, container.ExecSpec{Args: args, Stdout: &b})
	return b.String(), code, err
}

func (k *volumeKit) write(ctx context.Context, id, path, text string) error {
	if _, code, err := k.do(ctx, id, k.f.Write(path, text)); err != nil || code != 0 {
		return fmt.Errorf("writing %s in %s: got %d, %w", path, id, code, err)
	}
	return nil
}

func (k *volumeKit) reads(ctx context.Context, id, path, want string) error {
	if got, code, err := k.do(ctx, id, k.f.Read(path)); err != nil || code != 0 || got != want {
		return fmt.Errorf("reading %s in %s: got %q, %d, %w; want %q", path, id, got, code, err, want)
	}
	return nil
}

func (k *volumeKit) fails(ctx context.Context, what, id string, args []string) error {
	if got, code, err := k.do(ctx, id, args); err != nil || code == 0 {
		return fmt.Errorf("%s: got %q, %d, %w; want it to fail", what, got, code, err)
	}
	return nil
}

func (k *volumeKit) outlive(ctx context.Context) error {
	return errors.Join(
		k.rt.Destroy(ctx, "kit-a"), k.rt.Destroy(ctx, "kit-b"),
		k.rt.Start(ctx, k.spec("kit-a", "one", container.Mount{Volume: "data", Path: "/srv/again"})),
		k.reads(ctx, "kit-a", "/srv/again/f", "first"),
		k.rt.Destroy(ctx, "kit-a"),
		k.rt.Start(ctx, k.spec("kit-a", "one", container.Mount{Volume: "data", Path: "/data"})),
	)
}

func (k *volumeKit) grow(ctx context.Context) error {
	if err := k.fails(ctx, "writing beyond the size", "kit-a", k.f.FillFile("/data/big")); err != nil {
		return err
	}
	if all, err := k.rt.Volumes(ctx, "one"); err != nil || len(all) != 1 || !all[0].Full() {
		return fmt.Errorf("got %+v, %w; want the volume full", all, err)
	}
	for range 2 {
		if err := k.rt.GrowVolume(ctx, volume("one", "data", 2)); err != nil {
			return err
		}
	}
	if err := wants("shrinking", k.rt.GrowVolume(ctx, volume("one", "data", 1)), container.CodeVolumeConflict); err != nil {
		return err
	}
	all, err := k.rt.Volumes(ctx, "one")
	if err != nil || len(all) != 1 || all[0].SizeBytes != 2*container.MinVolumeBytes || all[0].FreeBytes < container.MinVolumeBytes/2 {
		return fmt.Errorf("got %+v, %w; want the volume grown", all, err)
	}
	if len(all[0].Containers) != 1 || all[0].Containers[0] != "kit-a" {
		return fmt.Errorf("got the containers %q, want kit-a", all[0].Containers)
	}
	return errors.Join(k.write(ctx, "kit-a", "/data/after", "grown"), k.reads(ctx, "kit-a", "/data/after", "grown"))
}

func (k *volumeKit) snapshot(ctx context.Context) error {
	begun := time.Now()
	s, err := k.rt.Snapshot(ctx, "one", "data")
	if err != nil {
		return err
	}
	k.snap = s
	if s.Taken().Before(begun) || s.Taken().After(time.Now()) || s.Pause() < 0 || s.Pause() > time.Since(begun) {
		return fmt.Errorf("taken at %v for %v, want it since %v", s.Taken(), s.Pause(), begun)
	}
	if err := k.write(ctx, "kit-a", "/data/f", "second"); err != nil {
		return err
	}
	if st, err := k.rt.Status(ctx, "kit-a"); err != nil || st.State != container.Running {
		return fmt.Errorf("after a snapshot: got %+v, %w; want it running", st, err)
	}
	if _, err := s.Tree("other"); !errors.Is(err, container.CodeNoVolume) {
		return fmt.Errorf("a volume that the snapshot does not have: got %w", err)
	}
	return k.holds(ctx, s, "f", "first")
}

// holds looks for a file in a snapshot.
func (k *volumeKit) holds(ctx context.Context, s container.Snapshot, path, want string) error {
	tree, err := s.Tree("data")
	if err != nil {
		return err
	}
	var got []byte
	first := ""
	err = tree.Walk(ctx, func(e *container.Entry) error {
		if first == "" {
			first = e.Path
		}
		if e.Path == path && e.Content != nil {
			got, err = io.ReadAll(io.NewSectionReader(e.Content, 0, e.Size))
		}
		return errors.Join(err, e.Validate())
	})
	if err != nil || string(got) != want || first != "." {
		return fmt.Errorf("%s in the snapshot: got %q, first %q, %w; want %q", path, got, first, err, want)
	}
	stop := errors.New("stop")
	if err := tree.Walk(ctx, func(*container.Entry) error { return stop }); !errors.Is(err, stop) {
		return fmt.Errorf("a walk that is ended: got %w", err)
	}
	return nil
}

func (k *volumeKit) restore(ctx context.Context) error {
	tree, err := k.snap.Tree("data")
	if err != nil {
		return err
	}
	if err := wants("a volume that is there", k.rt.RestoreVolume(ctx, volume("one", "data", 2), tree), container.CodeVolumeConflict); err != nil {
		return err
	}
	if err := k.rt.RestoreVolume(ctx, volume("two", "back", 2), tree); err != nil {
		return err
	}
	s, err := k.rt.Snapshot(ctx, "two", "back")
	if err != nil {
		return err
	}
	again, err := s.Tree("back")
	if err != nil {
		return err
	}
	want, werr := list(ctx, tree)
	got, gerr := list(ctx, again)
	if err := errors.Join(werr, gerr, s.Close()); err != nil {
		return err
	}
	if got != want || !strings.Contains(got, "after") {
		return fmt.Errorf("restored:\n%swant:\n%s", got, want)
	}
	return errors.Join(
		k.rt.Start(ctx, k.spec("kit-d", "two", container.Mount{Volume: "back", Path: "/data"})),
		k.reads(ctx, "kit-d", "/data/f", "first"),
		k.snap.Close(),
		k.reads(ctx, "kit-a", "/data/f", "second"),
	)
}

// list describes a tree without its bulk.
func list(ctx context.Context, t container.Tree) (string, error) {
	var b strings.Builder
	err := t.Walk(ctx, func(e *container.Entry) error {
		fmt.Fprintln(&b, e.Path, e.Type, e.Mode, e.UID, e.GID, e.Accessed.UnixNano(), e.Modified.UnixNano(), e.Size, e.Target, e.Xattrs)
		return nil
	})
	return b.String(), err
}

// kitTree is a tree of given entries.
type kitTree []container.Entry

// Walk passes the entries on.
func (t kitTree) Walk(_ context.Context, f func(*container.Entry) error) error {
	for _, e := range t {
		if err := f(&e); err != nil {
			return err
		}
	}
	return nil
}

func (k *volumeKit) badTrees(ctx context.Context) error {
	root := container.Entry{Path: ".", Type: container.EntryDir, Mode: 0o755}
	file := func(path string) container.Entry { return container.Entry{Path: path, Type: container.EntryFile} }
	link := container.Entry{Path: "l", Type: container.EntrySymlink, Target: "/etc"}
	for name, t := range map[string]kitTree{
		"nothing": {}, "no root": {file("f")}, "up": {root, file("../f")}, "twice": {root, file("f"), file("f")},
		"no parent": {root, file("d/f")}, "through a link": {root, link, file("l/f")},
		"a link to nothing": {root, {Path: "h", Type: container.EntryLink, Target: "f"}},
		"an owner":          {root, {Path: "f", Type: container.EntryFile, UID: container.MaxTreeID + 1}},
	} {
		if err := wants(name, k.rt.RestoreVolume(ctx, volume("two", "bad", 1), t), container.CodeBadTree); err != nil {
			return err
		}
	}
	all, err := k.rt.Volumes(ctx, "two")
	if err != nil || len(all) != 2 {
		return fmt.Errorf("got %+v, %w; want nothing of a failed restore", all, err)
	}
	return nil
}

func (k *volumeKit) remove(ctx context.Context) error {
	data := volume("one", "data", 2)
	if err := wants("a volume in use", k.rt.RemoveVolume(ctx, data.VolumeID), container.CodeVolumeInUse); err != nil {
		return err
	}
	for _, id := range []string{"kit-a", "kit-c", "kit-d"} {
		if err := k.rt.Destroy(ctx, id); err != nil {
			return err
		}
	}
	for range 2 {
		if err := k.rt.RemoveVolume(ctx, data.VolumeID); err != nil {
			return err
		}
	}
	// A new one of the same name has nothing of the old.
	err := errors.Join(
		wants("growing a removed volume", k.rt.GrowVolume(ctx, data), container.CodeNoVolume),
		k.rt.CreateVolume(ctx, volume("one", "data", 1)),
		k.rt.Start(ctx, k.spec("kit-a", "one", container.Mount{Volume: "data", Path: "/data"})),
		k.fails(ctx, "reading a removed volume's file", "kit-a", k.f.Read("/data/f")),
		k.rt.Destroy(ctx, "kit-a"),
	)
	all, lerr := k.rt.Volumes(ctx, "")
	for _, v := range all {
		err = errors.Join(err, k.rt.RemoveVolume(ctx, v.VolumeID))
	}
	return errors.Join(err, lerr)
}
