package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// entry is something below the store's directory that takes space: an image, a
// layer, a blob that is not whole, or what is being made. What is busy stays.
type entry struct {
	bytes  uint64
	last   time.Time
	busy   int
	digest string   // of an image
	layers []string // entries of an image's layers
}

// perFile is the space of an entry of a layer beside its bytes.
const perFile = 4096

// Stored is an image as [Store.List] shows it.
type Stored struct {
	Image container.Image
	// Ref is the reference that last led to it.
	Ref string
	// Private says that it was pulled with credentials.
	Private bool
	// InUse says that a container was started from it.
	InUse    bool
	LastUsed time.Time
	// Layers are the digests of its layers, lowest first.
	Layers []string
}

// count finds out what is there. A broken thing counts nothing and is taken
// away.
func (s *Store) count() error {
	for _, dir := range []string{imagesDir, layersDir, partialsDir} {
		list, err := os.ReadDir(s.path(dir))
		if err != nil {
			return err
		}
		for _, d := range list {
			key := filepath.Join(dir, d.Name())
			e, err := s.look(dir, d.Name())
			if err != nil {
				if err := removeTree(s.path(key)); err != nil {
					return err
				}
				continue
			}
			s.entries[key] = e
		}
	}
	return nil
}

// look reads one thing.
func (s *Store) look(dir, name string) (*entry, error) {
	switch dir {
	case layersDir:
		l, err := s.loadLayer(name)
		return &entry{bytes: l.cost(), last: modTime(s.path(dir, name, layerFile))}, err
	case partialsDir:
		st, err := os.Stat(s.path(dir, name))
		if err != nil {
			return nil, err
		}
		return &entry{bytes: uint64(st.Size()), last: st.ModTime()}, nil
	}
	m, err := s.load(unFileName(name))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.treeOf(m)); err != nil {
		return nil, err
	}
	return s.entryOf(m, modTime(s.path(dir, name, metaFile))), nil
}

// entryOf returns what an image takes beside its layers.
func (s *Store) entryOf(m meta, last time.Time) *entry {
	e := &entry{bytes: m.OwnBytes, last: last, digest: m.Image.Digest}
	if len(m.Layers) == 0 {
		e.bytes = m.Image.UnpackedBytes
	}
	for _, l := range m.Layers {
		e.layers = append(e.layers, filepath.Join(layersDir, l))
	}
	return e
}

func modTime(path string) time.Time {
	st, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

// touch notes that an image is used now.
func (s *Store) touch(digest string) {
	key := filepath.Join(imagesDir, fileName(digest))
	now := time.Now()
	s.mu.Lock()
	e := s.entries[key]
	late := e != nil && now.Sub(e.last) > time.Minute
	if e != nil {
		e.last = now
	}
	s.mu.Unlock()
	if late { // for the next process; losing it costs the right order
		_ = os.Chtimes(s.path(key, metaFile), now, now)
	}
}

// taken sums up. s.mu is held.
func (s *Store) taken() uint64 {
	total := uint64(0)
	for _, e := range s.entries {
		total += e.bytes
	}
	return total
}

// Used returns the bytes that the store takes, and its cap.
func (s *Store) Used() (used, most uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken(), s.cfg.MaxStoreBytes
}

// claim sets space aside for a thing, which is busy until release. It makes room
// by removing what nobody uses. Errors are [container.CodeDiskFull].
func (s *Store) claim(ctx context.Context, key string, bytes uint64) error {
	for tried := false; ; tried = true {
		s.mu.Lock()
		e := s.entries[key]
		had := uint64(0)
		if e != nil {
			had = e.bytes
		}
		taken := s.taken() - had
		if fits := taken+max(had, bytes) <= s.cfg.MaxStoreBytes; fits || had >= bytes {
			if e == nil {
				e = &entry{last: time.Now()}
				s.entries[key] = e
			}
			e.bytes = max(had, bytes)
			e.busy++
			s.mu.Unlock()
			return nil
		}
		if e != nil { // it is what the room is for
			e.busy++
		}
		s.mu.Unlock()
		var err error
		if !tried {
			err = s.collect(ctx, collection{room: bytes - had})
		}
		s.mu.Lock()
		if e != nil {
			e.busy--
		}
		s.mu.Unlock()
		if tried || err != nil {
			return errors.Join(&container.Error{
				Code: container.CodeDiskFull, Err: err,
				Detail: fmt.Sprintf("%d bytes more than the %d that images may take", taken+bytes-s.cfg.MaxStoreBytes, s.cfg.MaxStoreBytes),
			})
		}
	}
}

// release ends a claim with what the thing takes after all; with nothing it is
// forgotten.
func (s *Store) release(key string, bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil {
		return
	}
	e.busy--
	e.last = time.Now()
	if e.bytes = bytes; bytes == 0 && e.busy == 0 {
		delete(s.entries, key)
	}
}

// keep makes what is there busy, so that it stays, until the returned function
// is called; false when there is no such thing.
func (s *Store) keep(key string) (func(), bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil {
		return nil, false
	}
	e.busy++
	e.last = time.Now()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e.busy--
	}, true
}

