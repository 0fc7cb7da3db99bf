//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/sandbox"
)

// volumeMount is a mount at no path. It ends when it is closed, unless it was
// moved to a path by then.
type volumeMount struct {
	mount *os.File // good for being moved
	root  *os.File // its root directory
}

func (v *volumeMount) Close() error { return errors.Join(v.root.Close(), v.mount.Close()) }

// withVolume mounts the volume in dir, for f alone, with the ids that are on
// disk. Whoever has it mounted too shares the file system.
func withVolume(dir string, f func(root *os.File) error) error {
	v, err := mountVolume(dir)
	if err != nil {
		return err
	}
	return errors.Join(f(v.root), v.Close())
}

// mountVolume mounts the volume in dir and makes its file system as large as
// its image. One loop device serves all mounts; two would be
// two file systems that destroy each other, so the volume is locked meanwhile.
func mountVolume(dir string) (*volumeMount, error) {
	lock, err := os.OpenFile(filepath.Join(dir, volumeLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	for {
		if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	image, err := os.OpenFile(filepath.Join(dir, volumeImage), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	loop, err := findLoop(image)
	if err == nil && loop == nil {
		loop, err = newLoop(image)
	}
	if err != nil {
		return nil, err
	}
	defer loop.Close()
	v, err := mountXFS(loop.Name())
	if err != nil {
		return nil, err
	}
	if err := fillImage(loop, v.root, image); err != nil {
		return nil, errors.Join(fmt.Errorf("grow the file system: %w", err), v.Close())
	}
	return v, nil
}

// mountImage mounts an image that nobody else has.
func mountImage(image *os.File, options ...string) (*volumeMount, error) {
	loop, err := newLoop(image)
	if err != nil {
		return nil, err
	}
	defer loop.Close()
	return mountXFS(loop.Name(), options...)
}

// mountXFS mounts a device at no path. Options have no value. What the runtime
// reads through it leaves no trace in the files' times.
func mountXFS(device string, options ...string) (*volumeMount, error) {
	fd, err := unix.Fsopen("xfs", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOSYS) {
		return nil, &container.Error{Code: container.CodeMissingFeature, Detail: "this kernel has no xfs, or is older than 5.12", Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("fsopen: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.FsconfigSetString(fd, "source", device)
	for _, o := range options {
		err = errors.Join(err, unix.FsconfigSetFlag(fd, o))
	}
	if err := errors.Join(err, unix.FsconfigCreate(fd)); err != nil {
		return nil, fmt.Errorf("mount the volume on %s: %w", device, err)
	}
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOATIME)
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	root, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(mount)
		return nil, err
	}
	return &volumeMount{mount: os.NewFile(uintptr(mount), "mount"), root: os.NewFile(uintptr(root), "volume")}, nil
}

// findLoop opens the loop device of an image; nil when it has none. Devices and
// inodes are compared, not paths: the path of an image can look different from
// another mount namespace.
func findLoop(image *os.File) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil {
		return nil, err
	}
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(b), volumeImage) {
			continue
		}
		device := strings.Split(name, "/")[3]
		n, err := strconv.Atoi(strings.TrimPrefix(device, "loop"))
		if err != nil {
			continue
		}
		loop, err := openLoop("/dev/"+device, n)
		if err != nil {
			return nil, err
		}
		info, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
		if err == nil && info.Device == st.Dev && info.Inode == st.Ino {
			return loop, nil
		}
		_ = loop.Close()
	}
	return nil, nil
}

// sectorBytes are those of a volume's device.
const sectorBytes = 4096

// newLoop gives an image a loop device, which frees itself with its last user.
func newLoop(image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, &container.Error{Code: container.CodeMissingFeature, Detail: "no loop devices; load the kernel module loop", Err: err}
	}
	defer control.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		loop, err := openLoop("/dev/loop"+strconv.Itoa(n), n)
		if err != nil {
			return nil, err
		}
		// A disk that shares extents writes blocks of 4096 bytes and no less.
		config := unix.LoopConfig{Fd: uint32(image.Fd()), Size: sectorBytes, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		_ = loop.Close()
		if !errors.Is(err, unix.EBUSY) { // else another took it first
			return nil, fmt.Errorf("set up a loop device: %w", err)
		}
	}
	return nil, &container.Error{Code: container.CodeCapacity, Detail: "no free loop device"}
}

// fillImage lets a mounted file system grow to the size of its image.
func fillImage(loop, root, image *os.File) error {
	st, err := image.Stat()
	if err != nil {
		return err
	}
	const (
		getGeometry = 0x80705864 // XFS_IOC_FSGEOMETRY_V1
		growData    = 0x4010586e // XFS_IOC_FSGROWFSDATA
	)
	var geometry struct {
		BlockBytes  uint32
		_           [6]uint32
		InodeMaxPct uint32
		DataBlocks  uint64
		_           [9]uint64
	}
	if err := ioctl(root, getGeometry, unsafe.Pointer(&geometry)); err != nil {
		return err
	}
	blocks := uint64(st.Size()) / uint64(geometry.BlockBytes)
	if blocks <= geometry.DataBlocks {
		return nil
	}
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return err
	}
	grow := struct {
		NewBlocks   uint64
		InodeMaxPct uint32
		_           uint32
	}{NewBlocks: blocks, InodeMaxPct: geometry.InodeMaxPct}
	return ioctl(root, growData, unsafe.Pointer(&grow))
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// mountVolumes puts the volumes of r at their places in the root file system,
// with the ids of the container and those on disk apart. Paths are resolved
// within the root, whatever links the image has [CONTAINER-30] [CONTAINER-61].
func (s *stage) mountVolumes(r *record) error {
	if len(r.Volumes) == 0 {
		return nil
	}
	if len(r.Volumes) != len(r.Spec.Volumes) {
		return errors.New("the record does not say where the volumes are")
	}
	// The machine's root is the id after those of the container, so that the
	// runtime can make directories in a volume before it gives them away.
	ns, err := lendNamespace([]syscall.SysProcIDMap{
		{ContainerID: 0, HostID: int(r.FirstID), Size: idsPerContainer},
		{ContainerID: idsPerContainer, HostID: 0, Size: 1},
	})
	if err != nil {
		return err
	}
	defer ns.Close()
	root, err := os.Open(s.rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	for i, m := range r.Spec.Volumes {
		if err := s.mountVolume(r, root, ns, r.Volumes[i], m); err != nil {
			return container.Wrap(container.CodeRuntime, "volume "+m.Volume+" at "+m.Path, err)
		}
	}
	return nil
}

func (s *stage) mountVolume(r *record, root, ns *os.File, dir string, m container.Mount) error {
	at, made, err := placeIn(root, m.Path, int(r.FirstID))
	if err != nil {
		return err
	}
	defer at.Close()
	where, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", at.Fd()))
	inside, ok := strings.CutPrefix(where, s.rootfs)
	if err != nil || !ok || !container.MountablePath(filepath.Clean("/"+inside)) {
		return &container.Error{Code: container.CodeInvalidSpec, Detail: fmt.Sprintf("%s leads to %q in the image, where no volume may be", m.Path, inside), Err: err}
	}
	volume, err := mountVolume(dir)
	if err != nil {
		return err
	}
	s.volumes = append(s.volumes, volume)
	if err := s.adoptVolume(r, volume.root, at, made); err != nil {
		return err
	}
	attr := unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID,
		Attr_clr:    unix.MOUNT_ATTR__ATIME, // as files of the image have it
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(ns.Fd()),
	}
	if m.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	mount, to := int(volume.mount.Fd()), at
	if s.apart {
		if to, err = s.placeApart(m, inside); err != nil {
			return err
		}
		defer to.Close()
	}
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return &container.Error{Code: container.CodeMissingFeature, Detail: "this kernel cannot show a volume with the container's ids", Err: err}
	}
	if err := unix.MoveMount(mount, "", int(to.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// placeApart makes a directory beside the root file system for a volume that an
// engine mounts by itself.
func (s *stage) placeApart(m container.Mount, inside string) (*os.File, error) {
	source := s.path(fmt.Sprintf("volume-%d", len(s.mounts)))
	if err := os.Mkdir(source, 0o711); err != nil {
		return nil, err
	}
	s.mounts = append(s.mounts, sandbox.Mount{Source: source, Path: inside, ReadOnly: m.ReadOnly})
	return os.Open(source)
}

// adoptVolume gives the root of a volume that was never mounted the owner and
// mode of the directory that it covers, or the container's user as its owner.
func (s *stage) adoptVolume(r *record, volume, at *os.File, made bool) error {
	uid, gid, mode := s.user.uid, s.user.gid, uint32(0o755)
	var st, covered unix.Stat_t
	if err := errors.Join(unix.Fstat(int(volume.Fd()), &st), unix.Fstat(int(at.Fd()), &covered)); err != nil {
		return err
	}
	if st.Mtim != (unix.Timespec{}) {
		return nil
	}
	u, g := int(covered.Uid)-int(r.FirstID), int(covered.Gid)-int(r.FirstID)
	if !made && u >= 0 && u < idsPerContainer && g >= 0 && g < idsPerContainer {
		uid, gid, mode = u, g, covered.Mode&0o1777
	}
	fd := int(volume.Fd())
	return errors.Join(
		unix.Fchown(fd, uid, gid), unix.Fchmod(fd, mode),
		unix.UtimesNanoAt(fd, ".", []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}, 0),
	)
}

// closeVolumes lets go of the volumes' own mounts, so that those in the
// container are the last.
func (s *stage) closeVolumes() {
	for _, v := range s.volumes {
		_ = v.Close()
	}
	s.volumes = nil
}

// volumePaths are paths on the volumes' devices.
func (s *stage) volumePaths() []string {
	var out []string
	for _, v := range s.volumes {
		out = append(out, fmt.Sprintf("/proc/self/fd/%d", v.root.Fd()))
	}
	return out
}

// placeIn opens the directory at an absolute path within root, and makes what is
// missing of it for owner. Symbolic links lead to places within root.
func placeIn(root *os.File, path string, owner int) (at *os.File, made bool, err error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	refused := func(err error) error {
		return &container.Error{Code: container.CodeInvalidSpec, Detail: "the image has something else than a directory at " + path, Err: err}
	}
	parent, err := unix.Openat2(int(root.Fd()), "/", &how)
	if err != nil {
		return nil, false, err
	}
	done := "/"
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		done = filepath.Join(done, name)
		next, err := unix.Openat2(int(root.Fd()), done, &how)
		if errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(parent, name, 0o755); err == nil {
				made = true
				if err = unix.Fchownat(parent, name, owner, owner, unix.AT_SYMLINK_NOFOLLOW); err != nil {
					_ = unix.Close(parent)
					return nil, false, err
				}
				next, err = unix.Openat2(int(root.Fd()), done, &how)
			}
		}
		_ = unix.Close(parent)
		if err != nil {
			return nil, false, refused(err)
		}
		parent = next
	}
	return os.NewFile(uintptr(parent), path), made, nil
}
