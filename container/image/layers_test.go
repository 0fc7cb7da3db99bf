package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pkt-cash/pkt-cloud/container"
)

func file(name, data string) tarEntry {
	return tarEntry{tar.Header{Name: name, Mode: 0o644}, data}
}

func folder(name string, mode int64) tarEntry {
	return tarEntry{tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: mode}, ""}
}

func link(name, to string) tarEntry {
	return tarEntry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}, ""}
}

// TestMerge shows what layers on each other give.
func TestMerge(t *testing.T) {
	base := []tarEntry{
		folder("etc", 0o750), file("etc/a", "1"), file("etc/b", "1"), folder("old", 0o755), file("old/x", "1"), folder("gone", 0o755), file("gone/x", "1"),
		folder("usr", 0o755), folder("usr/bin", 0o711), file("usr/bin/sh", "1"), link("bin", "usr/bin"), link("abs", "/usr/bin"), link("was", "usr"), folder("tmp", 0o1777),
	}
	for _, c := range []struct {
		name  string
		upper []tarEntry
		want  map[string]string // path to content, "" means not there
		modes map[string]os.FileMode
	}{
		{
			name: "replaced and added", upper: []tarEntry{file("etc/a", "2"), file("etc/c", "2")},
			want: map[string]string{"etc/a": "2", "etc/b": "1", "etc/c": "2"}, modes: map[string]os.FileMode{"etc": 0o750 | os.ModeDir},
		},
		{
			name: "a directory named again", upper: []tarEntry{folder("etc", 0o700)},
			want: map[string]string{"etc/a": "1"}, modes: map[string]os.FileMode{"etc": 0o700 | os.ModeDir},
		},
		{
			name: "a directory not named", upper: []tarEntry{file("tmp/x", "2"), file("new/y", "2")},
			want: map[string]string{"tmp/x": "2", "new/y": "2"}, modes: map[string]os.FileMode{"tmp": 0o777 | os.ModeSticky | os.ModeDir, "new": 0o755 | os.ModeDir},
		},
		{
			name: "whiteouts", upper: []tarEntry{file("etc/.wh.a", ""), file(".wh.gone", "")},
			want: map[string]string{"etc/a": "", "etc/b": "1", "gone/x": "", "etc/.wh.a": ""},
		},
		{
			name: "opaque", upper: []tarEntry{file("etc/c", "2"), file("etc/.wh..wh..opq", "")},
			want: map[string]string{"etc/a": "", "etc/b": "", "etc/c": "2"},
		},
		{name: "a whiteout takes nothing of its own layer", upper: []tarEntry{file("etc/a", "2"), file("etc/.wh.a", "")}, want: map[string]string{"etc/a": "2"}},
		{
			name: "through a lower link", upper: []tarEntry{file("bin/ls", "2"), file("abs/cat", "2")},
			want: map[string]string{"usr/bin/ls": "2", "usr/bin/cat": "2", "usr/bin/sh": "1"}, modes: map[string]os.FileMode{"usr/bin": 0o711 | os.ModeDir},
		},
		{name: "a directory in a link's place", upper: []tarEntry{folder("was", 0o755), file("was/x", "2")}, want: map[string]string{"was/x": "2", "usr/x": ""}},
		{name: "a file in a directory's place", upper: []tarEntry{file("old", "2")}, want: map[string]string{"old": "2"}},
		{name: "a directory in a file's place", upper: []tarEntry{file("etc/a/x", "2")}, want: map[string]string{"etc/a/x": "2"}},
	} {
		f := newFront(t)
		push(t, f.addr+"/app:1", layered(t, hostileLayer(t, base, ""), hostileLayer(t, c.upper, "")))
		s := openStore(t, Config{Dial: f.dialer.DialContext})
		img, err := s.Pull(t.Context(), f.addr+"/app:1", container.PullOptions{})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		_, root, _, err := s.Root(img.Digest)
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range c.want {
			b, err := os.ReadFile(filepath.Join(root, path))
			if string(b) != want || want == "" && err == nil {
				t.Errorf("%s: %s: got %q, %v, want %q", c.name, path, b, err, want)
			}
		}
		for path, want := range c.modes {
			if st, err := os.Stat(filepath.Join(root, path)); err != nil || st.Mode() != want {
				t.Errorf("%s: %s: got %v, want mode %v", c.name, path, st.Mode(), want)
			}
		}
		checkNoMarks(t, c.name, root)
	}
}

