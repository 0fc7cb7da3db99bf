package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

func (a *app) leaseMetrics() *cobra.Command {
	var part string
	var life bool
	c := &cobra.Command{
		Use: "metrics LEASE[/SERVICE]", Short: "Show what a lease's services have used over time, by its provider's word", Args: exactly("LEASE"),
		Long: `Metrics shows what each service of a lease has used in the last two hours, or
with --life since the lease began: the last value, the most, what it may use, and
a line in which a full sign is that limit, for the network the most. A dot is a
time in which it did not run, or its provider's node did not.`,
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			if part != "" {
				if strings.Contains(name, "/") {
					return service.Errorf(service.CodeInvalid, "%s names a service, and --service does too", name)
				}
				name += "/" + part
			}
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			list, err := n.LeaseMetrics(c.Context(), name)
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) { printMetrics(w, list, life) })
		},
	}
	c.Flags().StringVar(&part, "service", "", "this service only")
	c.Flags().BoolVar(&life, "life", false, "since the lease began, not only the last two hours")
	return c
}

// sparkWidth is how many signs a line of metrics has.
const sparkWidth = 40

// printMetrics shows what services have used.
func printMetrics(w io.Writer, list []service.Metrics, life bool) {
	t := newTable(w)
	t.row("SERVICE", "USE", "LAST", "MOST", "LIMIT", "OVER TIME")
	for _, m := range list {
		u := m.Recent
		if life {
			u = m.Life
		}
		if len(u.Points) == 0 {
			t.row(m.Service, "nothing was measured yet")
			continue
		}
		count := func(v float64) string { return byteText(uint64(v)) }
		second := func(v float64) string { return byteText(uint64(v)) + "/s" }
		lines := u.Coarse(sparkWidth)
		for i, r := range []struct {
			name  string
			of    func(service.Use) float64
			limit float64 // 0: none
			text  func(float64) string
		}{
			{"processor", service.Use.Cores, float64(m.MilliCPU) / 1000, func(v float64) string { return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64) }},
			{"memory", func(p service.Use) float64 { return float64(p.Memory) }, float64(m.Memory), count},
			{"disk", func(p service.Use) float64 { return float64(p.Disk) }, float64(m.Disk), count},
			{"received", func(p service.Use) float64 { return p.Rate(p.In) }, 0, second},
			{"sent", func(p service.Use) float64 { return p.Rate(p.Out) }, 0, second},
		} {
			name, limit := "", "-"
			if i == 0 {
				name = m.Service
			}
			if r.limit != 0 {
				limit = r.text(r.limit)
			}
			last, most := extent(u, r.of)
			t.row(name, r.name, r.text(last), r.text(most), limit, spark(lines, r.of, r.limit))
		}
	}
	t.end()
	for _, m := range list {
		printHits(w, m)
	}
}

// extent is the last of the values and the largest.
func extent(u service.Uses, of func(service.Use) float64) (last, most float64) {
	for _, p := range u.Points {
		if p.Seen != 0 {
			last = of(p)
			most = max(most, last)
		}
	}
	return last, most
}

var signs = []rune("▁▂▃▄▅▆▇█")

// spark draws values, one sign each, from 0 to the limit or, without one, the
// most. A gap is a dot.
func spark(u service.Uses, of func(service.Use) float64, limit float64) string {
	if limit == 0 {
		_, limit = extent(u, of)
	}
	var b strings.Builder
	for _, p := range u.Points {
		switch {
		case p.Seen == 0:
			b.WriteRune('·')
		case limit == 0:
			b.WriteRune(signs[0])
		default:
			b.WriteRune(signs[int(min(max(of(p)/limit, 0), 1)*float64(len(signs)-1)+0.5)])
		}
	}
	return b.String()
}

// printHits says which limits a service has hit, and of what time the rest is.
func printHits(w io.Writer, m service.Metrics) {
	if m.Runs == 0 {
		return
	}
	var hits []string
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
		if h.n != 0 {
			hits = append(hits, fmt.Sprintf("%s %d", h.what, h.n))
		}
	}
	text := "no limit was hit"
	if len(hits) > 0 {
		text = "limits hit, " + strings.Join(hits, ", ")
	}
	if m.Hits.OOM != 0 {
		text += fmt.Sprintf("; killed for memory: %d", m.Hits.OOM)
	}
	since := ""
	if len(m.Life.Points) > 0 {
		since = "; measured since " + time.Unix(m.Life.Begin, 0).UTC().Format(time.DateTime) + "Z"
	}
	fmt.Fprintf(w, "%s, run %d: %s%s\n", m.Service, m.Runs, text, since)
}
