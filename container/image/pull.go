package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Schemes of references to this machine's own files.
const (
	schemeLayout  = "oci:"
	schemeArchive = "docker-archive:"
)

// source is an image as it was found. Nothing but the manifest was verified.
type source struct {
	index    string // digest that the reference led to
	digest   string // of the manifest
	manifest []byte
	origin   string // whose blobs they are; empty: this machine's own
	config   func(ctx context.Context, d v1.Descriptor) ([]byte, error)
	// open opens a layer from an offset on, or from an earlier one.
	open func(ctx context.Context, d v1.Descriptor, from int64) (body io.ReadCloser, start int64, err error)
	// grants reports whether a layer is given to this caller.
	grants func(ctx context.Context, d v1.Descriptor) bool
	close  func()
}

// Pull brings an image into the store: "registry/name:tag",
// "registry/name@sha256:…", or where the store permits it "oci:/dir" and
// "docker-archive:/file.tar". A digest that the store has is not asked for
// again, unless it came with credentials [CONTAINER-12].
func (s *Store) Pull(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
	img, src, err := s.find(ctx, ref, o, true)
	if err != nil || src == nil {
		return img, err
	}
	defer src.close()
	img, err = s.install(ctx, ref, *src, o)
	if err != nil {
		if ctx.Err() != nil {
			return container.Image{}, ctx.Err()
		}
		return container.Image{}, registryError(ref, err)
	}
	s.remember(src.index, img.Digest)
	return img, nil
}

// Inspect says what [Store.Pull] would bring, from the manifest and the
// configuration alone: it fetches no layer. What it refuses Pull refuses too.
// UnpackedBytes is 0 unless the store has the image; for one that it has not, a
// disk without twice its compressed size is refused as [container.CodeDiskFull].
func (s *Store) Inspect(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
	img, src, err := s.find(ctx, ref, o, false)
	if err != nil || src == nil {
		return img, err
	}
	defer src.close()
	p, err := s.plan(ctx, *src, o)
	if err != nil {
		if ctx.Err() != nil {
			return container.Image{}, ctx.Err()
		}
		return container.Image{}, registryError(ref, err)
	}
	if m, err := s.load(p.image.Digest); err == nil {
		p.image.UnpackedBytes = m.Image.UnpackedBytes
		return p.image, nil
	}
	if free, err := freeBytes(s.cfg.Dir); err == nil && free/2 < p.image.SizeBytes {
		return container.Image{}, &container.Error{Code: container.CodeDiskFull, Detail: fmt.Sprintf("%d bytes are free, the image has %d compressed", free, p.image.SizeBytes)}
	}
	return p.image, nil
}

// Registry returns the registry that a reference leads to, in its usual spelling,
// or "" where it leads to none. Credentials for it are those of
// [container.PullOptions].
func Registry(ref string) string {
	if strings.HasPrefix(ref, schemeLayout) || strings.HasPrefix(ref, schemeArchive) {
		return ""
	}
	named, err := name.ParseReference(ref)
	if err != nil {
		return ""
	}
	return named.Context().RegistryStr()
}

// RegistryName returns the usual spelling of a registry's name, such as
// "registry.example:5000". Errors are [container.CodeInvalidSpec].
func RegistryName(s string) (string, error) {
	r, err := name.NewRegistry(s)
	if err != nil || s == "" {
		return "", &container.Error{Code: container.CodeInvalidSpec, Detail: "no registry has that name"}
	}
	return r.RegistryStr(), nil
}

// Pinned returns a reference to a registry with a digest in the place of its tag.
// One that has a digest, or leads elsewhere, stays as it is.
func Pinned(ref, digest string) string {
	if strings.HasPrefix(ref, schemeLayout) || strings.HasPrefix(ref, schemeArchive) {
		return ref
	}
	named, err := name.ParseReference(ref)
	if err != nil {
		return ref
	}
	if _, ok := named.(name.Digest); ok {
		return ref
	}
	return named.Context().Name() + "@" + digest
}

// find follows a reference to an image of the store, or to a source.
func (s *Store) find(ctx context.Context, ref string, o container.PullOptions, use bool) (container.Image, *source, error) {
	if len(ref) > container.MaxRefBytes {
		return container.Image{}, nil, &container.Error{Code: container.CodeUnknownImage, Detail: fmt.Sprintf("a reference of %d bytes", len(ref))}
	}
	if err := ctx.Err(); err != nil {
		return container.Image{}, nil, err
	}
	var src source
	var err error
	switch {
	case strings.HasPrefix(ref, schemeLayout):
		src, err = s.fromLayout(strings.TrimPrefix(ref, schemeLayout))
	case strings.HasPrefix(ref, schemeArchive):
		src, err = s.fromArchive(strings.TrimPrefix(ref, schemeArchive))
	default:
		var named name.Reference
		if named, err = name.ParseReference(ref); err != nil {
			return container.Image{}, nil, &container.Error{Code: container.CodeUnknownImage, Detail: fmt.Sprintf("%.120q is no image reference", ref), Err: err}
		}
		if img, ok := s.cached(named, o); ok {
			if use {
				s.touch(img.Digest)
			}
			return img, nil, checkSize(img.SizeBytes, s.sizeCap(o))
		}
		src, err = s.fromRegistry(ctx, named, o)
		if err != nil && ctx.Err() == nil {
			err = registryError(ref, err)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		} else {
			err = container.Wrap(container.CodeBadImage, ref, err)
		}
		return container.Image{}, nil, err
	}
	return container.Image{}, &src, nil
}

