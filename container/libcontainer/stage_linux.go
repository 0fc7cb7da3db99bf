//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/sandbox"
)

// stage is where a container's root file system stands: in the monitor's own
// mount namespace, so that it vanishes with the monitor whatever happens, on a
// small tmpfs over a directory that every machine has, so that the container's
// root may pass through it and no path of the host shows in /proc/mounts.
type stage struct {
	base   string
	rootfs string

	args    []string
	env     []string
	workDir string
	user    ids
	volumes []*volumeMount // until the container is made
	apart   bool           // volumes are not in rootfs, but what mounts tells
	mounts  []sandbox.Mount
}

// ids are a user inside the container.
type ids struct {
	uid, gid int
	groups   []int
	home     string
}

// newStage mounts the root file system of r and prepares what its program
// needs. The monitor's mount namespace is its own already. Volumes stand apart
// when an engine mounts them.
func newStage(dir string, r *record, apart bool) (*stage, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	s := &stage{apart: apart}
	for _, d := range []string{"/mnt", "/media", "/srv", "/opt", "/run", "/var/tmp", "/tmp"} {
		if isDir(d) && !strings.HasPrefix(dir+"/", d+"/") && !strings.HasPrefix(r.Root+"/", d+"/") {
			s.base = d
			break
		}
	}
	if s.base == "" {
		return nil, &container.Error{Code: container.CodeMissingFeature, Detail: "no directory to mount over; create /mnt"}
	}
	if err := unix.Mount("tmpfs", s.base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=711,size=1m"); err != nil {
		return nil, fmt.Errorf("mount the stage: %w", err)
	}
	s.rootfs = filepath.Join(s.base, "rootfs")
	err := s.mount(dir, r)
	if err == nil {
		err = s.prepare(r)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) path(name string) string { return filepath.Join(s.base, name) }

// mount builds rootfs: the image below, idmapped to the container's ids, and a
// file system of the agreed size above.
func (s *stage) mount(dir string, r *record) error {
	for _, d := range []string{"lower", "disk", "rootfs"} {
		if err := os.Mkdir(s.path(d), 0o711); err != nil {
			return err
		}
	}
	if err := makeDisk(filepath.Join(dir, diskFile), r.Spec.Limits.DiskBytes, emptyDisksOf(dir)); err != nil {
		return err
	}
	if err := mountDisk(filepath.Join(dir, diskFile), s.path("disk")); err != nil {
		return err
	}
	upper, work := s.path("disk/upper"), s.path("disk/work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o700)); err != nil {
		return err
	}
	if err := os.Chown(upper, int(r.FirstID), int(r.FirstID)); err != nil {
		return err
	}
	err := idmapMount(r.Root, s.path("lower"), int(r.RootID), int(r.FirstID))
	if err == nil {
		data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", s.path("lower"), upper, work)
		err = unix.Mount("overlay", s.rootfs, "overlay", unix.MS_NODEV|unix.MS_NOSUID, data)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV):
		// A kernel or file system without idmapped overlays: the container
		// gets a copy of the image with shifted owners, within its disk.
		if err := copyShifted(r.Root, upper, int64(r.FirstID)-int64(r.RootID)); err != nil {
			return err
		}
		return unix.Mount(upper, s.rootfs, "", unix.MS_BIND, "")
	default:
		return fmt.Errorf("mount the root file system: %w", err)
	}
}

// close unmounts what newStage mounted, all of it at once: after each unmounting the
// kernel waits for all processors.
func (s *stage) close() error {
	s.closeVolumes()
	err := unix.Unmount(s.base, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("%s: %w", s.base, err)
	}
	return nil
}

// makeDisk makes a file of the given size with an empty ext4 file system. The
// space is reserved, so that a full host is noticed now and not by the tenant.
// kept is where empty file systems are kept.
func makeDisk(path string, size uint64, kept string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, int64(size))
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = f.Truncate(int64(size))
	}
	if err != nil {
		return &container.Error{Code: container.CodeDiskFull, Detail: fmt.Sprintf("reserve %d bytes for the writable layer", size), Err: err}
	}
	return formatDisk(f, size, kept)
}

