package node_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// diskOffer publishes an offer that has a price for disk.
func (w *world) diskOffer() (found service.Offer) {
	w.t.Helper()
	_, err := w.provider.PublishOffer(w.t.Context(), service.OfferSpec{
		CPUPerCoreHour: pktcloud.UnitsPerPKT / 10, DiskPerGiBHour: pktcloud.UnitsPerPKT / 10,
		Capacity: service.Resources{MilliCPU: 1000, MemoryBytes: 1 << 30, DiskBytes: 1 << 30},
	})
	w.check(err)
	w.until("the offer reaches the tenant", func() bool {
		page, err := w.tenant.Offers(w.t.Context(), service.OfferQuery{})
		w.check(err)
		if len(page.Offers) > 0 {
			found = page.Offers[0]
		}
		return len(page.Offers) > 0
	})
	return found
}

// database is a lease of a database with a volume, and of a job that reads it.
func database(o service.Offer) service.LeaseRequest {
	r := several(o)
	r.MaxRate = pktcloud.UnitsPerPKT
	m := r.Manifest
	m.Services[0].Name, m.Services[0].Args, m.Services[0].Depends = "db", []string{"keep"}, nil
	m.Services[0].Mounts = []lease.Mount{{Volume: "data", Path: "/var/lib/db"}}
	m.Services[1].Mounts = []lease.Mount{{Volume: "data", Path: "/srv", ReadOnly: true}}
	m.Volumes = []lease.Volume{{Name: "data", SizeBytes: lease.MinVolumeBytes}}
	m.Probe = lease.Probe{Service: "db", TimeoutSeconds: 5}
	return r
}

