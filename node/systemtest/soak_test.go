//go:build soak

package systemtest

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/internal/leftover"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// What may grow between the first and the last quarter of the time after the
// warm-up.
const (
	// A process gives memory back late, so its resident size swings by some MiB.
	// In ten minutes 20 leases have 7,500 intervals between the middles of the two
	// quarters: 8 MiB are about 1 KiB of each.
	maxResidentGrowth = 8 << 20
	// What is alive after a collection does not swing. 1 MiB is about 100 bytes
	// of each of the 9,600 intervals from the warm-up to the end, which is less
	// than a statement or a voucher kept.
	maxLiveGrowth = 1 << 20
	// A monitor is a process for each container.
	maxMonitorGrowth = 512 << 10
)

// TestSoak runs many containers at once, each paid every second, for ten
// minutes. No interval is missed: the records of both sides say so, statement
// by statement. Neither memory nor goroutines nor open files grow, and nothing
// is left behind. PKTCLOUD_SOAK_TIME and PKTCLOUD_SOAK_LEASES make a shorter
// or a smaller one.
func TestSoak(t *testing.T) {
	s := newSoak(t)
	ids := s.rentAll()
	s.watch()
	s.closeAll(ids)
	s.w.provider.stop(t)
	s.w.tenant.stop(t)
	s.w.devnet.stop(t)
	for _, side := range []*party{s.w.provider, s.w.tenant} {
		for _, id := range ids {
			s.everyInterval(side, id)
		}
	}
	left := append(leftover.What(s.w.dir), leftover.Groups(filepath.Join(s.w.provider.dir, "runtime"))...)
	if len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	s.flat()
}

// soak is a world with many leases that is watched.
type soak struct {
	t        *testing.T
	w        *world
	tenant   *client.Client
	leases   int
	duration time.Duration
	profiles string // folder of the sockets of profile_soak.go
	nodes    []*measured
	monitors measured
}

// measured is what was seen of one process, or of the sum of some.
type measured struct {
	name    string
	pid     int
	samples []sample
	live    [2]uint64 // bytes alive after the warm-up and at the end
}

