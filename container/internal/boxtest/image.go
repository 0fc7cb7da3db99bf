//go:build linux && cgo && amd64

package boxtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pkt-cash/pkt-cloud/container/image"
)

// Busybox has all programs of a world's image.
const Busybox = "/usr/bin/busybox"

const programs = "sh cat echo nc sleep true unshare env id grep dd rm mount ls httpd stty chown mknod touch wget ip kill hostname dmesg uname wc df free"

// writeImage writes a layout of the world's image.
func writeImage(path, stopSignal string) error {
	files := map[string]image.File{
		"/bin/busybox": {Source: Busybox, Mode: 0o755},
		"/www/index":   {Data: []byte("a page\n")},
		"/opt/srv/old": {},
		"/etc/passwd":  {Data: []byte("root:x:0:0::/:/bin/sh\nweb:x:33:44::/www:/bin/sh\n")},
		"/etc/group":   {Data: []byte("root:x:0:\nweb:x:44:\nlogs:x:45:web\n")},
	}
	for name, to := range map[string]string{"within": "/www", "machine": "/opt/srv", "proc": "/proc", "root": "/", "up": "../../../../sys", "file": "/bin/busybox"} {
		files["/links/"+name] = image.File{Link: to}
	}
	for name := range strings.FieldsSeq(programs) {
		files["/bin/"+name] = image.File{Link: "busybox"}
	}
	b := image.Build{Files: files, Args: []string{"sleep", "1000"}, Env: []string{"FROM=image"}, StopSignal: stopSignal}
	if stopSignal != "" {
		b.Entrypoint, b.Args = []string{"echo"}, []string{"image"}
	}
	img, err := image.FromFiles(b)
	if err != nil {
		return err
	}
	return image.WriteLayout(path, img)
}

// badLayout writes a layout of an image one of whose layers is not what its
// digest says.
func (w *World) badLayout() (ref, digest string) {
	w.T.Helper()
	dir := filepath.Join(w.Dir, "bad")
	img, err := image.FromFiles(image.Build{Files: map[string]image.File{"/only": {Data: []byte("this")}}, Args: []string{"/only"}})
	if err != nil {
		w.T.Fatal(err)
	}
	sum, err := img.Digest()
	if err == nil {
		err = image.WriteLayout(dir, img)
	}
	if err != nil {
		w.T.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		w.T.Fatal(err)
	}
	layer, err := layers[0].Digest()
	path := filepath.Join(dir, "blobs", layer.Algorithm, layer.Hex)
	b, rerr := os.ReadFile(path)
	if err := errors.Join(err, rerr); err != nil || len(b) < 20 {
		w.T.Fatal(err, len(b))
	}
	b[len(b)-10] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		w.T.Fatal(err)
	}
	return "oci:" + dir, sum.String()
}

// BuildProgram builds a package of this module that needs no C, and returns the
// file.
func (w *World) BuildProgram(pkg string) string {
	w.T.Helper()
	path := filepath.Join(w.Dir, filepath.Base(pkg))
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/pkt-cash/pkt-cloud/"+pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		w.T.Fatalf("%v: %s", err, out)
	}
	return path
}

// BuildMonitor builds the small program for monitors.
func (w *World) BuildMonitor() []byte {
	w.T.Helper()
	return w.build("monitor")
}

// BuildFileServer returns the program that serves containers' files.
func (w *World) BuildFileServer() []byte {
	w.T.Helper()
	return w.build("fileserver", "-tags", "netgo osusergo")
}

// build returns a program of container/libcontainer.
func (w *World) build(name string, flags ...string) []byte {
	w.T.Helper()
	path := filepath.Join(w.Dir, name)
	args := append([]string{"build", "-o", path}, flags...)
	out, err := exec.Command("go", append(args, "github.com/pkt-cash/pkt-cloud/container/libcontainer/"+name)...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		w.T.Skip("needs the Go tools: ", err)
	}
	if err != nil {
		w.T.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		w.T.Fatal(err)
	}
	return b
}

// UseImage makes an image the world's.
func (w *World) UseImage(name string, b image.Build) {
	w.T.Helper()
	dir := filepath.Join(w.Dir, name)
	img, err := image.FromFiles(b)
	if err == nil {
		err = image.WriteLayout(dir, img)
	}
	if err != nil {
		w.T.Fatal(fmt.Errorf("image %s: %w", name, err))
	}
	w.Image = w.Pull("oci:" + dir)
}
