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
//
// With "2" for "1" it first reads a script of system calls from descriptor 5 to
// its end, and makes them (script_linux.go): they turn a process in new
// namespaces into a container. Where one fails, the number of the call, from 1
// on, stands above the twelve bits of the errno.
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

static inline __attribute__((always_inline)) long shim_call6(long n, const unsigned long *v) {
	long r;
	register long d __asm__("r10") = v[3];
	register long e __asm__("r8") = v[4];
	register long f __asm__("r9") = v[5];
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(v[0]), "S"(v[1]), "d"(v[2]), "r"(d), "r"(e), "r"(f) : "rcx", "r11", "memory");
	return r;
}

enum { sys_read = 0, sys_write = 1, sys_close = 3, sys_execve = 59, sys_exit_group = 231, sys_fcntl = 72, sys_prctl = 157, sys_seccomp = 317 };
enum { e_noent = 2, e_io = 5, e_toobig = 7, e_acces = 13, e_notdir = 20, e_toolong = 36 };

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

// A step of a script: a call, two bits for each argument that say what it is,
// the register that takes the result, errnos that are no failure (-1 is any),
// and how many steps to leave out after one of those.
struct shim_step {
	unsigned int nr, kinds, result, skip;
	int tolerated[2];
	unsigned long args[6];
};
enum { shim_pointer = 1, shim_register = 2, shim_registers = 32, shim_script_size = 1 << 16 };

// shim_script makes the calls of the script at descriptor 5, and returns 0 or
// what to report.
static SHIM __attribute__((used, noinline)) long shim_script(void) {
	char script[shim_script_size] __attribute__((aligned(8)));
	volatile unsigned long registers[shim_registers];
	unsigned long size = 0;
	for (;;) {
		long n = shim_call(sys_read, 5, (long)(script + size), sizeof(script) - size);
		if (n < 0)
			return -n;
		if (n == 0)
			break;
		size += n;
		if (size == sizeof(script))
			return e_toobig;
	}
	shim_call(sys_close, 5, 0, 0);
	unsigned long count = ((volatile unsigned int *)script)[1];
	if (size < 8 || size != *(volatile unsigned int *)script || count == 0 || count > (size - 8) / sizeof(struct shim_step))
		return e_io; // the monitor died
	for (unsigned long i = 0; i < count; i++) {
		const struct shim_step *step = (const struct shim_step *)(script + 8) + i;
		unsigned long v[6];
		for (int a = 0; a < 6; a++) {
			unsigned int kind = step->kinds >> 2 * a & 3;
			v[a] = step->args[a];
			if (kind == shim_pointer)
				v[a] += (unsigned long)script;
			if (kind == shim_register)
				v[a] = registers[v[a] % shim_registers];
		}
		long r = shim_call6(step->nr, v);
		if (r < 0 && r > -4096) {
			if (step->tolerated[0] != -1 && step->tolerated[0] != -r && step->tolerated[1] != -r)
				return (i + 1) << 12 | -r;
			i += step->skip;
		}
		registers[step->result % shim_registers] = r;
	}
	return 0;
}

static SHIM __attribute__((used, noinline)) void pktshim_main(unsigned long *sp) {
	char **argv = (char **)(sp + 1);
	char **envp = argv + sp[0] + 1;
	struct { unsigned short len; void *code; } prog = { *(unsigned short *)shim_data, (void *)(shim_data + 8) };
	shim_call(sys_close, 3, 0, 0);
	shim_call(sys_fcntl, 4, 2, 1); // F_SETFD, FD_CLOEXEC
	if (argv[1][0] == '2') {
		int failed = shim_script();
		if (failed != 0) {
			shim_call(sys_write, 4, (long)&failed, sizeof(failed));
			shim_call(sys_exit_group, 125, 0, 0);
		}
	}
	if (argv[1][0] != '0')
		shim_call(sys_prctl, 1, 9, 0); // PR_SET_PDEATHSIG, SIGKILL
	shim_call(sys_prctl, 29, 50000, 0); // PR_SET_TIMERSLACK, what programs have elsewhere [CONTAINER-99]
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
	"os"
	"unsafe"
)

// Where the shim's parts lie in its file and in memory; shimDataAt is
// shim_data above.
const (
	shimCodeOffset = 0x100
	shimCodeAt     = 0x400000
	shimDataAt     = 0x500000
	shimPage       = 0x1000
)

// shimImage returns the shim as an executable file that loads the filter.
func shimImage(filter []uint64) ([]byte, error) {
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

// shimMode lets nobody read the shim but its owner, the machine's root, who is
// nobody inside. The kernel lets no process be traced that runs what its user
// may not read, so that none in the container takes over another that has not
// loaded its filter yet [CONTAINER-90].
const shimMode = 0o111

// openShim returns the shim as a sealed file in memory, open for reading.
func openShim() (*os.File, error) {
	image, err := shimImage(filter[:])
	if err != nil {
		return nil, err
	}
	f, err := sealed("pktcloud-shim", image)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(shimMode); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
