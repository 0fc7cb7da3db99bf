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
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/internal/durable"
)

// platform is what containers here run.
var platform = v1.Platform{OS: "linux", Architecture: runtime.GOARCH}

// plan is an image whose manifest and configuration were checked.
type plan struct {
	src      source
	manifest *v1.Manifest
	config   *v1.ConfigFile
	image    container.Image
}

// install puts an image into the store, whole or not at all.
func (s *Store) install(ctx context.Context, src source, o container.PullOptions) (container.Image, error) {
	p, err := s.plan(src, o)
	if err != nil {
		return container.Image{}, err
	}
	digest := p.image.Digest
	defer s.hold(digest)()
	private := o.Username != "" || o.Password != ""
	if m, err := s.load(digest); err == nil {
		m.Image.Index = p.image.Index
		if o.Progress != nil {
			o.Progress(m.Image.SizeBytes, m.Image.SizeBytes)
		}
		if m.Private && !private { // the registry has just given it to anybody
			m.Private = false
			return m.Image, storeError(ctx, digest, writeMeta(s.path("images", fileName(digest)), m))
		}
		return m.Image, nil
	}
	tmp, err := os.MkdirTemp(s.path("tmp"), "pull-")
	if err != nil {
		return container.Image{}, storeError(ctx, digest, err)
	}
	err = s.fill(ctx, tmp, p, o)
	if err == nil {
		err = writeMeta(tmp, meta{Image: p.image, FirstID: s.firstID, Private: private})
	}
	if err == nil {
		// All files are on disk before the name says so.
		if err = syncTree(tmp); err == nil {
			err = os.Rename(tmp, s.path("images", fileName(digest)))
		}
	}
	if err != nil {
		return container.Image{}, errors.Join(storeError(ctx, digest, err), removeTree(tmp))
	}
	return p.image, nil
}

func writeMeta(dir string, m meta) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, metaFile), b)
}

