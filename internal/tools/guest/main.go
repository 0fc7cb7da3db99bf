//go:build linux

// Command guest runs a program in a virtual machine that is made for it and
// thrown away after it, with a kernel of Debian and control groups as asked
// for. It is for what this machine does not offer, such as pure cgroup v2, and
// for what it should not be exposed to, such as an attack whose defence was
// taken off on purpose.
//
//	guest run -- ./prog args          the program, as root, in a fresh guest
//	guest run -- sh -c 'mount; dmesg' any applet of busybox
//	guest run -cgroup v1 -modules veth,nf_tables -with /sbin/ip -- ./prog
//	go test -exec 'bin/guest run --' ./package
//
// The program, each file of -with, and the shared libraries that they name are
// packed; nothing else of this machine is in the guest, and what the guest does
// stays in it. It has no network but its loopback. It needs neither root nor KVM:
// the processor is emulated, some ten times slower than this one.
//
// What the program writes comes out on standard output, both of its streams in
// one, as it is written. The exit code is the program's own, 128 + n after
// signal n, 124 when -timeout ended the guest, and 125 when there was no guest or
// it died; then the end of its console is on standard error. (go run itself ends
// with 1 whatever that was: build the command where the code matters.)
//
// In the guest the root file system is a tmpfs, /tmp is an ext4 disk of
// -disk bytes, and the processes have all capabilities. Programs find
// PKTCLOUD_GUEST in their environment: the kind of control groups, "v1" or "v2".
//
// The kernel is taken from the folder -kernel, in which a package of Debian was
// unpacked. `scripts/setup cgroup2` makes it, and installs what else is needed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Exit codes beside the program's own.
const (
	exitTimeout = 124
	exitNoGuest = 125
)

func main() {
	if os.Getpid() == 1 {
		guestMain() // never returns
	}
	runtime.LockOSThread() // QEMU dies with the thread that started it
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	code, err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	os.Exit(code)
}

// options are the command line.
type options struct {
	kernel   string
	cgroup   string
	modules  list
	with     list
	env      list
	memoryMB int
	diskMB   int
	timeout  time.Duration
	verbose  bool
	args     []string
}

// list is a flag that may be given several times, or with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	*l = append(*l, strings.Split(s, ",")...)
	return nil
}

func parse(args []string) (options, error) {
	var o options
	if len(args) == 0 || args[0] != "run" {
		return o, errors.New("usage: guest run [options] -- program [arguments]; guest run -h tells of the options")
	}
	flags := flag.NewFlagSet("guest run", flag.ContinueOnError)
	flags.StringVar(&o.kernel, "kernel", defaultKernel(), "`folder` with boot/vmlinuz-* and lib/modules of Debian's package")
	flags.StringVar(&o.cgroup, "cgroup", cgroupV2, "control groups of the guest: v2 alone, or v1 alone")
	flags.Var(&o.modules, "modules", "kernel `modules` to load besides those that containers need")
	flags.Var(&o.with, "with", "`files` to pack at their own path; file=path packs at another")
	flags.Var(&o.env, "env", "`variables` of the program, NAME=value")
	flags.IntVar(&o.memoryMB, "memory", 2048, "memory of the guest in `MiB`")
	flags.IntVar(&o.diskMB, "disk", 4096, "size of the disk at /tmp in `MiB`; it is sparse here")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "when the guest is ended, whatever it does")
	flags.BoolVar(&o.verbose, "v", false, "say on standard error how long each part took")
	if err := flags.Parse(args[1:]); err != nil {
		return o, err
	}
	o.args = flags.Args()
	switch {
	case len(o.args) == 0:
		return o, errors.New("no program to run")
	case o.cgroup != cgroupV1 && o.cgroup != cgroupV2:
		return o, fmt.Errorf("control groups %q are neither %s nor %s", o.cgroup, cgroupV1, cgroupV2)
	case o.memoryMB < 128 || o.diskMB < 16 || o.timeout <= 0:
		return o, errors.New("a guest needs 128 MiB of memory, 16 MiB of disk and some time")
	}
	return o, nil
}

// defaultKernel is where scripts/setup unpacks the kernel.
func defaultKernel() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	return filepath.Join(cache, "pktcloud-guest")
}

// run returns the exit code and, when that is not the program's, the reason.
func run(ctx context.Context, args []string, out io.Writer) (int, error) {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return exitNoGuest, err
	}
	dir, err := os.MkdirTemp("", "guest-")
	if err != nil {
		return exitNoGuest, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	m, err := prepare(dir, o)
	if err != nil {
		return exitNoGuest, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return m.run(ctx, out)
}
