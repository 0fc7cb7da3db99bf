//go:build linux

package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	o, err := parse(strings.Fields("run -cgroup v1 -modules a,b -modules c -timeout 2s -- prog -v x"))
	if err != nil {
		t.Fatal(err)
	}
	if o.cgroup != cgroupV1 || o.timeout != 2*time.Second || !slices.Equal(o.modules, list{"a", "b", "c"}) || !slices.Equal(o.args, []string{"prog", "-v", "x"}) {
		t.Errorf("got %+v", o)
	}
	for _, line := range []string{"", "boot -- x", "run", "run --", "run -cgroup hybrid -- x", "run -timeout 0s -- x", "run -memory 1 -- x"} {
		if _, err := parse(strings.Fields(line)); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
}

// file is an entry of an archive that was read back.
type file struct {
	mode uint64
	data string
}

// readArchive is a plain reader of what archive writes.
func readArchive(t *testing.T, b []byte) (names []string, files map[string]file) {
	t.Helper()
	files = map[string]file{}
	take := func(n int) string {
		if n > len(b) {
			t.Fatalf("the archive ends %d bytes early", n-len(b))
		}
		s := string(b[:n])
		b = b[min(len(b), (n+3)&^3):]
		return s
	}
	for {
		if len(b) < 110 || string(b[:6]) != "070701" {
			t.Fatalf("no entry at %.20q", b)
		}
		number := func(i int) uint64 {
			n, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		mode, size, length := number(1), int(number(6)), int(number(11))
		name := strings.TrimSuffix(take(110 + length)[110:], "\x00")
		data := take(size)
		if name == "TRAILER!!!" {
			return names, files
		}
		names = append(names, name)
		files[name] = file{mode, data}
	}
}

func TestArchive(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "tree", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tree", "sub", "script"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/script", filepath.Join(dir, "tree", "link")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	a := newArchive(&out)
	a.data("/a/b", 0o600, []byte("12345"))
	a.data("a/b", 0o600, []byte("again"))
	a.dir("a", 0o700)
	a.char("dev/console", 5, 1)
	if err := a.pack(filepath.Join(dir, "tree"), "/tree"); err != nil {
		t.Fatal(err)
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	names, files := readArchive(t, out.Bytes())
	if want := strings.Fields("a a/b dev dev/console tree tree/link tree/sub tree/sub/script"); !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	for name, want := range map[string]file{
		"a": {typeDir | 0o755, ""}, "a/b": {typeFile | 0o600, "12345"}, "dev/console": {typeChar | 0o600, ""},
		"tree/link": {typeFile | 0o755, "#!/bin/sh\n"}, "tree/sub/script": {typeFile | 0o755, "#!/bin/sh\n"},
	} {
		if files[name] != want {
			t.Errorf("%s: got %+v, want %+v", name, files[name], want)
		}
	}
	if err := newArchive(&out).pack(filepath.Join(dir, "none"), "/none"); err == nil {
		t.Error("a file that is not there was packed")
	}
}

func TestParseLDD(t *testing.T) {
	got, err := parseLDD("\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n")
	if err != nil || !slices.Equal(got, []string{"/lib/libc.so.6", "/lib64/ld.so"}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parseLDD("\tlibx.so => not found\n"); err == nil {
		t.Error("a missing library was passed over")
	}
}

// moduleFile is a minimal ELF file with a section .modinfo.
func moduleFile(t *testing.T, info string) []byte {
	t.Helper()
	const names = "\x00.modinfo\x00.shstrtab\x00"
	const head = 64
	var b bytes.Buffer
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Ehsize: head, Shentsize: 64, Shnum: 3, Shstrndx: 2, Shoff: uint64(head + len(info) + len(names)),
	}
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: head, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(head + len(info)), Size: uint64(len(names))},
	}
	for _, v := range []any{h, []byte(info + names), sections} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestModules(t *testing.T) {
	dir := t.TempDir()
	if _, err := findKernel(dir); err == nil {
		t.Error("a kernel was found where there is none")
	}
	write := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("boot/vmlinuz-6.1.0", nil)
	tree := "lib/modules/6.1.0/"
	write(tree+"modules.builtin", []byte("kernel/fs/ext4/ext4.ko\n"))
	write(tree+"kernel/disk.ko", moduleFile(t, "license=GPL\x00depends=ring-one,bus\x00"))
	write(tree+"kernel/sub/ring-one.ko", moduleFile(t, "depends=bus\x00"))
	write(tree+"kernel/bus.ko", moduleFile(t, "depends=\x00name=bus\x00"))
	write(tree+"kernel/broken.ko", moduleFile(t, "depends=nothing\x00"))
	write(tree+"kernel/text.ko", []byte("no module"))
	k, err := findKernel(dir)
	if err != nil {
		t.Fatal(err)
	}
	mods, err := k.load("disk", "ext4", "bus")
	var names []string
	for _, m := range mods {
		names = append(names, m.name)
	}
	if err != nil || !slices.Equal(names, []string{"bus", "ring_one", "disk"}) {
		t.Errorf("got %v, %v, want each after what it needs", names, err)
	}
	for _, name := range []string{"none", "broken", "text"} {
		if _, err := k.load(name); err == nil {
			t.Errorf("module %s was found", name)
		}
	}
}

func TestLastOutcome(t *testing.T) {
	begun, ended, failed := "{\"Started\":true}\n", "{\"Exit\":7}\n", "{\"Error\":\"x\"}\n"
	for _, c := range []struct {
		text string
		want *outcome
	}{
		{"", nil},
		{begun[:5], nil},
		{begun, &outcome{Started: true}},
		{begun + ended[:5], &outcome{Started: true}},
		{begun + ended, &outcome{Exit: 7}},
		{begun + failed, &outcome{Error: "x"}},
	} {
		got := lastOutcome([]byte(c.text))
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%q: got %+v, want %+v", c.text, got, c.want)
		}
	}
}