// plan checks what an image says of itself, before anything large is read.
func (s *Store) plan(src source, o container.PullOptions) (*plan, error) {
	digest, err := src.img.Digest()
	if err != nil {
		return nil, err
	}
	p := &plan{src: src}
	if p.manifest, err = src.img.Manifest(); err != nil {
		return nil, err
	}
	m := p.manifest
	if len(m.Layers) > MaxLayers || m.Config.Size > MaxManifestBytes {
		return nil, &container.Error{Code: container.CodeTooLarge, Detail: fmt.Sprintf("%d layers and a configuration of %d bytes", len(m.Layers), m.Config.Size)}
	}
	total := uint64(0)
	for _, l := range m.Layers {
		if l.Size < 0 {
			return nil, badImage("a layer of %d bytes", l.Size)
		}
		if total += uint64(l.Size); total > s.sizeCap(o) {
			return nil, checkSize(total, s.sizeCap(o))
		}
	}
	raw, err := src.img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	if err := checkDigest("configuration", raw, m.Config.Digest); err != nil {
		return nil, err
	}
	if p.config, err = src.img.ConfigFile(); err != nil {
		return nil, badImage("configuration: %v", err)
	}
	c := p.config
	if c.OS != platform.OS || c.Architecture != platform.Architecture {
		return nil, &container.Error{Code: container.CodeWrongArch, Detail: fmt.Sprintf("the image is for %.20s/%.20s, this machine is %s", c.OS, c.Architecture, platform)}
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, badImage("%d layers, but the configuration names %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	p.image = container.Image{
		Digest: digest.String(), Index: src.index, SizeBytes: total, OS: c.OS, Arch: c.Architecture,
		Args: slices.Concat(c.Config.Entrypoint, c.Config.Cmd), Env: c.Config.Env, WorkDir: c.Config.WorkingDir, User: c.Config.User,
	}
	p.image.Ports, err = ports(c.Config.ExposedPorts)
	if err != nil {
		return nil, err
	}
	return p, checkSpec(p.image)
}

// checkSpec holds an image's own settings to the limits of a specification.
func checkSpec(img container.Image) error {
	probe := container.Spec{
		ID: "x", Image: img.Digest, Args: img.Args, Env: img.Env, WorkDir: img.WorkDir, User: img.User,
		Limits: container.Limits{MilliCPU: container.MinMilliCPU, MemoryBytes: container.MinMemory, DiskBytes: container.MinDisk, Pids: container.MinPids},
	}
	if err := probe.Validate(); err != nil {
		return badImage("its configuration: %v", err)
	}
	return nil
}

// ports reads "8080/tcp" and "8080". Other protocols are left out.
func ports(exposed map[string]struct{}) ([]uint16, error) {
	if len(exposed) > container.MaxPorts {
		return nil, badImage("%d ports, at most %d", len(exposed), container.MaxPorts)
	}
	var out []uint16
	for p := range exposed {
		number, proto, _ := strings.Cut(p, "/")
		if proto != "" && proto != "tcp" {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 {
			return nil, badImage("%.20q is no port", p)
		}
		out = append(out, uint16(n))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// fill downloads and unpacks all layers into dir.
func (s *Store) fill(ctx context.Context, dir string, p *plan, o container.PullOptions) error {
	root, err := makeRoot(filepath.Join(dir, rootDir), s.firstID)
	if err != nil {
		return err
	}
	defer root.Close()
	layers, err := p.src.img.Layers()
	if err != nil {
		return err
	}
	done := uint64(0)
	left := bounds{Bytes: s.cfg.MaxUnpackedBytes, Files: MaxFiles}
	for i, l := range layers {
		want := p.manifest.Layers[i]
		progress := func(n uint64) {
			if o.Progress != nil {
				o.Progress(done+n, p.image.SizeBytes)
			}
		}
		file, err := download(ctx, dir, l, want, progress)
		if err != nil {
			return err
		}
		done += uint64(want.Size)
		used, err := s.unpack(ctx, file, root, job{DiffID: p.config.RootFS.DiffIDs[i].String(), Bounds: left})
		err = errors.Join(err, file.Close(), os.Remove(file.Name()))
		if err != nil {
			return err
		}
		left.Bytes -= used.Bytes
		left.Files -= used.Files
	}
	p.image.UnpackedBytes = s.cfg.MaxUnpackedBytes - left.Bytes
	return nil
}

// download writes a compressed layer to a file and checks its size and digest
// before anything looks into it.
func download(ctx context.Context, dir string, l v1.Layer, want v1.Descriptor, progress func(uint64)) (*os.File, error) {
	body, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	defer context.AfterFunc(ctx, func() { _ = body.Close() })()
	f, err := os.CreateTemp(dir, "layer-")
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum, &counter{report: progress}), io.LimitReader(body, want.Size+1))
	switch {
	case err != nil && n == want.Size && ctx.Err() == nil: // the source may have found the same before us
		err = errors.Join(checkSum("layer", sum, want.Digest), err)
	case err != nil:
	case n != want.Size:
		err = &container.Error{Code: container.CodeDigestMismatch, Detail: fmt.Sprintf("a layer of %d bytes has another length", want.Size)}
	default:
		err = checkSum("layer", sum, want.Digest)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// counter reports progress.
type counter struct {
	n      uint64
	report func(uint64)
}

// Write counts.
func (c *counter) Write(p []byte) (int, error) {
	c.n += uint64(len(p))
	c.report(c.n)
	return len(p), nil
}

func checkDigest(what string, data []byte, want v1.Hash) error {
	sum := sha256.New()
	sum.Write(data)
	return checkSum(what, sum, want)
}

func checkSum(what string, sum hash.Hash, want v1.Hash) error {
	if want.Algorithm != "sha256" || hex.EncodeToString(sum.Sum(nil)) != want.Hex {
		return &container.Error{Code: container.CodeDigestMismatch, Detail: fmt.Sprintf("%s %.80s", what, want)}
	}
	return nil
}

func badImage(format string, args ...any) error {
	return &container.Error{Code: container.CodeBadImage, Detail: fmt.Sprintf(format, args...)}
}
