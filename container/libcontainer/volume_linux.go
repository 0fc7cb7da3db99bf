//go:build cgo && amd64

package libcontainer

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/crash"
	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

// volumes are those of a runtime, each in a directory of its own:
//
//	<lease>:<name>/volume.json   volumeRecord: what was promised
//	               volume.img    an xfs file system, its space set aside
//	               lock          locked while somebody mounts it or lets it grow
//
// A volume is made in the trash and moved here whole; it is removed by moving
// it back. Nobody mounts it at a path of the machine: every mount hangs on a
// descriptor or is in a monitor's own namespace, and so ends with its process.
type volumes struct {
	dir   string
	trash string

	mu     sync.Mutex
	claims uint64          // bytes that open snapshots may come to need
	paused map[string]bool // containers that a snapshot holds
}

const (
	volumeRecordFile = "volume.json"
	volumeImage      = "volume.img"
	volumeLock       = "lock"
)

// volumeRecord is durable before the image is that large.
type volumeRecord struct {
	container.VolumeSpec
	CreatedAt time.Time
	// Growing is set until the file system is as large as SizeBytes.
	Growing bool
}

var (
	_ container.Volumes   = (*Runtime)(nil)
	_ container.Snapshots = (*Runtime)(nil)
)

// openVolumes finds the volumes of an earlier runtime and finishes what it had
// begun.
func (r *Runtime) openVolumes(dir string) error {
	r.volumes.dir, r.volumes.trash, r.volumes.paused = filepath.Join(dir, "volumes"), r.trash, map[string]bool{}
	if err := os.MkdirAll(r.volumes.dir, 0o700); err != nil {
		return err
	}
	if err := r.volumes.endPause(); err != nil {
		return err
	}
	all, err := r.volumes.list("")
	if err != nil {
		return err
	}
	for _, rec := range all {
		dir := r.volumes.path(rec.VolumeID)
		size, err := fileSize(filepath.Join(dir, volumeImage))
		if err != nil {
			return err
		}
		if size > int64(rec.SizeBytes) { // space was set aside, and not yet promised
			err = os.Truncate(filepath.Join(dir, volumeImage), int64(rec.SizeBytes))
		}
		if err == nil && rec.Growing {
			err = r.volumes.finishGrowth(rec)
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", rec.VolumeID, err)
		}
	}
	return nil
}

func (s *volumes) path(v container.VolumeID) string {
	return filepath.Join(s.dir, v.Lease+":"+v.Name)
}

// read returns a volume's record; false when there is none.
func (s *volumes) read(v container.VolumeID) (volumeRecord, bool, error) {
	var rec volumeRecord
	ok, err := readJSON(s.path(v), volumeRecordFile, &rec)
	return rec, ok, err
}

// list returns the records of a lease, or of all.
func (s *volumes) list(lease string) ([]volumeRecord, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var out []volumeRecord
	for _, e := range entries {
		of, name, ok := strings.Cut(e.Name(), ":")
		if !ok || lease != "" && of != lease {
			continue
		}
		rec, ok, err := s.read(container.VolumeID{Lease: of, Name: name})
		if err != nil {
			return nil, err
		}
		if ok { // else it was removed meanwhile
			out = append(out, rec)
		}
	}
	slices.SortFunc(out, func(a, b volumeRecord) int {
		return cmp.Or(strings.Compare(a.Lease, b.Lease), strings.Compare(a.Name, b.Name))
	})
	return out, nil
}

// holdVolumes locks volumes until the returned function is called.
func (r *Runtime) holdVolumes(lease string, names []string) func() {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	var release []func()
	for _, name := range names {
		release = append(release, r.hold("volume "+lease+"/"+name)) // no id has a blank
	}
	return func() {
		for _, f := range release {
			f()
		}
	}
}

// CheckVolumes says whether volumes could be made.
func (r *Runtime) CheckVolumes(ctx context.Context, sizeBytes uint64) error {
	if err := cmp.Or(ctx.Err(), CheckVolumes()); err != nil {
		return err
	}
	if err := r.volumes.room(sizeBytes); err != nil {
		return container.Wrap(container.CodeRuntime, "free space", err)
	}
	f, err := os.CreateTemp(r.volumes.trash, "check-")
	if err != nil {
		return container.Wrap(container.CodeRuntime, "check the disk", err)
	}
	defer f.Close()
	err = errors.Join(os.Remove(f.Name()), setAside(f, container.VolumeStep))
	return container.Wrap(container.CodeRuntime, "check the disk", err)
}

