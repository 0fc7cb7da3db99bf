package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/pkt-cash/pkt-cloud/container"
)

// job says how to unpack one layer.
type job struct {
	DiffID    string // digest of the uncompressed layer
	Bounds    bounds
	SameOwner bool // give files the owners that the layer names
	Merge     int  // instead: make the tree of so many layers
}

// bounds are bytes and entries: those that may be used, or that were.
type bounds struct{ Bytes, Files uint64 }

// usage is what a layer turned out to be. Marks counts its whiteouts and the
// directories that it did not name itself.
type usage struct{ Bytes, Files, Marks uint64 }

// maxID is the largest user or group id in an image.
const maxID = 1<<16 - 1

// unpackLayer unpacks a layer into the directory root, within bounds, and
// checks what it was. Links never lead outside; device nodes are left out;
// setuid, setgid and all attributes but "user." are taken off [CONTAINER-13].
func unpackLayer(ctx context.Context, layer io.Reader, root string, j job) (usage, error) {
	plain, done, err := decompress(layer)
	if err != nil {
		return usage{}, badImage("layer: %v", err)
	}
	defer done()
	sum := sha256.New()
	pieces := readAhead(plain, sum)
	defer pieces.close() // before done
	limit := &limitReader{r: pieces, left: j.Bounds.Bytes}
	g := &guard{left: j.Bounds}
	m := &marker{root: filepath.Clean(root), known: map[string]bool{}}
	opts := []archive.ApplyOpt{archive.WithFilter(g.filter), archive.WithConvertWhiteout(m.note)}
	if !j.SameOwner {
		opts = append(opts, archive.WithNoSameOwner())
	}
	_, err = archive.Apply(ctx, root, limit, opts...)
	if err == nil {
		_, err = io.Copy(io.Discard, limit) // what follows the archive's end counts too
	}
	if limit.hit {
		err = tooLarge(j.Bounds.Bytes)
	}
	if err != nil {
		return usage{}, container.Wrap(layerCode(err), "unpack a layer", err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != j.DiffID {
		return usage{}, &container.Error{Code: container.CodeDigestMismatch, Detail: fmt.Sprintf("unpacked layer %s, want %.80s", got, j.DiffID)}
	}
	if err := m.mark(); err != nil {
		return usage{}, container.Wrap(layerCode(err), "unpack a layer", err)
	}
	read := j.Bounds.Bytes - limit.left
	return usage{Bytes: max(read, j.Bounds.Bytes-g.left.Bytes), Files: j.Bounds.Files - g.left.Files, Marks: m.marks}, nil
}

func tooLarge(most uint64) error {
	return &container.Error{Code: container.CodeTooLarge, Detail: fmt.Sprintf("a layer unpacks to more than the %d bytes that are left", most)}
}

// decompress finds out how a layer is compressed; its media type may lie.
func decompress(r io.Reader) (io.Reader, func(), error) {
	br := bufio.NewReaderSize(r, aheadBytes)
	head, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		return z, func() {}, err
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxMemory(128<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return br, func() {}, nil
}

// limitReader ends with an error at its limit.
type limitReader struct {
	r    io.Reader
	left uint64
	hit  bool
}

var errLimit = errors.New("too many bytes")

// Read reads up to one byte more than is allowed, so as to notice.
func (l *limitReader) Read(p []byte) (int, error) {
	if l.hit {
		return 0, errLimit
	}
	n, err := l.r.Read(p)
	if uint64(n) > l.left {
		l.hit = true
		return 0, errLimit
	}
	l.left -= uint64(n)
	return n, err
}

// guard looks at every entry before it is unpacked.
type guard struct {
	left  bounds
	names int
}

func (g *guard) filter(h *tar.Header) (bool, error) {
	if g.left.Files == 0 {
		return false, &container.Error{Code: container.CodeTooLarge, Detail: "too many files"}
	}
	g.left.Files--
	if g.names += len(h.Name) + len(h.Linkname); g.names > MaxNameBytes {
		return false, &container.Error{Code: container.CodeTooLarge, Detail: "names too long"}
	}
	// A sparse file's size is what it unpacks to, not what the archive holds.
	if h.Size < 0 || uint64(h.Size) > g.left.Bytes {
		return false, tooLarge(g.left.Bytes)
	}
	g.left.Bytes -= uint64(h.Size)
	if h.Uid < 0 || h.Uid > maxID || h.Gid < 0 || h.Gid > maxID {
		return false, badImage("%.120q belongs to %d:%d, ids end at %d", h.Name, h.Uid, h.Gid, maxID)
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		return false, nil
	}
	h.Mode &^= 0o6000
	for key := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok && !strings.HasPrefix(attr, "user.") {
			delete(h.PAXRecords, key)
		}
	}
	return true, nil
}

// layerCode tells what is wrong with the layer from what is wrong here.
func layerCode(err error) container.Code {
	if code, ok := systemCode(err); ok {
		return code
	}
	return container.CodeBadImage
}

// The archive's words for what a layer takes away from those below it.
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// marker leaves in a layer's tree what only matters when it lies on others: its
// whiteouts, and which directories it did not name. See layerFile.
type marker struct {
	root  string
	known map[string]bool // directories; true: named by the archive
	marks uint64
}

// note sees each entry before it is made, with the path that it resolves to.
func (m *marker) note(h *tar.Header, path string) (bool, error) {
	for dir := filepath.Dir(path); len(dir) > len(m.root); dir = filepath.Dir(dir) {
		if _, ok := m.known[dir]; ok {
			break
		}
		m.known[dir] = false
	}
	base := filepath.Base(path)
	switch {
	case !strings.HasPrefix(base, whiteoutPrefix):
		if h.Typeflag == tar.TypeDir {
			m.known[path] = true
		}
		return true, nil
	case base == whiteoutPrefix || base == whiteoutPrefix+"." || base == whiteoutPrefix+"..":
		return false, badImage("%.120q takes away no entry", h.Name)
	case strings.HasPrefix(base, whiteoutMeta) && base != whiteoutOpaque:
		return false, nil
	}
	m.marks++
	h.Typeflag, h.Linkname, h.Mode, h.PAXRecords = tar.TypeReg, "", 0o600, nil
	return true, nil
}

// mark marks the directories that were not named.
func (m *marker) mark() error {
	for dir, named := range m.known {
		if named {
			continue
		}
		st, err := os.Lstat(dir)
		if err != nil || !st.IsDir() { // another entry took its place
			continue
		}
		m.marks++
		if err := os.Chmod(dir, st.Mode().Perm()|os.ModeSetuid); err != nil {
			return err
		}
	}
	return nil
}
