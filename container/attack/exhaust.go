//go:build linux && amd64

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// What the bombs try; the lease of the test is allowed less.
const (
	bombForks   = 300
	bombMemory  = 192 << 20
	bombDisk    = 64 << 20
	bombInodes  = 6000
	bombPtys    = 400
	bombSockets = 192 << 20
	bombCPU     = 0.27 // processors
	floodBytes  = 24 << 20
)

var exhaustAttacks = []attack{
	{Name: "exhaust/forks", About: fmt.Sprintf("have %d processes at once", bombForks), Without: []string{pidsLimit}, V2: true, run: forkBomb},
	{Name: "exhaust/memory", About: "use more memory than it pays for", Without: []string{memoryLimit}, V2: true, run: memoryBomb},
	{Name: "exhaust/shared-memory", About: "fill `/dev/shm` with more than it pays for", Without: []string{memoryLimit, "size of /dev/shm"}, run: fill("/dev/shm/bomb", bombMemory)},
	{Name: "exhaust/socket-memory", About: "leave more unread in sockets than it pays for", Without: []string{socketLimit}, run: socketBomb},
	{Name: "exhaust/disk", About: "write more than its disk", Without: []string{diskLimit}, run: fill("/bomb", bombDisk)},
	{Name: "exhaust/inodes", About: fmt.Sprintf("make %d files", bombInodes), Without: []string{diskLimit}, run: inodeBomb("/files")},
	{Name: "exhaust/device-inodes", About: fmt.Sprintf("make %d files in `/dev`, which is no disk", bombInodes), Without: []string{"few files in /dev"}, run: inodeBomb("/dev/files")},
	{Name: "exhaust/terminals", About: fmt.Sprintf("take %d of the terminals that all leases share", bombPtys), Without: []string{ptyLimit}, run: ptyBomb},
	{Name: "exhaust/processor", About: "use more processor time than it pays for", Without: []string{cpuLimit}, V1: true, run: processorBomb},
	{Name: "exhaust/real-time", About: "run before all other processes of the machine", Without: []string{ownUsers, capNice}, Guest: true, run: realTime},
	{
		Name: "exhaust/oom-score", About: "have others killed in its place when memory is short", Without: []string{ownUsers, capRes}, Guest: true,
		run: func(*targets) error { return write("/proc/self/oom_score_adj", []byte("-1000")) },
	},
	{Name: "exhaust/core-dump", About: "have the machine write its dumps, or run a program for each", Without: []string{coreLimit}, run: coreDump},
	{Name: "exhaust/log", About: "fill the machine's disk with its output", Without: []string{logCap}, Outside: true},
}

// forkBomb keeps children that wait.
func forkBomb(*targets) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	var children []int
	defer func() {
		for _, pid := range children {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
	}()
	for range bombForks {
		pid, err := forkWaiting()
		if err != nil {
			return fmt.Errorf("after %d: %w", len(children), err)
		}
		children = append(children, pid)
	}
	return nil
}

// forkWaiting makes a child that waits to be killed. Nothing of Go runs in it.
//
//go:norace
func forkWaiting() (int, error) {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	if pid == 0 {
		_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, 1, uintptr(syscall.SIGKILL), 0) // with its parent
		for {
			_, _, _ = syscall.RawSyscall(syscall.SYS_PAUSE, 0, 0, 0)
		}
	}
	return int(pid), nil
}

// memoryBomb lets a child take the memory, which the kernel then kills.
func memoryBomb(*targets) error {
	cmd := exec.Command("/proc/self/exe", "part-memory")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w %s", err, out)
	}
	return nil
}

func partMemory() {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	b, err := syscall.Mmap(-1, 0, bombMemory, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		partEnds(err)
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
}

// fill writes a file and removes it.
func fill(name string, size int) func(*targets) error {
	return func(*targets) error {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(name) }()
		defer f.Close()
		block := make([]byte, 1<<20)
		for n := 0; n < size; n += len(block) {
			if _, err := f.Write(block); err != nil {
				return fmt.Errorf("after %d MiB: %w", n>>20, err)
			}
		}
		return nil
	}
}

func inodeBomb(dir string) func(*targets) error {
	return func(*targets) error {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		for i := range bombInodes {
			f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
			if err != nil {
				return fmt.Errorf("after %d: %w", i, err)
			}
			_ = f.Close()
		}
		return nil
	}
}

func ptyBomb(*targets) error {
	for i := range bombPtys {
		if _, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
			return fmt.Errorf("after %d: %w", i, err)
		}
	}
	return nil
}

// socketBomb leaves bytes unread in connections of its own loopback.
func socketBomb(*targets) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	total := 0
	block := make([]byte, 1<<20)
	var open []net.Conn // what is not kept is closed
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for range 400 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return fmt.Errorf("after %d MiB: %w", total>>20, err)
		}
		far, err := l.Accept()
		if err != nil {
			return fmt.Errorf("after %d MiB: %w", total>>20, err)
		}
		open = append(open, c, far)
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
		n, _ := io.Copy(c, bytes.NewReader(bytes.Repeat(block, 8)))
		if total += int(n); total >= bombSockets {
			return nil
		}
	}
	return fmt.Errorf("only %d MiB", total>>20)
}

// processorBomb burns two threads for a while, and measures its share.
func processorBomb(*targets) error {
	begun := time.Now()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for time.Since(begun) < 3*time.Second {
				continue
			}
		})
	}
	wg.Wait()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return err
	}
	share := float64(used.Utime.Nano()+used.Stime.Nano()) / float64(time.Since(begun))
	if share < bombCPU {
		return fmt.Errorf("got %.2f processors", share)
	}
	return nil
}

// realTime makes one thread of its own a real-time one, for a moment.
func realTime(*targets) error {
	priority, none := int32(1), int32(0)
	_, err := call(syscall.SYS_SCHED_SETSCHEDULER, 0, 1, uintptr(unsafe.Pointer(&priority)))
	if err == nil {
		_, err = call(syscall.SYS_SCHED_SETSCHEDULER, 0, 0, uintptr(unsafe.Pointer(&none)))
	}
	return err
}

// coreDump lets a child crash after it asked for dumps of any size.
func coreDump(*targets) error {
	cmd := exec.Command("/proc/self/exe", "part-crash")
	cmd.Dir = "/dev/shm"
	err := cmd.Run()
	files, _ := filepath.Glob("/dev/shm/core*")
	for _, f := range files {
		_ = os.Remove(f)
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.CoreDump() {
		return nil
	}
	return errors.Join(errors.New("no dump is made"), err)
}

func partCrash() {
	limit := syscall.Rlimit{Cur: 1 << 30, Max: 1 << 30}
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &limit)
	var own syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_CORE, &own)
	own.Cur = own.Max
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &own)
	// The handler of Go's runtime is put off, so that the kernel's own way follows.
	action := [4]uint64{}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGSEGV), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
	wait()
}

// flood writes to its output what the log has to drop.
func flood() {
	line := append(bytes.Repeat([]byte("flood "), 30), '\n')
	block := bytes.Repeat(line, 64)
	for n := 0; n < floodBytes; n += len(block) {
		if _, err := os.Stdout.Write(block); err != nil {
			fatal(err)
		}
	}
	fmt.Println("flood over")
	wait()
}

// wait lives and does nothing.
func wait() {
	for {
		time.Sleep(time.Hour)
	}
}