// findMkfs looks where the program is even if PATH leaves that out.
func findMkfs() (string, error) {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"} {
		if path := filepath.Join(dir, "mkfs.ext4"); fileExists(path) {
			return path, nil
		}
	}
	return "", &container.Error{Code: container.CodeMissingFeature, Detail: "mkfs.ext4 not found; install the package e2fsprogs"}
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// diskOptions are for file systems that nobody mounts again: what a program syncs
// need not get through to the machine's disk, and there is no time to prepare what
// few of them use.
const diskOptions = "nobarrier,noinit_itable"

// mountDisk mounts an image through a loop device that frees itself when the
// mount goes.
func mountDisk(path, target string) error {
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return &container.Error{Code: container.CodeMissingFeature, Detail: "no loop devices; load the kernel module loop", Err: err}
	}
	defer control.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("find a free loop device: %w", err)
		}
		name := "/dev/loop" + strconv.Itoa(n)
		loop, err := openLoop(name, n)
		if err != nil {
			return err
		}
		// With sectors as large as the file system's blocks the kernel need not
		// change the device's blocks twice, and wait for all processors each time.
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: diskBlock, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if errors.Is(err, unix.EBUSY) { // another took it first
			_ = loop.Close()
			continue
		}
		if err == nil {
			err = unix.Mount(name, target, "ext4", unix.MS_NODEV|unix.MS_NOSUID, diskOptions)
		}
		_ = loop.Close()
		if err != nil {
			return fmt.Errorf("mount the writable layer from %s: %w", name, err)
		}
		return nil
	}
	return &container.Error{Code: container.CodeCapacity, Detail: "no free loop device"}
}

func openLoop(name string, n int) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// Without devtmpfs nobody makes the node of a new device.
		if err := unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err = os.OpenFile(name, os.O_RDWR, 0)
	}
	return f, err
}

