//go:build linux && amd64

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unsafe"
)

var fsAttacks = []attack{
	{
		Name: "fs/descriptor", About: "use a file that was left open by what started it",
		Without: []string{noFiles}, here: true, run: leakedDescriptor,
	},
	{
		Name: "fs/descriptor-directory", About: "start in a directory that was left open, by `/proc/self/fd`",
		Without: []string{noFiles, noMagicDir}, Outside: true,
	},
	{
		Name: "fs/machine-file", About: "read a file of the machine by its path, also through other roots in `/proc`",
		Without: []string{noMachine}, run: machineFile,
	},
	{
		Name: "fs/hard-link-out", About: "make a second name for a file of the machine",
		Without: []string{noMachine}, run: hardLinkOut,
	},
	{
		Name: "fs/symlink-out", About: "write to the machine through symbolic links in its image, where the runtime writes at the start",
		Without: []string{resolved}, Outside: true, Mutant: "hosts-through-links",
	},
	{
		Name: "fs/working-directory", About: "start in a directory of the machine by its path",
		Without: []string{noMachine}, Outside: true,
	},
	{
		Name: "fs/first-program", About: "overwrite the runtime's program through `/proc/PID/exe` while it starts something",
		Without: []string{sealedShim, readShim}, Outside: true,
	},
	{
		Name: "fs/file-handle", About: "open the machine's root by a guessed file handle",
		Without: []string{filter, capSearch, ownUsers}, Also: []string{noMachine}, run: fileHandle,
	},
	{
		Name: "fs/setuid", About: "become root through a setuid file",
		Without: []string{noNew, noSuid}, Also: []string{filter}, run: setuidFile, // which cannot be loaded without the first
	},
	{
		Name: "fs/setuid-layer", About: "become root through a setuid file that its image brought",
		Without: []string{noSetuid, noNew, noSuid}, Also: []string{filter}, run: setuidLayer,
	},
	{
		Name: "fs/inherited", About: "keep capabilities for programs that it starts as another user",
		Without: []string{noInherited}, run: inherited,
	},
	{
		Name: "fs/file-capability", About: "give a file capabilities",
		Without: []string{capSetfcap}, run: fileCapability,
	},
	{
		Name: "fs/mount", About: "mount a file system", Without: []string{filter, capAdmin},
		run: func(*targets) error { return mountAt("tmpfs", "tmpfs", 0) },
	},
	{
		Name: "fs/mount-proc", About: "mount `/proc` again, with nothing hidden",
		Without: []string{filter, capAdmin}, Also: []string{masked, readOnly},
		run: func(*targets) error { return mountAt("proc", "proc", 0) },
	},
	{
		Name: "fs/unmask", About: "unmount what hides a path of `/proc`", Without: []string{filter, capAdmin},
		run: func(*targets) error { return syscall.Unmount("/proc/timer_list", syscall.MNT_DETACH) },
	},
	{
		Name: "fs/remount", About: "make `/proc/sys` writable", Without: []string{filter, capAdmin},
		run: func(*targets) error {
			return syscall.Mount("", "/proc/sys", "", syscall.MS_REMOUNT|syscall.MS_BIND, "")
		},
	},
	{
		Name: "fs/clone-mount", About: "take a mount aside with `open_tree`", Without: []string{filter, capAdmin},
		run: func(*targets) error {
			const sysOpenTree, openTreeClone = 428, 1
			_, err := call(sysOpenTree, ^uintptr(99), cstr("/dev"), openTreeClone) // AT_FDCWD
			return err
		},
	},
	{
		Name: "fs/new-mount", About: "make a file system with `fsopen`", Without: []string{filter, capAdmin},
		run: func(*targets) error { _, err := call(sysFsopen, cstr("tmpfs"), 0); return err },
	},
	{
		Name: "fs/chroot", About: "change its root directory", Without: []string{filter, capChroot},
		run: func(*targets) error { return syscall.Chroot("/dev") },
	},
}

func cstr(s string) uintptr {
	b := append([]byte(s), 0)
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

var kept [][]byte // keeps what the kernel reads

// leakedDescriptor looks at all descriptors beyond the three; what Go's runtime
// opens has no name in a file system. Of a directory it reads the secret.
func leakedDescriptor(t *targets) error {
	for fd := 3; fd < 1024; fd++ {
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil || strings.HasPrefix(name, "anon_inode:") || strings.HasPrefix(name, "pipe:") {
			continue
		}
		var st syscall.Stat_t
		if syscall.Fstat(fd, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			return nil
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(t.Secret)))
		if err == nil && !bytes.Contains(b, []byte(t.Token)) {
			err = errors.New("another file")
		}
		return err
	}
	return errors.New("none was left open")
}

