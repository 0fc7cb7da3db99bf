package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// table lines its columns up.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// row prints one line. A cell may be the words of a peer: control characters,
// which a terminal would obey, become question marks.
func (t table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return '?'
			}
			return r
		}, fmt.Sprint(c)))
	}
	fmt.Fprintln(t.w)
}

func (t table) end() { t.w.Flush() } //nolint:errcheck // standard output

// sizes are what may stand behind a number of bytes.
var sizes = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
	{"", 1},
}

// size is a flag of bytes such as "512MiB".
type size uint64

// String is empty for zero, which pflag then does not call the default.
func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return byteText(uint64(*s))
}
func (s *size) Type() string { return "size" }
func (s *size) Set(text string) error {
	for _, u := range sizes {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || v < 0 || v*u.bytes > math.MaxInt64 || math.IsNaN(v) {
			break
		}
		if u.suffix == "" && v > 0 && v < manifest.LeastBare {
			return fmt.Errorf("%q is a number of bytes; did you mean %sMiB?", text, text)
		}
		*s = size(math.Round(v * u.bytes))
		return nil
	}
	return fmt.Errorf("%q is no size; write for example 512MiB or 10GiB", text)
}

// cores is a flag of processor time such as "0.5".
type cores uint64

func (c *cores) String() string { return coreText(uint64(*c)) }
func (c *cores) Type() string   { return "cores" }
func (c *cores) Set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v < 0 || v > 1<<14 || math.IsNaN(v) {
		return fmt.Errorf("%q is no number of cores; write for example 0.5", text)
	}
	*c = cores(math.Round(v * 1000))
	return nil
}

// money is a flag of an amount or of an amount per hour.
type money pktcloud.Amount

// String is empty for zero, which pflag then does not call the default.
func (m *money) String() string {
	if *m == 0 {
		return ""
	}
	return pktcloud.Amount(*m).String()
}
func (m *money) Type() string { return "PKT" }
func (m *money) Set(text string) error {
	a, err := parseMoney(text)
	*m = money(a)
	return err
}

// parseMoney reads an amount. A number that rounds to nothing is refused: who
// wrote it did not mean nothing.
func parseMoney(text string) (pktcloud.Amount, error) {
	a, err := pktcloud.ParseAmount(text)
	if err == nil && a == 0 && strings.ContainsAny(text, "123456789") {
		return 0, fmt.Errorf("%q is less than the smallest amount, 1 unit, which is %s", text, pktcloud.Amount(1))
	}
	return a, err
}

// maxDays is the longest that a period can be.
const maxDays = 1<<16 - 1

// period is a flag of time: "10m", "2h", "30d", or a number of seconds.
type period uint64

// String is empty for zero, which pflag then does not call the default.
func (p *period) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(*p), 10)
}
func (p *period) Type() string { return "time" }
func (p *period) Set(text string) error {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		*p = period(n)
		return nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 64); err == nil && n <= maxDays {
			*p = period(n * 24 * 3600)
			return nil
		} else if err == nil || errors.Is(err, strconv.ErrRange) {
			return fmt.Errorf("%q is longer than anything here lasts; the most is %dd", text, uint64(maxDays))
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d%time.Second != 0 {
		return fmt.Errorf("%q is no time; write seconds such as 600, or 10m, 2h, 30d", text)
	}
	*p = period(d / time.Second)
	return nil
}

func coreText(milli uint64) string { return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64) }

func byteText(n uint64) string {
	for _, u := range []struct {
		suffix string
		bytes  uint64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes {
			return strconv.FormatFloat(math.Round(float64(n)/float64(u.bytes)*10)/10, 'f', -1, 64) + " " + u.suffix
		}
	}
	return strconv.FormatUint(n, 10) + " B"
}

func short(s string) string {
	if len(s) <= 14 {
		return s
	}
	return s[:6] + "…" + s[len(s)-6:]
}

