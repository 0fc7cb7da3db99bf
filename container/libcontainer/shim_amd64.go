//go:build linux && cgo

package libcontainer

/*
#cgo CFLAGS: -fno-stack-protector
// The shim: the first thing that runs inside a container. It ties the process
// to its monitor's life, loads the seccomp filter and becomes the program. It
// is freestanding, position-independent code in a section of its own, which Go
// writes into an ELF file in memory; the filter follows at shim_data.
//
// argv: anything, "1" to die with the parent or "0", the program, its arguments.
// Descriptor 3 is the shim's own file. Descriptor 4 takes an int32, the errno,
// when the program cannot be started, and closes when it has been.
#define SHIM __attribute__((section("pktshim")))

#define shim_data 0x500000UL

__asm__(
	".pushsection pktshim,\"ax\",@progbits\n"
	".balign 16\n"
	"pktshim_entry:\n"
	"	mov %rsp, %rdi\n"
	"	and $-16, %rsp\n"
	"	call pktshim_main\n"
	"	hlt\n"
	".popsection\n");

static inline __attribute__((always_inline)) long shim_call(long n, long a, long b, long c) {
	long r;
	register long d __asm__("r10") = 0;
	register long e __asm__("r8") = 0;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(d), "r"(e) : "rcx", "r11", "memory");
	return r;
}

enum { sys_write = 1, sys_close = 3, sys_execve = 59, sys_exit_group = 231, sys_fcntl = 72, sys_prctl = 157, sys_seccomp = 317 };
enum { e_noent = 2, e_acces = 13, e_notdir = 20, e_toolong = 36 };

// shim_run tries the program, in each directory of PATH unless its name has a
// slash, and returns the errno.
static SHIM __attribute__((used, noinline)) long shim_run(char **argv, char **envp) {
	char path[4096];
	const volatile char *name = argv[0], *dirs = 0;
	long err = -e_noent;
	for (const volatile char *c = name; *c; c++)
		if (*c == '/')
			return shim_call(sys_execve, (long)name, (long)argv, (long)envp);
	for (char **e = envp; *e; e++) {
		const volatile char *v = *e;
		if (v[0] == 'P' && v[1] == 'A' && v[2] == 'T' && v[3] == 'H' && v[4] == '=')
			dirs = v + 5;
	}
	while (dirs && *dirs && *name) {
		volatile char *out = path, *end = path + sizeof(path) - 2;
		for (; *dirs && *dirs != ':' && out < end; dirs++)
			*out++ = *dirs;
		if (out > path)
			*out++ = '/';
		for (const volatile char *c = name; *c && out < end; c++)
			*out++ = *c;
		*out = 0;
		if (out >= end)
			return -e_toolong;
		if (*dirs == ':')
			dirs++;
		long r = shim_call(sys_execve, (long)path, (long)argv, (long)envp);
		if (r == -e_acces)
			err = r;
		else if (r != -e_noent && r != -e_notdir)
			return r;
	}
	return err;
}

static SHIM __attribute__((used, noinline)) void pktshim_main(unsigned long *sp) {
	char **argv = (char **)(sp + 1);
	char **envp = argv + sp[0] + 1;
	struct { unsigned short len; void *code; } prog = { *(unsigned short *)shim_data, (void *)(shim_data + 8) };
	shim_call(sys_close, 3, 0, 0);
	shim_call(sys_fcntl, 4, 2, 1); // F_SETFD, FD_CLOEXEC
	if (argv[1][0] == '1')
		shim_call(sys_prctl, 1, 9, 0); // PR_SET_PDEATHSIG, SIGKILL
	long err = shim_call(sys_seccomp, 1, 0, (long)&prog); // SECCOMP_SET_MODE_FILTER
	if (err == 0)
		err = shim_run(argv + 2, envp);
	int report = -err;
	shim_call(sys_write, 4, (long)&report, sizeof(report));
	shim_call(sys_exit_group, err == -e_noent ? 127 : 126, 0, 0);
}

extern char __start_pktshim[], __stop_pktshim[], pktshim_entry[] __attribute__((visibility("hidden")));
static char *shim_start(void) { return __start_pktshim; }
static long shim_size(void) { return __stop_pktshim - __start_pktshim; }
static long shim_entry(void) { return pktshim_entry - __start_pktshim; }
*/
import "C"

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the shim's parts lie in its file and in memory; shimDataAt is
// shim_data above.
const (
	shimCodeOffset = 0x100
	shimCodeAt     = 0x400000
	shimDataAt     = 0x500000
	shimPage       = 0x1000
)

// shimImage returns the shim as an executable file.
func shimImage() ([]byte, error) {
	code := C.GoBytes(unsafe.Pointer(C.shim_start()), C.int(C.shim_size()))
	data := binary.LittleEndian.AppendUint64(nil, uint64(len(filter)))
	for _, word := range filter {
		data = binary.LittleEndian.AppendUint64(data, word)
	}
	codeEnd := uint64(shimCodeOffset + len(code))
	dataOffset := (codeEnd + shimPage - 1) &^ (shimPage - 1)
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: shimCodeAt + shimCodeOffset + uint64(C.shim_entry()), Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 3,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	header.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	header.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	segments := []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: shimCodeAt, Paddr: shimCodeAt, Filesz: codeEnd, Memsz: codeEnd, Align: shimPage},
		{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R), Off: dataOffset, Vaddr: shimDataAt, Paddr: shimDataAt,
			Filesz: uint64(len(data)), Memsz: uint64(len(data)), Align: shimPage,
		},
		{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W)},
	}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, header); err != nil {
		return nil, err
	}
	if err := binary.Write(&b, binary.LittleEndian, segments); err != nil {
		return nil, err
	}
	b.Write(make([]byte, shimCodeOffset-b.Len()))
	b.Write(code)
	b.Write(make([]byte, int(dataOffset)-b.Len()))
	b.Write(data)
	return b.Bytes(), nil
}

// openShim returns the shim as a sealed file in memory, open for reading.
func openShim() (*os.File, error) {
	image, err := shimImage()
	if err != nil {
		return nil, err
	}
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("pktcloud-shim", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("pktcloud-shim", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	w := os.NewFile(uintptr(fd), "shim")
	defer w.Close()
	if _, err := w.Write(image); err != nil {
		return nil, err
	}
	if err := w.Chmod(0o555); err != nil {
		return nil, err
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal the shim: %w", err)
	}
	// A file that is open for writing cannot be executed.
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}