type sample struct {
	at                time.Duration
	resident          uint64 // bytes
	files, goroutines int
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	s := &soak{t: t, leases: 20, duration: 10 * time.Minute, profiles: t.TempDir()}
	var err error
	if v := os.Getenv("PKTCLOUD_SOAK_TIME"); v != "" {
		if s.duration, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	if v := os.Getenv("PKTCLOUD_SOAK_LEASES"); v != "" {
		if s.leases, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PKTCLOUD_PROFILE", s.profiles)
	s.w = newWorld(t, worldConfig{tags: "soak", blockInterval: 5 * time.Second})
	for _, p := range []*party{s.w.provider, s.w.tenant} {
		s.nodes = append(s.nodes, &measured{name: p.name, pid: p.cmd.Process.Pid})
	}
	s.monitors.name, s.tenant = "monitors", s.w.tenant.client()
	return s
}

// rentAll makes the leases, one after another, and waits until all are paid.
func (s *soak) rentAll() []pktcloud.ID {
	s.t.Helper()
	c := s.tenant
	// Each channel spends a confirmed coin.
	for range s.leases {
		address, err := c.WalletAddress(s.t.Context(), service.AddressRequest{})
		if err != nil {
			s.t.Fatal(err)
		}
		s.w.run("devnet", "faucet", "--dir", s.w.dir, "--chain-dir", s.w.chainDir(), address.Address, "1 PKT")
	}
	s.w.mine(1)
	eventually(s.t, "the coins arrive", func() (bool, error) {
		b, err := c.WalletBalance(s.t.Context())
		return b.Unconfirmed == 0 && b.Spendable >= pktcloud.Amount(s.leases+100)<<30, err
	})
	s.w.publish()
	var ids []pktcloud.ID
	began := time.Now()
	for range s.leases {
		var page service.OfferPage
		eventually(s.t, "the tenant knows an offer", func() (_ bool, err error) {
			page, err = c.Offers(s.t.Context(), service.OfferQuery{})
			return len(page.Offers) > 0, err
		})
		// The defaults do for the limits; a second of price is all that is asked.
		l, err := c.CreateLease(s.t.Context(), service.LeaseRequest{
			Offer: page.Offers[0].ID, Image: s.w.image, Port: 8080, MaxRate: 1_000_000_000, IntervalSeconds: 1,
			TermSeconds: uint64(s.duration/time.Second) + 900,
			Resources:   service.Resources{MilliCPU: 40, MemoryBytes: 64 << 20, DiskBytes: 16 << 20},
		})
		if err != nil {
			s.t.Fatal(err)
		}
		ids = append(ids, l.ID)
	}
	for _, id := range ids {
		s.w.paidIntervals(id, 1)
	}
	s.t.Logf("%d containers are paid every second, %s after the first was asked for", len(ids), time.Since(began).Round(time.Millisecond))
	return ids
}

// watch looks at the processes from time to time until the time is over.
func (s *soak) watch() {
	s.t.Helper()
	every := max(s.duration/40, time.Second)
	fmt.Fprintf(s.t.Output(), "%8s  %-32s  %-32s  %s\n", "", "provider", "tenant", "monitors")
	fmt.Fprintf(s.t.Output(), "%8s  %10s %10s %10s  %10s %10s %10s  %10s %6s\n", "time",
		"RSS MiB", "goroutines", "files", "RSS MiB", "goroutines", "files", "RSS MiB", "files")
	began := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		at := time.Since(began)
		for _, m := range s.nodes {
			m.look(s.t, at, s.profiles)
			if at >= s.warmUp() && m.live[0] == 0 {
				m.live[0] = m.ask(s.t, s.profiles, "live")
			}
		}
		s.monitors.sum(at, filepath.Join(s.w.provider.dir, "runtime"))
		s.print()
		s.allActive(at)
		if at >= s.duration {
			break
		}
		select {
		case <-tick.C:
		case <-s.t.Context().Done():
			s.t.Fatal("out of time")
		}
	}
	for _, m := range s.nodes {
		m.live[1] = m.ask(s.t, s.profiles, "live")
	}
}

// allActive stops at the first lease that no longer runs, while all that can
// explain it is still there.
func (s *soak) allActive(at time.Duration) {
	s.t.Helper()
	leases, err := s.tenant.Leases(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range leases {
		if l.Phase == "active" && l.Paid > 0 {
			continue
		}
		for _, e := range l.History {
			if e.Kind != "voucher" {
				s.t.Logf("%s %s: %s", time.UnixMilli(e.Time).UTC().Format("15:04:05.000"), e.Kind, e.Text)
			}
		}
		s.t.Fatalf("after %s lease %s is %s", at.Round(time.Second), l.ID, l.Phase)
	}
}

// warmUp is the time in which caches fill and the first collections happen.
func (s *soak) warmUp() time.Duration { return s.duration / 5 }

// ask asks the socket of a process for a number.
func (m *measured) ask(t *testing.T, dir, what string) (n uint64) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, fmt.Sprintf("%d.sock", m.pid)))
		},
	}}
	answer, err := client.Get("http://process/" + what)
	if err != nil {
		t.Fatalf("the %s: %v", m.name, err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (m *measured) look(t *testing.T, at time.Duration, profiles string) {
	t.Helper()
	resident, files := ofProcess(m.pid)
	if resident == 0 {
		t.Fatalf("the %s has ended", m.name)
	}
	m.samples = append(m.samples, sample{at, resident, files, int(m.ask(t, profiles, "goroutines"))})
}

// sum looks at all processes of a folder together.
func (m *measured) sum(at time.Duration, dir string) {
	one := sample{at: at}
	for _, pid := range processesOf(dir) {
		resident, files := ofProcess(pid)
		one.resident += resident
		one.files += files
	}
	m.samples = append(m.samples, one)
}

// ofProcess returns the resident bytes and the number of open files of a
// process; zeros when it is gone.
func ofProcess(pid int) (resident uint64, files int) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	text, _ := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			resident, _ = strconv.ParseUint(f[1], 10, 64)
		}
	}
	open, _ := os.ReadDir(filepath.Join(dir, "fd"))
	return resident << 10, len(open)
}

