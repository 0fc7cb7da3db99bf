package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

const (
	registryUser     = "ann"
	registryPassword = "pa55-of-the-registry"
)

// privateRegistry serves one image to those who know the password, and returns its
// reference.
func privateRegistry(t *testing.T) string {
	t.Helper()
	inner := registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != registryUser || password != registryPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/shop/db:1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.FromFiles(image.Build{Args: []string{"keep"}})
	if err == nil {
		err = remote.Write(ref, img, remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: registryUser, Password: registryPassword})))
	}
	if err != nil {
		t.Fatal(err)
	}
	return ref.Name()
}

// private is a runtime whose images stand behind a registry: who is let in there
// gets the twin's.
type private struct {
	*pullCounter
	ref    string
	store  *image.Store
	forget atomic.Bool // the image, before the next start
	again  atomic.Int64
}

func newPrivate(t *testing.T, twin *pullCounter, ref string) *private {
	t.Helper()
	host, _, _ := strings.Cut(ref, "/")
	d, err := dialer.New([]string{host})
	if err != nil {
		t.Fatal(err)
	}
	store, err := image.Open(image.Config{Dir: t.TempDir(), Dial: d.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return &private{pullCounter: twin, ref: ref, store: store}
}

func (p *private) ask(ctx context.Context, o container.PullOptions) error {
	_, err := p.store.Inspect(ctx, p.ref, o)
	return err
}

func (p *private) Inspect(ctx context.Context, _ string, o container.PullOptions) (container.Image, error) {
	if err := p.ask(ctx, o); err != nil {
		return container.Image{}, err
	}
	return p.pullCounter.Inspect(ctx, imageRef, o)
}

func (p *private) Pull(ctx context.Context, ref string, o container.PullOptions) (container.Image, error) {
	if err := p.ask(ctx, o); err != nil {
		return container.Image{}, err
	}
	if p.forget.Swap(false) {
		p.again.Add(1)
	}
	return p.pullCounter.Pull(ctx, imageRef, o)
}

func (p *private) Start(ctx context.Context, s container.Spec) error {
	if p.forget.Load() {
		return &container.Error{Code: container.CodeUnknownImage}
	}
	return p.pullCounter.Start(ctx, s)
}

// holding returns the files below a directory that have the password.
func holding(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, f fs.DirEntry, err error) error {
		if err != nil || !f.Type().IsRegular() {
			return nil // gone meanwhile
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(registryPassword)) {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// notes is a log that a test reads.
type notes struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

// TestCredentialsOfALease: a private image runs with the lease's credentials and
// without them not, also when the image must be had again after a restart of the
// node; they are in one file of the provider as long as the lease lives, and
// nowhere else [LEASE-42] [LEASE-43] [LEASE-44] [LEASE-45].
func TestCredentialsOfALease(t *testing.T) {
	ref := privateRegistry(t)
	var log notes
	var runtime *private
	w := newWorld(t, func(c *node.Config) {
		runtime = newPrivate(t, c.Runtime.(*pullCounter), ref)
		c.Runtime, c.Log = runtime, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	ctx := t.Context()
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	o := w.diskOffer()
	ask := func(list ...service.RegistryCredential) (service.Lease, error) {
		r := request(o)
		r.Image, r.Command, r.Port, r.Restart, r.Credentials, r.MaxRate = ref, []string{"keep"}, 0, "always", list, pktcloud.UnitsPerPKT
		r.Volumes = []service.VolumeRequest{{Name: "data", Path: "/var/lib/db", Size: 300 << 20}}
		return w.tenant.CreateLease(ctx, r)
	}
	right := service.RegistryCredential{Username: registryUser, Password: registryPassword}
	wrong := service.RegistryCredential{Username: registryUser, Password: "not-" + registryPassword}
	refused := func(what string, list ...service.RegistryCredential) {
		t.Helper()
		if _, err := ask(list...); !errors.Is(err, service.CodeRefused) || strings.Contains(err.Error(), registryPassword) {
			t.Errorf("%s: got %v, want a refusal", what, err)
		}
	}
	refused("without credentials")
	refused("a wrong password", wrong)
	elsewhere := right
	elsewhere.Registry = "registry.example"
	if _, err := ask(elsewhere); !errors.Is(err, service.CodeInvalid) || strings.Contains(err.Error(), registryPassword) {
		t.Errorf("a registry of no image: got %v", err)
	}
	l, err := ask(right)
	w.check(err)
	runs := func(n string) func() bool {
		return func() bool {
			var out bytes.Buffer
			err := w.tenant.Logs(ctx, l.Label, service.LogRequest{}, &out)
			return err == nil && strings.Contains(out.String(), "run "+n+"\n")
		}
	}
	w.until("it runs", runs("1"))
	refused("without credentials, soon after somebody with them")
	file := filepath.Join(w.provider.config.Dir, "credentials", l.ID.Hex())
	kept := func() {
		t.Helper()
		if got := holding(t, w.provider.config.Dir); len(got) != 1 || got[0] != file {
			t.Errorf("the provider has the password in %v, want it in %s alone", got, file)
		}
		if got := holding(t, w.tenant.config.Dir); len(got) != 0 {
			t.Errorf("the tenant has the password in %v", got)
		}
		for path, want := range map[string]fs.FileMode{file: 0o600, filepath.Dir(file): 0o700} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: got %v, %v, want mode %v", path, info, err, want)
			}
		}
	}
	kept()
	stray := filepath.Join(filepath.Dir(file), strings.Repeat("ab", 32)) // of an agreement that a crash ended
	w.check(os.WriteFile(stray, []byte(registryPassword), 0o600))
	w.provider.stop()
	runtime.forget.Store(true)
	w.provider = w.start(w.provider.config)
	kept()
	w.until("it is told to end", func() bool {
		c, err := w.tenant.Forward(ctx, l.Label, 8080)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	w.until("it runs again, from an image that was had again", runs("2"))
	if runtime.again.Load() == 0 {
		t.Error("the image was not asked for again")
	}
	shown, err := json.Marshal(l)
	w.check(err)
	if text := log.String() + string(shown); strings.Contains(text, registryPassword) {
		t.Errorf("the password is in a log or an answer:\n%s", text)
	}
	_, err = w.tenant.CloseLease(ctx, l.Label)
	w.check(err)
	w.until("nobody has the password", func() bool { return len(holding(t, w.provider.config.Dir)) == 0 })
}
