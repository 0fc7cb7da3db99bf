package containertest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

var (
	_ container.Volumes   = (*Twin)(nil)
	_ container.Snapshots = (*Twin)(nil)
)

// twinVolume is a volume of a [Twin]. The twin's lock guards it.
type twinVolume struct {
	spec    container.VolumeSpec
	created time.Time
	files   twinFiles
}

// twinFiles are entries by path, their content in memory.
type twinFiles map[string]*twinFile

type twinFile struct {
	container.Entry
	data []byte
	fill uint64 // zeros after data, which take space and no memory
}

func (f twinFiles) used() (n uint64) {
	for _, e := range f {
		n += uint64(len(e.data)) + e.fill
	}
	return n
}

func newTwinFiles() twinFiles {
	return twinFiles{".": {Entry: container.Entry{Path: ".", Type: container.EntryDir, Mode: 0o755, Accessed: now(), Modified: now()}}}
}

// TwinMount is a volume in a container.
type TwinMount struct {
	twin     *Twin
	volume   *twinVolume
	readOnly bool
}

// WriteFile makes or replaces a file in the volume's root. Errors are
// [container.CodeVolumeFull] or [container.CodeForbiddenHost].
func (m *TwinMount) WriteFile(name string, data []byte) error {
	return m.put(name, &twinFile{data: bytes.Clone(data)})
}

// Fill makes a file of all the space that is left.
func (m *TwinMount) Fill(name string) error {
	m.twin.mu.Lock()
	left := m.volume.spec.SizeBytes - m.volume.files.used()
	m.twin.mu.Unlock()
	return m.put(name, &twinFile{fill: left})
}

func (m *TwinMount) put(name string, f *twinFile) error {
	m.twin.mu.Lock()
	defer m.twin.mu.Unlock()
	if m.readOnly {
		return errors.New("read-only volume")
	}
	next := maps.Clone(m.volume.files)
	f.Entry = container.Entry{Path: name, Type: container.EntryFile, Mode: 0o644, Accessed: now(), Modified: now()}
	next[name] = f
	if next.used() > m.volume.spec.SizeBytes {
		return fail(container.CodeVolumeFull, name)
	}
	m.volume.files = next
	return nil
}

// ReadFile returns a file's data.
func (m *TwinMount) ReadFile(name string) ([]byte, error) {
	m.twin.mu.Lock()
	defer m.twin.mu.Unlock()
	f := m.volume.files[name]
	if f == nil {
		return nil, fmt.Errorf("no file %q", name)
	}
	return bytes.Clone(f.data), nil
}

// mounts finds the volumes of a container. The caller holds the lock.
func (t *Twin) mounts(s container.Spec) (map[string]*TwinMount, error) {
	out := map[string]*TwinMount{}
	for _, m := range s.Volumes {
		v := t.volumes[container.VolumeID{Lease: s.Lease, Name: m.Volume}]
		if v == nil {
			return nil, fail(container.CodeNoVolume, m.Volume)
		}
		out[m.Path] = &TwinMount{twin: t, volume: v, readOnly: m.ReadOnly}
	}
	return out, nil
}

// twinDisk is what a twin has for volumes.
const twinDisk = 64 << 40

// FailVolumes makes the twin a machine that can make no volumes, for that
// reason, or with nil one that can.
func (t *Twin) FailVolumes(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noVolumes = err
}

// CheckVolumes says whether volumes could be made.
func (t *Twin) CheckVolumes(ctx context.Context, sizeBytes uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(ctx.Err(), t.room(sizeBytes))
}

// room refuses what the twin's disk does not have. The caller holds the lock.
func (t *Twin) room(size uint64) error {
	left := uint64(twinDisk)
	for _, v := range t.volumes {
		left -= min(left, v.spec.SizeBytes)
	}
	if size > left {
		return fail(container.CodeDiskFull, fmt.Sprintf("%d bytes are free", left))
	}
	return t.noVolumes
}