// CheckVolumes says what this machine lacks to have volumes at all, as
// [container.CodeMissingFeature]. It needs no root.
func CheckVolumes() error {
	if _, err := findProgram("mkfs.xfs", "xfsprogs"); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return &container.Error{Code: container.CodeMissingFeature, Detail: "no loop devices; load the kernel module loop", Err: err}
	}
	fd, err := unix.Fsopen("xfs", unix.FSOPEN_CLOEXEC)
	if err == nil {
		_ = unix.Close(fd)
		return nil
	}
	if errors.Is(err, unix.EPERM) { // whether the kernel has it is for root to say
		return nil
	}
	return &container.Error{Code: container.CodeMissingFeature, Detail: "this kernel has no xfs, or is older than 5.12", Err: err}
}

// CreateVolume makes an empty volume.
func (r *Runtime) CreateVolume(ctx context.Context, v container.VolumeSpec) error {
	if err := cmp.Or(ctx.Err(), v.Validate()); err != nil {
		return err
	}
	defer r.holdVolumes(v.Lease, []string{v.Name})()
	old, ok, err := r.volumes.read(v.VolumeID)
	if err != nil {
		return err
	}
	if ok && old.SizeBytes != v.SizeBytes {
		return &container.Error{Code: container.CodeVolumeConflict, Detail: fmt.Sprintf("%s has %d bytes", v.VolumeID, old.SizeBytes)}
	}
	if ok {
		return nil
	}
	return volumeError(v.VolumeID, r.volumes.make(v, nil))
}

// make makes a volume and fills it, in the trash, and moves it to its place
// [CONTAINER-64].
func (s *volumes) make(v container.VolumeSpec, fill func(root *os.File) error) (err error) {
	if err := s.room(v.SizeBytes); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.trash, "volume-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, discardVolume(dir))
		}
	}()
	crash.Point("volume made")
	if err := makeVolumeImage(filepath.Join(dir, volumeImage), v.SizeBytes); err != nil {
		return err
	}
	crash.Point("volume made")
	if fill == nil {
		fill = func(root *os.File) error {
			never := []unix.Timespec{{}, {}} // marks a root that was never mounted
			return unix.UtimesNanoAt(int(root.Fd()), ".", never, 0)
		}
	}
	if err := withVolume(dir, func(root *os.File) error { return errors.Join(fill(root), unix.Syncfs(int(root.Fd()))) }); err != nil {
		return err
	}
	crash.Point("volume made")
	if err := syncFile(filepath.Join(dir, volumeImage)); err != nil {
		return err
	}
	if err := writeJSON(dir, volumeRecordFile, volumeRecord{VolumeSpec: v, CreatedAt: time.Now().UTC()}); err != nil {
		return err
	}
	crash.Point("volume made")
	if err := os.Rename(dir, s.path(v.VolumeID)); err != nil {
		return err
	}
	crash.Point("volume made")
	return durable.SyncDir(s.dir)
}

// room refuses what the disk has no space for, counting what open snapshots
// may come to need.
func (s *volumes) room(size uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return err
	}
	s.mu.Lock()
	claims := s.claims
	s.mu.Unlock()
	if free := st.Bavail * uint64(st.Bsize); free < size || free-size < claims {
		return &container.Error{Code: container.CodeDiskFull, Detail: fmt.Sprintf("%d bytes are free, of which snapshots may need %d, and %d are asked for", free, claims, size)}
	}
	return nil
}

// setAside makes the first size bytes of a file take their space.
func setAside(f *os.File, size uint64) error {
	err := uninterrupted(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, int64(size)) })
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return &container.Error{Code: container.CodeMissingFeature, Detail: "the file system of the state directory cannot set space aside; use ext4, xfs or btrfs", Err: err}
	case err != nil:
		return &container.Error{Code: container.CodeDiskFull, Detail: fmt.Sprintf("set %d bytes aside", size), Err: err}
	}
	return nil
}

