package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Limits of images where [Config] says nothing [CONTAINER-11].
const (
	MaxImageBytes    = 4 << 30  // compressed, all layers
	MaxUnpackedBytes = 16 << 30 // unpacked, all layers
	MaxFiles         = 1 << 20  // entries of all layers
	MaxLayers        = 128
	MaxManifestBytes = 4 << 20  // manifest, index or configuration
	MaxNameBytes     = 64 << 20 // names of all entries of a layer
	MaxStoreBytes    = 64 << 30 // the whole store
)

// HoldSeconds is for how long an image is not removed after it was pulled or
// looked up: from the pull to the start [CONTAINER-40].
const HoldSeconds = 600

// Registries that are too slow [CONTAINER-43].
const (
	StallSeconds      = 30      // without an answer, or with less than the next line says
	MinBytesPerSecond = 4 << 10 // of a body, over StallSeconds
)

// DefaultFirstID is the id on disk of an unpacked image's root, where the store
// runs as root.
const DefaultFirstID = 1 << 29

// Config configures [Open]. Dir is required.
type Config struct {
	// Dir keeps the images.
	Dir string
	// Dial reaches registries. It should judge the resolved address, as
	// internal/dialer does; nil refuses registries altogether.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Local permits references to this machine's own files, "oci:" and
	// "docker-archive:". A provider leaves it off: tenants choose references.
	Local bool
	// Caps; 0 means the constants of this package.
	MaxImageBytes, MaxUnpackedBytes uint64
	// MaxStoreBytes bounds all that is in Dir: images, layers that they share,
	// and what half-finished pulls left.
	MaxStoreBytes uint64
	// InUse names the images that may not be removed, by digest: those that
	// containers were started from. When it fails, or is nil, no image is removed
	// to make room for another.
	InUse func(ctx context.Context) ([]string, error)
	// Stall replaces [StallSeconds].
	Stall time.Duration
	// FirstID replaces [DefaultFirstID] when this process is root. Otherwise
	// images are unpacked in this process under its own ids.
	FirstID uint32
}

// Store keeps images by digest. Its methods may be called from several
// goroutines at once, and by one process at a time.
type Store struct {
	cfg     Config
	firstID uint32
	lock    *os.File

	collecting sync.Mutex // one removal at a time

	mu      sync.Mutex // guards what follows
	locks   map[string]*turn
	entries map[string]*entry // what takes space, by path below Dir
}

// turn lets those who work on one thing take turns.
type turn struct {
	free  chan struct{}
	users int
}

// metaFile describes an image, beside its unpacked rootDir.
const (
	metaFile = "image.json"
	rootDir  = "rootfs"

	imagesDir   = "images"
	layersDir   = "layers"
	partialsDir = "partial"
	indexDir    = "index"
	tmpDir      = "tmp"
)

type meta struct {
	Image   container.Image
	FirstID uint32
	// Private says that credentials were given for it: it is not served again
	// without asking the registry.
	Private bool
	// Parted says that Image.Entrypoint is known. Earlier versions of this package
	// did not keep it; such an image is asked for once more.
	Parted bool
	// Ref is the reference that last led here.
	Ref string
	// Layers names the layers below "layers", lowest first; none in images of
	// the first version of this package, which shared nothing.
	Layers []string
	// Alone says that the only layer is the image's tree.
	Alone bool
	// OwnBytes is what the tree takes beside its layers.
	OwnBytes uint64
}

// treeOf returns the path of an image's unpacked root.
func (s *Store) treeOf(m meta) string {
	if m.Alone {
		return s.path(layersDir, m.Layers[0], rootDir)
	}
	return s.path(imagesDir, fileName(m.Image.Digest), rootDir)
}