func (s *Store) sizeCap(o container.PullOptions) uint64 {
	if o.MaxBytes != 0 {
		return min(o.MaxBytes, s.cfg.MaxImageBytes)
	}
	return s.cfg.MaxImageBytes
}

func checkSize(size, most uint64) error {
	if size > most {
		return &container.Error{Code: container.CodeTooLarge, Detail: fmt.Sprintf("%d bytes, at most %d", size, most)}
	}
	return nil
}

// cached finds what a digest names without asking the registry.
func (s *Store) cached(ref name.Reference, o container.PullOptions) (container.Image, bool) {
	d, ok := ref.(name.Digest)
	if !ok || !container.ValidDigest(d.DigestStr()) {
		return container.Image{}, false
	}
	m, err := s.byIndex(d.DigestStr())
	if err != nil || m.Private || !m.Parted {
		return container.Image{}, false
	}
	if o.Progress != nil {
		o.Progress(m.Image.SizeBytes, m.Image.SizeBytes)
	}
	return m.Image, true
}

func (s *Store) fromRegistry(ctx context.Context, ref name.Reference, o container.PullOptions) (source, error) {
	r, err := s.connect(ctx, ref.Context(), o)
	if err != nil {
		return source{}, err
	}
	src := source{origin: ref.Context().Name(), config: r.small, open: r.blob, grants: r.grants, close: r.close}
	if err := src.read(ctx, r, ref); err != nil {
		r.close()
		return source{}, err
	}
	return src, nil
}

// read follows the reference, over an index if there is one, to a manifest.
func (src *source) read(ctx context.Context, r *remote, ref name.Reference) error {
	b, err := r.manifest(ctx, ref.Identifier())
	if err != nil {
		return err
	}
	if d, ok := ref.(name.Digest); ok {
		want, err := v1.NewHash(d.DigestStr())
		if err != nil {
			return badImage("%v", err)
		}
		if err := checkDigest("manifest", b, want); err != nil {
			return err
		}
	}
	src.manifest, src.digest = b, digestOf(b)
	src.index = src.digest
	var shape struct {
		Manifests, Layers, Config json.RawMessage
	}
	if err := json.Unmarshal(b, &shape); err != nil {
		return badImage("manifest: %v", err)
	}
	if shape.Manifests == nil {
		return nil
	}
	if shape.Layers != nil || shape.Config != nil { // it would be another image for another reader
		return badImage("a manifest that is an index too")
	}
	idx, err := v1.ParseIndexManifest(bytes.NewReader(b))
	if err != nil {
		return badImage("index: %v", err)
	}
	d, err := choose(idx)
	if err != nil {
		return err
	}
	if src.manifest, err = r.manifest(ctx, d.Digest.String()); err != nil {
		return err
	}
	src.digest = d.Digest.String()
	return checkDigest("manifest", src.manifest, d.Digest)
}

func (s *Store) local() error {
	if s.cfg.Local {
		return nil
	}
	return &container.Error{Code: container.CodeForbiddenHost, Detail: "this store reads no images from the machine's own files"}
}

func (s *Store) fromLayout(dir string) (source, error) {
	if err := s.local(); err != nil {
		return source{}, err
	}
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return source{}, &container.Error{Code: container.CodeUnknownImage, Detail: dir, Err: err}
	}
	m, err := idx.IndexManifest()
	if err != nil {
		return source{}, err
	}
	d, err := choose(m)
	if err != nil {
		return source{}, err
	}
	img, err := idx.Image(d.Digest)
	if err != nil {
		return source{}, err
	}
	src, err := fromImage(img)
	if err != nil {
		return source{}, err
	}
	src.digest, src.index = d.Digest.String(), d.Digest.String()
	return src, checkDigest("manifest", src.manifest, d.Digest)
}

func (s *Store) fromArchive(path string) (source, error) {
	if err := s.local(); err != nil {
		return source{}, err
	}
	img, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		return source{}, &container.Error{Code: container.CodeUnknownImage, Detail: path, Err: err}
	}
	return fromImage(img)
}

// fromImage makes a source of what lies on this machine.
func fromImage(img v1.Image) (source, error) {
	b, err := img.RawManifest()
	if err != nil {
		return source{}, err
	}
	return source{
		manifest: b, digest: digestOf(b), index: digestOf(b),
		config: func(context.Context, v1.Descriptor) ([]byte, error) { return img.RawConfigFile() },
		open: func(_ context.Context, d v1.Descriptor, _ int64) (io.ReadCloser, int64, error) {
			l, err := img.LayerByDigest(d.Digest)
			if err != nil {
				return nil, 0, err
			}
			body, err := l.Compressed()
			return body, 0, err
		},
		close: func() {},
	}, nil
}

// choose takes the image for this machine from an index: the one that says so,
// or the only one.
func choose(m *v1.IndexManifest) (v1.Descriptor, error) {
	var images []v1.Descriptor
	for _, d := range m.Manifests {
		if !d.MediaType.IsImage() {
			continue
		}
		if d.Platform == nil || d.Platform.Satisfies(platform) {
			images = append(images, d)
		}
	}
	for _, d := range images {
		if d.Platform != nil || len(images) == 1 {
			return d, nil
		}
	}
	return v1.Descriptor{}, &container.Error{Code: container.CodeWrongArch, Detail: fmt.Sprintf("no %s among %d manifests", platform, len(m.Manifests))}
}