// makeVolumeImage makes a file with an empty xfs. That grows with no more
// rights than mounting takes, where ext4 asks for CAP_SYS_RESOURCE, and makes
// inodes as they are needed.
func makeVolumeImage(path string, size uint64) error {
	mkfs, err := findProgram("mkfs.xfs", "xfsprogs")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	setNoCow(f)
	if err := setAside(f, size); err != nil {
		return err
	}
	return runMkfs(mkfs, f)
}

// runMkfs makes an empty xfs of a file's size.
func runMkfs(mkfs string, f *os.File) error {
	cmd := exec.Command(mkfs, "-q", "-f", "-K", "-s", fmt.Sprintf("size=%d", sectorBytes), "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %.200s", mkfs, err, out)
	}
	return nil
}

// setNoCow keeps btrfs from writing to new places, which space that was set
// aside would not bound. Other file systems refuse it.
func setNoCow(f *os.File) {
	const noCow = 0x00800000
	_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, noCow)
}

func findProgram(name, pkg string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"} {
		if path := filepath.Join(dir, name); fileExists(path) {
			return path, nil
		}
	}
	return "", &container.Error{Code: container.CodeMissingFeature, Detail: name + " not found; install the package " + pkg}
}

// GrowVolume makes a volume larger.
func (r *Runtime) GrowVolume(ctx context.Context, v container.VolumeSpec) error {
	if err := cmp.Or(ctx.Err(), v.Validate()); err != nil {
		return err
	}
	defer r.holdVolumes(v.Lease, []string{v.Name})()
	rec, ok, err := r.volumes.read(v.VolumeID)
	switch {
	case err != nil:
		return err
	case !ok:
		return &container.Error{Code: container.CodeNoVolume, Detail: v.String()}
	case v.SizeBytes < rec.SizeBytes:
		return &container.Error{Code: container.CodeVolumeConflict, Detail: fmt.Sprintf("%s has %d bytes", v.VolumeID, rec.SizeBytes)}
	}
	return volumeError(v.VolumeID, r.volumes.grow(rec, v.SizeBytes))
}

// grow sets the space aside, then promises it, then makes the file system use
// it. Before the promise a new runtime takes it back, after it it goes on.
func (s *volumes) grow(rec volumeRecord, size uint64) error {
	dir := s.path(rec.VolumeID)
	if size > rec.SizeBytes {
		if err := s.room(size - rec.SizeBytes); err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(dir, volumeImage), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		crash.Point("volume grows")
		if err := errors.Join(setAside(f, size), f.Sync()); err != nil {
			return errors.Join(err, f.Truncate(int64(rec.SizeBytes)))
		}
		crash.Point("volume grows")
		rec.SizeBytes, rec.Growing = size, true
		if err := writeJSON(dir, volumeRecordFile, rec); err != nil {
			return err
		}
		crash.Point("volume grows")
	}
	if !rec.Growing {
		return nil
	}
	return s.finishGrowth(rec)
}

// finishGrowth makes the file system as large as was promised, which mounting
// does.
func (s *volumes) finishGrowth(rec volumeRecord) error {
	dir := s.path(rec.VolumeID)
	if err := withVolume(dir, func(*os.File) error { return nil }); err != nil {
		return err
	}
	crash.Point("volume grows")
	rec.Growing = false
	return writeJSON(dir, volumeRecordFile, rec)
}

// Volumes reports on volumes.
func (r *Runtime) Volumes(ctx context.Context, lease string) ([]container.Volume, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if lease != "" {
		if err := container.ValidateID(lease); err != nil {
			return nil, err
		}
	}
	all, err := r.volumes.list(lease)
	if err != nil {
		return nil, err
	}
	users, err := r.volumeUsers()
	if err != nil {
		return nil, err
	}
	var out []container.Volume
	for _, rec := range all {
		free, err := r.volumeFree(rec)
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, volumeError(rec.VolumeID, err)
		}
		out = append(out, container.Volume{VolumeSpec: rec.VolumeSpec, CreatedAt: rec.CreatedAt, FreeBytes: free, Containers: users[rec.VolumeID]})
	}
	return out, nil
}

