//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Programs of this machine that are always packed: a shell with its tools, and
// what containers need of the file system's.
var baseFiles = []string{"/usr/bin/busybox", "/usr/sbin/mkfs.ext4"}

// machine is a guest that is ready to start.
type machine struct {
	options
	dir   string
	image string
}

// file is a file of the machine's own folder.
func (m *machine) file(name string) string { return filepath.Join(m.dir, name) }

// prepare packs all that the guest gets.
func prepare(dir string, o options) (*machine, error) {
	begun := time.Now()
	k, err := findKernel(o.kernel)
	if err != nil {
		return nil, err
	}
	m := &machine{options: o, dir: dir, image: k.image}
	f, err := os.Create(m.file("initramfs"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := newArchive(f)
	j := job{Args: o.args, Cgroup: o.cgroup, Env: append([]string{"PKTCLOUD_GUEST=" + o.cgroup}, o.env...)}
	modules, err := k.load(append(baseModules, o.modules...)...)
	if err != nil {
		return nil, err
	}
	for _, mod := range modules {
		j.Modules = append(j.Modules, mod.name)
		a.data(moduleDir+"/"+mod.name, 0o644, mod.data)
	}
	if strings.Contains(o.args[0], "/") {
		at := "/" + programDir + "/" + filepath.Base(o.args[0])
		j.Args = append([]string{at}, o.args[1:]...)
		o.with = append(o.with, o.args[0]+"="+at)
	}
	if err := fill(a, j, o.with); err != nil {
		return nil, err
	}
	if err := errors.Join(a.close(), f.Close()); err != nil {
		return nil, err
	}
	if err := makeDisk(m.file("disk"), int64(o.diskMB)<<20); err != nil {
		return nil, err
	}
	m.say("packed in %v", time.Since(begun))
	return m, nil
}

// fill adds this program as the guest's init, its job, and files.
func fill(a *archive, j job, with []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := a.pack(self, "/init"); err != nil {
		return err
	}
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	a.data(jobFile, 0o644, b)
	a.char("dev/console", 5, 1)
	a.data("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"))
	a.data("etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	a.data("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n"))
	for _, d := range []string{"proc", "sys", "tmp", "run", "root", "mnt", "bin", "sbin"} {
		a.dir(d, 0o755)
	}
	for _, w := range append(baseFiles, with...) {
		source, at, ok := strings.Cut(w, "=")
		if source, err = filepath.Abs(source); err != nil {
			return err
		}
		if !ok {
			at = source
		}
		if err := a.pack(source, at); err != nil {
			return fmt.Errorf("pack %s: %w", w, err)
		}
	}
	return nil
}

// makeDisk makes the sparse image of the disk at /tmp.
func makeDisk(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	out, err := exec.Command(baseFiles[1], "-q", "-F", "-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %.200s", err, out)
	}
	return nil
}

// arguments are those of QEMU.
func (m *machine) arguments() []string {
	// A kernel that has stood still for a minute ends, and its console says where.
	line := "console=ttyS0 quiet loglevel=5 panic=-1 oops=panic watchdog_thresh=30 softlockup_panic=1 random.trust_cpu=on"
	if m.cgroup == cgroupV2 {
		line += " cgroup_no_v1=all"
	}
	return []string{
		// One processor: several that are emulated side by side have stood still for good, each waiting for another.
		"-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1",
		"-m", strconv.Itoa(m.memoryMB), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
		"-kernel", m.image, "-initrd", m.file("initramfs"), "-append", line,
		"-serial", "file:" + m.file("console"),
		"-drive", "if=none,id=disk,format=raw,cache=unsafe,file=" + m.file("disk"), "-device", "virtio-blk-pci,drive=disk",
		"-device", "virtio-serial-pci",
		"-chardev", "file,id=output,path=/dev/fd/1", "-device", "virtserialport,chardev=output,name=" + outputPort,
		"-chardev", "file,id=outcome,path=" + m.file("outcome"), "-device", "virtserialport,chardev=outcome,name=" + outcomePort,
	}
}

// run boots the guest and waits for its end.
func (m *machine) run(ctx context.Context, out io.Writer) (int, error) {
	begun := time.Now()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", m.arguments()...)
	var complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = struct{ io.Writer }{out}, &complaints // always a pipe, which QEMU opens by name
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return exitNoGuest, fmt.Errorf("%w: run scripts/setup cgroup2", err)
	}
	booted := make(chan time.Duration, 1)
	ended := make(chan struct{})
	go func() { booted <- m.awaitStart(begun, ended) }()
	err := cmd.Wait()
	close(ended)
	boot := <-booted
	m.say("booted in %v, ended after %v", boot, time.Since(begun))
	events, _ := os.ReadFile(m.file("outcome"))
	last := lastOutcome(events)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return exitTimeout, fmt.Errorf("ended after %v; its console ended with\n%s", m.timeout, m.console())
	case ctx.Err() != nil:
		return exitNoGuest, ctx.Err()
	case last == nil || last.Started:
		return exitNoGuest, fmt.Errorf("the guest died: %w %s; its console ended with\n%s", errors.Join(err, errNoOutcome), complaints.String(), m.console())
	case last.Error != "":
		return exitNoGuest, fmt.Errorf("in the guest: %s; its console ended with\n%s", last.Error, m.console())
	}
	return last.Exit, nil
}

var errNoOutcome = errors.New("no exit code")

// awaitStart returns when the program began, 0 if it never did.
func (m *machine) awaitStart(begun time.Time, ended <-chan struct{}) time.Duration {
	for {
		if b, _ := os.ReadFile(m.file("outcome")); lastOutcome(b) != nil {
			return time.Since(begun)
		}
		select {
		case <-ended:
			return 0
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// lastOutcome reads lines of JSON; nil if there is none that is whole.
func lastOutcome(b []byte) *outcome {
	var last *outcome
	for line := range bytes.Lines(b) {
		var o outcome
		if bytes.HasSuffix(line, []byte("\n")) && json.Unmarshal(line, &o) == nil {
			last = &o
		}
	}
	return last
}

// console returns the end of what the kernel had to say.
func (m *machine) console() string {
	b, _ := os.ReadFile(m.file("console"))
	return strings.ReplaceAll(string(b[max(0, len(b)-4000):]), "\r", "")
}

func (m *machine) say(format string, args ...any) {
	if m.verbose {
		fmt.Fprintf(os.Stderr, "guest: "+format+"\n", args...)
	}
}