// counted counts the requests for each blob.
func counted(f *front) func(v1.Hash) int {
	var asked [64]atomic.Int64
	index := func(d string) *atomic.Int64 { return &asked[int(d[len(d)-1])%64] }
	f.set(func(_ http.ResponseWriter, r *http.Request) bool {
		if _, d, ok := strings.Cut(r.URL.Path, "/blobs/"); ok && r.Method == http.MethodGet {
			index(d).Add(1)
		}
		return false
	})
	return func(d v1.Hash) int { return int(index(d.String()).Load()) }
}

// TestLayersAreShared shows that two images have one copy of a layer, on the
// way and on the disk.
func TestLayersAreShared(t *testing.T) {
	f := newFront(t)
	base := hostileLayer(t, []tarEntry{file("base", "base")}, "")
	a, b := layered(t, base, hostileLayer(t, []tarEntry{file("a", "a")}, "")), layered(t, base, hostileLayer(t, []tarEntry{file("b", "b")}, ""))
	push(t, f.addr+"/a:1", a)
	push(t, f.addr+"/b:1", b)
	times := counted(f)
	s := openStore(t, Config{Dial: f.dialer.DialContext})
	var inodes []os.FileInfo
	for _, ref := range []string{f.addr + "/a:1", f.addr + "/b:1"} {
		img, err := s.Pull(t.Context(), ref, container.PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, root, _, err := s.Root(img.Digest)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(root, "base"))
		if err != nil {
			t.Fatal(err)
		}
		inodes = append(inodes, st)
	}
	if !os.SameFile(inodes[0], inodes[1]) {
		t.Error("two images have two copies of one layer")
	}
	m, _ := a.Manifest()
	if got := times(m.Layers[0].Digest); got != 1 {
		t.Errorf("the shared layer was fetched %d times, want once", got)
	}
}

