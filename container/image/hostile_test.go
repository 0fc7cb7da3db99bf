package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
)

// front is a registry in front of which somebody stands: tamper may answer a
// request itself and return true.
type front struct {
	addr   string
	dialer *dialer.Dialer

	mu     sync.Mutex // guards tamper
	tamper func(w http.ResponseWriter, r *http.Request) bool
}

// set changes who stands in front; nil is nobody.
func (f *front) set(tamper func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tamper = tamper
}

func (f *front) get() func(w http.ResponseWriter, r *http.Request) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tamper
}

func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{}
	behind := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tamper := f.get(); tamper == nil || !tamper(w, r) {
			behind.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	f.addr = srv.Listener.Addr().String()
	var err error
	if f.dialer, err = dialer.New([]string{f.addr}); err != nil {
		t.Fatal(err)
	}
	return f
}

// layered makes an image of layers that are given as archives.
func layered(t *testing.T, archives ...[]byte) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{OS: platform.OS, Architecture: platform.Architecture, RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{Cmd: []string{"/x"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range archives {
		if img, err = mutate.AppendLayers(img, static.NewLayer(a, types.OCIUncompressedLayer)); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

func isBlob(r *http.Request, d v1.Hash) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/blobs/"+d.String())
}

func isManifest(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/")
}

// checkUnharmed shows that a refused pull left nothing that counts, and that
// the image can be had once the registry is honest.
func checkUnharmed(t *testing.T, name string, s *Store, f *front, ref string) {
	t.Helper()
	for _, d := range []string{imagesDir, layersDir, tmpDir} {
		if left, err := os.ReadDir(s.path(d)); err != nil || len(left) != 0 {
			t.Errorf("%s: %s: got %v, %v; want nothing left", name, d, left, err)
		}
	}
	checkUnmounted(t, name, s)
	f.set(nil)
	s.cfg.Stall = time.Minute // however slow this machine is
	if _, err := s.Pull(t.Context(), ref, container.PullOptions{}); err != nil {
		t.Errorf("%s: from an honest registry afterwards: %v", name, err)
	}
	if used, _ := s.Used(); used == 0 {
		t.Errorf("%s: an image takes no space", name)
	}
	if left, err := os.ReadDir(s.path(partialsDir)); err != nil || len(left) != 0 {
		t.Errorf("%s: got partial blobs %v, %v beside a whole image", name, left, err)
	}
}

// checkUnmounted shows that nothing is mounted below the store.
func checkUnmounted(t *testing.T, name string, s *Store) {
	t.Helper()
	b, _ := os.ReadFile("/proc/self/mountinfo") // empty where there is none
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, s.cfg.Dir) {
			t.Errorf("%s: mounted: %s", name, line)
		}
	}
}

// TestHostileRegistries meets registries that stall, lie and lead astray.
func TestHostileRegistries(t *testing.T) {
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a forbidden host was asked") }))
	defer inner.Close()
	_, innerPort, _ := strings.Cut(inner.Listener.Addr().String(), ":")
	img := layered(t, hostileLayer(t, []tarEntry{{tar.Header{Name: "x", Mode: 0o644}, strings.Repeat("data", 50_000)}}, ""))
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := img.Digest()
	raw, _ := img.RawManifest()
	blob, config := manifest.Layers[0], manifest.Config
	layerBytes := read(t, img)
	hang := func(r *http.Request) { <-r.Context().Done() }
	redirect := func(match func(*http.Request) bool, to string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !match(r) {
				return false
			}
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
			return true
		}
	}
	ofBlob := func(r *http.Request) bool { return isBlob(r, blob.Digest) }
	// answer replaces the answer to matching requests by what a function writes.
	answer := func(match func(*http.Request) bool, fn func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if match(r) {
				fn(w, r)
				return true
			}
			return false
		}
	}
	endless := func(status int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			for piece := bytes.Repeat([]byte("x"), 1<<16); r.Context().Err() == nil; {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		}
	}
	for _, c := range []struct {
		name     string
		byDigest bool
		stalls   bool
		most     int64 // how often it does so; whoever asks more often gets the image
		tamper   func(http.ResponseWriter, *http.Request) bool
		want     container.Code
	}{
		{name: "no answer", stalls: true, tamper: answer(isManifest, func(_ http.ResponseWriter, r *http.Request) { hang(r) }), want: container.CodeRegistry},
		{name: "a blob that stops", stalls: true, want: container.CodeRegistry, tamper: answer(ofBlob, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(blob.Size))
			_, _ = w.Write(layerBytes[:1000])
			w.(http.Flusher).Flush()
			hang(r)
		})},
		{name: "a blob that drips", stalls: true, want: container.CodeRegistry, tamper: answer(ofBlob, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(blob.Size))
			const drips = 1500 // and then all the rest, for one that is content with drips
			for i := 0; r.Context().Err() == nil && i < drips; i++ {
				_, _ = w.Write(layerBytes[i : i+1])
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
			_, _ = w.Write(layerBytes[drips:])
		})},
		{name: "a blob that ends early each time", most: 12, want: container.CodeRegistry, tamper: answer(ofBlob, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(blob.Size))
			_, _ = w.Write(layerBytes[:1000])
		})},
		{name: "a blob that is shorter", want: container.CodeDigestMismatch, tamper: answer(ofBlob, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(layerBytes[:1000])
		})},
		{name: "a blob that is longer", want: container.CodeDigestMismatch, tamper: answer(ofBlob, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append(bytes.Clone(layerBytes), 0))
		})},
		{name: "an endless blob", want: container.CodeDigestMismatch, tamper: answer(ofBlob, endless(http.StatusOK))},
		{name: "an endless excuse", want: container.CodeRegistry, tamper: answer(ofBlob, endless(http.StatusForbidden))},
		{name: "another blob", want: container.CodeDigestMismatch, tamper: answer(ofBlob, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.Repeat([]byte{1}, len(layerBytes)))
		})},
		{name: "no blob", want: container.CodeUnknownImage, tamper: answer(ofBlob, http.NotFound)},
		{name: "another configuration", want: container.CodeDigestMismatch, tamper: answer(func(r *http.Request) bool { return isBlob(r, config.Digest) },
			func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })},
		{name: "an endless configuration", want: container.CodeTooLarge, tamper: answer(func(r *http.Request) bool { return isBlob(r, config.Digest) }, endless(http.StatusOK))},
		{name: "an endless manifest", want: container.CodeTooLarge, tamper: answer(isManifest, endless(http.StatusOK))},
		{name: "another manifest than the digest names", byDigest: true, want: container.CodeDigestMismatch, tamper: answer(isManifest,
			func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(append(bytes.Clone(raw), '\n')) })},
		{name: "no manifest", want: container.CodeBadImage, tamper: answer(isManifest, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })},
		{name: "a manifest that is an index too", want: container.CodeBadImage, tamper: answer(isManifest, func(w http.ResponseWriter, _ *http.Request) {
			var m map[string]any
			_ = json.Unmarshal(raw, &m)
			m["manifests"] = []any{}
			_ = json.NewEncoder(w).Encode(m)
		})},
		{name: "a manifest elsewhere in here", want: container.CodeForbiddenHost, tamper: redirect(isManifest, inner.URL)},
		{name: "a blob elsewhere in here", want: container.CodeForbiddenHost, tamper: redirect(ofBlob, inner.URL)},
		{name: "a blob by a name of here", want: container.CodeForbiddenHost, tamper: redirect(ofBlob, "http://localhost:"+innerPort+"/blob")},
		{name: "a blob at the metadata service", want: container.CodeForbiddenHost, tamper: redirect(ofBlob, "http://169.254.169.254/latest/meta-data")},
		{name: "a blob at the metadata service, IPv6", want: container.CodeForbiddenHost, tamper: redirect(ofBlob, "http://[fd00:ec2::254]/latest")},
		{name: "a blob in a private network", want: container.CodeForbiddenHost, tamper: redirect(ofBlob, "http://10.0.0.1/")},
		{name: "a blob in a mapped private network", want: container.CodeForbiddenHost, tamper: redirect(ofBlob, "http://[::ffff:192.168.0.1]/")},
		{name: "a blob in a file", want: container.CodeRegistry, tamper: redirect(ofBlob, "file:///etc/passwd")},
		{name: "round and round", most: 200, want: container.CodeRegistry, tamper: redirect(ofBlob, "/v2/app/blobs/"+blob.Digest.String())},
		{name: "a token server in here", want: container.CodeForbiddenHost, tamper: answer(func(*http.Request) bool { return true }, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://localhost:`+innerPort+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		})},
		{name: "a token server at the metadata service", want: container.CodeRegistry, tamper: answer(func(*http.Request) bool { return true }, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://169.254.169.254/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t)
			ref := f.addr + "/app:1"
			push(t, ref, img)
			if c.byDigest {
				ref = f.addr + "/app@" + digest.String()
			}
			cfg := Config{Dial: f.dialer.DialContext, Stall: time.Minute}
			if c.stalls {
				cfg.Stall = 300 * time.Millisecond
			}
			s := openStore(t, cfg)
			var done atomic.Int64
			f.set(func(w http.ResponseWriter, r *http.Request) bool {
				tampered := (c.most == 0 || done.Load() < c.most) && c.tamper(w, r)
				if tampered {
					done.Add(1)
				}
				return tampered
			})
			if _, err := s.Pull(t.Context(), ref, container.PullOptions{}); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %q", err, string(c.want))
			}
			checkUnharmed(t, c.name, s, f, ref)
		})
	}
}

