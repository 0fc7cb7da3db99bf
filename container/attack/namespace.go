//go:build linux && amd64

package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

var namespaceAttacks = []attack{
	{
		Name: "namespace/users", About: "make a user namespace to be root in", Without: []string{filter},
		run: func(*targets) error { return inNew(syscall.CLONE_NEWUSER, "part-nothing") },
	},
	{
		Name: "namespace/mount-inside", About: "mount in a user namespace of its own", Without: []string{filter},
		run: func(*targets) error { return inNew(syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS, "part-mount") },
	},
	{
		Name: "namespace/network-inside", About: "be master of a network in a user namespace of its own", Without: []string{filter},
		run: func(*targets) error { return inNew(syscall.CLONE_NEWUSER|syscall.CLONE_NEWNET, "part-address") },
	},
	{
		Name: "namespace/clone3", About: "make a user namespace with `clone3`, whose arguments a filter cannot see",
		Without: []string{filter}, run: clone3,
	},
	{
		Name: "namespace/unshare", About: "leave its host name namespace", Without: []string{filter, capAdmin},
		run: func(*targets) error {
			runtime.LockOSThread() // and never unlocked: the thread is spoiled
			return syscall.Unshare(syscall.CLONE_NEWUTS)
		},
	},
	{
		Name: "namespace/enter", About: "enter a namespace by its name in `/proc`", Without: []string{filter, capAdmin}, run: enter,
	},
	{
		Name: "namespace/machine-ids", About: "have an id that the machine or another lease uses",
		Without: []string{ownUsers}, run: machineIDs,
	},
	{
		Name: "lease/shared-memory", About: "read a shared segment of another lease",
		Without: []string{sharedUsers, ownIPC}, run: sharedSegment,
	},
	{
		Name: "lease/socket", About: "connect to an abstract socket of another lease",
		Without: []string{"a network namespace for each lease"},
		run: func(*targets) error {
			c, err := net.Dial("unix", neighbourName)
			if err == nil {
				err = c.Close()
			}
			return err
		},
	},
}

// inNew runs a part of this program in new namespaces as their root. It is
// made by an ordinary user, who may map itself; to map root takes a right more.
func inNew(flags uintptr, part string) error {
	cmd := exec.Command("/proc/self/exe", "part-ordinary", strconv.FormatUint(uint64(flags), 10), part)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1, Gid: 1}}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) > 0 {
		return fmt.Errorf("%w: %s", err, out)
	}
	return err
}

// partOrdinary makes the namespaces.
func partOrdinary() {
	flags, err := strconv.ParseUint(os.Args[2], 10, 64)
	if err != nil {
		fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[3])
	own := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: uintptr(flags), UidMappings: own, GidMappings: own}
	out, err := cmd.CombinedOutput()
	_, _ = os.Stdout.Write(out)
	partEnds(err)
}

// clone3 makes a child that ends at once.
func clone3(*targets) error {
	args := struct {
		flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
	}{flags: syscall.CLONE_NEWUSER, exitSignal: uint64(syscall.SIGCHLD)}
	pid, err := forkWith(435, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	if err == nil {
		_, err = syscall.Wait4(pid, nil, 0, nil)
	}
	return err
}

// forkWith makes a child by clone or clone3 that does nothing but end.
//
//go:norace
func forkWith(nr, a, b uintptr) (int, error) {
	pid, _, errno := syscall.RawSyscall6(nr, a, b, 0, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	if pid == 0 {
		for {
			_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return int(pid), nil
}

// enter joins the network of process 1 again, which takes the right to join
// any.
func enter(*targets) error {
	f, err := os.Open("/proc/1/ns/net")
	if err != nil {
		return err
	}
	defer f.Close()
	runtime.LockOSThread()
	_, err = call(308, f.Fd(), syscall.CLONE_NEWNET) // setns
	return err
}

// machineIDs reads its map of ids, then asks for one beyond it.
func machineIDs(*targets) error {
	f, err := os.Open("/proc/self/uid_map")
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		var inside, outside, size uint64
		if _, err := fmt.Sscan(s.Text(), &inside, &outside, &size); err != nil {
			return err
		}
		if outside < 1<<16 || size > 1<<16 {
			return nil
		}
	}
	runtime.LockOSThread()
	_, err = call(syscall.SYS_SETRESUID, 1<<16, 1<<16, 1<<16)
	return err
}

// sharedSegment finds the neighbour's by its key.
func sharedSegment(*targets) error {
	id, err := call(syscall.SYS_SHMGET, neighbourKey, 4096, 0)
	if err != nil {
		return err
	}
	at, err := call(syscall.SYS_SHMAT, id, 0, 0)
	if err != nil {
		return err
	}
	got := make([]byte, len(neighbourWord))
	for i := range got {
		got[i] = *(*byte)(unsafe.Add(*(*unsafe.Pointer)(unsafe.Pointer(&at)), i))
	}
	if string(got) != neighbourWord {
		return errors.New("something else is in it")
	}
	return nil
}

// parts are what second processes of attacks do.
var parts = map[string]func(){
	"part-nothing":  func() {},
	"part-ordinary": func() { partOrdinary() },
	"part-geteuid":  func() { fmt.Println(syscall.Geteuid()) },
	"part-mount": func() {
		partEnds(errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("tmpfs", "/dev/shm", "tmpfs", 0, "")))
	},
	"part-address": func() { partEnds(addAddress()) },
	"part-memory":  func() { partMemory() },
	"part-crash":   func() { partCrash() },
	"part-int80":   func() { os.Exit(int(int80(20)&1 | 2)) }, // getpid as 32-bit programs call it
}

func partEnds(err error) {
	if err != nil {
		fmt.Println(strings.TrimSpace(explain(err)))
		os.Exit(1)
	}
}
