package web

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

const (
	// The provider is asked for metrics once in so many ticks, and has so long to
	// answer.
	metricsEvery   = 10
	metricsTimeout = 3 * time.Second
	// chartPoints is how many points a chart has at most, tableRows a table.
	chartPoints = 180
	tableRows   = 12
	chartWidth  = 1000
	chartHeight = 100
)

// metricsPart is what services have used, as the page of a lease shows it.
type metricsPart struct {
	Services []useOf
	Over     bool // the lease is
}

// useOf is one service.
type useOf struct {
	Name   string
	Alone  bool   // the page shows this one only, and all of it
	Empty  string // why there are no charts
	Charts []chart
	Hits   string // limits that it hit, in words
	Rows   []useRow
}

// useRow is a row of the table that tells what the charts show. A gap has only
// its time.
type useRow struct {
	Time                                                       string
	Gap                                                        bool
	Processor, Waited, Memory, Disk, Received, Sent, LimitsHit string
}

// chart is a picture of one number over time.
type chart struct {
	ID, Title  string
	Last, Note string // the last value, and what there is to say of it
	About      string // for those who do not see it
	Lines      []chartLine
	Limit      string // y of the line that is the limit; "": none
	Gaps, Hits []chartSpan
	From, To   string
}

type chartLine struct{ Class, Name, Area, Line string }

type chartSpan struct{ X, Width string }

// metricsOf asks what a lease's services have used. With life it is all since
// the lease began. It is false when nobody says.
func (w *Web) metricsOf(ctx context.Context, l service.Lease, name string, life bool) (metricsPart, bool) {
	p := metricsPart{Over: over(l)}
	if l.Phase != "active" && l.Phase != "suspended" {
		return p, true
	}
	ctx, cancel := context.WithTimeout(ctx, metricsTimeout)
	defer cancel()
	source := l.ID.String()
	if name != "" {
		source += "/" + name
	}
	list, err := w.svc.LeaseMetrics(ctx, source)
	if err != nil {
		w.log.Debug("the metrics of a lease", "lease", l.Label, "error", err)
		return p, false
	}
	for _, m := range list {
		p.Services = append(p.Services, drawn(m, len(list) == 1, life))
	}
	return p, true
}

// explain says why there is nothing to draw of a service, by how it stands.
func (p metricsPart) explain(list []service.Standing) metricsPart {
	p.Services = slices.Clone(p.Services)
	for i, u := range p.Services {
		p.Services[i].Empty = "Nothing was measured yet; the first numbers come within ten seconds of its start."
		at := slices.IndexFunc(list, func(s service.Standing) bool { return s.Name == u.Name })
		if at < 0 {
			continue
		}
		switch list[at].State {
		case "done", "failed", "stopped":
			p.Services[i].Empty = "It ended before anything was measured, which is done every ten seconds."
		case "waiting", "backoff":
			p.Services[i].Empty = "It does not run now; the first numbers come within ten seconds of its start."
		}
	}
	return p
}

// wantsLife reports whether the page is asked for all since the lease began.
func wantsLife(r *http.Request) bool { return r.URL.Query().Get("span") == "life" }

// drawn is a service's use in pictures: the two most wanted, or all of it.
func drawn(m service.Metrics, alone, life bool) useOf {
	u := m.Recent
	if life {
		u = m.Life
	}
	out := useOf{Name: m.Service, Alone: alone, Hits: hitsText(m)}
	if len(u.Points) == 0 {
		return out
	}
	size := func(v float64) string { return byteText(uint64(v)) }
	second := func(v float64) string { return byteText(uint64(v)) + "/s" }
	core := func(v float64) string { return coreCount(uint64(math.Round(v*100)) * 10) }
	draw := func(title string, limit float64, text func(float64) string, hit func(service.Use) bool, lines ...lineOf) {
		out.Charts = append(out.Charts, plot{title, limit, text, hit, lines}.chart(m.Service, u))
	}
	draw("Processor", float64(m.MilliCPU)/1000, core, func(p service.Use) bool { return p.Throttled > 0 }, lineOf{"", service.Use.Cores})
	draw("Memory", float64(m.Memory), size, nil, lineOf{"", func(p service.Use) float64 { return float64(p.Memory) }})
	if !alone {
		return out
	}
	draw("Disk", float64(m.Disk), size, nil, lineOf{"", func(p service.Use) float64 { return float64(p.Disk) }})
	draw("Network", 0, second, nil, lineOf{"received", func(p service.Use) float64 { return p.Rate(p.In) }}, lineOf{"sent", func(p service.Use) float64 { return p.Rate(p.Out) }})
	out.Rows = useRows(u, core, second)
	return out
}

// lineOf is a number of a point; name tells several of a chart apart.
type lineOf struct {
	name string
	of   func(service.Use) float64
}

// plot is how a chart is made.
type plot struct {
	title string
	limit float64 // 0: none
	text  func(float64) string
	hit   func(service.Use) bool // it had to wait; nil: never
	lines []lineOf
}

