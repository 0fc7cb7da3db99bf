package main

import (
	"debug/elf"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	oci "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pkt-cash/pkt-cloud/container/image"
)

// registry serves the demo's image on this machine.
type registry struct {
	listener net.Listener
	server   *http.Server
	wg       sync.WaitGroup
	ref      string
	cat      []string // prints /proc/self/status inside
}

// newRegistry starts a registry and pushes the demo's image to it.
func newRegistry() (*registry, string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	r := &registry{listener: l, server: &http.Server{
		Handler: oci.New(oci.Logger(log.New(io.Discard, "", 0))), ReadHeaderTimeout: 10 * time.Second,
	}}
	r.wg.Go(func() { r.server.Serve(l) }) //nolint:errcheck // it ends by close
	img, text, err := r.demoImage()
	if err == nil {
		r.ref = r.address() + "/hello:1"
		var ref name.Reference
		if ref, err = name.ParseReference(r.ref); err == nil {
			err = remote.Write(ref, img)
		}
	}
	if err != nil {
		r.close()
		return nil, "", err
	}
	return r, text + ", in a registry at " + r.address(), nil
}

func (r *registry) address() string { return r.listener.Addr().String() }

func (r *registry) close() {
	r.server.Close() //nolint:errcheck // nothing is left to do
	r.wg.Wait()
}

// demoImage is busybox with a page, or this program when there is no static
// busybox.
func (r *registry) demoImage() (v1.Image, string, error) {
	page := image.File{Data: []byte(demoPage)}
	if busybox, err := exec.LookPath("busybox"); err == nil && isStatic(busybox) {
		r.cat = []string{"cat", "/proc/self/status"}
		img, err := image.FromFiles(image.Build{
			Files: map[string]image.File{
				"/bin/busybox":    {Source: busybox, Mode: 0o755},
				"/bin/sh":         {Link: "busybox"},
				"/bin/cat":        {Link: "busybox"},
				"/bin/ls":         {Link: "busybox"},
				"/bin/httpd":      {Link: "busybox"},
				"/www/index.html": page,
			},
			Args: []string{"/bin/httpd", "-f", "-vv", "-p", "8080", "-h", "/www"}, Env: []string{"PATH=/bin"}, User: "1000:1000", Ports: []uint16{demoPort},
		})
		return img, "busybox httpd with a page", err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	inside := "/bin/" + filepath.Base(self)
	r.cat = []string{inside, "workload", "cat", "/proc/self/status"}
	img, err := image.FromExecutable(self, image.Build{
		Args: []string{inside, "workload", "serve"}, User: "1000:1000", Ports: []uint16{demoPort},
	})
	return img, "this program itself as a web server (no static busybox was found)", err
}

// isStatic reports whether a program needs no interpreter.
func isStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // only read
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}
