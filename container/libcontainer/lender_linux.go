//go:build cgo && amd64

package libcontainer

/*
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline __attribute__((always_inline)) long lender_call(long n, long a, long b) {
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b) : "rcx", "r11", "memory");
	return r;
}

// lender waits for its end. It shares its parent's memory, and with it the
// library's errno, so that it makes bare calls.
static __attribute__((optimize("no-stack-protector"))) int lender(void *parent) {
	lender_call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
	if (lender_call(SYS_getppid, 0, 0) == (long)parent)
		for (;;)
			lender_call(SYS_pause, 0, 0);
	return 0;
}

enum { lender_stack = 16384 };

// lender_begin makes one in a user namespace of its own. It takes no signal but
// SIGKILL: handlers are its parent's.
static int lender_begin(char *stack) {
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int pid = clone(lender, stack + lender_stack, CLONE_VM | CLONE_NEWUSER | SIGCHLD, (void *)(long)getpid());
	int err = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return pid > 0 ? pid : -err;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// lendNamespace returns a user namespace with these ids. A process without
// memory of its own is the first in it, for the moment that it takes.
func lendNamespace(mapping []syscall.SysProcIDMap) (*os.File, error) {
	runtime.LockOSThread() // with which the process would die
	defer runtime.UnlockOSThread()
	stack := C.malloc(C.lender_stack)
	defer C.free(stack)
	pid := int(C.lender_begin((*C.char)(stack)))
	if pid < 0 {
		return nil, fmt.Errorf("make a user namespace: %w", unix.Errno(-pid))
	}
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	var ids strings.Builder
	for _, m := range mapping {
		fmt.Fprintf(&ids, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	for _, file := range []string{"uid_map", "gid_map"} {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, file), []byte(ids.String()), 0); err != nil {
			return nil, fmt.Errorf("make a user namespace: %w", err)
		}
	}
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
}
