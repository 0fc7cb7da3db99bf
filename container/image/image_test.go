package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	ggcr "github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
)

// testImage is a small image with a port and a program.
func testImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := FromFiles(Build{
		Files: map[string]File{
			"/etc/motd":   {Data: []byte("hello\n")},
			"/bin/run":    {Data: []byte("#!/bin/sh\n"), Mode: 0o755},
			"/bin/link":   {Link: "run"},
			"/tmp/.empty": {},
		},
		Args: []string{"/bin/run"}, Env: []string{"A=b"}, WorkDir: "/etc", User: "7:8", Ports: []uint16{8080, 80},
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func openStore(t *testing.T, cfg Config) *Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// serve runs a registry and returns its address and a dialer for it.
func serve(t *testing.T) (string, *dialer.Dialer) {
	t.Helper()
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	addr := srv.Listener.Addr().String()
	d, err := dialer.New([]string{addr})
	if err != nil {
		t.Fatal(err)
	}
	return addr, d
}

func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := ggcr.Write(r, img); err != nil {
		t.Fatal(err)
	}
}

// TestPull brings the same image in from every source and compares.
func TestPull(t *testing.T) {
	img := testImage(t)
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	addr, d := serve(t)
	push(t, addr+"/app:1", img)
	dir := t.TempDir()
	if err := WriteLayout(filepath.Join(dir, "layout"), img); err != nil {
		t.Fatal(err)
	}
	if err := WriteArchive(filepath.Join(dir, "save.tar"), "app:1", img); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{
		addr + "/app:1", addr + "/app@" + digest.String(),
		"oci:" + filepath.Join(dir, "layout"), "docker-archive:" + filepath.Join(dir, "save.tar"),
	} {
		s := openStore(t, Config{Dial: d.DialContext, Local: true})
		var done, total uint64
		got, err := s.Pull(t.Context(), ref, container.PullOptions{Progress: func(a, b uint64) { done, total = a, b }})
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if !strings.HasPrefix(ref, "docker-archive:") && got.Digest != digest.String() {
			t.Errorf("%s: got digest %s, want %s", ref, got.Digest, digest)
		}
		if done != total || total != got.SizeBytes || total == 0 {
			t.Errorf("%s: progress ended at %d of %d, want %d", ref, done, total, got.SizeBytes)
		}
		if got.WorkDir != "/etc" || got.User != "7:8" || len(got.Ports) != 2 || got.Ports[0] != 80 || got.Args[0] != "/bin/run" || got.UnpackedBytes == 0 {
			t.Errorf("%s: got %+v", ref, got)
		}
		_, root, _, err := s.Root(got.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(root, "etc/motd")); err != nil || string(b) != "hello\n" {
			t.Errorf("%s: got motd %q, %v", ref, b, err)
		}
		if link, err := os.Readlink(filepath.Join(root, "bin/link")); err != nil || link != "run" {
			t.Errorf("%s: got link %q, %v", ref, link, err)
		}
	}
}

// TestPullCached shows that a digest in the store needs no registry, and that a
// store opened again still has it.
func TestPullCached(t *testing.T) {
	img := testImage(t)
	addr, d := serve(t)
	push(t, addr+"/app:1", img)
	cfg := Config{Dir: t.TempDir(), Dial: d.DialContext}
	s := openStore(t, cfg)
	first, err := s.Pull(t.Context(), addr+"/app:1", container.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Dial = nil
	s = openStore(t, cfg)
	again, err := s.Pull(t.Context(), addr+"/app@"+first.Digest, container.PullOptions{})
	if err != nil || again.Digest != first.Digest {
		t.Errorf("from the store: got %+v, %v", again, err)
	}
	if _, err := s.Pull(t.Context(), addr+"/app@"+first.Digest, container.PullOptions{MaxBytes: 1}); !errors.Is(err, container.CodeTooLarge) {
		t.Errorf("from the store, too large: got %v", err)
	}
	if _, err := s.Pull(t.Context(), addr+"/app:1", container.PullOptions{}); !errors.Is(err, container.CodeForbiddenHost) {
		t.Errorf("by tag without a registry: got %v", err)
	}
}

// TestPrivate shows that an image pulled with credentials is not served from
// the store to whoever knows its digest.
func TestPrivate(t *testing.T) {
	addr, d := serve(t)
	push(t, addr+"/app:1", testImage(t))
	s := openStore(t, Config{Dial: d.DialContext})
	img, err := s.Pull(t.Context(), addr+"/app:1", container.PullOptions{Username: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(t.Context(), "127.0.0.1:1/app@"+img.Digest, container.PullOptions{}); err == nil {
		t.Error("a private image was served without its registry")
	}
}

func TestRefusals(t *testing.T) {
	addr, d := serve(t)
	push(t, addr+"/app:1", testImage(t))
	other, err := mutate.ConfigFile(testImage(t), &v1.ConfigFile{OS: "linux", Architecture: "s390x"})
	if err != nil {
		t.Fatal(err)
	}
	push(t, addr+"/other:1", other)
	idx := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}})
	ref, _ := name.ParseReference(addr + "/index:1")
	if err := ggcr.WriteIndex(ref, idx); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, ref string
		cfg       Config
		opt       container.PullOptions
		want      container.Code
	}{
		{name: "malformed", ref: "No Such:Ref", want: container.CodeUnknownImage},
		{name: "long", ref: strings.Repeat("x", 2000), want: container.CodeUnknownImage},
		{name: "unknown tag", ref: addr + "/app:2", want: container.CodeUnknownImage},
		{name: "unknown name", ref: addr + "/none:1", want: container.CodeUnknownImage},
		{name: "private host", ref: "127.0.0.1:1/app:1", want: container.CodeForbiddenHost},
		{name: "private name", ref: "localhost:1/app:1", want: container.CodeForbiddenHost},
		{name: "local layout", ref: "oci:/etc", want: container.CodeForbiddenHost},
		{name: "local archive", ref: "docker-archive:/etc/passwd", want: container.CodeForbiddenHost},
		{name: "no layout", ref: "oci:/no/such/dir", cfg: Config{Local: true}, want: container.CodeUnknownImage},
		{name: "no archive", ref: "docker-archive:/etc/passwd", cfg: Config{Local: true}, want: container.CodeUnknownImage},
		{name: "too large for the caller", ref: addr + "/app:1", opt: container.PullOptions{MaxBytes: 10}, want: container.CodeTooLarge},
		{name: "too large for the store", ref: addr + "/app:1", cfg: Config{MaxImageBytes: 10}, want: container.CodeTooLarge},
		{name: "too large unpacked", ref: addr + "/app:1", cfg: Config{MaxUnpackedBytes: 1000}, want: container.CodeTooLarge},
		{name: "other architecture", ref: addr + "/other:1", want: container.CodeWrongArch},
		{name: "index of others", ref: addr + "/index:1", want: container.CodeWrongArch},
	} {
		c.cfg.Dial = d.DialContext
		s := openStore(t, c.cfg)
		if _, err := s.Pull(t.Context(), c.ref, c.opt); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, string(c.want))
		}
		checkEmpty(t, s)
	}
}

