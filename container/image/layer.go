package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

// layerFile describes a layer, beside its unpacked rootDir. The tree holds
// whiteouts as empty files of their names, and directories that the archive did
// not name with the set-user-id bit, which no entry of an archive keeps.
const layerFile = "layer.json"

// maxSources bounds from where a private layer is known.
const maxSources = 64

// layer is a layer of the store.
type layer struct {
	DiffID string
	usage
	// Private says that it came with credentials only. Whoever names it must be
	// granted it by one of the Sources, or bring it.
	Private bool
	Sources []string
}

func (l layer) cost() uint64 { return l.Bytes + perFile*(l.Files+1) }

// layerName is a layer's directory: trees of other owners do not mix.
func (s *Store) layerName(d v1.Hash) string { return d.Hex + "-" + strconv.Itoa(int(s.firstID)) }

// layerDigest is the digest in a layer's name.
func layerDigest(name string) string {
	hex, _, _ := strings.Cut(name, "-")
	return "sha256:" + hex
}

func (s *Store) loadLayer(name string) (layer, error) {
	var l layer
	b, err := os.ReadFile(s.path(layersDir, name, layerFile))
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	return l, err
}

// need is a layer that an image names.
type need struct {
	v1.Descriptor
	DiffID  string
	Private bool // the pull gave credentials
	Left    bounds
	Report  func(uint64)
}

// layer brings a layer into the store, or finds it there and that this caller
// may have it [CONTAINER-12].
func (s *Store) layer(ctx context.Context, src source, n need) (layer, error) {
	if n.Digest.Algorithm != "sha256" || len(n.Digest.Hex) != sha256.Size*2 {
		return layer{}, badImage("a layer named %.80s", n.Digest)
	}
	name := s.layerName(n.Digest)
	l, err := s.loadLayer(name)
	if err == nil && (!l.Private || slices.Contains(l.Sources, src.origin) && src.grants != nil && src.grants(ctx, n.Descriptor)) {
		n.Report(uint64(n.Size))
		if l.DiffID != n.DiffID {
			return l, &container.Error{Code: container.CodeDigestMismatch, Detail: fmt.Sprintf("unpacked layer %s, want %.80s", l.DiffID, n.DiffID)}
		}
		return l, checkFits(l.usage, n.Left)
	}
	// Turns are of one source: a slow one keeps nobody waiting who asks another.
	key := filepath.Join(partialsDir, partialName(src.origin, n.Digest))
	give, err := s.hold(ctx, key)
	if err != nil {
		return layer{}, err
	}
	defer give()
	if l, err := s.loadLayer(name); err == nil && !l.Private && l.DiffID == n.DiffID { // another turn brought it
		n.Report(uint64(n.Size))
		return l, checkFits(l.usage, n.Left)
	}
	f, err := s.download(ctx, key, src, n)
	if err != nil {
		return layer{}, err
	}
	defer f.Close()
	l, err = s.unpacked(ctx, f, src, n)
	if err == nil || !errors.Is(err, container.CodeDiskFull) && ctx.Err() == nil {
		err = errors.Join(err, os.Remove(s.path(key)))
		s.release(key, 0)
		return l, err
	}
	s.release(key, uint64(n.Size))
	return l, err
}

func checkFits(u usage, left bounds) error {
	if u.Bytes > left.Bytes || u.Files > left.Files {
		return tooLarge(left.Bytes)
	}
	return nil
}

// partialName names a blob that is not whole. A source continues only its own:
// another could spoil it, or learn what it holds by bringing the rest.
func partialName(origin string, d v1.Hash) string {
	sum := sha256.Sum256([]byte(origin + "\x00" + d.String()))
	return hex.EncodeToString(sum[:])
}

// download brings a compressed layer to a file of the store's and checks its
// size and digest before anything looks into it. What an interrupted one left is
// continued. On success the space is still claimed under key.
func (s *Store) download(ctx context.Context, key string, src source, n need) (_ *os.File, err error) {
	if err := s.claim(ctx, key, uint64(n.Size)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path(key), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		s.release(key, 0)
		return nil, err
	}
	d := &transfer{need: n, src: src, file: f, sum: sha256.New()}
	err = d.run(ctx)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		return f, nil
	}
	if d.have == 0 || errors.Is(err, container.CodeDigestMismatch) {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		s.release(key, 0)
		return nil, err
	}
	s.release(key, uint64(d.have))
	return nil, errors.Join(err, f.Close())
}

// transfer is a blob on its way into a file. The sum is that of the first have
// bytes.
type transfer struct {
	need
	src  source
	file *os.File
	sum  hash.Hash
	have int64
}

// run continues until the blob is whole. It asks again as long as each time
// something comes.
func (d *transfer) run(ctx context.Context) error {
	if err := d.resume(); err != nil {
		return err
	}
	old := d.have > 0
	for last := int64(-1); d.have < d.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := d.receive(ctx)
		switch {
		case errors.Is(err, container.CodeDigestMismatch):
			return err
		case d.have >= d.Size:
		case err != nil && d.have <= last: // nothing came this time
			return err
		case err == nil && d.have <= last:
			return d.otherLength()
		}
		last = d.have
	}
	err := checkSum("layer", d.sum, d.Digest)
	if err == nil || !old {
		return err
	}
	if err := d.restart(); err != nil { // what was left here may have been damaged
		return err
	}
	return d.run(ctx)
}

