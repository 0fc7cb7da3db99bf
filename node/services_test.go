package node_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// several is a lease of a web service that waits for a job, and of a job.
func several(o service.Offer) service.LeaseRequest {
	r := request(o)
	each := market.Resources{MilliCPU: 250, MemoryBytes: 64 << 20, DiskBytes: 4 << 20}
	r.Image, r.Port, r.Resources = "", 0, service.Resources{}
	r.Manifest = &lease.Manifest{
		Services: []lease.Service{
			{
				Name: "front", Image: imageRef, Ports: []uint64{8080}, Resources: each, Restart: lease.Restart{Policy: lease.RestartAlways},
				Depends: []lease.Dependency{{Service: "greet", When: lease.WhenCompleted}},
			},
			{
				Name: "greet", Image: imageRef, Args: []string{"echo", "hello"}, Resources: each, Job: true,
				Restart: lease.Restart{Policy: lease.RestartOnFailure, Max: 2},
			},
		},
		Probe: lease.Probe{Service: "front", Port: 8080, HTTPPath: "/", TimeoutSeconds: 5},
	}
	return r
}

// TestServicesOfALease: each service is reached by its name, the lease costs
// the sum, and a job that never ends well ends a lease that waits for it
// [SERVICE-2] [SERVICE-11].
func TestServicesOfALease(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	o := w.offer()

	// "echo" of this image ends with 7.
	l, err := w.tenant.CreateLease(ctx, several(o))
	w.check(err)
	w.until("a job that fails ends what waits for it", func() bool {
		l, err = w.tenant.Lease(ctx, l.Label)
		w.check(err)
		return l.Phase == "closed"
	})
	if l.Fault == nil || l.Fault.Code != "exit" || !strings.Contains(l.Fault.Text, "greet") || l.Paid != 0 {
		t.Errorf("got fault %+v and %d units paid, want the job named and nothing paid", l.Fault, uint64(l.Paid))
	}

	w.mineUntil("the money is at hand again", func() bool {
		b, err := w.tenant.WalletBalance(ctx)
		w.check(err)
		return b.Spendable > pktcloud.UnitsPerPKT
	})
	r := several(o)
	r.Manifest.Services[0].Depends = nil
	l = w.order(r)
	if l.Resources != resources || l.Rate != o.Rate || len(l.Services) != 2 || l.Port != 8080 {
		t.Errorf("got %+v at %d, want the sum of both services", l.Resources, uint64(l.Rate))
	}
	var list []service.Standing
	w.until("the job has used up its restarts", func() bool {
		list, err = w.tenant.LeaseServices(ctx, l.Label)
		return err == nil && len(list) == 2 && list[1].State == "failed" && list[0].State == "running"
	})
	if list[1].Restarts != 2 || list[1].Exit == nil || *list[1].Exit != 7 || list[0].Restarts != 0 {
		t.Errorf("got %+v, want a job restarted twice", list)
	}
	if l, err = w.tenant.Lease(ctx, l.Label); err != nil || !strings.HasPrefix(l.Problem, "Service greet ended with exit code 7") {
		t.Errorf("got the problem %q, %v, want that of the job", l.Problem, err)
	}
	if all, err := w.tenant.Leases(ctx); err != nil || all[0].Problem != l.Problem {
		t.Errorf("got %+v, %v, want the same problem in the list", all, err)
	}
	if own, err := w.provider.Lease(ctx, l.Label); err != nil || own.Problem != "" {
		t.Errorf("got the problem %q, %v at the provider, want none: it is the tenant's", own.Problem, err)
	}
	if own, err := w.provider.LeaseServices(ctx, l.Label); err != nil || len(own) != 2 || own[1].State != "failed" {
		t.Errorf("got %+v, %v at the provider", own, err)
	}
	for who, n := range map[string]*node.Node{"tenant": w.tenant.Node, "provider": w.provider.Node} {
		all, err := n.LeaseMetrics(ctx, l.Label)
		if err != nil || len(all) != 2 || all[1].Service != "greet" || all[1].Runs != 3 || all[1].MilliCPU != 250 || all[1].Recent.Step != 10 {
			t.Errorf("%s: got %+v, %v, want what three runs of the job used", who, all, err)
		}
		if one, err := n.LeaseMetrics(ctx, l.Label+"/greet"); err != nil || len(one) != 1 || one[0].Service != "greet" {
			t.Errorf("%s: got %+v, %v of one service", who, one, err)
		}
	}
	var out bytes.Buffer
	w.check(w.tenant.Logs(ctx, l.Label+"/greet", service.LogRequest{}, &out))
	if strings.Count(out.String(), " stdout hello\n") != 3 {
		t.Errorf("got log %q, want a line of each run", out.String())
	}
	out.Reset()
	w.check(w.tenant.Logs(ctx, l.Label, service.LogRequest{}, &out))
	if !strings.Contains(out.String(), " stdout greet | hello\n") {
		t.Errorf("got log %q, want the service's name before its lines", out.String())
	}
	out.Reset()
	if code, err := w.tenant.Exec(ctx, l.Label+"/front", service.ExecRequest{Args: []string{"echo", "in"}}, service.Streams{Stdout: &out}); err != nil || code != 7 || out.String() != "in\n" {
		t.Errorf("exec: got %d, %v, %q", code, err, out.String())
	}
	for _, name := range []string{"/none", "/"} {
		if _, err := w.tenant.Forward(ctx, l.Label+name, 8080); !errors.Is(err, service.CodeNotFound) {
			t.Errorf("%s: got %v, want that it is not found", name, err)
		}
		if _, err := w.tenant.LeaseMetrics(ctx, l.Label+name); !errors.Is(err, service.CodeNotFound) {
			t.Errorf("metrics of %s: got %v, want that it is not found", name, err)
		}
	}
	for _, change := range []func(*service.LeaseRequest){
		func(r *service.LeaseRequest) { r.Image = imageRef },
		func(r *service.LeaseRequest) { r.Manifest.Services[0].Name = "Front" },
		func(r *service.LeaseRequest) { r.Manifest.Services = nil },
	} {
		r := several(o)
		change(&r)
		if _, err := w.tenant.CreateLease(ctx, r); !errors.Is(err, service.CodeInvalid) {
			t.Errorf("got %v for a request that is wrong, want %s", err, service.CodeInvalid)
		}
	}
	_, err = w.tenant.CloseLease(ctx, l.Label)
	w.check(err)
	w.until("nothing is left", func() bool {
		all, err := w.runtime.List(ctx)
		w.check(err)
		return len(all) == 0
	})
}

