package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is one file of a [Build]: a link if Link is set, otherwise a copy of
// this machine's file Source if that is set, otherwise Data. Mode 0 means
// 0644, for a copy its own.
type File struct {
	Data   []byte
	Source string
	Link   string
	Mode   fs.FileMode
}

// Build says what an image holds. Files are by absolute path; directories come
// by themselves.
type Build struct {
	Files   map[string]File
	Args    []string
	Env     []string
	WorkDir string
	User    string
	Ports   []uint16
	// Entrypoint stands before Args, and is kept where others replace them.
	Entrypoint []string
	// StopSignal is "SIGTERM" and the like; empty names none.
	StopSignal string
}

// FromFiles makes an image of one layer for this machine's architecture. The
// same files give the same digest.
func FromFiles(b Build) (v1.Image, error) {
	data, err := layerTar(b.Files)
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	layer, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Entrypoint: b.Entrypoint, Cmd: b.Args, Env: b.Env, WorkingDir: b.WorkDir, User: b.User, ExposedPorts: exposed(b.Ports), StopSignal: b.StopSignal},
	})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(img, layer)
}

func exposed(list []uint16) map[string]struct{} {
	if len(list) == 0 {
		return nil
	}
	out := map[string]struct{}{}
	for _, p := range list {
		out[strconv.Itoa(int(p))+"/tcp"] = struct{}{}
	}
	return out
}

// layerTar writes files in order of their paths, without times.
func layerTar(files map[string]File) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dirs := map[string]bool{"/": true}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
			return nil, fmt.Errorf("%q is no clean absolute path", p)
		}
		if err := addDirs(w, path.Dir(p), dirs); err != nil {
			return nil, err
		}
		if err := addFile(w, p, files[p]); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func addDirs(w *tar.Writer, dir string, done map[string]bool) error {
	if done[dir] {
		return nil
	}
	if err := addDirs(w, path.Dir(dir), done); err != nil {
		return err
	}
	done[dir] = true
	mode := int64(0o755)
	if dir == "/tmp" {
		mode = 0o1777
	}
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: mode, ModTime: time.Unix(0, 0)})
}

func addFile(w *tar.Writer, p string, f File) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: p[1:], Mode: int64(f.Mode.Perm()), ModTime: time.Unix(0, 0)}
	if f.Link != "" {
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		return w.WriteHeader(h)
	}
	data := f.Data
	if f.Source != "" {
		st, err := os.Stat(f.Source)
		if err != nil {
			return err
		}
		if data, err = os.ReadFile(f.Source); err != nil {
			return err
		}
		if h.Mode == 0 {
			h.Mode = int64(st.Mode().Perm())
		}
	}
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	h.Size = int64(len(data))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// FromExecutable adds to b a program of this machine, at /bin/ and its name,
// with its interpreter and the shared libraries it needs, so that it runs in
// an otherwise empty image. Empty b.Args run it without arguments.
func FromExecutable(program string, b Build) (v1.Image, error) {
	at := "/bin/" + filepath.Base(program)
	b.Files = maps.Clone(b.Files)
	if b.Files == nil {
		b.Files = map[string]File{}
	}
	b.Files[at] = File{Source: program, Mode: 0o755}
	if err := addLibraries(b.Files, program); err != nil {
		return nil, err
	}
	if len(b.Args) == 0 {
		b.Args = []string{at}
	}
	return FromFiles(b)
}

// libraryDirs are where the dynamic loader looks by itself.
var libraryDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
	"/lib64", "/usr/lib64", "/lib", "/usr/lib",
}

// addLibraries follows the needs of a program through its libraries' own.
func addLibraries(files map[string]File, program string) error {
	done := map[string]bool{}
	for todo := []string{program}; len(todo) > 0; todo = todo[1:] {
		needs, interpreter, err := elfNeeds(todo[0])
		if err != nil {
			return fmt.Errorf("%s: %w", todo[0], err)
		}
		if interpreter != "" {
			files[interpreter] = File{Source: interpreter, Mode: 0o755}
		}
		for _, lib := range needs {
			if done[lib] {
				continue
			}
			done[lib] = true
			found, err := findLibrary(lib)
			if err != nil {
				return err
			}
			files[found] = File{Source: found, Mode: 0o755}
			todo = append(todo, found)
		}
	}
	return nil
}

// elfNeeds returns the libraries and the interpreter that a file names.
func elfNeeds(file string) (libs []string, interpreter string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			b, err := io.ReadAll(p.Open())
			if err != nil {
				return nil, "", err
			}
			interpreter = strings.TrimRight(string(b), "\x00")
		}
	}
	libs, err = f.ImportedLibraries()
	if err != nil && interpreter == "" { // a static program has no dynamic section
		return nil, "", nil
	}
	return libs, interpreter, err
}

func findLibrary(lib string) (string, error) {
	for _, dir := range libraryDirs {
		p := filepath.Join(dir, lib)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("the shared library %s was not found", lib)
}

// WriteLayout adds an image to the OCI layout in dir, which is made if it is
// not there. The reference "oci:" + dir leads to it.
func WriteLayout(dir string, img v1.Image) error {
	p, err := layout.FromPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		p, err = layout.Write(dir, empty.Index)
	}
	if err != nil {
		return err
	}
	return p.AppendImage(img)
}

// WriteArchive writes an image as "docker save" does, under the given name.
func WriteArchive(file, tag string, img v1.Image) error {
	ref, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(file, ref, img)
}