// CreateVolume makes an empty volume.
func (t *Twin) CreateVolume(ctx context.Context, v container.VolumeSpec) error {
	if err := cmp.Or(ctx.Err(), v.Validate()); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.volumes[v.VolumeID]; old != nil {
		if old.spec.SizeBytes != v.SizeBytes {
			return fail(container.CodeVolumeConflict, v.String())
		}
		return nil
	}
	if err := t.room(v.SizeBytes); err != nil {
		return err
	}
	t.volumes[v.VolumeID] = &twinVolume{spec: v, created: now(), files: newTwinFiles()}
	return nil
}

// GrowVolume makes a volume larger.
func (t *Twin) GrowVolume(ctx context.Context, v container.VolumeSpec) error {
	if err := cmp.Or(ctx.Err(), v.Validate()); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.volumes[v.VolumeID]
	switch {
	case old == nil:
		return fail(container.CodeNoVolume, v.String())
	case v.SizeBytes < old.spec.SizeBytes:
		return fail(container.CodeVolumeConflict, v.String())
	}
	old.spec.SizeBytes = v.SizeBytes
	return nil
}

// Volumes reports on volumes.
func (t *Twin) Volumes(ctx context.Context, lease string) ([]container.Volume, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []container.Volume
	for id, v := range t.volumes {
		if lease == "" || id.Lease == lease {
			out = append(out, container.Volume{VolumeSpec: v.spec, CreatedAt: v.created, FreeBytes: v.spec.SizeBytes - v.files.used(), Containers: t.usersOf(id)})
		}
	}
	slices.SortFunc(out, func(a, b container.Volume) int {
		return cmp.Or(strings.Compare(a.Lease, b.Lease), strings.Compare(a.Name, b.Name))
	})
	return out, nil
}

func (t *Twin) usersOf(v container.VolumeID) (out []string) {
	for _, id := range slices.Sorted(maps.Keys(t.containers)) {
		s := t.containers[id].spec
		if s.Lease == v.Lease && slices.ContainsFunc(s.Volumes, func(m container.Mount) bool { return m.Volume == v.Name }) {
			out = append(out, id)
		}
	}
	return out
}

// RemoveVolume removes a volume.
func (t *Twin) RemoveVolume(ctx context.Context, v container.VolumeID) error {
	if err := cmp.Or(ctx.Err(), v.Validate()); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.usersOf(v)) > 0 {
		return fail(container.CodeVolumeInUse, v.String())
	}
	delete(t.volumes, v)
	return nil
}

// Snapshot copies volumes.
func (t *Twin) Snapshot(ctx context.Context, lease string, names ...string) (container.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(names) == 0 || len(names) > container.MaxMounts {
		return nil, fail(container.CodeInvalidSpec, "how many volumes")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &twinSnapshot{taken: now(), trees: map[string]twinFiles{}}
	for _, name := range names {
		id := container.VolumeID{Lease: lease, Name: name}
		if err := id.Validate(); err != nil {
			return nil, err
		}
		v := t.volumes[id]
		if v == nil {
			return nil, fail(container.CodeNoVolume, id.String())
		}
		s.trees[name] = v.files // which is replaced by every write
	}
	return s, nil
}

type twinSnapshot struct {
	taken time.Time
	trees map[string]twinFiles
}

// Tree returns the files of a volume.
func (s *twinSnapshot) Tree(name string) (container.Tree, error) {
	if f := s.trees[name]; f != nil {
		return f, nil
	}
	return nil, fail(container.CodeNoVolume, name)
}

// Taken is when the copy was made.
func (s *twinSnapshot) Taken() time.Time { return s.taken }

// Pause is nothing: a twin's programs are not held.
func (s *twinSnapshot) Pause() time.Duration { return 0 }

// Close does nothing.
func (s *twinSnapshot) Close() error { return nil }

// Walk implements container.Tree. Targets of links come first by their names'
// order, since that is how they were put in.
func (f twinFiles) Walk(ctx context.Context, visit func(*container.Entry) error) error {
	var links []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if f[name].Type == container.EntryLink {
			links = append(links, name)
			continue
		}
		if err := cmp.Or(ctx.Err(), visit(f[name].entry())); err != nil {
			return err
		}
	}
	for _, name := range links {
		if err := visit(f[name].entry()); err != nil {
			return err
		}
	}
	return nil
}