// TestResume shows that a blob goes on where it stopped, in another process too,
// and that what was damaged meanwhile is fetched anew.
func TestResume(t *testing.T) {
	f := newFront(t)
	img := layered(t, hostileLayer(t, []tarEntry{file("x", strings.Repeat("0123456789abcdef", 1<<14))}, ""))
	ref := f.addr + "/app:1"
	push(t, ref, img)
	m, _ := img.Manifest()
	whole := read(t, img)
	half := len(whole) / 2
	cut := func(w http.ResponseWriter, r *http.Request) bool {
		if !isBlob(r, m.Layers[0].Digest) || r.Header.Get("Range") != "" {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusForbidden)
				return true
			}
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
		_, _ = w.Write(whole[:half])
		return true
	}
	for _, c := range []struct {
		name   string
		damage func(path string) error
		ranges []string
	}{
		{"as it was", func(string) error { return nil }, []string{fmt.Sprintf("bytes=%d-%d", half, len(whole)-1)}},
		{"damaged", func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte{7}, half), 0o600) }, []string{fmt.Sprintf("bytes=%d-%d", half, len(whole)-1), ""}},
		{"longer than the blob", func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte{7}, 2*len(whole)), 0o600) }, []string{""}},
		{"lost", os.Remove, []string{""}},
	} {
		cfg := Config{Dir: t.TempDir(), Dial: f.dialer.DialContext}
		s := openStore(t, cfg)
		f.set(cut)
		if _, err := s.Pull(t.Context(), ref, container.PullOptions{}); !errors.Is(err, container.CodeRegistry) {
			t.Fatalf("%s: cut off: got %v", c.name, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(filepath.Join(cfg.Dir, partialsDir))
		if err != nil || len(left) != 1 {
			t.Fatalf("%s: got %v, %v, want one partial blob", c.name, left, err)
		}
		if err := c.damage(filepath.Join(cfg.Dir, partialsDir, left[0].Name())); err != nil {
			t.Fatal(err)
		}
		var ranges []string
		f.set(func(_ http.ResponseWriter, r *http.Request) bool {
			if isBlob(r, m.Layers[0].Digest) {
				ranges = append(ranges, r.Header.Get("Range"))
			}
			return false
		})
		s = openStore(t, cfg)
		var first, last uint64
		got, err := s.Pull(t.Context(), ref, container.PullOptions{Progress: func(done, _ uint64) {
			if first == 0 {
				first = done
			}
			last = done
		}})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !slices.Equal(ranges, c.ranges) {
			t.Errorf("%s: got ranges %q, want %q", c.name, ranges, c.ranges)
		}
		if last != got.SizeBytes || c.name == "as it was" && first <= uint64(half) {
			t.Errorf("%s: progress from %d to %d, want more than %d to %d", c.name, first, last, half, got.SizeBytes)
		}
	}
}

// TestPartialOfAnother shows that half a blob is not completed by another
// repository, which would then have its beginning.
func TestPartialOfAnother(t *testing.T) {
	f, other := newFront(t), newFront(t)
	img := layered(t, hostileLayer(t, []tarEntry{file("x", strings.Repeat("0123456789abcdef", 1<<14))}, ""))
	push(t, f.addr+"/app:1", img)
	push(t, other.addr+"/app:1", img)
	m, _ := img.Manifest()
	whole := read(t, img)
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if isBlob(r, m.Layers[0].Digest) {
			w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
			_, _ = w.Write(whole[:len(whole)-1000])
		}
		return isBlob(r, m.Layers[0].Digest)
	})
	// The other has the end only.
	other.set(func(w http.ResponseWriter, r *http.Request) bool {
		if isBlob(r, m.Layers[0].Digest) && r.Header.Get("Range") == "" {
			http.NotFound(w, r)
			return true
		}
		return false
	})
	s := openStore(t, Config{Dial: either(f, other)})
	if _, err := s.Pull(t.Context(), f.addr+"/app:1", container.PullOptions{}); !errors.Is(err, container.CodeRegistry) {
		t.Fatalf("cut off: got %v", err)
	}
	if _, err := s.Pull(t.Context(), other.addr+"/app:1", container.PullOptions{}); !errors.Is(err, container.CodeUnknownImage) {
		t.Errorf("the end of another registry: got %v, want %q", err, string(container.CodeUnknownImage))
	}
}

// either dials both registries.
func either(a, b *front) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := a.dialer.DialContext(ctx, network, address)
		if err != nil {
			c, err = b.dialer.DialContext(ctx, network, address)
		}
		return c, err
	}
}