// idmapMount shows the tree at source read-only at target, with the ids from
// on disk shifted to those from to.
func idmapMount(source, target string, disk, to int) error {
	ns, err := userNamespace(disk, to)
	if err != nil {
		return err
	}
	defer ns.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer func() { _ = unix.Close(tree) }()
	attr := unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID,
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(ns.Fd()),
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// userNamespace returns a user namespace in which the ids from inside are the
// host's from outside.
func userNamespace(inside, outside int) (*os.File, error) {
	return lendNamespace([]syscall.SysProcIDMap{{ContainerID: inside, HostID: outside, Size: idsPerContainer}})
}

// prepare resolves what the program needs from inside the root file system,
// and adds what an image may lack. All paths are resolved within it.
func (s *stage) prepare(r *record) error {
	root, err := os.OpenRoot(s.rootfs)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := checkMountPoints(root); err != nil {
		return err
	}
	s.args = r.Spec.CommandLine(r.Image)
	if len(s.args) == 0 {
		return &container.Error{Code: container.CodeProgram, Detail: "neither the image nor the specification names a program"}
	}
	who := r.Spec.User
	if who == "" {
		who = r.Image.User
	}
	if s.user, err = lookupUser(root, who); err != nil {
		return err
	}
	if err := s.mountVolumes(r); err != nil {
		return err
	}
	s.env = environment(r, s.user)
	s.workDir = r.Spec.WorkDir
	if s.workDir == "" {
		s.workDir = r.Image.WorkDir
	}
	if s.workDir == "" {
		s.workDir = "/"
	}
	if err := makeDirs(root, s.workDir, int(r.FirstID)+s.user.uid, int(r.FirstID)+s.user.gid); err != nil {
		return err
	}
	return errors.Join(writeHosts(root, r), writeResolvers(root, r))
}

// checkMountPoints refuses an image that has something else than a directory
// where the kernel's own files are to be mounted. Through a link there they would
// be at a place of its choice, a volume perhaps that another container changes
// while this one starts [CONTAINER-92].
func checkMountPoints(root *os.Root) error {
	for _, name := range []string{"proc", "sys", "dev"} {
		st, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || !st.IsDir() {
			return &container.Error{Code: container.CodeBadImage, Detail: "/" + name + " is no directory in it", Err: err}
		}
	}
	return nil
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the image's, then the spec's, with what programs rely on.
func environment(r *record, who ids) []string {
	env := []string{defaultPath, "HOME=" + who.home, "HOSTNAME=" + hostname(r)}
	return mergeEnv(env, r.Image.Env, r.Spec.Env)
}

// mergeEnv joins variables; the last of a name counts.
func mergeEnv(lists ...[]string) []string {
	var out []string
	at := map[string]int{}
	for _, v := range slices.Concat(lists...) {
		name, _, _ := strings.Cut(v, "=")
		if i, ok := at[name]; ok {
			out[i] = v
			continue
		}
		at[name] = len(out)
		out = append(out, v)
	}
	return out
}

// lookupUser finds a user in the image's own files. Ids are the container's.
func lookupUser(root *os.Root, who string) (ids, error) {
	var passwd, group *os.File
	if f, err := openPlain(root, "etc/passwd"); err == nil {
		defer f.Close()
		passwd = f
	}
	if f, err := openPlain(root, "etc/group"); err == nil {
		defer f.Close()
		group = f
	}
	u, err := execUser(who, passwd, group)
	if err != nil {
		return ids{}, &container.Error{Code: container.CodeInvalidSpec, Detail: fmt.Sprintf("user %.80q", who), Err: err}
	}
	out := ids{uid: u.Uid, gid: u.Gid, groups: u.Sgids, home: u.Home}
	for _, id := range append([]int{u.Uid, u.Gid}, u.Sgids...) {
		if id < 0 || id >= idsPerContainer {
			return ids{}, &container.Error{Code: container.CodeInvalidSpec, Detail: fmt.Sprintf("user %.80q has an id beyond %d", who, idsPerContainer-1)}
		}
	}
	return out, nil
}

func execUser(who string, passwd, group *os.File) (*user.ExecUser, error) {
	defaults := &user.ExecUser{Home: "/"}
	switch {
	case passwd != nil && group != nil:
		return user.GetExecUser(who, defaults, passwd, group)
	case passwd != nil:
		return user.GetExecUser(who, defaults, passwd, nil)
	default:
		return user.GetExecUser(who, defaults, nil, nil)
	}
}

// openPlain opens a regular file of the image, of a size worth parsing.
func openPlain(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > 1<<20 {
		_ = f.Close()
		return nil, fs.ErrInvalid
	}
	return f, nil
}

// makeDirs makes a directory and its parents; those that are missing get the
// given owner.
func makeDirs(root *os.Root, dir string, uid, gid int) error {
	name := ""
	for part := range strings.SplitSeq(strings.Trim(filepath.Clean(dir), "/"), "/") {
		if part == "" || part == "." {
			continue
		}
		name = filepath.Join(name, part)
		err := root.Mkdir(name, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = root.Lchown(name, uid, gid)
		}
		if err != nil {
			return &container.Error{Code: container.CodeInvalidSpec, Detail: "make the working directory " + dir, Err: err}
		}
	}
	return nil
}

// writeHosts gives an image without /etc/hosts one, so that "localhost" is
// known.
func writeHosts(root *os.Root, r *record) error {
	if st, err := root.Stat("etc/hosts"); err == nil && st.Size() > 0 {
		return nil
	}
	if err := makeDirs(root, "/etc", int(r.FirstID), int(r.FirstID)); err != nil {
		return err
	}
	text := "127.0.0.1 localhost " + hostname(r) + "\n::1 localhost\n"
	// What is there may be a pipe, in a volume: one without a reader is not waited
	// for.
	f, err := root.OpenFile("etc/hosts", os.O_WRONLY|os.O_CREATE|unix.O_NONBLOCK, 0o644)
	if err != nil {
		// An image may have made the place unusable; that is its own affair.
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Chown(int(r.FirstID), int(r.FirstID)))
}

// quickTries is how often waitLoopFree asks the file alone.
const quickTries = 4

// waitLoopFree waits until no loop device is backed by path any more. The
// kernel detaches a moment after the last mount is gone.
func waitLoopFree(path string, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for tries := 0; ; tries++ {
		if unwritten(path) {
			return nil
		}
		if tries < quickTries && fileExists(path) {
			time.Sleep(500 * time.Microsecond)
			continue
		}
		busy := ""
		files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && strings.TrimSuffix(strings.TrimSpace(string(b)), " (deleted)") == path {
				busy = f
			}
		}
		if busy == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("loop device still in use: %s", busy)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// unwritten reports whether nobody has a file open for writing, a loop device
// included; false where that cannot be asked. It is quicker than asking all the
// machine's loop devices.
func unwritten(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	_, refused := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK) // while there are writers; gone with f
	return refused == nil
}
