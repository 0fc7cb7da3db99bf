package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/pkt-cash/pkt-cloud/container"
)

// lyingNames answers names of this machine's resolver, as whoever owns a name
// may: with addresses of other people's networks.
func lyingNames(t *testing.T, names map[string][]string) {
	t.Helper()
	l, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	was := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", l.LocalAddr().String())
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			if out, err := answerName(b[:n], names); err == nil {
				_, _ = l.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() {
		net.DefaultResolver = was
		_ = l.Close()
		<-done
	})
}

func answerName(query []byte, names map[string][]string) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil, errors.Join(err, errors.New("no question"))
	}
	q := m.Questions[0]
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
	for _, s := range names[strings.TrimSuffix(q.Name.String(), ".")] {
		a := netip.MustParseAddr(s)
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return m.Pack()
}

// TestNamesLeadAstray meets names that resolve to private and metadata
// addresses: of a registry, of where it redirects to, of its token server.
func TestNamesLeadAstray(t *testing.T) {
	names := map[string][]string{
		"metadata.test": {"169.254.169.254"}, "private.test": {"10.0.0.1"}, "carrier.test": {"100.64.0.1"}, "loopback.test": {"127.0.0.1"},
		"six.test": {"fd00:ec2::254"}, "mapped.test": {"::ffff:192.168.0.1"}, "inner.test": {"64:ff9b::a00:1"}, "many.test": {"172.16.0.1", "192.168.0.1"},
	}
	lyingNames(t, names)
	img := layered(t, hostileLayer(t, []tarEntry{file("x", strings.Repeat("data", 5_000))}, ""))
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for host := range names {
		for _, c := range []struct {
			name   string
			tamper func(w http.ResponseWriter, r *http.Request) bool
			direct bool
		}{
			{name: "registry", direct: true},
			{name: "manifest", tamper: func(w http.ResponseWriter, r *http.Request) bool {
				if isManifest(r) {
					http.Redirect(w, r, "http://"+host+"/", http.StatusFound)
				}
				return isManifest(r)
			}},
			{name: "blob", tamper: func(w http.ResponseWriter, r *http.Request) bool {
				if isBlob(r, m.Layers[0].Digest) {
					http.Redirect(w, r, "http://"+host+"/latest", http.StatusTemporaryRedirect)
				}
				return isBlob(r, m.Layers[0].Digest)
			}},
			{name: "token server", tamper: func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("WWW-Authenticate", `Bearer realm="https://`+host+`/token"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}},
		} {
			t.Run(host+"/"+c.name, func(t *testing.T) {
				f := newFront(t)
				ref := f.addr + "/app:1"
				push(t, ref, img)
				s := openStore(t, Config{Dial: f.dialer.DialContext, Stall: time.Minute})
				f.set(c.tamper)
				asked := ref
				if c.direct {
					asked = host + "/app:1"
				}
				if _, err := s.Pull(t.Context(), asked, container.PullOptions{Username: "tenant", Password: "secret"}); !errors.Is(err, container.CodeForbiddenHost) {
					t.Errorf("got %v, want %q", err, string(container.CodeForbiddenHost))
				}
				checkUnharmed(t, host, s, f, ref)
			})
		}
	}
}

// TestBombImages pulls images that unpack to more than they may, through a
// registry: nothing is kept of them.
func TestBombImages(t *testing.T) {
	gz := func(b []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, err := w.Write(b)
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	zst := func(b []byte) []byte {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out)
		if err == nil {
			_, err = w.Write(b)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	zeros := hostileLayer(t, []tarEntry{file("zeros", strings.Repeat("\x00", 32<<20))}, "")
	tail := append(hostileLayer(t, nil, ""), make([]byte, 32<<20)...)
	half := hostileLayer(t, []tarEntry{file("zeros", strings.Repeat("\x00", 3<<20))}, "")
	for _, c := range []struct {
		name   string
		layers [][2][]byte // as they travel, and unpacked
	}{
		{name: "zeros", layers: [][2][]byte{{gz(zeros), zeros}}},
		{name: "zeros by another compression", layers: [][2][]byte{{zst(zeros), zeros}}},
		{name: "zeros after the end", layers: [][2][]byte{{gz(tail), tail}}},
		{name: "layers that are too much together", layers: [][2][]byte{{gz(half), half}, {gz(append(half, make([]byte, 512)...)), append(half, make([]byte, 512)...)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFront(t)
			ref := f.addr + "/app:1"
			push(t, ref, packed(t, c.layers))
			s := openStore(t, Config{Dial: f.dialer.DialContext, MaxUnpackedBytes: 4 << 20})
			if _, err := s.Pull(t.Context(), ref, container.PullOptions{}); !errors.Is(err, container.CodeTooLarge) {
				t.Errorf("got %v, want %q", err, string(container.CodeTooLarge))
			}
			for _, d := range []string{imagesDir, tmpDir, partialsDir} {
				if left, err := os.ReadDir(s.path(d)); err != nil || len(left) != 0 {
					t.Errorf("%s: got %v, %v; want nothing left", d, left, err)
				}
			}
			checkUnmounted(t, c.name, s)
			checkCounted(t, s)
		})
	}
}

// packed makes an image of layers that are compressed already.
func packed(t *testing.T, layers [][2][]byte) v1.Image {
	t.Helper()
	img := layered(t)
	for _, l := range layers {
		sum := sha256.Sum256(l[1])
		layer := packedLayer{static.NewLayer(l[0], types.OCILayer), v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}}
		var err error
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

type packedLayer struct {
	v1.Layer
	diffID v1.Hash
}

// DiffID is that of the unpacked bytes.
func (l packedLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }
