package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
)

// Schemes of references to this machine's own files.
const (
	schemeLayout  = "oci:"
	schemeArchive = "docker-archive:"
)

// source is an image as it was found, not yet verified.
type source struct {
	img   v1.Image
	index string
}

// Pull brings an image into the store: "registry/name:tag",
// "registry/name@sha256:…", or where the store permits it "oci:/dir" and
// "docker-archive:/file.tar". A digest that the store has is not asked for
// again, unless it came with credentials [CONTAINER-12].
func (s *Store) Pull(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
	if len(ref) > container.MaxRefBytes {
		return container.Image{}, &container.Error{Code: container.CodeUnknownImage, Detail: fmt.Sprintf("a reference of %d bytes", len(ref))}
	}
	if err := ctx.Err(); err != nil {
		return container.Image{}, err
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
			return container.Image{}, &container.Error{Code: container.CodeUnknownImage, Detail: fmt.Sprintf("%.120q is no image reference", ref), Err: err}
		}
		if img, ok := s.cached(named, o); ok {
			return img, checkSize(img.SizeBytes, s.sizeCap(o))
		}
		src, err = s.fromRegistry(ctx, named, o)
	}
	if err != nil {
		return container.Image{}, container.Wrap(container.CodeBadImage, ref, err)
	}
	img, err := s.install(ctx, src, o)
	if err != nil {
		if ctx.Err() != nil {
			return container.Image{}, ctx.Err()
		}
		return container.Image{}, registryError(ref, err)
	}
	s.remember(src.index, img.Digest)
	return img, nil
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
	if err != nil || m.Private {
		return container.Image{}, false
	}
	if o.Progress != nil {
		o.Progress(m.Image.SizeBytes, m.Image.SizeBytes)
	}
	return m.Image, true
}

func (s *Store) fromRegistry(ctx context.Context, ref name.Reference, o container.PullOptions) (source, error) {
	if s.cfg.Dial == nil {
		return source{}, &container.Error{Code: container.CodeForbiddenHost, Detail: "this store pulls from no registry"}
	}
	tr := &http.Transport{
		DialContext: s.cfg.Dial, TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: time.Minute,
		ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
	opts := []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(boundedTransport{tr}), remote.WithPlatform(platform), remote.WithUserAgent("pktcloud"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Steps: 3}),
	}
	if o.Username != "" || o.Password != "" {
		opts = append(opts, remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: o.Username, Password: o.Password})))
	}
	desc, err := remote.Get(ref, opts...)
	if err != nil && mismatched(ref, err) {
		return source{}, &container.Error{Code: container.CodeDigestMismatch, Detail: "manifest", Err: err}
	}
	if err != nil {
		return source{}, registryError(ref.String(), err)
	}
	src := source{index: desc.Digest.String()}
	if !desc.MediaType.IsIndex() {
		src.img, err = desc.Image()
		return src, err
	}
	idx, err := desc.ImageIndex()
	if err != nil {
		return source{}, err
	}
	src.img, err = choose(idx)
	return src, err
}

// mismatched reports whether a registry answered a digest with something else:
// what is left when neither the network failed nor the registry refused.
func mismatched(ref name.Reference, err error) bool {
	if _, ok := ref.(name.Digest); !ok || errors.Is(err, io.ErrUnexpectedEOF) {
		return false
	}
	var network net.Error // *url.Error is one
	var refused *transport.Error
	var ours *container.Error
	return !errors.As(err, &network) && !errors.As(err, &refused) && !errors.As(err, &ours)
}

// boundedTransport bounds every answer but a layer, which has a bound of its
// own: manifests, tokens and error texts are read whole.
type boundedTransport struct{ inner http.RoundTripper }

// RoundTrip cuts a body that is too long.
func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.inner.RoundTrip(r)
	if err != nil || strings.Contains(r.URL.Path, "/blobs/") || r.Response != nil {
		return resp, err
	}
	if resp.ContentLength > MaxManifestBytes {
		_ = resp.Body.Close()
		return nil, &container.Error{Code: container.CodeTooLarge, Detail: fmt.Sprintf("an answer of %d bytes", resp.ContentLength)}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, MaxManifestBytes), resp.Body}
	return resp, nil
}

// registryError gives what a registry or the network answered its code.
func registryError(ref string, err error) error {
	var known *container.Error
	var te *transport.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, dialer.ErrForbidden):
		return &container.Error{Code: container.CodeForbiddenHost, Detail: ref, Err: err}
	case errors.As(err, &te) && te.StatusCode == http.StatusNotFound:
		return &container.Error{Code: container.CodeUnknownImage, Detail: ref, Err: err}
	}
	return &container.Error{Code: container.CodeRegistry, Detail: ref, Err: err}
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
	img, err := choose(idx)
	if err != nil {
		return source{}, err
	}
	digest, err := img.Digest()
	return source{img: img, index: digest.String()}, err
}

func (s *Store) fromArchive(path string) (source, error) {
	if err := s.local(); err != nil {
		return source{}, err
	}
	img, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		return source{}, &container.Error{Code: container.CodeUnknownImage, Detail: path, Err: err}
	}
	digest, err := img.Digest()
	return source{img: img, index: digest.String()}, err
}

// choose takes the image for this machine from an index: the one that says so,
// or the only one.
func choose(idx v1.ImageIndex) (v1.Image, error) {
	m, err := idx.IndexManifest()
	if err != nil {
		return nil, err
	}
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
			return verifiedImage(idx, d.Digest)
		}
	}
	return nil, &container.Error{Code: container.CodeWrongArch, Detail: fmt.Sprintf("no %s among %d manifests", platform, len(m.Manifests))}
}

// verifiedImage checks that the manifest is the one that the index names; a
// layout does not.
func verifiedImage(idx v1.ImageIndex, want v1.Hash) (v1.Image, error) {
	img, err := idx.Image(want)
	if err != nil {
		return nil, err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	return img, checkDigest("manifest", raw, want)
}