// TestGrants shows what a registry has to say for a caller to have a layer.
func TestGrants(t *testing.T) {
	f := newFront(t)
	img := layered(t, hostileLayer(t, []tarEntry{file("x", "x")}, ""))
	push(t, f.addr+"/app:1", img)
	m, _ := img.Manifest()
	ref, err := name.ParseReference(f.addr + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Config{Dial: f.dialer.DialContext})
	r, err := s.connect(t.Context(), ref.Context(), container.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	d := m.Layers[0]
	if !r.grants(t.Context(), d) {
		t.Error("a layer that is there: not granted")
	}
	d.Size++
	if r.grants(t.Context(), d) {
		t.Error("a layer of another length: granted")
	}
	d.Digest.Hex = strings.Repeat("0", 64)
	if r.grants(t.Context(), d) {
		t.Error("a layer that is not there: granted")
	}
}

// TestPrivateLayers shows that a layer which came with credentials is given to
// nobody who has not shown that it may have it.
func TestPrivateLayers(t *testing.T) {
	const user, password = "lessee", "s3cret-w0rd"
	f, other := newFront(t), newFront(t)
	guarded := func(_ http.ResponseWriter, r *http.Request) bool {
		u, p, _ := r.BasicAuth()
		return u != user || p != password
	}
	deny := func(w http.ResponseWriter, r *http.Request) bool {
		if guarded(w, r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	secret := hostileLayer(t, []tarEntry{file("key", "private")}, "")
	img := layered(t, secret)
	ref := f.addr + "/app:1"
	push(t, ref, img)
	// The stranger knows the manifest, but has not the layer.
	push(t, other.addr+"/app:1", img)
	m, _ := img.Manifest()
	other.set(func(w http.ResponseWriter, r *http.Request) bool {
		if isBlob(r, m.Layers[0].Digest) {
			http.NotFound(w, r)
			return true
		}
		return false
	})
	s := openStore(t, Config{Dial: either(f, other)})
	f.set(deny)
	mine := container.PullOptions{Username: user, Password: password}
	first, err := s.Pull(t.Context(), ref, mine)
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := img.Digest()
	for _, c := range []struct {
		name, ref string
		opt       container.PullOptions
	}{
		{"no credentials", ref, container.PullOptions{}},
		{"by digest", f.addr + "/app@" + digest.String(), container.PullOptions{}},
		{"by digest at another registry", other.addr + "/app@" + digest.String(), container.PullOptions{}},
		{"the manifest at another registry", other.addr + "/app:1", container.PullOptions{}},
		{"the manifest at another registry, with credentials there", other.addr + "/app:1", container.PullOptions{Username: "x", Password: "y"}},
		{"other credentials", ref, container.PullOptions{Username: "x", Password: "password-of-x"}},
	} {
		_, err := s.Pull(t.Context(), c.ref, c.opt)
		if err == nil {
			t.Errorf("%s: got a private layer", c.name)
		} else if text := err.Error(); strings.Contains(text, password) || strings.Contains(text, "password-of-x") {
			t.Errorf("%s: the error has the password: %s", c.name, text)
		}
	}
	times := counted(f)
	inner := f.get()
	f.set(func(w http.ResponseWriter, r *http.Request) bool { return inner(w, r) || deny(w, r) })
	if again, err := s.Pull(t.Context(), ref, mine); err != nil || again.Digest != first.Digest || times(m.Layers[0].Digest) != 0 {
		t.Errorf("with the credentials again: got %v, %v, fetched %d times", again, err, times(m.Layers[0].Digest))
	}
	other.set(nil) // it has the layer after all
	if _, err := s.Pull(t.Context(), other.addr+"/app:1", container.PullOptions{}); err != nil {
		t.Errorf("from a registry that gives it to anybody: %v", err)
	}
	if _, err := s.Pull(t.Context(), "127.0.0.1:1/app@"+digest.String(), container.PullOptions{}); err != nil {
		t.Errorf("once it is public: %v", err)
	}
}

// TestCredentialsStayHome shows that a redirect does not take credentials along,
// and that a token is fetched with them and used.
func TestCredentialsStayHome(t *testing.T) {
	f, far := newFront(t), newFront(t)
	img := layered(t, hostileLayer(t, []tarEntry{file("x", "x")}, ""))
	push(t, f.addr+"/app:1", img)
	push(t, far.addr+"/app:1", img)
	m, _ := img.Manifest()
	var tokens, leaked atomic.Int64
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			if u, p, _ := r.BasicAuth(); u != "u" || p != "p" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			tokens.Add(1)
			_, _ = w.Write([]byte(`{"token":"ticket"}`))
		case r.Header.Get("Authorization") != "Bearer ticket":
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+f.addr+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		case isBlob(r, m.Layers[0].Digest):
			http.Redirect(w, r, "http://"+far.addr+r.URL.Path, http.StatusTemporaryRedirect)
		default:
			return false
		}
		return true
	})
	far.set(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			leaked.Add(1)
		}
		return false
	})
	s := openStore(t, Config{Dial: either(f, far)})
	if _, err := s.Pull(t.Context(), f.addr+"/app:1", container.PullOptions{Username: "u", Password: "p"}); err != nil {
		t.Fatal(err)
	}
	if tokens.Load() == 0 || leaked.Load() != 0 {
		t.Errorf("got %d tokens and %d leaks, want some and none", tokens.Load(), leaked.Load())
	}
	if _, err := s.Pull(t.Context(), f.addr+"/app:1", container.PullOptions{}); !errors.Is(err, container.CodeRegistry) {
		t.Errorf("without credentials: got %v", err)
	}
}

