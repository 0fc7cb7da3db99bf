//go:build linux && amd64

package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// A key in the keyring of the user, which all processes of that user and user
// namespace share, whatever else keeps them apart.
const (
	keyKind     = "user"
	keyName     = "pktcloud-attack"
	userKeyring = ^uintptr(4 - 1)
)

// putKey leaves a key for another lease.
func putKey() {
	if _, err := call(sysAddKey, cstr(keyKind), cstr(keyName), cstr(neighbourWord), uintptr(len(neighbourWord)), userKeyring); err != nil {
		fmt.Println("could not:", explain(err))
		return
	}
	fmt.Println("left")
}

// getKey reads the key that another lease has left.
func getKey() {
	const link, search, read = 8, 10, 11
	_, err := call(sysKeyctl, link, userKeyring, ^uintptr(2-1)) // to its own process's, so as to have all rights
	var key uintptr
	if err == nil {
		key, err = call(sysKeyctl, search, userKeyring, cstr(keyKind), cstr(keyName), 0)
	}
	b := make([]byte, 64)
	if err == nil {
		at := cstr(string(b))
		var n uintptr
		if n, err = call(sysKeyctl, read, key, at, uintptr(len(b))); err == nil {
			b = kept[len(kept)-1][:min(int(n), len(b))]
		}
	}
	switch {
	case err != nil:
		fmt.Println("could not:", explain(err))
	case strings.TrimRight(string(b), "\x00") != neighbourWord:
		fmt.Println("could not: another key")
	default:
		fmt.Println("SUCCEEDED")
	}
}

// unfiltered does the work of the runtime's first program but for the filter,
// where a test has put this program in its place.
func unfiltered() {
	runtime.LockOSThread()
	_ = syscall.Close(3)
	syscall.CloseOnExec(4)
	if os.Args[1] == "1" {
		_, _ = call(syscall.SYS_PRCTL, 1, uintptr(syscall.SIGKILL))
	}
	name := os.Args[2]
	if !strings.Contains(name, "/") {
		name = "/" + name
	}
	err := syscall.Exec(name, os.Args[2:], os.Environ())
	_, _ = os.NewFile(4, "report").Write([]byte{2, 0, 0, 0})
	fatal(err)
}