// TestJobsAreDone: a lease of jobs ends with them, and with no fault where all of
// them ended well [LEASE-46].
func TestJobsAreDone(t *testing.T) {
	w := newWorld(t)
	w.fund(w.tenant, 10*pktcloud.UnitsPerPKT)
	for program, want := range map[string]string{"true": "done", "echo": "exit"} {
		r := several(w.offer())
		job := r.Manifest.Services[1]
		job.Args, job.Restart = []string{program}, lease.Restart{Policy: lease.RestartNo}
		r.Manifest.Services, r.Manifest.Probe = []lease.Service{job}, lease.Probe{Service: job.Name, TimeoutSeconds: 5}
		l := w.order(r)
		w.until("the lease ends with its job", func() bool {
			var err error
			l, err = w.tenant.Lease(t.Context(), l.Label)
			w.check(err)
			return l.Phase == "closed"
		})
		w.mineUntil("the money is at hand again", func() bool {
			b, err := w.tenant.WalletBalance(t.Context())
			w.check(err)
			return b.Spendable > pktcloud.UnitsPerPKT
		})
		if l.Fault == nil || l.Fault.Code != want || (l.Problem == "") != (want == "done") {
			t.Errorf("%s: got fault %+v and problem %q, want %s", program, l.Fault, l.Problem, want)
		}
	}
}
