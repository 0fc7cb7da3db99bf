//go:build linux && amd64

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

var procAttacks = []attack{
	{
		Name: "proc/trace-start", About: "trace a program that the runtime starts inside, before its system call filter is loaded",
		Without: []string{hiddenShim}, Outside: true,
	},
	{
		Name: "proc/core-pattern", About: "name the program that the machine runs for a crash",
		Without: []string{ownUsers, readOnly}, run: rewrite("/proc/sys/kernel/core_pattern"),
	},
	{
		Name: "proc/sysctl", About: "change settings of the machine's kernel",
		Without: []string{ownUsers, readOnly}, run: rewrite("/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/panic", "/proc/sys/fs/file-max"),
	},
	{
		Name: "proc/sysctl-network", About: "change settings of its network",
		Without: []string{readOnly, capNet}, run: rewrite("/proc/sys/net/ipv4/ip_forward"),
	},
	{
		Name: "proc/sysrq", About: "send a magic key to the kernel", Without: []string{ownUsers, readOnly}, Guest: true,
		run: func(*targets) error { return write("/proc/sysrq-trigger", []byte("h")) }, // to say which keys there are
	},
	{
		Name: "proc/sys-write", About: "write to `/sys`: the helper that the machine runs for events, memory, power",
		Without: []string{ownUsers, "read-only /sys"},
		run:     rewrite("/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/profiling", "/sys/kernel/mm/ksm/run"),
	},
	{
		Name: "proc/kernel-memory", About: "read the kernel's memory in `/proc/kcore`",
		Without: []string{ownUsers, masked, capRawIO}, Guest: true, run: readSome("/proc/kcore"),
	},
	{
		Name: "proc/timers", About: "read the timers of all processes of the machine",
		Without: []string{ownUsers, masked}, run: readSome("/proc/timer_list"),
	},
	{
		Name: "proc/addresses", About: "learn where the kernel's functions are",
		Without: []string{ownUsers, capSyslog}, run: kernelAddresses,
	},
	{
		Name: "proc/kernel-log", About: "read the kernel's messages", Without: []string{ownUsers, filter, capSyslog},
		run: func(*targets) error {
			_, err := syscall.Klogctl(3, make([]byte, 256))
			return err
		},
	},
	{
		Name: "proc/machine-paths", About: "learn from its mounts where the machine keeps it",
		Without: []string{noMachine}, run: machinePaths,
	},
	{
		Name: "lease/see", About: "see processes of another lease",
		Without: []string{ownProcesses}, run: func(*targets) error { _, err := findNeighbour(); return err },
	},
	{
		Name: "lease/signal", About: "send a signal to a process of another lease",
		Without: []string{sharedUsers, ownProcesses}, run: withNeighbour(func(pid int) error { return syscall.Kill(pid, syscall.SIGWINCH) }),
	},
	{
		Name: "lease/ptrace", About: "trace a process of another lease",
		Without: []string{sharedUsers, ownProcesses}, run: withNeighbour(trace),
	},
	{
		Name: "lease/memory", About: "read the memory of another lease",
		Without: []string{sharedUsers, ownProcesses}, run: neighbourMemory,
	},
	{
		Name: "lease/files", About: "read files of another lease through `/proc/PID/root`",
		Without: []string{sharedUsers, ownProcesses},
		run: withNeighbour(func(pid int) error {
			_, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", pid, neighbourFile))
			return err
		}),
	},
}

func write(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// rewrite writes to files what they hold already.
func rewrite(names ...string) func(*targets) error {
	return func(*targets) error {
		var errs []error
		for _, name := range names {
			b, err := os.ReadFile(name)
			if i := bytes.IndexByte(b, '['); i >= 0 { // a list with the choice in brackets
				b = bytes.Split(b[i+1:], []byte("]"))[0]
			}
			if err == nil {
				if len(b) == 0 {
					b = []byte("\n")
				}
				err = write(name, b)
			}
			errs = append(errs, err)
		}
		return firstError(errs...)
	}
}

func readSome(name string) func(*targets) error {
	return func(*targets) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if n, err := f.Read(make([]byte, 64)); n == 0 {
			return fmt.Errorf("nothing in it: %w", err)
		}
		return nil
	}
}

func kernelAddresses(*targets) error {
	b, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) > 1 && len(bytes.Trim(f[0], "0")) > 8 {
			return nil
		}
	}
	return errors.New("all addresses are zero")
}

// machinePaths looks for mounts with the name of a directory of the machine in
// them.
func machinePaths(t *targets) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, secret := range []string{filepath.Dir(t.Secret), "images", "disk.img"} {
		if len(secret) > 1 && bytes.Contains(b, []byte(secret)) {
			return nil
		}
	}
	return errors.New("no path of the machine shows")
}

// The lease next door.
const (
	neighbourName = "\x00pktcloud-neighbour" // of its socket
	neighbourFile = "/neighbours-secret"
	neighbourWord = "the neighbour's secret"
	neighbourKey  = 0x504b54 // of its shared segment
)

// findNeighbour looks for its command line.
func findNeighbour() (int, error) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if bytes.HasSuffix(b, []byte("\x00neighbour\x00")) {
			return strconv.Atoi(strings.Split(f, "/")[2])
		}
	}
	return 0, fmt.Errorf("no process of another lease: %w", syscall.ESRCH)
}

func withNeighbour(do func(pid int) error) func(*targets) error {
	return func(*targets) error {
		pid, err := findNeighbour()
		if err != nil {
			// What is not seen may still be there: the low numbers are taken.
			return err
		}
		return do(pid)
	}
}

func trace(pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const seize = 0x4206
	if _, err := call(syscall.SYS_PTRACE, seize, uintptr(pid)); err != nil {
		return err
	}
	return nil // the end of this process lets go
}

// neighbourMemory reads where the neighbour says that its secret is.
func neighbourMemory(t *targets) error {
	pid, err := findNeighbour()
	if err != nil {
		return err
	}
	b := make([]byte, len(neighbourWord))
	local := syscall.Iovec{Base: &b[0], Len: uint64(len(b))}
	remote := struct{ base, len uint64 }{t.Heap, uint64(len(b))}
	_, err = call(310, uintptr(pid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1) // process_vm_readv
	if err == nil && string(b) != neighbourWord {
		err = errors.New("read something else")
	}
	return err
}