func printLeases(w io.Writer, leases []service.Lease) {
	if len(leases) == 0 {
		fmt.Fprintln(w, "No lease yet.")
		return
	}
	t := newTable(w)
	t.row("LEASE", "PHASE", "ROLE", "IMAGE", "PER HOUR", "PAID", "SERVED")
	for _, l := range leases {
		t.row(l.Label, phaseText(l), l.Role, l.Image, pktcloud.Amount(l.Rate), l.Paid, time.Duration(l.Served)*time.Second)
	}
	t.end()
}

// phaseText is a lease's phase, and that nobody is at the other end.
func phaseText(l service.Lease) string {
	if l.Away() {
		return l.Phase + ", " + l.Other() + " not connected"
	}
	return l.Phase
}

// reasons say what the code of a close record means.
var reasons = map[string]string{
	"requested": "one side asked for it",
	"term":      "the agreed time is served",
	"unpaid":    "the tenant did not pay in time",
	"disputed":  "the two sides did not agree on what was served",
	"channel":   "what was set aside is used up, or its channel ends soon",
	"workload":  "the service did not start, or it ended",
	"gone":      "the other side did not answer",
}

// counted is a number of things.
func counted(n uint64, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// printServices shows how services stand.
func printServices(w io.Writer, list []service.Standing) {
	t := newTable(w)
	t.row("SERVICE", "STATE", "HEALTH", "RESTARTS", "EXIT", "SINCE", "CPU TIME", "MEMORY")
	for _, s := range list {
		state, exit := s.State, "-"
		if s.Looping {
			state += " (crash loop)"
		}
		if s.Exit != nil {
			exit = strconv.Itoa(*s.Exit)
			if s.OOM {
				exit += " (memory)"
			}
		}
		cpu, memory := "-", "-"
		if s.Memory != 0 {
			cpu, memory = (time.Duration(s.CPU) * time.Millisecond).String(), byteText(s.Memory)
		}
		t.row(s.Name, state, orDash(s.Health), s.Restarts, exit, time.Unix(s.Since, 0).UTC().Format(time.DateTime)+"Z", cpu, memory)
	}
	t.end()
	printTraffic(w, list)
	for _, s := range list {
		if s.Text != "" && s.State != "done" {
			fmt.Fprintf(w, "%s: %s\n", s.Name, s.Text)
		}
	}
}

// printTraffic shows where services are reached from outside, and what passed.
func printTraffic(w io.Writer, list []service.Standing) {
	t := newTable(w)
	for _, s := range list {
		if s.Network == nil {
			continue
		}
		for _, p := range s.Network.Published {
			t.row(s.Name, p.Address, fmt.Sprintf("to its port %d/%s", p.Port, p.Protocol))
		}
		t.row(s.Name, byteText(s.Network.BytesIn)+" in", fmt.Sprintf("%s out, %d open, %d refused", byteText(s.Network.BytesOut), s.Network.Open, s.Network.Refused))
	}
	t.end()
}

// printVolumes shows how volumes stand.
func printVolumes(w io.Writer, list []service.VolumeStanding) {
	if len(list) == 0 {
		fmt.Fprintln(w, "The lease has no volumes.")
		return
	}
	t := newTable(w)
	t.row("VOLUME", "SIZE", "FREE", "MOUNTED")
	for _, v := range list {
		free := byteText(v.Free)
		switch {
		case !v.Ready:
			free = "- (not there)"
		case v.Full:
			free += " (full)"
		}
		t.row(v.Name, byteText(v.Size), free, mountText(v.LeaseVolume))
	}
	t.end()
}

// mountText says who has a volume where.
func mountText(v service.LeaseVolume) string {
	var out []string
	for _, m := range v.Mounts {
		text := m.Service + ":" + m.Path
		if m.ReadOnly {
			text += " (read-only)"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// lastEntries is how much of a lease's history is shown unless all is asked for.
const lastEntries = 10

// printLease shows a lease and the end of its history, or with all the whole.
func printLease(w io.Writer, l service.Lease, all bool) {
	t := newTable(w)
	t.row("lease", l.Label)
	t.row("id", l.ID)
	t.row("phase", phaseText(l))
	if l.CloseReason != "" {
		because := l.CloseReason
		if l.Fault != nil {
			because += " (" + l.Fault.Code + ")"
		}
		if text := reasons[l.CloseReason]; text != "" {
			because += ": " + text
		}
		t.row("closed because", because)
	}
	t.row("role", l.Role)
	t.row(l.Other()+"'s identity", l.Peer)
	if l.Class != "" {
		t.row("isolation", l.Class)
	}
	if len(l.Services) > 1 {
		for _, s := range l.Services {
			t.row("service "+s.Name, fmt.Sprintf("%s, %s", s.Image, resourceText(s.Resources)))
		}
	} else {
		t.row("image", l.Image)
	}
	for _, s := range l.Services {
		if len(s.Egress) > 0 {
			t.row("egress of "+s.Name, strings.Join(s.Egress, ", "))
		}
		if len(s.Publish) > 0 {
			t.row("published by "+s.Name, strings.Join(s.Publish, ", ")+"; \"lease services\" shows where")
		}
	}
	for _, v := range l.Volumes {
		t.row("volume "+v.Name, byteText(v.Size)+" at "+mountText(v))
	}
	t.row("resources", resourceText(l.Resources))
	t.row("per hour", pktcloud.Amount(l.Rate))
	t.row("served", fmt.Sprintf("%s of %s", time.Duration(l.Served)*time.Second, time.Duration(l.Term)*time.Second))
	t.row("due", l.Due)
	t.row("paid", l.Paid)
	for _, e := range l.Exposure {
		t.row("at risk: "+e.Name, fmt.Sprintf("%s of %s, borne by the %s, most so far %s", e.Now, e.Limit, e.Bears, e.Peak))
	}
	if l.Endpoint != "" {
		t.row("endpoint", l.Endpoint)
	}
	if l.Channel.Closing != "" {
		out := l.Channel.Claimed.String()
		if l.Channel.Claimed > l.Paid {
			out = fmt.Sprintf("%s, with the other leases of its channel %s,", l.Paid, l.Channel.Claimed)
		}
		t.row("paid out", fmt.Sprintf("%s by %s, fee %s, %s", out, l.Channel.Closing, l.Channel.Fee, counted(l.Channel.Closed, "confirmation")))
	}
	if l.Problem != "" {
		t.row("problem", l.Problem)
	}
	t.end()
	history := l.History
	if before := len(history) - lastEntries; before > 0 && !all {
		history = history[before:]
		fmt.Fprintf(w, "The last %d of %d entries (\"lease show --all\" has the others, --json too):\n", lastEntries, len(l.History))
	}
	for _, e := range history {
		fmt.Fprintf(w, "%s  %-10s %s\n", time.UnixMilli(e.Time).Format("15:04:05.000"), e.Kind, e.Text)
	}
}

// printOffers shows offers and what priced costs under each.
func printOffers(w io.Writer, offers []service.Offer, priced service.Resources) {
	if len(offers) == 0 {
		fmt.Fprintln(w, "No offer matches.")
		return
	}
	t := newTable(w)
	t.row("PER HOUR", "REGION", "CORES", "MEMORY", "DISK", "CLASSES", "NETWORK", "VOLUMES", "PROVIDER", "OFFER")
	for _, o := range offers {
		provider := short(o.Body.Provider.String())
		if o.Own {
			provider = "(this node)"
		}
		c := o.Body.Capacity
		t.row(pktcloud.Amount(o.Rate), orDash(o.Body.Region), coreText(c.MilliCPU), byteText(c.MemoryBytes), byteText(c.DiskBytes), strings.Join(o.Body.Isolation, ","), networkText(o.Body.Network), volumesText(o.Body.Volumes), provider, o.ID)
	}
	t.end()
	if priced == (service.Resources{}) {
		priced = service.Resources(market.Reference)
	}
	fmt.Fprintf(w, "PER HOUR is the price of %s; the other columns are what is free.\n", resourceText(priced))
}

func resourceText(r service.Resources) string {
	word := " cores, "
	if r.MilliCPU == 1000 {
		word = " core, "
	}
	return coreText(r.MilliCPU) + word + byteText(r.MemoryBytes) + " memory, " + byteText(r.DiskBytes) + " disk"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