// read returns an image's first layer as it travels.
func read(t *testing.T, img v1.Image) []byte {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHostileImages pulls the hostile layers, each as one layer and each entry
// as a layer of its own, through a registry into a store.
func TestHostileImages(t *testing.T) {
	f := newFront(t)
	base := t.TempDir()
	victim := filepath.Join(base, "victim")
	if err := errors.Join(os.Mkdir(victim, 0o700), os.WriteFile(filepath.Join(victim, "file"), []byte("good"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range hostile {
		for _, split := range []bool{false, true} {
			name := fmt.Sprintf("%s, split %v", c.name, split)
			var archives [][]byte
			if split {
				for _, e := range c.entries {
					archives = append(archives, hostileLayer(t, []tarEntry{e}, victim))
				}
			} else {
				archives = append(archives, hostileLayer(t, c.entries, victim))
			}
			ref := f.addr + "/app:1"
			push(t, ref, layered(t, archives...))
			dir := filepath.Join(base, "store")
			s := openStore(t, Config{Dir: dir, Dial: f.dialer.DialContext})
			img, err := s.Pull(t.Context(), ref, container.PullOptions{})
			var e *container.Error
			if c.refused && !errors.As(err, &e) || !c.refused && !split && err != nil {
				t.Errorf("%s: got %v, want refused %v", name, err, c.refused)
			}
			left, _ := os.ReadDir(victim)
			st, statErr := os.Stat(filepath.Join(victim, "file"))
			if b, err := os.ReadFile(filepath.Join(victim, "file")); err != nil || string(b) != "good" || len(left) != 1 || statErr != nil || st.Mode() != 0o600 {
				t.Errorf("%s: escaped: %q, %v, %v", name, b, err, left)
			}
			if err == nil {
				_, root, _, _ := s.Root(img.Digest)
				checkTame(t, name, root)
				checkNoMarks(t, name, root)
			} else if left, err := os.ReadDir(s.path(imagesDir)); err != nil || len(left) != 0 {
				t.Errorf("%s: got images %v, %v", name, left, err)
			}
			if left, err := os.ReadDir(s.path(tmpDir)); err != nil || len(left) != 0 {
				t.Errorf("%s: got %v, %v left over", name, left, err)
			}
			checkUnmounted(t, name, s)
			if err := errors.Join(s.Close(), removeTree(dir)); err != nil {
				t.Fatal(err)
			}
			beside, err := os.ReadDir(base)
			if err != nil || len(beside) != 1 {
				t.Errorf("%s: got %v, %v beside the store", name, beside, err)
			}
		}
	}
}

// checkNoMarks shows that an image's tree has none of a layer's marks.
func checkNoMarks(t *testing.T, name, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && (strings.HasPrefix(d.Name(), whiteoutPrefix) || info.Mode()&os.ModeSetuid != 0) {
			t.Errorf("%s: %s has mode %v", name, path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