// chart draws the plot of a service's use.
func (p plot) chart(name string, u service.Uses) chart {
	last, most := make([]float64, len(p.lines)), make([]float64, len(p.lines))
	high := p.limit
	for i, l := range p.lines {
		for _, v := range u.Points {
			if v.Seen != 0 {
				last[i] = l.of(v)
				most[i] = max(most[i], last[i])
			}
		}
		high = max(high, most[i])
	}
	end := u.Begin + int64(u.Step)*int64(len(u.Points))
	c := chart{
		ID: name + "-" + strings.ToLower(p.title), Title: p.title, From: moment(u.Begin, end), To: moment(end, end),
	}
	u = u.Coarse(chartPoints)
	s := scale{points: len(u.Points), high: high * 1.08}
	var lasts, mosts []string
	for i, l := range p.lines {
		line := chartLine{Class: "line-" + strconv.Itoa(i), Name: l.name}
		line.Area, line.Line = s.path(u, l.of)
		c.Lines = append(c.Lines, line)
		lasts = append(lasts, strings.TrimSpace(p.text(last[i])+" "+l.name))
		mosts = append(mosts, strings.TrimSpace(p.text(most[i])+" "+l.name))
	}
	c.Last, c.Note = strings.Join(lasts, ", "), "most "+strings.Join(mosts, ", ")
	if p.limit > 0 {
		c.Note += " of " + p.text(p.limit)
		c.Limit = s.y(p.limit)
	}
	c.Gaps = s.spans(u, func(v service.Use) bool { return v.Seen == 0 })
	if p.hit != nil {
		c.Hits = s.spans(u, p.hit)
	}
	c.About = fmt.Sprintf("%s of service %s from %s to %s: last %s, %s.", p.title, name, c.From, c.To, c.Last, c.Note)
	if len(c.Gaps) > 0 {
		c.About += " Of a part of that time nothing is known."
	}
	if len(c.Hits) > 0 {
		c.About += " At times it waited because its limit was used up."
	}
	return c
}

// scale maps points and values to the picture.
type scale struct {
	points int
	high   float64 // at the top
}

func (s scale) x(i int) string {
	return strconv.FormatFloat(float64(i)*chartWidth/float64(max(s.points, 1)), 'f', 1, 64)
}

func (s scale) y(v float64) string {
	if !(s.high > 0) {
		return strconv.Itoa(chartHeight)
	}
	return strconv.FormatFloat(chartHeight*(1-min(max(v/s.high, 0), 1)), 'f', 1, 64)
}

// path is a value's area and its upper edge, in steps, with a break at each gap.
func (s scale) path(u service.Uses, of func(service.Use) float64) (area, line string) {
	var a, l strings.Builder
	open := false
	for i, p := range u.Points {
		switch {
		case p.Seen == 0 && open:
			fmt.Fprintf(&a, "V%dZ", chartHeight)
			open = false
			continue
		case p.Seen == 0:
			continue
		case !open:
			fmt.Fprintf(&a, "M%s %dV%s", s.x(i), chartHeight, s.y(of(p)))
			fmt.Fprintf(&l, "M%s %s", s.x(i), s.y(of(p)))
			open = true
		default:
			fmt.Fprintf(&a, "V%s", s.y(of(p)))
			fmt.Fprintf(&l, "V%s", s.y(of(p)))
		}
		fmt.Fprintf(&a, "H%s", s.x(i+1))
		fmt.Fprintf(&l, "H%s", s.x(i+1))
	}
	if open {
		fmt.Fprintf(&a, "V%dZ", chartHeight)
	}
	return a.String(), l.String()
}

// spans are the times in which something holds.
func (s scale) spans(u service.Uses, holds func(service.Use) bool) []chartSpan {
	var out []chartSpan
	for i := 0; i < len(u.Points); i++ {
		from := i
		for i < len(u.Points) && holds(u.Points[i]) {
			i++
		}
		if i > from {
			width := strconv.FormatFloat(float64(i-from)*chartWidth/float64(s.points), 'f', 1, 64)
			out = append(out, chartSpan{X: s.x(from), Width: width})
		}
	}
	return out
}

// useRows tells in a table what the charts show.
func useRows(u service.Uses, core, second func(float64) string) []useRow {
	end := u.Begin + int64(u.Step)*int64(len(u.Points))
	u = u.Coarse(tableRows)
	var rows []useRow
	for i, p := range u.Points {
		rows = append(rows, useRow{
			Time: moment(u.Begin+int64(u.Step)*int64(i), end), Gap: p.Seen == 0,
			Processor: core(p.Cores()), Waited: (time.Duration(p.Throttled) * time.Millisecond).Round(100 * time.Millisecond).String(),
			Memory: byteText(p.Memory), Disk: byteText(p.Disk), Received: second(p.Rate(p.In)), Sent: second(p.Rate(p.Out)),
			LimitsHit: strconv.FormatUint(p.Hits, 10),
		})
	}
	return rows
}

// moment is a time on a scale that ends at another.
func moment(seconds, end int64) string {
	if end-seconds < 20*3600 {
		return time.Unix(seconds, 0).Format("15:04:05")
	}
	return time.Unix(seconds, 0).Format("2 Jan 15:04")
}

// hitsText says which limits the present run has hit, "" for none.
func hitsText(m service.Metrics) string {
	var parts []string
	for _, h := range []struct {
		n    uint64
		what string
	}{
		{m.Hits.CPU, "processor"},
		{m.Hits.Memory, "memory"},
		{m.Hits.Pids, "processes"},
		{m.Hits.Disk, "disk"},
		{m.Hits.IO, "reading and writing"},
		{m.Hits.Network, "network"},
	} {
		if h.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", h.what, grouped(h.n)))
		}
	}
	if m.Hits.OOM > 0 {
		parts = append(parts, fmt.Sprintf("killed for memory %s", grouped(m.Hits.OOM)))
	}
	return strings.Join(parts, ", ")
}
