package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestLeaseAway: a lease whose other side is gone says so, beside its phase; one
// that is over does not.
func TestLeaseAway(t *testing.T) {
	for _, c := range []struct {
		lease service.Lease
		want  string
	}{
		{service.Lease{Role: "tenant", Phase: "active", Connected: true}, "active"},
		{service.Lease{Role: "tenant", Phase: "active"}, "active, provider not connected"},
		{service.Lease{Role: "provider", Phase: "suspended"}, "suspended, tenant not connected"},
		{service.Lease{Role: "tenant", Phase: "closed"}, "closed"},
	} {
		if got := phaseText(c.lease); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
		var list, show bytes.Buffer
		printLeases(&list, []service.Lease{c.lease})
		printLease(&show, c.lease, false)
		if !strings.Contains(list.String(), c.want) || !strings.Contains(show.String(), c.want) {
			t.Errorf("%q is not in the list %q and in what is shown %q", c.want, &list, &show)
		}
	}
}

// TestLeaseHistory: a long history is shown by its end, unless all is asked for.
func TestLeaseHistory(t *testing.T) {
	l := service.Lease{Role: "tenant", Phase: "active"}
	for i := range 40 {
		l.History = append(l.History, service.Entry{Kind: "voucher", Text: fmt.Sprintf("number %d.", i)})
	}
	var end, whole bytes.Buffer
	printLease(&end, l, false)
	printLease(&whole, l, true)
	if got := strings.Count(end.String(), "number"); got != lastEntries || !strings.Contains(end.String(), "number 39.") || !strings.Contains(end.String(), "--all") {
		t.Errorf("got %d entries in %q, want the last %d and how to see all", got, &end, lastEntries)
	}
	if got := strings.Count(whole.String(), "number"); got != len(l.History) {
		t.Errorf("with all: got %d entries, want %d", got, len(l.History))
	}
}

// TestRollTable: a plan says what a roll adds and costs, when the channel then
// ends and what it waits for.
func TestRollTable(t *testing.T) {
	r := service.Roll{Added: 1 << 29, Fee: 1 << 10, Capacity: 1 << 30, Expiry: 50_000, Seconds: 9 * 24 * 3600, Depth: 4, Left: 1 << 31}
	for _, c := range []struct {
		name string
		roll func(r *service.Roll)
		into string
		want []string
		not  []string
	}{
		{"plan", func(*service.Roll) {}, "", []string{"0.5 PKT", "block 50000 (in about 9 days)", "4 confirmations;", "left in the wallet", "2 PKT"}, []string{"goes on as", "Mind"}},
		{"done", func(*service.Roll) {}, "3dd82074", []string{"goes on as", "3dd82074"}, nil},
		{"soon", func(r *service.Roll) { r.Seconds, r.Depth = 3700, 1 }, "", []string{"in about 1 hour)", "1 confirmation;"}, nil},
		{"dear", func(r *service.Roll) { r.Added = 1 }, "", []string{"fee is more than what is added"}, nil},
		{"time alone", func(r *service.Roll) { r.Added = 0 }, "", nil, []string{"Mind"}},
		{"sent again", func(r *service.Roll) { r.Fee, r.Left = 0, 0 }, "3dd82074", nil, []string{"left in the wallet"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := r
			c.roll(&r)
			var out bytes.Buffer
			printRoll(&out, r, c.into)
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q lacks %q", &out, want)
				}
			}
			for _, not := range c.not {
				if strings.Contains(out.String(), not) {
					t.Errorf("%q has %q", &out, not)
				}
			}
		})
	}
}

// TestPeriodTooLong: a time that is none, and one that is too long, are told
// apart.
func TestPeriodTooLong(t *testing.T) {
	for text, want := range map[string]string{
		"1000000d": "the most is 65535d", "99999999999999999999999d": "the most is 65535d", "xd": "is no time", "7d": "", "65535d": "",
	} {
		var p period
		switch err := p.Set(text); {
		case err == nil && want != "":
			t.Errorf("%s: got %d, want an error", text, p)
		case err != nil && (want == "" || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %q, want %q", text, err, want)
		}
	}
}

// TestImageTable: one image has one name, and what a prune keeps has its reason.
func TestImageTable(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	image := func(ref string, used bool, age time.Duration) service.StoredImage {
		return service.StoredImage{
			Image: service.Image{Ref: ref, Digest: "sha256:" + strings.Repeat("ab", 32)}, InUse: used, LastUsed: now.Add(-age).Unix(), Layers: 1,
		}
	}
	s := service.ImageStore{UsedBytes: 2 << 30, MaxBytes: 1 << 30, Images: []service.StoredImage{
		image("mine:1", true, time.Hour), image("other@sha256:"+strings.Repeat("ab", 32), false, time.Minute), image("third:2", false, time.Hour),
	}}
	var out bytes.Buffer
	printImages(&out, s)
	for _, want := range []string{"DIGEST", "mine:1 ", "other ", "2 GiB of 1 GiB taken", "more than --image-space"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %q", &out, want)
		}
	}
	lines := strings.Join(kept(s, 24*time.Hour, now), "\n")
	want := "1 image kept: a container was started from it\n1 image kept: used within the last 10 minutes\n1 image kept: used within the time that --unused-for says"
	if lines != want {
		t.Errorf("got %q, want %q", lines, want)
	}
	if lines := kept(service.ImageStore{}, 0, now); len(lines) != 0 {
		t.Errorf("an empty store keeps %q", lines)
	}
}

// TestMetricsTable: each service's use has its last value, the most and its
// limit, and gaps are not shown as idle.
func TestMetricsTable(t *testing.T) {
	use := service.Uses{Begin: 1_800_000_000, Step: 10, Points: []service.Use{
		{Seen: 10_000, CPU: 5_000, Throttled: 100, Memory: 64 << 20, Disk: 1 << 20, In: 1 << 20, Out: 10 << 20}, {}, {Seen: 5_000, CPU: 1_250, Memory: 32 << 20},
	}}
	list := []service.Metrics{
		{Service: "web", Runs: 3, MilliCPU: 500, Memory: 64 << 20, Disk: 1 << 30, Hits: service.MetricHits{CPU: 7, Pids: 2, OOM: 1}, Recent: use, Life: use},
		{Service: "later", MilliCPU: 500},
	}
	for _, life := range []bool{false, true} {
		var out bytes.Buffer
		printMetrics(&out, list, life)
		for _, want := range []string{
			"web processor 0.25 0.5 0.5 █·▅", "memory 32 MiB 64 MiB 64 MiB █·▅", "sent 0 B/s 1 MiB/s - █·▁", "later nothing was measured yet",
			"web, run 3: limits hit, processor 7, processes 2; killed for memory: 1; measured since 2027-01-15 08:00:00Z",
		} {
			if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
				t.Errorf("got\n%s\nwant in it %q", &out, want)
			}
		}
	}
}
