//go:build linux && amd64

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tracePatience is how long traceStart waits for programs that are being started.
const tracePatience = 5 * time.Second

// traceStart waits for a new process and stops it as soon as it may be traced: the
// runtime's first program before it has loaded the filter, if that is a moment
// when it can be. Such a process then makes a call that the filter refuses.
func traceStart() {
	runtime.LockOSThread() // a tracer is a thread
	known := processes()
	fmt.Println("watching")
	last := errors.New("no new process was seen")
	for end := time.Now().Add(tracePatience); time.Now().Before(end); {
		for _, pid := range processes() {
			if slices.Contains(known, pid) {
				continue
			}
			known = append(known, pid)
			err := catch(pid)
			if err == nil {
				fmt.Println("proc/trace-start: SUCCEEDED")
				return
			}
			last = err
		}
	}
	fmt.Printf("proc/trace-start: could not: %s\n", explain(last))
}

// catch attaches to a process as soon as that may be, or has ended.
func catch(pid int) error {
	for {
		err := syscall.PtraceAttach(pid)
		if errors.Is(err, syscall.EPERM) && alive(pid) {
			continue // it cannot be traced yet
		}
		if err != nil {
			return err
		}
		break
	}
	defer func() { _ = syscall.PtraceDetach(pid) }()
	if _, err := syscall.Wait4(pid, nil, 0x40000000, nil); err != nil { // __WALL
		return err
	}
	if has, err := seccompOf(pid); err != nil || has != "0" {
		return errors.Join(err, fmt.Errorf("it has its filter already, mode %s", has))
	}
	return unshareIn(pid)
}

func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

func seccompOf(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if mode, ok := strings.CutPrefix(line, "Seccomp:"); ok {
			return strings.TrimSpace(mode), nil
		}
	}
	return "", errors.New("no such line")
}

// unshareIn has a process that is stopped make a user namespace.
func unshareIn(pid int) error {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(pid, &regs); err != nil {
		return err
	}
	code := make([]byte, 4096)
	start := uintptr(regs.Rip) &^ 4095
	n, err := syscall.PtracePeekText(pid, start, code)
	if err != nil {
		return err
	}
	at := bytes.Index(code[:n], []byte{0x0f, 0x05}) // syscall
	if at < 0 {
		return errors.New("its program makes no calls")
	}
	regs.Rip, regs.Rax, regs.Orig_rax, regs.Rdi = uint64(start)+uint64(at), syscall.SYS_UNSHARE, ^uint64(0), syscall.CLONE_NEWUSER
	if err := syscall.PtraceSetRegs(pid, &regs); err != nil {
		return err
	}
	if err := syscall.PtraceSingleStep(pid); err != nil {
		return err
	}
	if _, err := syscall.Wait4(pid, nil, 0x40000000, nil); err != nil {
		return err
	}
	if err := syscall.PtraceGetRegs(pid, &regs); err != nil {
		return err
	}
	if r := int64(regs.Rax); r < 0 {
		return syscall.Errno(-r)
	}
	return nil
}
