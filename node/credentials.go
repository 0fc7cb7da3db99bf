package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/internal/durable"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

var _ peer.CredentialKeeper = (*workload)(nil)

// agreeTime is how long an agreement may take between the keeping of its
// credentials and that of the lease.
const agreeTime = 10 * time.Minute

// KeepCredentials implements peer.CredentialKeeper: a file of each lease, that the
// owner of the node alone can read [LEASE-45].
func (w *workload) KeepCredentials(_ context.Context, id pktcloud.ID, c lease.Credentials) error {
	path := filepath.Join(w.secrets, id.Hex())
	if len(c) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := pktcloud.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(w.secrets, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, b)
}

// credentials returns those that are kept for a lease, by its id in hexadecimal.
func (w *workload) credentials(id string) (lease.Credentials, error) {
	b, err := os.ReadFile(filepath.Join(w.secrets, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c lease.Credentials
	if err := pktcloud.Unmarshal(b, &c, lease.MaxCredentialBytes); err != nil {
		return nil, err
	}
	return c, c.Validate()
}

// pullOptions are for one image of a lease: the credentials of its registry
// [LEASE-44].
func pullOptions(ref string, c lease.Credentials) container.PullOptions {
	v := c.For(image.Registry(ref))
	return container.PullOptions{Username: v.Username, Password: string(v.Password)}
}

// pullKey names what is remembered of a reference: what one lease may see with its
// credentials is not there for another [CONTAINER-12].
func pullKey(ref string, o container.PullOptions) string {
	if o.Username == "" && o.Password == "" {
		return ref
	}
	h := sha256.Sum256(fmt.Appendf(nil, "%d %d %s%s%s", len(ref), len(o.Username), ref, o.Username, o.Password))
	return hex.EncodeToString(h[:])
}

// sweepCredentials removes those of leases that are over or never came to be.
func (n *Node) sweepCredentials(now time.Time) {
	list, err := os.ReadDir(n.work.secrets)
	if err != nil {
		return // mostly there are none
	}
	live := map[string]bool{}
	for _, v := range n.provider.List() {
		live[v.ID.Hex()] = !v.Phase.Final()
	}
	for _, f := range list {
		known := live[f.Name()]
		info, err := f.Info()
		if known || err != nil || now.Sub(info.ModTime()) < agreeTime {
			continue
		}
		if err := os.Remove(filepath.Join(n.work.secrets, f.Name())); err != nil {
			n.cfg.Log.Warn("credentials of a lease that is over cannot be removed", "error", err)
		}
	}
}

// credentialsOf turns what the owner gave into what travels, for registries from
// which images of the lease come [LEASE-42].
func credentialsOf(list []service.RegistryCredential, m lease.Manifest) (lease.Credentials, error) {
	var of []string
	for _, v := range m.Services {
		if r := image.Registry(v.Image); r != "" && !slices.Contains(of, r) {
			of = append(of, r)
		}
	}
	var out lease.Credentials
	for _, v := range list {
		registry := v.Registry
		if registry == "" && len(of) == 1 {
			registry = of[0]
		} else if registry == "" {
			return nil, service.Errorf(service.CodeInvalid, "the images come from several registries (%s); say for which one the password is", strings.Join(of, ", "))
		}
		name, err := image.RegistryName(registry)
		if err != nil || !slices.Contains(of, name) {
			return nil, service.Errorf(service.CodeInvalid, "no image of the lease comes from registry %.80q; a password is sent for no other than %s", registry, strings.Join(of, ", "))
		}
		out = append(out, lease.Credential{Registry: name, Username: v.Username, Password: lease.Secret(v.Password)})
	}
	slices.SortFunc(out, func(a, b lease.Credential) int { return cmp.Compare(a.Registry, b.Registry) })
	if err := out.Validate(); err != nil {
		return nil, &service.Error{Code: service.CodeInvalid, Err: plain(err)}
	}
	return out, nil
}