// volumeUsers returns the containers that name each volume.
func (r *Runtime) volumeUsers() (map[container.VolumeID][]string, error) {
	entries, err := os.ReadDir(r.boxes)
	if err != nil {
		return nil, err
	}
	out := map[container.VolumeID][]string{}
	for _, e := range entries { // in order of their names
		var rec record
		if _, err := readJSON(filepath.Join(r.boxes, e.Name()), recordFile, &rec); err != nil {
			return nil, fmt.Errorf("container %s: %w", e.Name(), err)
		}
		for _, m := range rec.Spec.Volumes {
			v := container.VolumeID{Lease: rec.Spec.Lease, Name: m.Volume}
			out[v] = append(out[v], e.Name())
		}
	}
	return out, nil
}

// volumeFree asks the kernel where it has the volume mounted, and else the
// volume's first block.
func (r *Runtime) volumeFree(rec volumeRecord) (uint64, error) {
	dir := r.volumes.path(rec.VolumeID)
	image, err := os.Open(filepath.Join(dir, volumeImage))
	if err != nil {
		return 0, err
	}
	defer image.Close()
	loop, err := findLoop(image)
	if err != nil {
		return 0, err
	}
	if loop != nil {
		_ = loop.Close()
		var free uint64
		err := withVolume(dir, func(root *os.File) error {
			var st unix.Statfs_t
			err := unix.Fstatfs(int(root.Fd()), &st)
			free = st.Bavail * uint64(st.Bsize)
			return err
		})
		return free, err
	}
	head := make([]byte, 152)
	if _, err := image.ReadAt(head, 0); err != nil {
		return 0, err
	}
	return uint64(binary.BigEndian.Uint32(head[4:])) * binary.BigEndian.Uint64(head[144:]), nil
}

// RemoveVolume removes a volume.
func (r *Runtime) RemoveVolume(ctx context.Context, v container.VolumeID) error {
	if err := cmp.Or(ctx.Err(), v.Validate()); err != nil {
		return err
	}
	defer r.holdVolumes(v.Lease, []string{v.Name})()
	dir := r.volumes.path(v)
	if !isDir(dir) {
		return nil
	}
	users, err := r.volumeUsers()
	if err != nil {
		return err
	}
	if len(users[v]) > 0 {
		return &container.Error{Code: container.CodeVolumeInUse, Detail: fmt.Sprintf("%s in %s", v, strings.Join(users[v], ", "))}
	}
	away := filepath.Join(r.volumes.trash, fmt.Sprintf("removed-%d", time.Now().UnixNano()))
	crash.Point("volume removed")
	if err := os.Rename(dir, away); err != nil {
		return err
	}
	if err := durable.SyncDir(r.volumes.dir); err != nil {
		return err
	}
	crash.Point("volume removed")
	return volumeError(v, discardVolume(away))
}

// discardVolume removes a volume that was set aside. A mount that its last
// container left goes a moment later.
func discardVolume(dir string) error {
	image, err := os.Open(filepath.Join(dir, volumeImage))
	if err == nil {
		defer image.Close()
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
			loop, err := findLoop(image)
			if err != nil {
				return err
			}
			if loop == nil {
				break
			}
			_ = loop.Close()
			if time.Now().After(deadline) {
				return errors.New("the volume is still mounted")
			}
		}
	}
	crash.Point("volume removed")
	return os.RemoveAll(dir)
}

// useVolumes tells rec where its volumes are, and locks them until the
// returned function is called: when the record is written, it keeps them.
func (r *Runtime) useVolumes(rec *record) (func(), error) {
	var names []string
	for _, m := range rec.Spec.Volumes {
		names = append(names, m.Volume)
	}
	release := r.holdVolumes(rec.Spec.Lease, names)
	for _, name := range names {
		v := container.VolumeID{Lease: rec.Spec.Lease, Name: name}
		if _, ok, err := r.volumes.read(v); err != nil || !ok {
			release()
			return nil, cmp.Or(err, error(&container.Error{Code: container.CodeNoVolume, Detail: v.String()}))
		}
		rec.Volumes = append(rec.Volumes, r.volumes.path(v))
	}
	return release, nil
}

// volumeError gives what the kernel said a code.
func volumeError(v container.VolumeID, err error) error {
	code := container.CodeRuntime
	if errors.Is(err, unix.ENOSPC) {
		code = container.CodeDiskFull
	}
	return container.Wrap(code, "volume "+v.String(), err)
}

func fileSize(path string) (int64, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