// add notes a new thing.
func (s *Store) add(key string, e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[key] = e
}

// collection says what to remove: enough for room, or, where unused is set, all
// that was not used since.
type collection struct {
	room   uint64
	before time.Time
}

// Pruned is what [Store.Prune] removed.
type Pruned struct {
	Images []string // digests
	Bytes  uint64
}

// Prune removes all that nobody has used since a time: images that no container
// was started from, layers of no image, blobs that never became whole. What was
// used within [HoldSeconds] stays all the same.
func (s *Store) Prune(ctx context.Context, before time.Time) (Pruned, error) {
	s.mu.Lock()
	had := s.taken()
	was := s.digests()
	s.mu.Unlock()
	err := s.collect(ctx, collection{before: before})
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.digests()
	var p Pruned
	for d := range was {
		if !now[d] {
			p.Images = append(p.Images, d)
		}
	}
	slices.Sort(p.Images)
	if left := s.taken(); left < had {
		p.Bytes = had - left
	}
	return p, err
}

func (s *Store) digests() map[string]bool {
	out := map[string]bool{}
	for _, e := range s.entries {
		if e.digest != "" {
			out[e.digest] = true
		}
	}
	return out
}

// collect removes things, the longest unused first [CONTAINER-40]. A thing
// leaves its place by one rename, so that a crash leaves it whole or gone.
func (s *Store) collect(ctx context.Context, c collection) error {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	used, blind := s.inUse(ctx)
	var gone []string
	var err error
	s.mu.Lock()
	for err == nil && (!c.before.IsZero() || s.taken()+c.room > s.cfg.MaxStoreBytes) {
		key := s.oldest(c.before, used, blind != nil)
		if key == "" {
			break
		}
		away := s.path(tmpDir, fmt.Sprintf("gone-%d-%s", len(gone), filepath.Base(key)))
		if err = os.Rename(s.path(key), away); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err == nil {
			delete(s.entries, key)
			gone = append(gone, away)
		}
	}
	s.mu.Unlock()
	for _, path := range gone {
		err = errors.Join(err, removeTree(path))
	}
	if !c.before.IsZero() && err == nil {
		err = blind
	}
	return errors.Join(storeError(ctx, "remove unused images", err), s.forgetIndex())
}

// inUse asks for the images that containers were started from.
func (s *Store) inUse(ctx context.Context) (map[string]bool, error) {
	if s.cfg.InUse == nil {
		return nil, &container.Error{Code: container.CodeRuntime, Detail: "nobody knows which images are in use"}
	}
	list, err := s.cfg.InUse(ctx)
	used := map[string]bool{}
	for _, d := range list {
		used[d] = true
	}
	return used, err
}

// oldest returns the key of the thing to remove next, or nothing. s.mu is held.
func (s *Store) oldest(before time.Time, used map[string]bool, blind bool) string {
	held := time.Now().Add(-HoldSeconds * time.Second)
	referred := map[string]bool{}
	for _, e := range s.entries {
		for _, l := range e.layers {
			referred[l] = true
		}
	}
	best := ""
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		e := s.entries[key]
		switch {
		case e.busy > 0 || referred[key] || !before.IsZero() && e.last.After(before):
			continue
		case e.digest != "" && (blind || used[e.digest] || e.last.After(held)):
			continue
		}
		if best == "" || e.last.Before(s.entries[best].last) {
			best = key
		}
	}
	return best
}

// forgetIndex removes the notes that lead to images which are gone.
func (s *Store) forgetIndex() error {
	list, err := os.ReadDir(s.path(indexDir))
	for _, d := range list {
		b, readErr := os.ReadFile(s.path(indexDir, d.Name()))
		if readErr != nil {
			continue
		}
		if _, loadErr := s.load(string(b)); errors.Is(loadErr, container.CodeUnknownImage) {
			err = errors.Join(err, os.Remove(s.path(indexDir, d.Name())))
		}
	}
	return err
}

// List returns all images, the last used first.
func (s *Store) List(ctx context.Context) ([]Stored, error) {
	used, blind := s.inUse(ctx)
	s.mu.Lock()
	last := map[string]time.Time{}
	for _, e := range s.entries {
		if e.digest != "" {
			last[e.digest] = e.last
		}
	}
	s.mu.Unlock()
	var out []Stored
	for digest, at := range last {
		m, err := s.load(digest)
		if errors.Is(err, container.CodeUnknownImage) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		st := Stored{Image: m.Image, Ref: m.Ref, Private: m.Private, InUse: used[digest] || blind != nil, LastUsed: at}
		for _, l := range m.Layers {
			st.Layers = append(st.Layers, layerDigest(l))
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b Stored) int {
		return cmp.Or(b.LastUsed.Compare(a.LastUsed), cmp.Compare(a.Image.Digest, b.Image.Digest))
	})
	return out, nil
}
