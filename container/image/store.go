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

	"github.com/pkt-cash/pkt-cloud/container"
)

// Limits of images where [Config] says nothing [CONTAINER-11].
const (
	MaxImageBytes    = 4 << 30  // compressed, all layers
	MaxUnpackedBytes = 16 << 30 // unpacked, all layers
	MaxFiles         = 1 << 20  // entries of all layers
	MaxLayers        = 128
	MaxManifestBytes = 4 << 20 // manifest, index or configuration
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

	mu    sync.Mutex
	locks map[string]*digestLock
}

// digestLock makes pulls of one digest take their turn.
type digestLock struct {
	sync.Mutex
	users int
}

// metaFile describes an image, beside its unpacked rootDir.
const (
	metaFile = "image.json"
	rootDir  = "rootfs"
)

type meta struct {
	Image   container.Image
	FirstID uint32
	// Private says that credentials were given for it: it is not served again
	// without asking the registry.
	Private bool
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
	s := &Store{cfg: cfg, locks: map[string]*digestLock{}}
	if sandboxed() {
		s.firstID = cfg.FirstID
		if s.firstID == 0 {
			s.firstID = DefaultFirstID
		}
	}
	for _, d := range []string{"images", "index", "tmp"} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return nil, err
		}
	}
	if s.lock, err = lockFile(s.path("lock")); err != nil {
		return nil, &container.Error{Code: container.CodeInUse, Detail: dir, Err: err}
	}
	left, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for _, e := range left {
		if err := removeTree(s.path("tmp", e.Name())); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Close lets go of the directory.
func (s *Store) Close() error { return s.lock.Close() }

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, parts...)...)
}

// fileName turns "sha256:…" into a name that every file system takes.
func fileName(digest string) string { return strings.Replace(digest, ":", "-", 1) }

// Image returns an image of the store, or [container.CodeUnknownImage].
func (s *Store) Image(digest string) (container.Image, error) {
	m, err := s.load(digest)
	return m.Image, err
}

// Root returns an image, its unpacked root and the id on disk of root in it.
// It implements what container/libcontainer asks for.
func (s *Store) Root(digest string) (img container.Image, path string, firstID uint32, err error) {
	m, err := s.load(digest)
	return m.Image, s.path("images", fileName(digest), rootDir), m.FirstID, err
}

func (s *Store) load(digest string) (meta, error) {
	var m meta
	if !container.ValidDigest(digest) {
		return m, &container.Error{Code: container.CodeUnknownImage, Detail: fmt.Sprintf("%.80q is no digest", digest)}
	}
	b, err := os.ReadFile(s.path("images", fileName(digest), metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, &container.Error{Code: container.CodeUnknownImage, Detail: digest}
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err == nil && m.Image.Digest != digest {
		err = errors.New("the description is of another image")
	}
	return m, container.Wrap(container.CodeRuntime, "read image "+digest, err)
}

// byIndex finds an image by the digest of an index that named it.
func (s *Store) byIndex(digest string) (meta, error) {
	b, err := os.ReadFile(s.path("index", fileName(digest)))
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
		_ = os.WriteFile(s.path("index", fileName(index)), []byte(digest), 0o600)
	}
}

// hold locks a digest until the returned function is called.
func (s *Store) hold(digest string) func() {
	s.mu.Lock()
	l := s.locks[digest]
	if l == nil {
		l = &digestLock{}
		s.locks[digest] = l
	}
	l.users++
	s.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(s.locks, digest)
		}
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