// TestInterrupted leaves what a killed process leaves, and opens the store.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, Config{Dir: dir})
	half := s.path("tmp", "pull-1", rootDir, "locked")
	if err := errors.Join(os.MkdirAll(half, 0o700), os.WriteFile(filepath.Join(half, "f"), nil, 0o600), os.Chmod(half, 0o500), s.Close()); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, openStore(t, Config{Dir: dir}))
}

// checkEmpty shows that a refused pull left nothing.
func checkEmpty(t *testing.T, s *Store) {
	t.Helper()
	for _, d := range []string{imagesDir, layersDir, partialsDir, tmpDir, indexDir} {
		if left, err := os.ReadDir(s.path(d)); err != nil || len(left) != 0 {
			t.Errorf("%s: got %v, %v; want nothing left", d, left, err)
		}
	}
}

// TestTampered changes one byte of each blob of a layout in turn.
func TestTampered(t *testing.T) {
	img := testImage(t)
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := img.Digest()
	for _, blob := range []v1.Hash{digest, manifest.Config.Digest, manifest.Layers[0].Digest} {
		dir := filepath.Join(t.TempDir(), "layout")
		if err := WriteLayout(dir, img); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "blobs", "sha256", blob.Hex)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-2] ^= 1
		if blob == digest { // stays valid JSON
			b = bytes.Replace(b, []byte(`"schemaVersion":2`), []byte(`"schemaVersion":3`), 1)
			b[len(b)-2] ^= 1
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, Config{Local: true})
		if _, err := s.Pull(t.Context(), "oci:"+dir, container.PullOptions{}); !errors.Is(err, container.CodeDigestMismatch) {
			t.Errorf("%s: got %v, want %q", blob, err, string(container.CodeDigestMismatch))
		}
		checkEmpty(t, s)
	}
}

// tarEntry is one entry of a hostile layer.
type tarEntry struct {
	tar.Header
	data string
}

