//go:build linux

package main

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Types of a file in the archive's mode.
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeChar = 0o020000
)

// archive writes the guest's first file system, a cpio of the form "newc":
//
//	for each file   "070701", 13 numbers of 8 hex digits, name NUL, padding
//	                to 4, data, padding to 4
//	at the end      a file "TRAILER!!!"
//
// The numbers are inode, mode, uid, gid, links, mtime, size, device major and
// minor, its own device's major and minor, length of the name with NUL, and 0.
type archive struct {
	w    *bufio.Writer
	n    int
	seen map[string]bool
	err  error
}

func newArchive(w io.Writer) *archive {
	return &archive{w: bufio.NewWriterSize(w, 1<<20), seen: map[string]bool{}}
}

// entry writes one file; its parents are made when missing. What is there
// already stays.
func (a *archive) entry(name string, mode uint32, major, minor int, data []byte) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if a.err != nil || name == "" || a.seen[name] {
		return
	}
	if dir := path.Dir(name); dir != "." {
		a.entry(dir, typeDir|0o755, 0, 0, nil)
	}
	a.seen[name] = true
	a.write(name, mode, major, minor, data)
}

func (a *archive) write(name string, mode uint32, major, minor int, data []byte) {
	a.n++
	head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.n, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	for _, part := range [][]byte{[]byte(head), data} {
		_, err := a.w.Write(append(part, make([]byte, -len(part)&3)...))
		a.err = errors.Join(a.err, err)
	}
}

func (a *archive) dir(name string, mode uint32)         { a.entry(name, typeDir|mode, 0, 0, nil) }
func (a *archive) data(name string, m uint32, b []byte) { a.entry(name, typeFile|m, 0, 0, b) }
func (a *archive) char(name string, major, minor int) {
	a.entry(name, typeChar|0o600, major, minor, nil)
}

// pack adds a file or a tree of this machine at a path of the guest, programs
// with the libraries that they name.
func (a *archive) pack(source, at string) error {
	return filepath.WalkDir(source, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := at + strings.TrimPrefix(name, source)
		st, err := os.Stat(name) // a link stands for what it leads to
		switch {
		case err != nil:
			return err
		case st.IsDir() && d.IsDir():
			a.dir(to, uint32(st.Mode().Perm()))
			return nil
		case !st.Mode().IsRegular():
			return fmt.Errorf("%s is neither file nor folder", name)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		a.data(to, uint32(st.Mode().Perm()), b)
		libs, err := libraries(name)
		if err != nil {
			return err
		}
		for _, lib := range libs {
			if b, err = os.ReadFile(lib); err != nil {
				return err
			}
			a.data(lib, 0o755, b)
		}
		return a.err
	})
}

// close writes the end.
func (a *archive) close() error {
	a.write("TRAILER!!!", 0, 0, 0, nil)
	return errors.Join(a.err, a.w.Flush())
}

// libraries returns the shared libraries and the loader that a program names;
// none for a static one and for what is no program.
func libraries(file string) ([]string, error) {
	f, err := elf.Open(file)
	if _, notELF := errors.AsType[*elf.FormatError](err); notELF || errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if needed, err := f.ImportedLibraries(); err != nil || len(needed) == 0 {
		return nil, nil // nothing to link
	}
	out, err := exec.Command("ldd", file).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", file, err)
	}
	return parseLDD(string(out))
}

// parseLDD reads lines of "name => path (address)" or "path (address)".
func parseLDD(text string) ([]string, error) {
	var libs []string
	for line := range strings.Lines(text) {
		name, where, ok := strings.Cut(strings.TrimSpace(line), " => ")
		if !ok {
			where = name
		}
		if where == "not found" {
			return nil, fmt.Errorf("the library %s is not on this machine", name)
		}
		if file, _, _ := strings.Cut(where, " "); strings.HasPrefix(file, "/") {
			libs = append(libs, file)
		}
	}
	return libs, nil
}