// Open opens the store in cfg.Dir and removes what an interrupted pull left.
// Errors are [container.CodeInUse].
func Open(cfg Config) (*Store, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	if cfg.MaxImageBytes == 0 {
		cfg.MaxImageBytes = MaxImageBytes
	}
	if cfg.MaxUnpackedBytes == 0 {
		cfg.MaxUnpackedBytes = MaxUnpackedBytes
	}
	if cfg.MaxStoreBytes == 0 {
		cfg.MaxStoreBytes = MaxStoreBytes
	}
	if cfg.Stall == 0 {
		cfg.Stall = StallSeconds * time.Second
	}
	s := &Store{cfg: cfg, locks: map[string]*turn{}, entries: map[string]*entry{}}
	if sandboxed() {
		s.firstID = cfg.FirstID
		if s.firstID == 0 {
			s.firstID = DefaultFirstID
		}
	}
	for _, d := range []string{imagesDir, layersDir, partialsDir, indexDir, tmpDir} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return nil, err
		}
	}
	if s.lock, err = lockFile(s.path("lock")); err != nil {
		return nil, &container.Error{Code: container.CodeInUse, Detail: dir, Err: err}
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// recover removes what an interrupted process left, and counts the rest.
func (s *Store) recover() error {
	left, err := os.ReadDir(s.path(tmpDir))
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := removeTree(s.path(tmpDir, e.Name())); err != nil {
			return err
		}
	}
	return s.count()
}

// Close lets go of the directory.
func (s *Store) Close() error { return s.lock.Close() }

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, parts...)...)
}

// fileName turns "sha256:…" into a name that every file system takes.
func fileName(digest string) string { return strings.Replace(digest, ":", "-", 1) }

func unFileName(name string) string { return strings.Replace(name, "-", ":", 1) }

// Image returns an image of the store, or [container.CodeUnknownImage].
func (s *Store) Image(digest string) (container.Image, error) {
	m, err := s.load(digest)
	return m.Image, err
}

// Root returns an image, its unpacked root and the id on disk of root in it.
// It implements what container/libcontainer asks for.
func (s *Store) Root(digest string) (img container.Image, path string, firstID uint32, err error) {
	m, err := s.load(digest)
	if err != nil {
		return container.Image{}, "", 0, err
	}
	s.touch(digest)
	return m.Image, s.treeOf(m), m.FirstID, nil
}

func (s *Store) load(digest string) (meta, error) {
	var m meta
	if !container.ValidDigest(digest) {
		return m, &container.Error{Code: container.CodeUnknownImage, Detail: fmt.Sprintf("%.80q is no digest", digest)}
	}
	b, err := os.ReadFile(s.path(imagesDir, fileName(digest), metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, &container.Error{Code: container.CodeUnknownImage, Detail: digest}
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err == nil && (m.Image.Digest != digest || m.Alone && len(m.Layers) != 1) {
		err = errors.New("the description is of another image")
	}
	return m, container.Wrap(container.CodeRuntime, "read image "+digest, err)
}

// byIndex finds an image by the digest of an index that named it.
func (s *Store) byIndex(digest string) (meta, error) {
	b, err := os.ReadFile(s.path(indexDir, fileName(digest)))
	if err != nil {
		return s.load(digest)
	}
	m, err := s.load(string(b))
	m.Image.Index = digest
	return m, err
}

// remember notes which image an index led to. Losing the note costs a pull.
func (s *Store) remember(index, digest string) {
	if index != digest {
		_ = os.WriteFile(s.path(indexDir, fileName(index)), []byte(digest), 0o600)
	}
}

// hold waits for its turn at a thing, and returns what gives it back.
func (s *Store) hold(ctx context.Context, thing string) (func(), error) {
	s.mu.Lock()
	t := s.locks[thing]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		s.locks[thing] = t
	}
	t.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(s.locks, thing)
		}
	}
	select {
	case t.free <- struct{}{}:
		return func() { <-t.free; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// storeError gives a failure of this machine its code.
func storeError(ctx context.Context, detail string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, syscall.ENOSPC):
		return container.Wrap(container.CodeDiskFull, detail, err)
	}
	return container.Wrap(container.CodeRuntime, detail, err)
}