func (f *twinFile) entry() *container.Entry {
	e := f.Entry
	if e.Type == container.EntryFile {
		if e.Size = int64(uint64(len(f.data)) + f.fill); e.Size > 0 {
			e.Content = twinContent{f}
		}
	}
	return &e
}

// twinContent reads a file with its zeros.
type twinContent struct{ f *twinFile }

// ReadAt implements container.Content.
func (c twinContent) ReadAt(b []byte, off int64) (int, error) {
	size := int64(uint64(len(c.f.data)) + c.f.fill)
	n := int(max(0, min(int64(len(b)), size-off)))
	clear(b[:n])
	if off < int64(len(c.f.data)) {
		copy(b[:n], c.f.data[off:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// NextData implements container.Content: there are no holes.
func (c twinContent) NextData(off int64) (start, end int64, err error) {
	if size := int64(uint64(len(c.f.data)) + c.f.fill); off < size {
		return off, size, nil
	}
	return 0, 0, io.EOF
}

// RestoreVolume makes a volume out of a tree. A file is kept up to its last
// byte that is not zero; what follows takes space and no memory.
func (t *Twin) RestoreVolume(ctx context.Context, v container.VolumeSpec, from container.Tree) error {
	if err := cmp.Or(ctx.Err(), v.Validate()); err != nil {
		return err
	}
	t.mu.Lock()
	old := t.volumes[v.VolumeID]
	t.mu.Unlock()
	if old != nil {
		return fail(container.CodeVolumeConflict, v.String())
	}
	files := twinFiles{}
	err := from.Walk(ctx, func(e *container.Entry) error { return files.add(e, v.SizeBytes) })
	if err == nil && len(files) == 0 {
		err = fail(container.CodeBadTree, "nothing in it")
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.volumes[v.VolumeID] != nil {
		return fail(container.CodeVolumeConflict, v.String())
	}
	t.volumes[v.VolumeID] = &twinVolume{spec: v, created: now(), files: files}
	return nil
}

func (f twinFiles) add(e *container.Entry, size uint64) error {
	if err := e.Validate(); err != nil {
		return err
	}
	parent, target := f[path.Dir(e.Path)], f[e.Target]
	if (len(f) == 0) != (e.Path == ".") || f[e.Path] != nil || e.Path != "." && (parent == nil || parent.Type != container.EntryDir) ||
		e.Type == container.EntryLink && (target == nil || target.Type == container.EntryDir) {
		return fail(container.CodeBadTree, e.Path)
	}
	file := &twinFile{Entry: *e}
	file.Content, file.Xattrs = nil, slices.Clone(e.Xattrs)
	if e.Size > 0 {
		if f.used()+uint64(e.Size) > size {
			return fail(container.CodeVolumeFull, e.Path)
		}
		if own, ok := e.Content.(twinContent); ok {
			file.data, file.fill = own.f.data, own.f.fill
			f[e.Path] = file
			return nil
		}
		b, err := io.ReadAll(io.NewSectionReader(e.Content, 0, e.Size))
		if err != nil || int64(len(b)) != e.Size {
			return fail(container.CodeBadTree, e.Path)
		}
		file.data = bytes.TrimRight(b, "\x00")
		file.fill = uint64(len(b) - len(file.data))
		file.data = bytes.Clone(file.data)
	}
	f[e.Path] = file
	return nil
}

// fileOf finds the volume of a path.
func fileOf(p *Process) (*TwinMount, string) {
	for at, m := range p.Volumes {
		if len(p.Args) > 1 && path.Dir(p.Args[1]) == at {
			return m, path.Base(p.Args[1])
		}
	}
	return nil, ""
}

func write(_ context.Context, p *Process) int {
	m, name := fileOf(p)
	if m == nil || len(p.Args) != 3 || m.WriteFile(name, []byte(p.Args[2])) != nil {
		return 1
	}
	return 0
}

func read(_ context.Context, p *Process) int {
	m, name := fileOf(p)
	if m == nil {
		return 1
	}
	b, err := m.ReadFile(name)
	if err != nil {
		return 1
	}
	_, _ = p.Stdout.Write(b)
	return 0
}

func fillFile(_ context.Context, p *Process) int {
	if m, name := fileOf(p); m != nil {
		_ = m.Fill(name)
	}
	return 1 // one byte more than there is
}
