//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// guestMain is the whole life of the guest, as its first process.
func guestMain() {
	err := guestBegin()
	var outcomes *os.File
	if err == nil {
		outcomes, err = openPort(outcomePort)
	}
	if err == nil {
		var code int
		code, err = guestRun(outcomes)
		tell(outcomes, outcome{Exit: code}, err)
	} else {
		fmt.Println("guest:", err) // on the console
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // not reached
}

func tell(w io.Writer, o outcome, err error) {
	if err != nil {
		o.Error = err.Error()
	}
	_ = json.NewEncoder(w).Encode(o)
}

// mount is one file system of the guest.
type mount struct{ source, target, kind, data string }

// guestBegin loads the modules and moves to a root that containers can leave
// with pivot_root, which the first one does not allow.
func guestBegin() error {
	j, err := readJob()
	if err != nil {
		return err
	}
	for _, name := range j.Modules {
		if err := loadModule(filepath.Join("/", moduleDir, name)); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	if err := mountAll(mount{"tmpfs", "/mnt", "tmpfs", "mode=755"}); err != nil {
		return err
	}
	if err := moveTree("/", "/mnt"); err != nil {
		return err
	}
	err = errors.Join(unix.Chdir("/mnt"), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/"))
	if err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	err = mountAll(
		mount{"proc", "/proc", "proc", ""}, mount{"sysfs", "/sys", "sysfs", ""}, mount{"dev", "/dev", "devtmpfs", ""},
		mount{"devpts", "/dev/pts", "devpts", "mode=620,ptmxmode=666"}, mount{"shm", "/dev/shm", "tmpfs", "mode=1777"},
		mount{"mqueue", "/dev/mqueue", "mqueue", ""},
	)
	if err != nil {
		return err
	}
	if err := mountCgroups(j.Cgroup); err != nil {
		return err
	}
	return errors.Join(linkDevices(), loopbackUp(), unix.Sethostname([]byte("guest")))
}

func readJob() (job, error) {
	var j job
	b, err := os.ReadFile("/" + jobFile)
	if err == nil {
		err = json.Unmarshal(b, &j)
	}
	return j, err
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func mountAll(mounts ...mount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// moveTree copies all files of from below to, and frees their memory as it
// goes. This program stays, it is in use.
func moveTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == to {
			if err := os.Mkdir(filepath.Join(to, path), 0o755); err != nil {
				return err
			}
			return fs.SkipDir
		}
		dst := filepath.Join(to, path)
		st, err := d.Info()
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if path == from {
				return nil
			}
			return os.Mkdir(dst, st.Mode().Perm())
		case !st.Mode().IsRegular(), path == "/init":
			return nil
		}
		if err := copyFile(path, dst, st.Mode().Perm()); err != nil {
			return err
		}
		return os.Remove(path)
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// mountCgroups mounts control groups of one kind.
func mountCgroups(kind string) error {
	if kind == cgroupV2 {
		return mountAll(mount{"cgroup2", "/sys/fs/cgroup", "cgroup2", "nsdelegate,memory_recursiveprot"}) // as systemd does
	}
	list, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return err
	}
	mounts := []mount{{"tmpfs", "/sys/fs/cgroup", "tmpfs", "mode=755"}}
	for line := range strings.Lines(string(list)) { // name, hierarchy, groups, enabled
		if f := strings.Fields(line); len(f) == 4 && f[0][0] != '#' && f[3] == "1" {
			mounts = append(mounts, mount{"cgroup", "/sys/fs/cgroup/" + f[0], "cgroup", f[0]})
		}
	}
	mounts = append(mounts, mount{"cgroup", "/sys/fs/cgroup/systemd", "cgroup", "none,name=systemd"})
	return mountAll(mounts...)
}

func linkDevices() error {
	return errors.Join(os.Symlink("/proc/self/fd", "/dev/fd"), os.Symlink("fd/0", "/dev/stdin"),
		os.Symlink("fd/1", "/dev/stdout"), os.Symlink("fd/2", "/dev/stderr"))
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req)
}

// await polls for what the kernel makes a moment after its module is loaded.
func await(what string, found func() bool) error {
	for deadline := time.Now().Add(20 * time.Second); !found(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("no %s", what)
		}
	}
	return nil
}

// openPort opens the line to the host of that name.
func openPort(name string) (*os.File, error) {
	device := ""
	err := await("port "+name, func() bool {
		files, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, f := range files {
			if b, _ := os.ReadFile(f); strings.TrimSpace(string(b)) == name {
				device = "/dev/" + filepath.Base(filepath.Dir(f))
			}
		}
		_, err := os.Stat(device)
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	// Not os.OpenFile, which would make it non-blocking for the program too.
	fd, err := unix.Open(device, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", device, err)
	}
	return os.NewFile(uintptr(fd), device), nil
}

// guestRun runs the job's program to its end and returns its exit code.
func guestRun(outcomes io.Writer) (int, error) {
	j, err := readJob()
	if err != nil {
		return 0, err
	}
	err = await("disk", func() bool { _, err := os.Stat("/dev/vda"); return err == nil })
	if err == nil {
		err = mountAll(mount{"/dev/vda", "/tmp", "ext4", ""})
	}
	if err == nil {
		err = os.Chmod("/tmp", 0o1777|fs.ModeSticky)
	}
	if err != nil {
		return 0, err
	}
	if err := exec.Command(baseFiles[0], "--install", "-s", "/bin").Run(); err != nil {
		return 0, fmt.Errorf("install busybox: %w", err)
	}
	if err := os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return 0, err
	}
	out, err := openPort(outputPort)
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	program, err := exec.LookPath(j.Args[0])
	if err != nil {
		return 0, err
	}
	env := append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "USER=root", "TMPDIR=/tmp", "TERM=dumb"}, j.Env...)
	tell(outcomes, outcome{Started: true}, nil)
	p, err := os.StartProcess(program, j.Args, &os.ProcAttr{Dir: "/root", Env: env, Files: []*os.File{null, out, out}})
	if err != nil {
		return 0, err
	}
	return reapUntil(p.Pid)
}

// reapUntil waits for all processes that end, as the first process must, until
// it is the given one.
func reapUntil(pid int) (int, error) {
	for {
		var status unix.WaitStatus
		ended, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for the program: %w", err)
		case ended == pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case ended == pid && status.Exited():
			return status.ExitStatus(), nil
		}
	}
}
