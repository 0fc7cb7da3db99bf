//go:build linux && amd64

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"
)

// Numbers of system calls that Go's syscall package does not name.
const (
	sysKeyctl      = 250
	sysAddKey      = 248
	sysPerf        = 298
	sysFanotify    = 300
	sysKcmp        = 312
	sysFinitModule = 313
	sysBPF         = 321
	sysUserfault   = 323
	sysIOUring     = 425
	sysFsopen      = 430
)

var kernelAttacks = []attack{
	{
		Name: "kernel/keyring", About: "put a key where processes of other leases find it",
		Without: []string{filter, sharedUsers}, Outside: true,
	},
	{
		Name: "kernel/session-keyring", About: "join a session keyring by name", Without: []string{filter},
		run: func(*targets) error { _, err := call(sysKeyctl, 1, cstr("pktcloud")); return err },
	},
	{
		Name: "kernel/bpf", About: "load a BPF map", Without: []string{filter, ownUsers, capAdmin},
		run: func(*targets) error {
			attr := [32]uint32{2, 4, 4, 1} // an array of one
			_, err := call(sysBPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
			return err
		},
	},
	{
		Name: "kernel/perf", About: "watch with performance counters", Without: []string{filter},
		run: func(*targets) error {
			// A software event that counts this process's own time, the kernel's left out.
			attr := [16]uint64{1 | 128<<32, 1, 0, 0, 0, 1<<5 | 1<<6}
			_, err := call(sysPerf, uintptr(unsafe.Pointer(&attr)), 0, ^uintptr(0), ^uintptr(0), 0)
			return err
		},
	},
	{
		Name: "kernel/userfaultfd", About: "hold the kernel up at its own memory with `userfaultfd`", Without: []string{filter},
		run: func(*targets) error { _, err := call(sysUserfault, 1); return err },
	},
	{
		Name: "kernel/io-uring", About: "make calls past the filter with `io_uring`", Without: []string{filter},
		run: func(*targets) error {
			var params [120]byte
			_, err := call(sysIOUring, 1, uintptr(unsafe.Pointer(&params)))
			return err
		},
	},
	{
		Name: "kernel/aio", About: "use up the machine's asynchronous requests with `io_setup`", Without: []string{filter},
		run: func(*targets) error {
			var context uint64
			_, err := call(syscall.SYS_IO_SETUP, 1024, uintptr(unsafe.Pointer(&context)))
			return err
		},
	},
	{
		Name: "kernel/module", About: "load a kernel module", Without: []string{filter, ownUsers, capModule}, Guest: true, Asks: true,
		run: func(*targets) error {
			_, err := call(sysFinitModule, 0, cstr(""), 0)
			return passed(err, syscall.ENOEXEC, syscall.EBADF, syscall.EINVAL, syscall.EACCES)
		},
	},
	{
		Name: "kernel/kexec", About: "load another kernel", Without: []string{filter, ownUsers, capBoot}, Guest: true,
		run: func(*targets) error { _, err := call(syscall.SYS_KEXEC_LOAD, 0, 0, 0, 0); return err },
	},
	{
		Name: "kernel/reboot", About: "reboot the machine", Without: []string{filter, ownUsers, capBoot}, Also: []string{ownProcesses}, Asks: true,
		run: func(*targets) error { // with a wrong magic number
			_, err := call(syscall.SYS_REBOOT, 1, 2, 3)
			return passed(err, syscall.EINVAL)
		},
	},
	{
		Name: "kernel/clock", About: "set the machine's clock", Without: []string{filter, ownUsers, capTime}, Guest: true,
		run: func(*targets) error { // to what it shows
			var now syscall.Timeval
			return errors.Join(syscall.Gettimeofday(&now), syscall.Settimeofday(&now))
		},
	},
	{
		Name: "kernel/swap", About: "swap to a file of its own", Without: []string{filter, ownUsers, capAdmin}, Asks: true,
		run: func(*targets) error {
			_, err := call(syscall.SYS_SWAPON, cstr("/no/such/file"), 0)
			return passed(err, syscall.ENOENT)
		},
	},
	{
		Name: "kernel/ports", About: "use the machine's input and output ports", Without: []string{filter, ownUsers, capRawIO}, Guest: true,
		run: func(*targets) error {
			runtime.LockOSThread()
			return syscall.Ioperm(0x80, 1, 1)
		},
	},
	{
		Name: "kernel/fanotify", About: "be asked about all opened files", Without: []string{filter, ownUsers, capAdmin},
		run: func(*targets) error { _, err := call(sysFanotify, 4, 0); return err }, // FAN_CLASS_CONTENT
	},
	{
		Name: "kernel/personality", About: "make its memory executable and its addresses known by `personality`",
		Without: []string{filter},
		run: func(*targets) error {
			runtime.LockOSThread()
			_, err := call(syscall.SYS_PERSONALITY, 0x0400000|0x0040000)
			return err
		},
	},
	{
		Name: "kernel/int80", About: "make 32-bit system calls, which a filter may not know", Without: []string{filter},
		run: func(*targets) error {
			cmd := exec.Command("/proc/self/exe", "part-int80")
			err := cmd.Run()
			if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				return fmt.Errorf("the process is ended by signal %d (%s)", ws.Signal(), ws.Signal())
			}
			if code := cmd.ProcessState.ExitCode(); code&2 == 0 {
				return errors.Join(errors.New("the call did not return"), err)
			}
			return nil
		},
	},
	{
		Name: "kernel/vsock", About: "talk to the hypervisor, past all networks", Without: []string{filter},
		run: func(*targets) error { return openSocket(40, syscall.SOCK_STREAM, 0) },
	},
	{
		Name: "kernel/crypto-socket", About: "use the kernel's ciphers by `AF_ALG`", Without: []string{filter}, Guest: true,
		run: func(*targets) error { return openSocket(38, syscall.SOCK_SEQPACKET, 0) },
	},
}

// int80 makes a 32-bit system call without arguments.
func int80(nr uint32) uint32

func openSocket(family, kind, protocol int) error {
	fd, err := syscall.Socket(family, kind, protocol)
	if err == nil {
		err = syscall.Close(fd)
	}
	return err
}
