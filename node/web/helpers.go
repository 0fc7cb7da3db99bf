package web

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

func helpers() template.FuncMap {
	return template.FuncMap{
		"pkt":          func(a pktcloud.Amount) template.HTML { return pkt(a, rounded(a)) },
		"fullPKT":      func(a pktcloud.Amount) template.HTML { return pkt(a, strings.TrimSuffix(a.String(), " PKT")) },
		"rate":         func(r pktcloud.Rate) template.HTML { return pkt(pktcloud.Amount(r), rounded(pktcloud.Amount(r))) },
		"rateFor":      rateFor,
		"cores":        cores,
		"coreCount":    coreCount,
		"bytes":        byteText,
		"amount":       amountText,
		"key":          func(k pktcloud.PublicKey) string { return short(k.String()) },
		"short":        short,
		"names":        strings.Fields,
		"duration":     duration,
		"when":         when,
		"clock":        func(ms int64) string { return time.UnixMilli(ms).Format("15:04:05") },
		"iso":          func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) },
		"percent":      percent,
		"tone":         tone,
		"exposureName": exposureName,
		"risk":         riskOf,
		"paidFor":      paidFor,
		"span":         span,
		"over":         over,
		"milestones":   milestones,
		"eventName":    eventName,
		"raised":       raised,
		"accountName":  accountName,
		"classes":      func() map[string]string { return classTexts },
		"network":      networkText,
		"lends":        lendsText,
		"fields":       func() []string { return sendFields },
	}
}

// classTexts say what the classes of isolation are that this program knows.
var classTexts = map[string]string{
	string(container.ClassUserns): "the machine's kernel, shared",
	string(container.ClassGVisor): "a kernel of its own",
}

// pkt shows an amount in PKT, and the exact number of units to those who point
// at it.
func pkt(a pktcloud.Amount, shown string) template.HTML {
	return template.HTML(fmt.Sprintf(`<data class="pkt" value="%d" title="%s units, exactly %s">%s PKT</data>`, //nolint:gosec // digits only
		uint64(a), grouped(uint64(a)), a, shown))
}

// rounded is a in PKT: as many decimals as six significant digits need, at
// most nine.
func rounded(a pktcloud.Amount) string {
	v := float64(a) / pktcloud.UnitsPerPKT // for the eye only
	if a == 0 {
		return "0"
	}
	return decimals(a, min(max(5-int(math.Floor(math.Log10(v))), 0), 9))
}

// decimals is a in PKT with so many decimals, without zeros at the end.
func decimals(a pktcloud.Amount, places int) string {
	s := strconv.FormatFloat(float64(a)/pktcloud.UnitsPerPKT, 'f', places, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// roundedUp is a price limit to propose: r in PKT with three significant
// digits, never less.
func roundedUp(r pktcloud.Rate) string {
	step := uint64(1)
	for uint64(r)/step >= 1000 {
		step *= 10
	}
	up := (uint64(r) + step - 1) / step * step
	return rounded(pktcloud.Amount(up + up/1000))
}

func grouped(u uint64) string {
	s := strconv.FormatUint(u, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

func rateFor(r pktcloud.Rate, seconds uint64) template.HTML {
	a, err := r.For(seconds)
	if err != nil {
		return "more than there is"
	}
	return pkt(a, rounded(a))
}

func cores(milli uint64) string {
	return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)
}

func coreCount(milli uint64) string {
	if milli == 1000 {
		return "1 core"
	}
	return cores(milli) + " cores"
}

// amountText is an amount of machine, without what there is none of.
func amountText(r service.Resources) string {
	var parts []string
	if r.MilliCPU > 0 {
		parts = append(parts, coreCount(r.MilliCPU))
	}
	if r.MemoryBytes > 0 {
		parts = append(parts, byteText(r.MemoryBytes)+" of memory")
	}
	if r.DiskBytes > 0 {
		parts = append(parts, byteText(r.DiskBytes)+" of disk")
	}
	if last := len(parts) - 1; last > 0 {
		return strings.Join(parts[:last], ", ") + " and " + parts[last]
	}
	return strings.Join(parts, "")
}

func byteText(n uint64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatUint(n, 10) + " B"
	}
	v, i := float64(n)/unit, 0
	for ; v >= unit && i < 5; i++ {
		v /= unit
	}
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) + " " + [...]string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}[i]
}

func short(s string) string {
	if len(s) <= 14 {
		return s
	}
	return s[:6] + "…" + s[len(s)-6:]
}

func duration(seconds uint64) string {
	switch {
	case seconds < 120:
		return count(int(seconds), "second")
	case seconds < 2*3600:
		return count(int(seconds/60), "minute")
	case seconds < 48*3600:
		return count(int(seconds/3600), "hour")
	}
	return count(int(seconds/86400), "day")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func when(seconds int64) string {
	if seconds == 0 {
		return "–"
	}
	return time.Unix(seconds, 0).Format("2 Jan 2006 15:04")
}

// risk is what one side has at risk: what it is now and the limit.
type risk struct{ Now, Limit pktcloud.Amount }

// riskOf adds up the risks that this node's side of a lease bears.
func riskOf(l service.Lease) risk {
	var r risk
	for _, e := range l.Exposure {
		if e.Bears == l.Role {
			r.Now, r.Limit = r.Now+e.Now, r.Limit+e.Limit
		}
	}
	return r
}

// paidFor is how many seconds of service the money paid covers.
func paidFor(l service.Lease) uint64 {
	if l.Rate == 0 {
		return l.Served
	}
	whole, rest := uint64(l.Paid)/uint64(l.Rate), uint64(l.Paid)%uint64(l.Rate)
	return whole*3600 + uint64(float64(rest)/float64(l.Rate)*3600) // for the eye only
}

// span shows seconds as a clock does: 2:05, 1:02:05.
func span(seconds uint64) string {
	h, m, s := seconds/3600, seconds/60%60, seconds%60
	if h == 0 {
		return fmt.Sprintf("%d:%02d", m, s)
	}
	return fmt.Sprintf("%d:%02d:%02d", h, m, s)
}

func percent(now, limit pktcloud.Amount) int {
	if limit == 0 {
		return 0
	}
	return int(min(math.Round(float64(now)/float64(limit)*100), 100))
}

// tone is the colour of a phase's badge; the word beside it says the same.
func tone(phase string) string {
	switch phase {
	case "active", "open", "free", "running", "healthy", "done":
		return "good"
	case "opening", "waiting", "suspended", "closing", "starting", "proposed", "agreed", "funded", "restored", "stopping", "backoff":
		return "warn"
	case "failed", "refused", "unhealthy":
		return "bad"
	}
	return ""
}

func exposureName(name string) string {
	switch name {
	case "credit":
		return "Served, not yet paid"
	case "prepaid":
		return "Paid ahead"
	case "unconfirmed":
		return "Paid on unconfirmed money"
	case "hold":
		return "Hold deposit"
	}
	return name
}

// eventName says what kind of event a line of a history tells.
func eventName(kind string) string {
	names := map[string]string{
		"agree": "Agreed", "phase": "State", "statement": "Last statement", "voucher": "Last payment", "start": "Started",
		"close": "Closing", "closed": "Closed", "freeze": "Frozen", "resume": "Resumed", "dispute": "Disputed", "end": "Ended",
		"amend": "Amendment", "amended": "Amended",
	}
	if n, ok := names[kind]; ok {
		return n
	}
	return strings.ToUpper(kind[:min(1, len(kind))]) + kind[min(1, len(kind)):]
}