// machineFile tries the ways by which a path may lead to another root.
func machineFile(t *targets) error {
	var errs []error
	for _, root := range []string{"", "/proc/1/root", "/proc/self/root", "/proc/1/cwd/../../../../..", "/proc/self/task/1/root"} {
		b, err := os.ReadFile(root + t.Secret)
		if err == nil && !bytes.Contains(b, []byte(t.Token)) {
			err = errors.New("another file")
		}
		errs = append(errs, err)
	}
	return firstError(errs...)
}

// mountPoint is a line of /proc/self/mountinfo.
type mountPoint struct{ path, kind string }

func mountPoints() []mountPoint {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	var out []mountPoint
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if i := slices.Index(f, "-"); i > 4 && len(f) > i+1 {
			out = append(out, mountPoint{f[4], f[i+1]})
		}
	}
	return out
}

// machineMounts are those that are of a real file system and no root.
func machineMounts() []string {
	var out []string
	for _, m := range mountPoints() {
		st, err := os.Stat(m.path)
		if err == nil && st.IsDir() && m.path != "/" && slices.Contains([]string{"ext4", "xfs", "btrfs", "overlay", "tmpfs"}, m.kind) &&
			!strings.HasPrefix(m.path, "/dev") && !strings.HasPrefix(m.path, "/proc") && !strings.HasPrefix(m.path, "/sys") {
			out = append(out, m.path)
		}
	}
	return out
}

// hardLinkOut links files of every mount that is not its own into that mount,
// and devices and hosts files into its own root.
func hardLinkOut(t *targets) error {
	errs := []error{os.Link("/dev/null", "/linked")}
	for _, dir := range machineMounts() {
		name := filepath.Join(dir, filepath.Base(t.Secret))
		err := os.Link(name, name+".linked")
		if err == nil {
			_ = os.Remove(name + ".linked")
		}
		errs = append(errs, err)
	}
	return firstError(errs...)
}

// fileHandle is the handle of inode 2, the root of an ext4 file system.
func fileHandle(*targets) error {
	handle := struct {
		bytes, kind uint32
		inode, gen  uint32
	}{8, 1, 2, 0}
	var errs []error
	for _, dir := range append([]string{"/"}, machineMounts()...) {
		f, err := os.Open(dir)
		if err == nil {
			_, err = call(304, f.Fd(), uintptr(unsafe.Pointer(&handle)), syscall.O_RDONLY|syscall.O_DIRECTORY) // open_by_handle_at
			_ = f.Close()
		}
		errs = append(errs, err)
	}
	return firstError(errs...)
}

// setuidFile makes a setuid copy of this program, then runs it as nobody.
func setuidFile(*targets) error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	const name = "/setuid-copy"
	_ = os.Remove(name)
	out, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(name) }()
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(0o755|os.ModeSetuid), out.Close()); err != nil {
		return err
	}
	return runsAsRoot(name)
}

// layerCopy is a copy of this program that its image made setuid.
const layerCopy = "/setuid"

func setuidLayer(*targets) error {
	st, err := os.Stat(layerCopy)
	if err == nil && st.Mode()&os.ModeSetuid == 0 {
		err = errors.New("it is not setuid any more")
	}
	if err != nil {
		return err
	}
	return runsAsRoot(layerCopy)
}

// runsAsRoot runs a copy of this program as nobody.
func runsAsRoot(name string) error {
	cmd := exec.Command(name, "part-geteuid")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	text, err := cmd.Output()
	if err != nil {
		return err
	}
	if who := strings.TrimSpace(string(text)); who != "0" {
		return fmt.Errorf("it runs as user %s", who)
	}
	return nil
}

// inherited looks at what a program would keep that is not root.
func inherited(*targets) error {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if (name == "CapInh" || name == "CapAmb") && strings.Trim(strings.TrimSpace(value), "0") != "" {
			return nil
		}
	}
	return errors.New("neither inheritable nor ambient ones")
}

// fileCapability writes the attribute that gives cap_setuid.
func fileCapability(*targets) error {
	const name = "/capable"
	if err := os.WriteFile(name, nil, 0o755); err != nil {
		return err
	}
	defer func() { _ = os.Remove(name) }()
	value := make([]byte, 20)
	binary.LittleEndian.PutUint32(value, 0x02000001) // revision 2, effective
	binary.LittleEndian.PutUint32(value[4:], 1<<7)
	return syscall.Setxattr(name, "security.capability", value, 0)
}

func mountAt(source, kind string, flags uintptr) error {
	const dir = "/mounted"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer func() { _ = os.Remove(dir) }()
	if err := syscall.Mount(source, dir, kind, flags, ""); err != nil {
		return err
	}
	return syscall.Unmount(dir, syscall.MNT_DETACH)
}

// where tells whether the working directory is one of the lease's.
func where() {
	dir, err := os.Getwd()
	_, found := os.Stat("secret")
	if found == nil {
		fmt.Println("outside")
	}
	fmt.Println(dir, err)
}