// old makes everything in a store look unused for a day.
func old(s *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := 0
	for _, key := range slices.Sorted(func(yield func(string) bool) {
		for k := range s.entries {
			if !yield(k) {
				return
			}
		}
	}) {
		s.entries[key].last = time.Now().Add(-24*time.Hour + time.Duration(i)*time.Second)
		i++
	}
}

// TestCap fills a store beyond its cap: what was not used for longest goes, and
// never what is in use or was just pulled.
func TestCap(t *testing.T) {
	f := newFront(t)
	var refs, digests []string
	for i := range 4 {
		img := layered(t, hostileLayer(t, []tarEntry{file("x", strings.Repeat(string(rune('a'+i)), 1<<20))}, ""))
		ref := fmt.Sprintf("%s/app:%d", f.addr, i)
		push(t, ref, img)
		d, _ := img.Digest()
		refs, digests = append(refs, ref), append(digests, d.String())
	}
	var used []string
	var blind error
	cfg := Config{Dir: t.TempDir(), Dial: f.dialer.DialContext, MaxUnpackedBytes: 2 << 20, MaxStoreBytes: 6 << 20, InUse: func(context.Context) ([]string, error) { return used, blind }}
	s := openStore(t, cfg)
	pull := func(i int) error {
		_, err := s.Pull(t.Context(), refs[i], container.PullOptions{})
		return err
	}
	has := func(i int) bool { _, err := s.Image(digests[i]); return err == nil }
	for i := range 3 {
		if err := pull(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := pull(3); !errors.Is(err, container.CodeDiskFull) || !has(0) || !has(1) || !has(2) {
		t.Errorf("all just pulled: got %v, want %q and nothing removed", err, string(container.CodeDiskFull))
	}
	old(s)
	blind = errors.New("blind")
	if err := pull(3); !errors.Is(err, container.CodeDiskFull) || !has(0) || !has(1) || !has(2) {
		t.Errorf("nobody knows what is in use: got %v, want %q and nothing removed", err, string(container.CodeDiskFull))
	}
	blind, used = nil, digests[:1]
	s.entries[filepath.Join(imagesDir, fileName(digests[1]))].last = time.Now().Add(-time.Hour)
	s.entries[filepath.Join(imagesDir, fileName(digests[2]))].last = time.Now().Add(-2 * time.Hour)
	if err := pull(3); err != nil || !has(0) || !has(1) || has(2) || !has(3) {
		t.Errorf("got %v and %v %v %v %v, want the image removed that was not used for longest", err, has(0), has(1), has(2), has(3))
	}
	checkCounted(t, s)
	list, err := s.List(t.Context())
	if err != nil || len(list) != 3 || list[0].Ref != refs[3] || list[0].InUse || !list[2].InUse {
		t.Errorf("got %+v, %v", list, err)
	}
	old(s)
	p, err := s.Prune(t.Context(), time.Now())
	if err != nil || len(p.Images) != 2 || p.Bytes < 2<<20 || !has(0) || has(1) || has(3) {
		t.Errorf("pruned: got %+v, %v", p, err)
	}
	checkCounted(t, s)
	if _, root, _, err := s.Root(digests[0]); err != nil {
		t.Error(err)
	} else if b, err := os.ReadFile(filepath.Join(root, "x")); err != nil || len(b) != 1<<20 {
		t.Errorf("the image in use: got %d bytes, %v", len(b), err)
	}
}

// checkCounted shows that a store opened again counts the same, and that no
// layer is there without an image.
func checkCounted(t *testing.T, s *Store) {
	t.Helper()
	was, _ := s.Used()
	again := &Store{cfg: s.cfg, firstID: s.firstID, entries: map[string]*entry{}, locks: map[string]*turn{}}
	if err := again.count(); err != nil {
		t.Fatal(err)
	}
	if now, most := again.Used(); now != was || now > most {
		t.Errorf("counted anew: got %d, want %d and at most %d", now, was, most)
	}
}

// TestBrokenThings opens a store in which a layer of an image is missing, and
// descriptions are torn: what cannot be used is gone, and can be pulled again.
func TestBrokenThings(t *testing.T) {
	f := newFront(t)
	img := layered(t, hostileLayer(t, []tarEntry{file("x", "x")}, ""))
	push(t, f.addr+"/app:1", img)
	cfg := Config{Dir: t.TempDir(), Dial: f.dialer.DialContext}
	m, _ := img.Manifest()
	digest, _ := img.Digest()
	for _, c := range []struct {
		name  string
		spoil func(s *Store) error
	}{
		{"no layer", func(s *Store) error { return removeTree(s.path(layersDir, s.layerName(m.Layers[0].Digest))) }},
		{"a torn layer", func(s *Store) error {
			return os.WriteFile(s.path(layersDir, s.layerName(m.Layers[0].Digest), layerFile), []byte("{"), 0o600)
		}},
		{"a torn image", func(s *Store) error {
			return os.WriteFile(s.path(imagesDir, fileName(digest.String()), metaFile), []byte("{"), 0o600)
		}},
		{"a strange image", func(s *Store) error { return os.WriteFile(s.path(imagesDir, "x"), nil, 0o600) }},
	} {
		s := openStore(t, cfg)
		if _, err := s.Pull(t.Context(), f.addr+"/app:1", container.PullOptions{}); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err := errors.Join(c.spoil(s), s.Close()); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, cfg)
		if _, err := s.Pull(t.Context(), f.addr+"/app@"+digest.String(), container.PullOptions{}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInspect shows that looking at an image fetches none of its layers, and
// finds what a pull would refuse.
func TestInspect(t *testing.T) {
	f := newFront(t)
	img := testImage(t)
	push(t, f.addr+"/app:1", img)
	times := counted(f)
	s := openStore(t, Config{Dial: f.dialer.DialContext})
	got, err := s.Inspect(t.Context(), f.addr+"/app:1", container.PullOptions{})
	digest, _ := img.Digest()
	m, _ := img.Manifest()
	if err != nil || got.Digest != digest.String() || got.SizeBytes != uint64(m.Layers[0].Size) || times(m.Layers[0].Digest) != 0 {
		t.Errorf("got %+v, %v, fetched %d times", got, err, times(m.Layers[0].Digest))
	}
	checkEmpty(t, s)
	if _, err := s.Inspect(t.Context(), f.addr+"/app:1", container.PullOptions{MaxBytes: 10}); !errors.Is(err, container.CodeTooLarge) {
		t.Errorf("too large: got %v", err)
	}
	if _, err := s.Inspect(t.Context(), f.addr+"/app:2", container.PullOptions{}); !errors.Is(err, container.CodeUnknownImage) {
		t.Errorf("unknown: got %v", err)
	}
}
