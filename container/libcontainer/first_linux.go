//go:build cgo && amd64

package libcontainer

/*
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// first is what begins a container's first process. It shares the monitor's memory
// until it becomes another program, so that it makes bare calls only, and takes no
// signals: handlers are the monitor's.
struct first {
	struct clone_args how;
	char *stack;
	char **argv, **envp;
	int *files, count; // become the descriptors from 0 on
	int go, going;     // the ends of a pipe: the ids are there
	int said;          // takes an errno, and closes when the program has begun
	unsigned long mask;
};

enum { first_stack = 16384 };

static inline __attribute__((always_inline)) long first_call(long n, long a, long b, long c, long e) {
	long r;
	register long d __asm__("r10") = e;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(d) : "rcx", "r11", "memory");
	return r;
}

static __attribute__((used, noinline)) void first_child(struct first *f) {
	char c;
	first_call(SYS_close, f->going, 0, 0, 0);
	if (first_call(SYS_read, f->go, (long)&c, 1, 0) != 1)
		first_call(SYS_exit_group, 1, 0, 0, 0); // the monitor died
	long err = first_call(SYS_setgroups, 0, 0, 0, 0);
	if (err == 0)
		err = first_call(SYS_setresgid, 0, 0, 0, 0);
	if (err == 0)
		err = first_call(SYS_setresuid, 0, 0, 0, 0);
	if (err == 0) // after the ids, with which the kernel forgets it
		err = first_call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
	if (err == 0)
		err = first_call(SYS_chdir, (long)"/", 0, 0, 0);
	for (int i = 0; err == 0 && i < f->count; i++) {
		err = first_call(SYS_fcntl, f->files[i], F_DUPFD_CLOEXEC, f->count, 0);
		if (err >= 0) {
			f->files[i] = err;
			err = 0;
		}
	}
	// What says how it went must not be where another belongs.
	long said = err == 0 ? first_call(SYS_fcntl, f->said, F_DUPFD_CLOEXEC, f->count, 0) : f->said;
	for (int i = 0; err == 0 && i < f->count; i++) {
		err = first_call(SYS_dup3, f->files[i], i, 0, 0);
		if (err == i)
			err = 0;
	}
	if (err == 0)
		err = first_call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&f->mask, 0, sizeof(f->mask));
	if (err == 0)
		err = first_call(SYS_execve, (long)f->argv[0], (long)f->argv, (long)f->envp, 0);
	int errno_ = -err;
	first_call(SYS_write, said < 0 ? f->said : said, (long)&errno_, sizeof(errno_), 0);
	first_call(SYS_exit_group, 1, 0, 0, 0);
}

// first_begin returns the process's id, or a negative errno.
static long first_begin(struct first *f) {
	unsigned long all = ~0UL, none = 0;
	f->how.stack = (unsigned long)f->stack;
	f->how.stack_size = first_stack;
	f->how.flags |= CLONE_VM | CLONE_CLEAR_SIGHAND;
	f->how.exit_signal = SIGCHLD;
	first_call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&f->mask, sizeof(all));
	long pid;
	register struct first *self __asm__("r12") = f;
	__asm__ volatile(
		"syscall\n"
		"test %%rax, %%rax\n"
		"jnz 1f\n"
		"xor %%ebp, %%ebp\n"
		"mov %%r12, %%rdi\n"
		"call first_child\n"
		"hlt\n"
		"1:\n"
		: "=a"(pid)
		: "a"(SYS_clone3), "D"(&f->how), "S"(sizeof(f->how)), "r"(self)
		: "rcx", "r11", "memory");
	none = f->mask;
	first_call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, sizeof(none));
	return pid;
}
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runc/libcontainer/configs"
)

// firstIDs are the ids of a first process.
type firstIDs struct{ users, groups []configs.IDMap }

// firstProcess begins a container's first process in new namespaces, as root of
// its own ids, in the directory /. Files become its descriptors from 0 on. unified
// is the control group of v2 that it begins in, or nil. The process ends with the
// thread that calls this.
//
// Go's own way copies all of this process where there is a user namespace, which
// takes longer than all else here.
func firstProcess(args, env []string, files []*os.File, flags uintptr, unified *os.File, ids firstIDs) (*os.Process, error) {
	var pipes [4]*os.File // go, going, said, saying
	defer func() { closeAll(pipes[:]) }()
	var err error
	if pipes[0], pipes[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	if pipes[2], pipes[3], err = os.Pipe(); err != nil {
		return nil, err
	}
	var memory cMemory
	defer memory.free()
	f := (*C.struct_first)(memory.alloc(unsafe.Sizeof(C.struct_first{})))
	f.stack = (*C.char)(memory.alloc(C.first_stack))
	f.argv, f.envp = memory.strings(args), memory.strings(env)
	f.count = C.int(len(files))
	f.files = (*C.int)(memory.alloc(uintptr(len(files)) * unsafe.Sizeof(C.int(0))))
	for i, file := range files {
		unsafe.Slice(f.files, len(files))[i] = C.int(file.Fd())
	}
	f._go, f.going, f.said = C.int(pipes[0].Fd()), C.int(pipes[1].Fd()), C.int(pipes[3].Fd())
	f.how.flags = C.__u64(flags)
	if unified != nil {
		f.how.flags |= unix.CLONE_INTO_CGROUP
		f.how.cgroup = C.__u64(unified.Fd())
	}
	pid := int(C.first_begin(f))
	if pid < 0 {
		return nil, fmt.Errorf("make namespaces: %w", unix.Errno(-pid))
	}
	process, err := os.FindProcess(pid) // it was not waited for
	if err != nil {
		return nil, err
	}
	err = errors.Join(pipes[3].Close(), writeIDs(pid, "uid_map", ids.users), writeIDs(pid, "gid_map", ids.groups))
	if err == nil {
		_, err = pipes[1].Write([]byte{0})
	}
	if err == nil {
		var said [4]byte
		switch _, err = io.ReadFull(pipes[2], said[:]); {
		case errors.Is(err, io.EOF):
			return process, nil
		case err == nil:
			err = fmt.Errorf("begin: %w", unix.Errno(binary.LittleEndian.Uint32(said[:])))
		}
	}
	_ = process.Kill()
	_, _ = process.Wait() // before its memory goes
	return nil, err
}

// writeIDs says which ids of the machine are those of a user namespace.
func writeIDs(pid int, file string, ids []configs.IDMap) error {
	var b strings.Builder
	for _, m := range ids {
		fmt.Fprintf(&b, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, file), []byte(b.String()), 0)
}

// cMemory is what C code may keep while a call to it is over.
type cMemory []unsafe.Pointer

func (m *cMemory) alloc(size uintptr) unsafe.Pointer {
	p := C.calloc(1, C.size_t(max(size, 1)))
	*m = append(*m, p)
	return p
}

// strings returns them with a nil pointer after.
func (m *cMemory) strings(of []string) **C.char {
	list := (**C.char)(m.alloc(uintptr(len(of)+1) * unsafe.Sizeof((*C.char)(nil))))
	for i, s := range of {
		c := C.CString(s)
		*m = append(*m, unsafe.Pointer(c))
		unsafe.Slice(list, len(of)+1)[i] = c
	}
	return list
}

func (m *cMemory) free() {
	for _, p := range *m {
		C.free(p)
	}
}