// hostile lists layers that try to get out, to get privileges or to fill the
// disk. None may touch the directory beside the root.
var hostile = []struct {
	name    string
	entries []tarEntry
	refused bool
}{
	{name: "dot dot", entries: []tarEntry{{tar.Header{Name: "../victim/x", Mode: 0o644}, "evil"}}},
	{name: "absolute", entries: []tarEntry{{tar.Header{Name: "/victim/x", Mode: 0o644}, "evil"}}},
	{name: "write through a link", entries: []tarEntry{
		{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../victim"}, ""},
		{tar.Header{Name: "l/x", Mode: 0o644}, "evil"},
	}},
	{name: "write through an absolute link", entries: []tarEntry{
		{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "@victim"}, ""},
		{tar.Header{Name: "l/x", Mode: 0o644}, "evil"},
	}},
	{name: "hard link out", refused: true, entries: []tarEntry{{tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../victim/file"}, ""}}},
	{name: "whiteout through a link", entries: []tarEntry{
		{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../victim"}, ""},
		{tar.Header{Name: "l/.wh.file"}, ""},
	}},
	{name: "opaque through a link", entries: []tarEntry{
		{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../victim"}, ""},
		{tar.Header{Name: "l/.wh..wh..opq"}, ""},
	}},
	{name: "through a chain of links", entries: []tarEntry{
		{tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "b"}, ""},
		{tar.Header{Name: "b", Typeflag: tar.TypeSymlink, Linkname: "../victim"}, ""},
		{tar.Header{Name: "a/x", Mode: 0o644}, "evil"},
	}},
	{name: "absolute hard link out", refused: true, entries: []tarEntry{{tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "@victim/file"}, ""}}},
	{name: "overwrite through a link", entries: []tarEntry{
		{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "@victim/file"}, ""},
		{tar.Header{Name: "l", Mode: 0o644}, "evil"},
	}},
	{name: "change of mode through a hard link to a link", entries: []tarEntry{
		{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "@victim/file"}, ""},
		{tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "l", Mode: 0o777}, ""},
	}},
	{name: "change of mode through a link", entries: []tarEntry{
		{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "@victim"}, ""},
		{tar.Header{Name: "l/", Typeflag: tar.TypeDir, Mode: 0o777}, ""},
		{tar.Header{Name: "l/file", Typeflag: tar.TypeReg, Mode: 0o666}, "evil"},
	}},
	{name: "hard link through a link", refused: true, entries: []tarEntry{
		{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "@victim"}, ""},
		{tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "l/file"}, ""},
	}},
	{name: "directory that becomes a link", entries: []tarEntry{
		{tar.Header{Name: "d", Typeflag: tar.TypeDir, Mode: 0o755}, ""},
		{tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "@victim"}, ""},
		{tar.Header{Name: "d/x", Mode: 0o644}, "evil"},
	}},
	{name: "whiteout of nothing", refused: true, entries: []tarEntry{{tar.Header{Name: "d/.wh."}, ""}}},
	{name: "whiteout of the parent", refused: true, entries: []tarEntry{{tar.Header{Name: ".wh..."}, ""}}},
	{name: "device", entries: []tarEntry{{tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 254, Mode: 0o666}, ""}}},
	{name: "setuid", entries: []tarEntry{{tar.Header{Name: "su", Mode: 0o6755}, "x"}}},
	{name: "ids", refused: true, entries: []tarEntry{{tar.Header{Name: "x", Uid: 1 << 20, Mode: 0o644}, "x"}}},
	{name: "attributes", entries: []tarEntry{{tar.Header{Name: "x", Mode: 0o644, PAXRecords: map[string]string{
		"SCHILY.xattr.security.capability": "\x01", "SCHILY.xattr.trusted.overlay.opaque": "y",
	}}, "x"}}},
}

// TestHostileLayers unpacks them in this process, without the child's walls.
func TestHostileLayers(t *testing.T) {
	for _, c := range hostile {
		base := t.TempDir()
		root, victim := filepath.Join(base, "root"), filepath.Join(base, "victim")
		for _, d := range []string{root, victim} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(victim, "file"), []byte("good"), 0o600); err != nil {
			t.Fatal(err)
		}
		layer := hostileLayer(t, c.entries, victim)
		_, err := unpackLayer(t.Context(), bytes.NewReader(layer), root, job{DiffID: sumOf(layer), Bounds: bounds{1 << 20, 100}})
		if c.refused != (err != nil) {
			t.Errorf("%s: got %v, want refused %v", c.name, err, c.refused)
		}
		left, _ := os.ReadDir(victim)
		if b, err := os.ReadFile(filepath.Join(victim, "file")); err != nil || string(b) != "good" || len(left) != 1 {
			t.Errorf("%s: escaped: %q, %v, %v", c.name, b, err, left)
		}
		checkTame(t, c.name, root)
	}
}

func hostileLayer(t testing.TB, entries []tarEntry, victim string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.data))
		h.Linkname = strings.Replace(h.Linkname, "@victim", victim, 1)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// checkTame shows that no device and no setuid file was made.
