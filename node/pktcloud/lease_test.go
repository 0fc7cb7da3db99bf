package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// script is a node whose lease is in one phase after the other, and whose services
// stand in one way after the other; then ctx ends. Its clock goes on by a second with
// each look.
type script struct {
	leases []service.Lease
	stands [][]service.Standing
	cancel context.CancelFunc
	now    time.Time
}

func (s *script) AwaitLease(ctx context.Context, _ string, _ time.Duration) (service.Lease, error) {
	return s.Lease(ctx, "")
}

func (s *script) Lease(ctx context.Context, _ string) (service.Lease, error) {
	if len(s.leases) == 0 {
		s.cancel()
		return service.Lease{}, ctx.Err()
	}
	l := s.leases[0]
	s.leases = s.leases[1:]
	return l, nil
}

func (s *script) LeaseServices(context.Context, string) ([]service.Standing, error) {
	if len(s.stands) == 0 {
		return nil, service.Errorf(service.CodeUnreachable, "nobody says")
	}
	list := s.stands[0]
	if len(s.stands) > 1 {
		s.stands = s.stands[1:]
	}
	return list, nil
}

// TestAwaitService: the wait ends once all services do what they are for, or
// says why they do not.
func TestAwaitService(t *testing.T) {
	in := func(phase, problem string) service.Lease {
		return service.Lease{Label: "3dd82074", Phase: phase, Problem: problem, CloseReason: "requested"}
	}
	over := func(fault, problem string) service.Lease {
		l := in("closed", problem)
		l.CloseReason, l.Fault, l.Served = "workload", &service.Fault{Code: fault}, 1
		return l
	}
	three := 3
	runs := []service.Standing{{Name: "web", State: "running"}}
	starting := []service.Standing{{Name: "web", State: "running", Health: "starting"}}
	healthy := []service.Standing{{Name: "web", State: "running", Health: "healthy"}}
	loops := []service.Standing{{Name: "web", State: "backoff", Restarts: 4, Looping: true, Exit: &three, Text: "ended with exit code 3: no table"}}
	ended := []service.Standing{{Name: "app", State: "failed", Exit: &three, Text: "ended with exit code 3: no table"}}
	active := in("active", "")
	for _, c := range []struct {
		name   string
		leases []service.Lease
		stands [][]service.Standing
		want   int
		says   []string
	}{
		{"it runs on", []service.Lease{in("funded", ""), active, active, active, active}, [][]service.Standing{runs}, 0, nil},
		{"it is healthy at last", []service.Lease{active, active}, [][]service.Standing{starting, healthy}, 0, nil},
		{"nobody says at first", []service.Lease{active, active}, [][]service.Standing{nil, healthy}, 0, nil},
		{"a crash loop", []service.Lease{active, active}, [][]service.Standing{starting, loops}, 9, []string{"Service web ended 5 times, last it ended with exit code 3: no table.", "The lease goes on", "lease close --dir /d 3dd82074", "logs --dir /d 3dd82074"}},
		{"it ended at once", []service.Lease{active, in("closing", ""), over("exit", "The program ended.")}, [][]service.Standing{ended}, 9, []string{"3dd82074", "The reason is: requested."}},
		{"it ended, and the lease with it", []service.Lease{active, over("exit", `The program ended. The provider says: "no table".`)}, [][]service.Standing{ended}, 9, []string{"lease 3dd82074 ended. The program ended.", "no table"}},
		{"all jobs are done", []service.Lease{active, over("done", "")}, [][]service.Standing{{{Name: "job", Job: true, State: "starting"}}}, 0, nil},
		{"not paid", []service.Lease{in("suspended", "")}, nil, 0, nil},
		{"no program", []service.Lease{in("funded", ""), in("closing", "The program could not be started.")}, nil, 9, []string{"3dd82074", "before its service ran. The program could not be started."}},
		{"closed meanwhile", []service.Lease{in("closed", "")}, nil, 9, []string{"The reason is: requested."}},
		{"refused at last", []service.Lease{in("proposed", ""), in("refused", "too late")}, nil, 4, []string{"too late"}},
		{"interrupted", []service.Lease{in("funded", "")}, nil, 130, []string{"the lease goes on", "lease close --dir /d 3dd82074"}},
		{"interrupted later", []service.Lease{in("funded", ""), active}, [][]service.Standing{starting}, 130, []string{"the lease goes on"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var errOut bytes.Buffer
			a := &app{dir: "/d", out: &bytes.Buffer{}, err: &errOut}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := &script{leases: c.leases, stands: c.stands, cancel: cancel}
			w := waiter{a: a, n: s, clock: func() time.Time { return s.now }, sleep: func(context.Context, time.Duration) { s.now = s.now.Add(time.Second) }}
			_, err := w.run(ctx, in("agreed", ""))
			if got := a.report(err); got != c.want {
				t.Errorf("got exit code %d (%v), want %d", got, err, c.want)
			}
			for _, part := range c.says {
				if !strings.Contains(errOut.String(), part) {
					t.Errorf("%q lacks %q", errOut.String(), part)
				}
			}
		})
	}
}

