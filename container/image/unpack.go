package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/klauspost/compress/zstd"

	"github.com/pkt-cash/pkt-cloud/container"
)

// job says how to unpack one layer.
type job struct {
	DiffID    string // digest of the uncompressed layer
	Bounds    bounds
	SameOwner bool // give files the owners that the layer names
}

// bounds are bytes and entries: those that may be used, or that were.
type bounds struct{ Bytes, Files uint64 }

// maxID is the largest user or group id in an image.
const maxID = 1<<16 - 1

// unpackLayer unpacks a layer into the directory root, within bounds, and
// checks what it was. Links never lead outside; device nodes are left out;
// setuid, setgid and all attributes but "user." are taken off [CONTAINER-13].
func unpackLayer(ctx context.Context, layer io.Reader, root string, j job) (bounds, error) {
	plain, done, err := decompress(layer)
	if err != nil {
		return bounds{}, badImage("layer: %v", err)
	}
	defer done()
	sum := sha256.New()
	limit := &limitReader{r: io.TeeReader(plain, sum), left: j.Bounds.Bytes}
	g := &guard{left: j.Bounds}
	opts := []archive.ApplyOpt{archive.WithFilter(g.filter)}
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
		return bounds{}, container.Wrap(layerCode(err), "unpack a layer", err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != j.DiffID {
		return bounds{}, &container.Error{Code: container.CodeDigestMismatch, Detail: fmt.Sprintf("unpacked layer %s, want %.80s", got, j.DiffID)}
	}
	read := j.Bounds.Bytes - limit.left
	return bounds{Bytes: max(read, j.Bounds.Bytes-g.left.Bytes), Files: j.Bounds.Files - g.left.Files}, nil
}

func tooLarge(most uint64) error {
	return &container.Error{Code: container.CodeTooLarge, Detail: fmt.Sprintf("a layer unpacks to more than the %d bytes that are left", most)}
}

// decompress finds out how a layer is compressed; its media type may lie.
func decompress(r io.Reader) (io.Reader, func(), error) {
	br := bufio.NewReader(r)
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
type guard struct{ left bounds }

func (g *guard) filter(h *tar.Header) (bool, error) {
	if g.left.Files == 0 {
		return false, &container.Error{Code: container.CodeTooLarge, Detail: "too many files"}
	}
	g.left.Files--
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