// processesOf finds the processes with a folder in their command line.
func processesOf(dir string) []int {
	var pids []int
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), dir) {
			pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// print shows the last look.
func (s *soak) print() {
	out := s.t.Output()
	one := s.monitors.samples[len(s.monitors.samples)-1]
	fmt.Fprintf(out, "%8s", one.at.Round(time.Second))
	for _, m := range s.nodes {
		x := m.samples[len(m.samples)-1]
		fmt.Fprintf(out, "  %10.1f %10d %10d", mib(x.resident), x.goroutines, x.files)
	}
	fmt.Fprintf(out, "  %10.1f %6d\n", mib(one.resident), one.files)
}

func mib(n uint64) float64 { return float64(n) / (1 << 20) }

// closeAll ends all leases and waits for their money.
func (s *soak) closeAll(ids []pktcloud.ID) {
	s.t.Helper()
	for _, id := range ids {
		s.w.closeLease(id)
	}
	r := s.w.clean()
	if len(r.Leases) != len(ids) {
		s.t.Errorf("the audit knows %d leases, want %d", len(r.Leases), len(ids))
	}
	var intervals, paid, credit uint64
	for _, l := range r.Leases {
		if !l.Settled || l.Paid != l.Due || l.Claimed != l.Paid {
			s.t.Errorf("lease %s: due %d, paid %d, claimed %d, settled %v; want all equal and settled", l.ID, l.Due, l.Paid, l.Claimed, l.Settled)
		}
		if l.Reason != string(lease.ReasonRequested) {
			s.t.Errorf("lease %s ended by %q, want %q", l.ID, l.Reason, lease.ReasonRequested)
		}
		intervals, paid, credit = intervals+l.Intervals, paid+l.Paid, max(credit, l.MaxCredit)
	}
	s.t.Logf("audit ok: %d leases, %d intervals, %d units paid and claimed, at most %d units of credit in a lease; %d signatures and %d scripts verified again",
		len(r.Leases), intervals, paid, credit, r.Checked.Signatures, r.Checked.Scripts)
}

// everyInterval reads one side's records of a lease: a statement for each
// interval, from the start to the end of the soak, and for each its voucher.
func (s *soak) everyInterval(side *party, id pktcloud.ID) {
	s.t.Helper()
	who := fmt.Sprintf("%s: lease %s:", side.name, id)
	var statements []pktcloud.Signed[lease.Statement]
	answers := map[pktcloud.ID]pktcloud.Amount{}
	s.records(side, id, func(kind string, value []byte) error {
		switch kind {
		case "statement":
			st, err := lease.ParseStatement(value)
			statements = append(statements, st)
			return err
		case "voucher":
			v, err := settle.ParseVoucher(value)
			if e, ok := v.Body.Entry(id); ok {
				answers[e.Statement] = e.Cumulative
			}
			return err
		case "dispute":
			d, err := lease.ParseDispute(value)
			s.t.Errorf("%s dispute over statement %d: %s %s", who, d.Body.Sequence, d.Body.Code, d.Body.Text)
			return err
		}
		return nil
	})
	var second uint64
	for i, st := range statements {
		b := st.Body
		statement, err := st.ID()
		if err != nil {
			s.t.Fatal(err)
		}
		length := uint64(1)
		if i == 0 {
			length = 0 // the first says that the workload runs
		}
		switch paid, ok := answers[statement]; {
		case b.Sequence != uint64(i)+1:
			s.t.Errorf("%s statement %d is missing", who, i+1)
		case b.State == lease.Final && i == len(statements)-1: // the close pays it
		case b.State != lease.Running:
			s.t.Errorf("%s statement %d says %d, not that it runs", who, b.Sequence, b.State)
		case b.From != second || b.To != second+length:
			s.t.Errorf("%s statement %d covers seconds %d to %d, want %d to %d", who, b.Sequence, b.From, b.To, second, second+length)
		case length > 0 && (!ok || paid != b.Due):
			s.t.Errorf("%s statement %d over %d units is answered by a voucher: %v, over %d", who, b.Sequence, b.Due, ok, paid)
		}
		second = b.To
	}
	if want := uint64(s.duration / time.Second); second < want {
		s.t.Errorf("%s %d seconds stated, want at least the %d of the soak", who, second, want)
	}
}

// records calls f with each numbered record of a lease, in order.
func (s *soak) records(side *party, id pktcloud.ID, f func(kind string, value []byte) error) {
	s.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(side.dir, "node.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	prefix := "lease/" + id.Hex() + "/"
	rows, err := db.Query("SELECT key, value FROM kv WHERE key >= CAST(? AS BLOB) AND key < CAST(? AS BLOB) ORDER BY key", prefix, prefix+"~")
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		var value []byte
		if err := rows.Scan(&key, &value); err != nil {
			s.t.Fatal(err)
		}
		kind, _, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
		if err := f(kind, value); err != nil {
			s.t.Errorf("%s: %s: %v", side.name, key, err)
		}
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
}

// flat compares the first quarter of the samples after the warm-up with the
// last.
func (s *soak) flat() {
	s.t.Helper()
	grown := func(name, what string, from, to, bound float64, unit string) {
		verdict := "flat"
		if to > from+bound {
			verdict = "GROWS"
			s.t.Errorf("%s: %s grew from %.1f to %.1f%s, more than %.1f", name, what, from, to, unit, bound)
		}
		s.t.Logf("%-8s  %-10s  %8.1f -> %8.1f%s  (bound +%.1f)  %s", name, what, from, to, unit, bound, verdict)
	}
	// Some come and go with a probe. One more for every second lease would be a
	// leak that is on its way.
	many := max(float64(s.leases)/2, 8)
	for _, m := range s.nodes {
		first, last := s.quarters(m)
		grown(m.name, "resident", median(first, sample.mib), median(last, sample.mib), mib(maxResidentGrowth), " MiB")
		grown(m.name, "alive", mib(m.live[0]), mib(m.live[1]), mib(maxLiveGrowth), " MiB")
		grown(m.name, "goroutines", median(first, sample.running), median(last, sample.running), many, "")
		grown(m.name, "files", median(first, sample.open), median(last, sample.open), many, "")
	}
	first, last := s.quarters(&s.monitors)
	grown("monitors", "resident", median(first, sample.mib), median(last, sample.mib), mib(maxMonitorGrowth)*float64(s.leases), " MiB")
	grown("monitors", "files", median(first, sample.open), median(last, sample.open), many, "")
}

func (x sample) mib() float64     { return mib(x.resident) }
func (x sample) running() float64 { return float64(x.goroutines) }
func (x sample) open() float64    { return float64(x.files) }

func (s *soak) quarters(m *measured) (first, last []sample) {
	warm := slices.DeleteFunc(slices.Clone(m.samples), func(x sample) bool { return x.at < s.warmUp() })
	n := max(len(warm)/4, 1)
	return warm[:n], warm[len(warm)-n:]
}

func median(samples []sample, of func(sample) float64) float64 {
	var values []float64
	for _, x := range samples {
		values = append(values, of(x))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