func (d *transfer) otherLength() error {
	return &container.Error{Code: container.CodeDigestMismatch, Detail: fmt.Sprintf("a layer of %d bytes has another length", d.Size)}
}

// resume reads what an earlier download left.
func (d *transfer) resume() error {
	n, err := io.Copy(d.sum, io.LimitReader(d.file, d.Size))
	d.have = n
	if err == nil {
		err = d.file.Truncate(n)
	}
	return err
}

func (d *transfer) restart() error {
	d.have = 0
	d.sum.Reset()
	_, err := d.file.Seek(0, io.SeekStart)
	return errors.Join(err, d.file.Truncate(0))
}

// receive asks once for what is missing.
func (d *transfer) receive(ctx context.Context) error {
	body, from, err := d.src.open(ctx, d.Descriptor, d.have)
	if err != nil {
		return err
	}
	defer body.Close()
	defer context.AfterFunc(ctx, func() { _ = body.Close() })()
	if from != d.have {
		if err := d.restart(); err != nil {
			return err
		}
	}
	n, err := io.Copy(io.MultiWriter(d.file, d.sum, d), io.LimitReader(body, d.Size-d.have))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && d.have == d.Size && n > 0 {
		if extra, _ := io.ReadFull(body, make([]byte, 1)); extra > 0 {
			return d.otherLength()
		}
	}
	return err
}

// Write counts what came.
func (d *transfer) Write(p []byte) (int, error) {
	d.have += int64(len(p))
	d.Report(uint64(d.have))
	return len(p), nil
}

// unpacked makes a verified blob a layer of the store.
func (s *Store) unpacked(ctx context.Context, blob *os.File, src source, n need) (layer, error) {
	name := s.layerName(n.Digest)
	give, err := s.hold(ctx, name)
	if err != nil {
		return layer{}, err
	}
	defer give()
	if l, err := s.loadLayer(name); err == nil && l.DiffID == n.DiffID {
		if err := checkFits(l.usage, n.Left); err != nil {
			return l, err
		}
		return l, s.widen(name, &l, src, n)
	}
	key := filepath.Join(tmpDir, "layer-"+name)
	dir := s.path(key)
	used, err := s.unpackInto(ctx, key, blob, n)
	if err != nil {
		err = errors.Join(storeError(ctx, n.Digest.String(), err), removeTree(dir))
		s.release(key, 0)
		return layer{}, err
	}
	l := layer{DiffID: n.DiffID, usage: used, Private: n.Private}
	if n.Private {
		l.Sources = []string{src.origin}
	}
	err = writeJSON(filepath.Join(dir, layerFile), l)
	if err == nil {
		// All files are on disk before the name says so.
		if err = syncTree(dir); err == nil {
			err = os.Rename(dir, s.path(layersDir, name))
		}
	}
	if err != nil {
		err = errors.Join(storeError(ctx, n.Digest.String(), err), removeTree(dir))
		s.release(key, 0)
		return layer{}, err
	}
	s.add(filepath.Join(layersDir, name), &entry{bytes: l.cost(), last: time.Now()})
	s.release(key, 0)
	return l, nil
}

// widen notes that somebody brought a layer which is there already.
func (s *Store) widen(name string, l *layer, src source, n need) error {
	switch {
	case !l.Private:
		return nil
	case !n.Private: // a registry has just given it to anybody
		l.Private, l.Sources = false, nil
	case slices.Contains(l.Sources, src.origin) || len(l.Sources) >= maxSources:
		return nil
	default:
		l.Sources = append(l.Sources, src.origin)
	}
	return writeJSON(s.path(layersDir, name, layerFile), l)
}

// unpackInto unpacks within what the image and the store have left. It claims a
// likely size first, and all that is left only for a layer that needs it.
func (s *Store) unpackInto(ctx context.Context, key string, blob *os.File, n need) (usage, error) {
	dir := s.path(key)
	likely := min(n.Left.Bytes, uint64(n.Size)*8+(64<<20))
	for _, most := range []uint64{likely, n.Left.Bytes} {
		if err := removeTree(dir); err != nil {
			return usage{}, err
		}
		if err := s.claim(ctx, key, most); err != nil {
			return usage{}, err
		}
		used, err := s.unpackOnce(ctx, dir, blob, job{DiffID: n.DiffID, Bounds: bounds{Bytes: most, Files: n.Left.Files}})
		if err == nil || most == n.Left.Bytes || !errors.Is(err, container.CodeTooLarge) {
			return used, err
		}
		s.release(key, 0)
	}
	return usage{}, tooLarge(n.Left.Bytes)
}

func (s *Store) unpackOnce(ctx context.Context, dir string, blob *os.File, j job) (usage, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return usage{}, err
	}
	root, err := makeRoot(filepath.Join(dir, rootDir), s.firstID)
	if err != nil {
		return usage{}, err
	}
	defer root.Close()
	if _, err := blob.Seek(0, io.SeekStart); err != nil {
		return usage{}, err
	}
	return s.unpack(ctx, blob, root, j)
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, b)
}