func checkTame(t *testing.T, name, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		bad := fs.ModeDevice | fs.ModeSetuid | fs.ModeSetgid
		if d.IsDir() { // in a layer's tree the mark of one that it did not name
			bad = fs.ModeSetgid
		}
		if err == nil && info.Mode()&bad != 0 {
			t.Errorf("%s: %s has mode %v", name, path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestBombs shows that what unpacks to too much is stopped, in bytes and in
// files.
func TestBombs(t *testing.T) {
	zeros := func(n int) []byte {
		return hostileLayer(t, []tarEntry{{tar.Header{Name: "zeros", Mode: 0o644}, strings.Repeat("\x00", n)}}, "")
	}
	gz := func(b []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, _ = w.Write(b)
		_ = w.Close()
		return out.Bytes()
	}
	var many []tarEntry
	for i := range 200 {
		many = append(many, tarEntry{tar.Header{Name: "d/" + strings.Repeat("x", i+1), Mode: 0o644}, ""})
	}
	tail := append(hostileLayer(t, nil, ""), make([]byte, 8<<20)...)
	for _, c := range []struct {
		name  string
		layer []byte
		plain []byte
		want  container.Code
	}{
		{"fits", gz(zeros(1 << 10)), zeros(1 << 10), ""},
		{"compressed zeros", gz(zeros(8 << 20)), zeros(8 << 20), container.CodeTooLarge},
		{"zeros after the end", gz(tail), tail, container.CodeTooLarge},
		{"many files", gz(hostileLayer(t, many, "")), nil, container.CodeTooLarge},
		{"another layer", gz(zeros(1 << 10)), zeros(1 << 11), container.CodeDigestMismatch},
		{"cut off", gz(zeros(1 << 10))[:40], zeros(1 << 10), container.CodeBadImage},
		{"garbage", []byte("no archive at all, but long enough to be one" + strings.Repeat("x", 512)), nil, container.CodeBadImage},
	} {
		_, err := unpackLayer(context.Background(), bytes.NewReader(c.layer), t.TempDir(), job{DiffID: sumOf(c.plain), Bounds: bounds{1 << 20, 100}})
		if c.want == "" && err != nil || c.want != "" && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, string(c.want))
		}
	}
}

// TestFromExecutable collects a dynamic program's libraries.
func TestFromExecutable(t *testing.T) {
	img, err := FromExecutable("/bin/ls", Build{})
	if err != nil {
		t.Skipf("needs a dynamic /bin/ls: %v", err)
	}
	s := openStore(t, Config{Local: true})
	dir := filepath.Join(t.TempDir(), "layout")
	if err := WriteLayout(dir, img); err != nil {
		t.Fatal(err)
	}
	got, err := s.Pull(t.Context(), "oci:"+dir, container.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, root, _, _ := s.Root(got.Digest)
	libs := 0
	_ = filepath.WalkDir(root, func(p string, _ fs.DirEntry, _ error) error {
		if strings.Contains(p, ".so") {
			libs++
		}
		return nil
	})
	if libs < 2 || got.Args[0] != "/bin/ls" {
		t.Errorf("got %d libraries and %v, want the loader and libc", libs, got.Args)
	}
}

// TestSameDigest shows that building is reproducible.
func TestSameDigest(t *testing.T) {
	a, _ := testImage(t).Digest()
	b, _ := testImage(t).Digest()
	if a != b {
		t.Errorf("got %s and %s", a, b)
	}
}

// TestPullOfEarlierVersion: an image that an earlier version kept, which did not
// know what of its command line is the entrypoint, is asked for once more, and
// keeps its tree [CONTAINER-120].
func TestPullOfEarlierVersion(t *testing.T) {
	img, err := FromFiles(Build{Files: map[string]File{"/bin/x": {Data: []byte("x")}}, Entrypoint: []string{"/bin/x"}, Args: []string{"own"}})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	addr, d := serve(t)
	push(t, addr+"/app:1", img)
	s := openStore(t, Config{Dial: d.DialContext, Local: true})
	ref := addr + "/app@" + digest.String()
	if got, err := s.Pull(t.Context(), ref, container.PullOptions{}); err != nil || got.Entrypoint != 1 || len(got.Args) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	path := s.path(imagesDir, fileName(digest.String()), metaFile)
	m, err := s.load(digest.String())
	if err == nil {
		m.Image.Entrypoint, m.Parted = 0, false
		err = writeJSON(path, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := s.Pull(t.Context(), ref, container.PullOptions{}); err != nil || got.Entrypoint != 1 {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if got, err := s.Image(digest.String()); err != nil || got.Entrypoint != 1 {
		t.Errorf("got %+v, %v in the store", got, err)
	}
}