// TestVolumesOfALease: a volume is part of the lease's disk and price, keeps what
// the service wrote over its runs and the node's, and is gone with the lease
// [SERVICE-26] [SERVICE-29] [SERVICE-30] [SESSION-30].
func TestVolumesOfALease(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	o := w.diskOffer()
	l, err := w.tenant.CreateLease(ctx, database(o))
	w.check(err)
	want := service.Resources{MilliCPU: 500, MemoryBytes: 128 << 20, DiskBytes: 8<<20 + lease.MinVolumeBytes}
	rate, err := o.Body.Rate(market.Resources(want))
	w.check(err)
	if l.Resources != want || l.Rate != rate || rate <= pktcloud.UnitsPerPKT/20 {
		t.Errorf("got %+v at %d, want %+v at %d", l.Resources, uint64(l.Rate), want, uint64(rate))
	}
	if len(l.Volumes) != 1 || l.Volumes[0].Name != "data" || len(l.Volumes[0].Mounts) != 2 || l.Volumes[0].Mounts[1] != (service.LeaseMount{Service: "greet", Path: "/srv", ReadOnly: true}) {
		t.Errorf("got %+v", l.Volumes)
	}
	standing := func(n *running) service.VolumeStanding {
		list, err := n.LeaseVolumes(ctx, l.Label)
		if err != nil || len(list) != 1 {
			return service.VolumeStanding{}
		}
		return list[0]
	}
	runs := func(n string) func() bool {
		return func() bool {
			var out bytes.Buffer
			err := w.tenant.Logs(ctx, l.Label+"/db", service.LogRequest{}, &out)
			return err == nil && strings.Contains(out.String(), "run "+n+"\n")
		}
	}
	w.until("the database has run", runs("1"))
	for _, n := range []*running{w.tenant, w.provider} {
		if v := standing(n); !v.Ready || v.Full || v.Size != lease.MinVolumeBytes || v.Free == 0 || v.Free >= v.Size || len(v.Mounts) != 2 {
			t.Errorf("got %+v of the volume", v)
		}
	}
	again := func() { // the lease may be suspended until the provider is back
		w.until("the database is told to end", func() bool {
			c, err := w.tenant.Forward(ctx, l.Label+"/db", 8080)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	again()
	w.until("it ran again over the same files", runs("2"))
	w.provider.stop()
	w.provider = w.start(w.provider.config)
	w.until("the tenant is back", func() bool { return standing(w.tenant).Ready })
	again()
	w.until("it ran once more, with another node", runs("3"))

	_, err = w.tenant.CloseLease(ctx, l.Label)
	w.check(err)
	w.until("nothing is left", func() bool {
		all, err := w.runtime.List(ctx)
		w.check(err)
		volumes, err := w.runtime.Volumes(ctx, "")
		w.check(err)
		if len(all)+len(volumes) > 0 {
			pl, e := w.provider.Lease(ctx, l.Label)
			sv, e2 := w.provider.LeaseServices(ctx, l.Label)
			t.Logf("%+v %+v %v %v %v\n%+v %v", all, volumes, pl.Phase, pl.CloseReason, e, sv, e2)
		}
		return len(all) == 0 && len(volumes) == 0
	})
}

// TestVolumesRefused: who cannot make volumes says so before money moves
// [SERVICE-27].
func TestVolumesRefused(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	o := w.diskOffer()
	for code, want := range map[container.Code]string{container.CodeMissingFeature: "cannot make volumes", container.CodeDiskFull: "no room for volumes of 300 MiB"} {
		w.runtime.FailVolumes(&container.Error{Code: code, Detail: "secret"})
		_, err := w.tenant.CreateLease(ctx, database(o))
		if !errors.Is(err, service.CodeRefused) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want a refusal with %q", err, want)
		}
	}
	w.runtime.FailVolumes(nil)
	r := database(o)
	r.Manifest.Volumes[0].SizeBytes = 2 << 30
	if _, err := w.tenant.CreateLease(ctx, r); err == nil {
		t.Error("got a lease with more volume than the offer has disk")
	}
	if channels, err := w.tenant.Channels(ctx); err != nil || len(channels) != 0 {
		t.Errorf("got %d channels, %v, want none opened", len(channels), err)
	}
	for _, change := range []func(*service.LeaseRequest){
		func(r *service.LeaseRequest) { r.Manifest.Services[0].Mounts[0].Path = "/proc" },
		func(r *service.LeaseRequest) { r.Manifest.Volumes[0].SizeBytes = 1 << 20 },
		func(r *service.LeaseRequest) {
			r.Volumes = []service.VolumeRequest{{Name: "x", Path: "/x", Size: lease.MinVolumeBytes}}
		},
	} {
		r := database(o)
		change(&r)
		if _, err := w.tenant.CreateLease(ctx, r); !errors.Is(err, service.CodeInvalid) {
			t.Errorf("got %v for a request that is wrong, want %s", err, service.CodeInvalid)
		}
	}
}

// TestNoVolumesToLend: an offer says whether there are volumes; a lease with
// some under one that has none is refused by the tenant's own node, before the
// provider hears of it [MARKET-28] [SERVICE-36].
func TestNoVolumesToLend(t *testing.T) {
	w := newWorld(t, func(c *node.Config) {
		c.Runtime.(*pullCounter).FailVolumes(&container.Error{Code: container.CodeMissingFeature})
	})
	ctx := t.Context()
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	o := w.diskOffer()
	if o.Body.Volumes {
		t.Error("the offer of a machine that can make no volumes says that it has some")
	}
	if page, err := w.tenant.Offers(ctx, service.OfferQuery{Volumes: true}); err != nil || len(page.Offers) != 0 {
		t.Errorf("got %d offers, %v, want none with volumes", len(page.Offers), err)
	}
	w.provider.stop() // nobody is there who could refuse
	if _, err := w.tenant.CreateLease(ctx, database(o)); !errors.Is(err, service.CodeRefused) || !strings.Contains(err.Error(), "cannot make volumes") {
		t.Errorf("got %v, want a refusal", err)
	}
	w.runtime.FailVolumes(nil)
	w.provider = w.start(w.provider.config)
	w.until("the offer of a machine that can", func() bool {
		page, err := w.tenant.Offers(ctx, service.OfferQuery{Volumes: true})
		w.check(err)
		return len(page.Offers) == 1
	})
}

// TestVolumesUnmade: a lease whose volume cannot be made after all ends unpaid,
// and says why [SERVICE-28].
func TestVolumesUnmade(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	o := w.diskOffer()
	w.runtime.full.Store(true)
	l, err := w.tenant.CreateLease(ctx, database(o))
	w.check(err)
	w.until("the lease ends", func() bool {
		l, err = w.tenant.Lease(ctx, l.Label)
		w.check(err)
		return l.Phase == "closed"
	})
	if l.Fault == nil || l.Fault.Code != "machine" || !strings.Contains(l.Fault.Text, "no room for volume data of 314572800 bytes") || l.Paid != 0 {
		t.Errorf("got fault %+v and %d units paid, want the disk named and nothing paid", l.Fault, uint64(l.Paid))
	}
}
