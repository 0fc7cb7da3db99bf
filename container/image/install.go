package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

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
func (s *Store) install(ctx context.Context, ref string, src source, o container.PullOptions) (container.Image, error) {
	p, err := s.plan(ctx, src, o)
	if err != nil {
		return container.Image{}, err
	}
	digest := p.image.Digest
	m := meta{Image: p.image, Parted: true, FirstID: s.firstID, Private: o.Username != "" || o.Password != "", Ref: ref}
	layers, done, err := s.layers(ctx, p, &m, o)
	defer done()
	if err != nil {
		return container.Image{}, err
	}
	give, err := s.hold(ctx, digest)
	if err != nil {
		return container.Image{}, err
	}
	defer give()
	key := filepath.Join(imagesDir, fileName(digest))
	if old, err := s.load(digest); err == nil {
		stay, there := s.keep(key)
		if there {
			defer stay()
			old.Image.Index, old.Ref = m.Image.Index, nameOf(ref, old.Ref)
			old.Image.Entrypoint, old.Parted = m.Image.Entrypoint, true
			old.Private = old.Private && m.Private // the registry has just given it to anybody
			return old.Image, storeError(ctx, digest, writeJSON(s.path(key, metaFile), old))
		}
	}
	tmp := filepath.Join(tmpDir, fileName(digest))
	err = s.compose(ctx, tmp, layers, &m)
	if err == nil {
		err = os.Rename(s.path(tmp), s.path(key))
	}
	if err == nil {
		err = durable.SyncDir(s.path(imagesDir))
	}
	if err == nil {
		s.add(key, s.entryOf(m, time.Now()))
	}
	if err != nil {
		err = errors.Join(storeError(ctx, digest, err), removeTree(s.path(tmp)))
	}
	s.release(tmp, 0)
	return m.Image, err
}

// nameOf is what an image is known by: the tag that led to it stays its name when
// the same repository is asked for the digest.
func nameOf(ref, before string) string {
	repository, _, pinned := strings.Cut(ref, "@")
	if tag, ok := strings.CutPrefix(before, repository); pinned && ok && strings.HasPrefix(tag, ":") && !strings.ContainsAny(tag, "/@") {
		return before
	}
	return ref
}

// layers brings all layers in. They stay until done is called.
func (s *Store) layers(ctx context.Context, p *plan, m *meta, o container.PullOptions) (out []layer, done func(), err error) {
	var kept []func()
	done = func() {
		for _, stay := range kept {
			stay()
		}
	}
	before := uint64(0)
	left := bounds{Bytes: s.cfg.MaxUnpackedBytes, Files: MaxFiles}
	for i, d := range p.manifest.Layers {
		n := need{Descriptor: d, DiffID: p.config.RootFS.DiffIDs[i].String(), Private: m.Private, Left: left, Report: func(n uint64) {
			if o.Progress != nil {
				o.Progress(before+n, p.image.SizeBytes)
			}
		}}
		var l layer
		for there := false; !there; { // it may be removed before it is kept
			if l, err = s.layer(ctx, p.src, n); err != nil {
				return nil, done, err
			}
			var stay func()
			if stay, there = s.keep(filepath.Join(layersDir, s.layerName(d.Digest))); there {
				kept = append(kept, stay)
			}
		}
		before += uint64(d.Size)
		left.Bytes -= l.Bytes
		left.Files -= l.Files
		m.Layers = append(m.Layers, s.layerName(d.Digest))
		out = append(out, l)
	}
	m.Image.UnpackedBytes = s.cfg.MaxUnpackedBytes - left.Bytes
	return out, done, nil
}

// compose makes an image's tree of its layers' files, which it shares with
// them by hard links, in the directory tmp. Its space is claimed.
func (s *Store) compose(ctx context.Context, tmp string, layers []layer, m *meta) error {
	dir := s.path(tmp)
	if err := errors.Join(removeTree(dir), os.Mkdir(dir, 0o700)); err != nil {
		return err
	}
	m.Alone = len(layers) == 1 && layers[0].Marks == 0
	if !m.Alone {
		files := uint64(1)
		for _, l := range layers {
			files += l.Files
		}
		if err := s.claim(ctx, tmp, files*perFile/8); err != nil {
			return err
		}
		used, err := s.link(ctx, dir, m.Layers)
		if err != nil {
			return err
		}
		m.OwnBytes = used.Bytes
		if err := syncTree(dir); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(dir, metaFile), m)
}

// link fills the tree.
func (s *Store) link(ctx context.Context, dir string, names []string) (usage, error) {
	root, err := makeRoot(filepath.Join(dir, rootDir), s.firstID)
	if err != nil {
		return usage{}, err
	}
	defer root.Close()
	var trees []*os.File
	defer func() {
		for _, f := range trees {
			_ = f.Close()
		}
	}()
	for _, name := range names {
		f, err := os.Open(s.path(layersDir, name, rootDir))
		if err != nil {
			return usage{}, err
		}
		trees = append(trees, f)
	}
	return s.merge(ctx, root, trees)
}

// plan checks what an image says of itself, before anything large is read.
func (s *Store) plan(ctx context.Context, src source, o container.PullOptions) (*plan, error) {
	p := &plan{src: src}
	var err error
	if p.manifest, err = v1.ParseManifest(bytes.NewReader(src.manifest)); err != nil {
		return nil, badImage("manifest: %v", err)
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
	raw, err := src.config(ctx, m.Config)
	if err != nil {
		return nil, err
	}
	if err := checkDigest("configuration", raw, m.Config.Digest); err != nil {
		return nil, err
	}
	if p.config, err = v1.ParseConfigFile(bytes.NewReader(raw)); err != nil {
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
		Digest: src.digest, Index: src.index, SizeBytes: total, OS: c.OS, Arch: c.Architecture,
		Args: slices.Concat(c.Config.Entrypoint, c.Config.Cmd), Env: c.Config.Env, WorkDir: c.Config.WorkingDir, User: c.Config.User,
		StopSignal: c.Config.StopSignal, Entrypoint: len(c.Config.Entrypoint),
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
	if len(img.StopSignal) > container.MaxUserBytes {
		return badImage("its stop signal has %d bytes", len(img.StopSignal))
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

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
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
