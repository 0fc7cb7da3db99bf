//go:build cgo && amd64

package libcontainer

/*
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// What a process of this binary does before Go's runtime begins. Only glibc says
// here what its arguments are; with another library there is no standby.
#ifdef __GLIBC__

static void standby_drop(int files[3]) {
	for (int i = 0; i < 3; i++)
		close(files[i]);
}

// standby_serve returns in each monitor. argv[1] has room for its directory.
static void standby_serve(char **argv) {
	const size_t room = strlen(argv[1]) + 1;
	int *tid = NULL; // where the library keeps the number of the thread
	if (prctl(PR_GET_TID_ADDRESS, &tid, 0, 0, 0) != 0)
		tid = NULL;
	for (;;) {
		char dir[8192], control[CMSG_SPACE(3 * sizeof(int))] __attribute__((aligned(8)));
		struct iovec part = { dir, sizeof(dir) };
		struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
		ssize_t n = recvmsg(3, &message, 0);
		if (n < 0 && errno == EINTR)
			continue;
		struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
		if (c == NULL || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(3 * sizeof(int)) || (size_t)n > room || dir[n - 1] != 0)
			_exit(0); // the node has ended
		int files[3];
		memcpy(files, CMSG_DATA(c), sizeof(files));

		// The node is the parent of what is made here. Without memory in common
		// and with a number of its own it is like after fork(3).
		long flags = CLONE_PARENT | CLONE_NEWNS | SIGCHLD | (tid != NULL ? CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID : 0);
		int pid = syscall(SYS_clone, flags, 0, NULL, tid, 0);
		if (pid == 0) {
			memcpy(argv[0], "pktcloud-monitor", sizeof("pktcloud-monitor"));
			memset(argv[1], 0, room);
			memcpy(argv[1], dir, n);
			setsid();
			if (dup2(files[0], 3) < 0 || dup2(files[1], 4) < 0 || dup2(files[2], 1) < 0 || dup2(files[2], 2) < 0)
				_exit(1);
			for (int i = 0; i < 3; i++)
				if (files[i] > 4)
					close(files[i]);
			return;
		}
		if (pid < 0)
			pid = -errno;
		standby_drop(files); // the monitor has them
		if (send(3, &pid, sizeof(pid), MSG_NOSIGNAL) != sizeof(pid))
			_exit(0);
	}
}

static __attribute__((constructor)) void standby_begin(int argc, char **argv) {
	if (argc != 2 || getenv("PKTCLOUD_MONITOR") == NULL)
		return;
	unsigned long slack = 50000; // what the kernel gives to others
	if (strcmp(argv[0], "pktcloud-standby") == 0)
		standby_serve(argv);
	// Go has a thread that looks every 20 µs, as long as there is something to do,
	// whether another waits for the kernel. While a container starts that is all
	// the time. A monitor needs no timers of a few milliseconds.
	if (strcmp(argv[0], "pktcloud-monitor") == 0) {
		slack = 4000000;
		mallopt(M_ARENA_MAX, 1); // else each thread begins with one of its own, for nothing
	}
	prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
}
#endif
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// standbyArg is as long as monitorArg, over which it is written.
const standbyArg = "pktcloud-standby"

// standbyPatience is how long a standby may take to make a process.
const standbyPatience = time.Minute

// standby is a process of the monitor's program that has not begun to be one: it
// waits before Go's runtime begins, and makes a copy of itself for each container,
// which goes on from there. So a start does not load a program, and the standby
// has next to no memory of its own. It knows of no container, and ends with the
// process that has the other end of its socket [CONTAINER-98].
type standby struct {
	name string // for whoever looks at the machine's processes
	room int    // what the path of a container's directory can have

	mu     sync.Mutex // one request at a time
	socket *os.File   // nil: there is none
	pid    int
	closed bool
}

// errNoStandby means that nothing was begun.
var errNoStandby = errors.New("no process stands by")

// monitor begins a monitor over dir, with these files from descriptor 3 on and what
// it has to say in complaints. The process is this one's child.
func (s *standby) monitor(program, dir string, ready, alive, complaints *os.File) (pid, pidfd int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rights := unix.UnixRights(int(ready.Fd()), int(alive.Fd()), int(complaints.Fd()))
	var answer [4]byte
	for again := s.socket != nil; ; again = false { // it may have died since
		if err := s.begin(program); err != nil {
			return 0, -1, errors.Join(errNoStandby, err)
		}
		n, unread := 0, false
		err = uninterrupted(func() error {
			return unix.Sendmsg(int(s.socket.Fd()), append([]byte(dir), 0), rights, nil, unix.MSG_NOSIGNAL)
		})
		if err != nil {
			unread = true
		} else if err = uninterrupted(func() (err error) {
			n, err = unix.Read(int(s.socket.Fd()), answer[:])
			return err
		}); errors.Is(err, unix.ECONNRESET) {
			unread = true // it died with the request in its socket
		}
		if n == len(answer) {
			break
		}
		s.end()
		if !unread {
			return 0, -1, fmt.Errorf("what stands by for monitors does not answer: %w", errors.Join(err, os.ErrDeadlineExceeded))
		}
		if !again {
			return 0, -1, errors.Join(errNoStandby, err)
		}
	}
	if pid = int(int32(binary.LittleEndian.Uint32(answer[:]))); pid <= 0 {
		return 0, -1, fmt.Errorf("make a process: %w", unix.Errno(-pid))
	}
	pidfd, err = unix.PidfdOpen(pid, 0)
	return pid, pidfd, err
}

// uninterrupted makes a call of the kernel again that a signal ended. Go's runtime
// sends some to its threads, and those that wait with a time limit of their own
// are not resumed.
func uninterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// begin starts the process, unless there is one.
func (s *standby) begin(program string) error {
	if s.closed {
		return os.ErrClosed
	}
	if s.socket != nil {
		return nil
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "standby"), os.NewFile(uintptr(pair[1]), "standby")
	defer theirs.Close()
	patience := unix.NsecToTimeval(int64(standbyPatience))
	err = unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience)
	cmd := exec.Command(program)
	cmd.Args = []string{standbyArg, s.name + strings.Repeat(" ", max(0, s.room-len(s.name)))}
	cmd.Env, cmd.Dir, cmd.ExtraFiles = processEnv(), "/", []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return errors.Join(err, ours.Close())
	}
	s.pid, s.socket = cmd.Process.Pid, ours
	return cmd.Process.Release()
}

// end ends the process. Between two requests it does nothing.
func (s *standby) end() {
	if s.socket == nil {
		return
	}
	_ = s.socket.Close()
	s.socket = nil
	_ = unix.Kill(s.pid, unix.SIGKILL) // it was not waited for, so the number is its own
	for {
		if _, err := unix.Wait4(s.pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func (s *standby) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.end()
}