// TestShowCreated: what is not sure yet is said, with what to do next.
func TestShowCreated(t *testing.T) {
	for phase, c := range map[string]struct {
		want int
		says string
	}{
		"proposed": {7, "Next: pktcloud lease show 3dd82074"},
		"agreed":   {0, "Next: pktcloud lease show 3dd82074"},
		"active":   {0, ""},
	} {
		var out, errOut bytes.Buffer
		a := &app{dir: node.DefaultDir(), out: &out, err: &errOut}
		if got := a.report(a.showCreated(service.Lease{Label: "3dd82074", Phase: phase})); got != c.want {
			t.Errorf("%s: got exit code %d, want %d", phase, got, c.want)
		}
		if next := strings.Contains(out.String(), "Next: "); next != (c.says != "") || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: got %q, want %q", phase, out.String(), c.says)
		}
		if told := strings.Contains(errOut.String(), "has not answered"); told != (c.want == 7) {
			t.Errorf("%s: got %q on standard error", phase, errOut.String())
		}
	}
}

// TestPrintServices: a crash loop, the last exit and its reason are to be seen.
func TestPrintServices(t *testing.T) {
	exit, done := 137, 0
	var out bytes.Buffer
	printServices(&out, []service.Standing{
		{Name: "web", State: "running", Health: "healthy", Since: 1_800_000_000, CPU: 1500, Memory: 64 << 20},
		{Name: "db", State: "backoff", Restarts: 6, Looping: true, Exit: &exit, OOM: true, Since: 1_800_000_000, Text: "ended with exit code 137, out of memory"},
		{Name: "migrate", State: "done", Job: true, Exit: &done, Since: 1_800_000_000, Text: "ended with exit code 0"},
	})
	want := `SERVICE  STATE                 HEALTH   RESTARTS  EXIT          SINCE                 CPU TIME  MEMORY
web      running               healthy  0         -             2027-01-15 08:00:00Z  1.5s      64 MiB
db       backoff (crash loop)  -        6         137 (memory)  2027-01-15 08:00:00Z  -         -
migrate  done                  -        0         0             2027-01-15 08:00:00Z  -         -
db: ended with exit code 137, out of memory
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestPrintVolumes: what is full, or not there, is to be seen.
func TestPrintVolumes(t *testing.T) {
	at := []service.LeaseMount{{Service: "db", Path: "/var/lib/db"}, {Service: "web", Path: "/srv", ReadOnly: true}}
	var out bytes.Buffer
	printVolumes(&out, []service.VolumeStanding{
		{LeaseVolume: service.LeaseVolume{Name: "data", Size: 2 << 30, Mounts: at}, Free: 1 << 30, Ready: true},
		{LeaseVolume: service.LeaseVolume{Name: "logs", Size: 300 << 20, Mounts: at[:1]}, Free: 40 << 10, Full: true, Ready: true},
		{LeaseVolume: service.LeaseVolume{Name: "lost", Size: 300 << 20, Mounts: at[1:]}},
	})
	printVolumes(&out, nil)
	want := `VOLUME  SIZE     FREE           MOUNTED
data    2 GiB    1 GiB          db:/var/lib/db, web:/srv (read-only)
logs    300 MiB  40 KiB (full)  db:/var/lib/db
lost    300 MiB  - (not there)  web:/srv (read-only)
The lease has no volumes.
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
