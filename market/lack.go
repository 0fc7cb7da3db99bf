package market

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Criterion is one thing that a query asks of an offer.
type Criterion string

// The criteria, in the order in which they are told.
const (
	ByCPU       Criterion = "cpu"
	ByMemory    Criterion = "memory"
	ByDisk      Criterion = "disk"
	ByPrice     Criterion = "price"
	ByRegion    Criterion = "region"
	ByIsolation Criterion = "isolation"
	ByEgress    Criterion = "egress"
	ByPorts     Criterion = "ports"
	ByBandwidth Criterion = "bandwidth"
	ByVolumes   Criterion = "volumes"
	ByRail      Criterion = "rail"
)

// What the list of [Lacks] is.
const (
	LacksAll     = "all"     // no offer has any of it
	LacksAlone   = "alone"   // some offers lack one of these, and have all the rest
	LacksNearest = "nearest" // one offer lacks all of these, and every other one as much
)

// Lacks say why no offer passes a query, see [Explain].
type Lacks struct {
	Offers int    `json:"offers" doc:"that were looked at"`
	Of     string `json:"of,omitempty" enum:"all,alone,nearest" doc:"all: no offer has any of the list; alone: some lack one of these each, and have all the rest; nearest: one offer lacks these, and no other one fewer"`
	List   []Lack `json:"list"`
}

// Lack is a criterion that stands in the way of a match, and the nearest that
// there is to it.
type Lack struct {
	Criterion Criterion `json:"criterion" enum:"cpu,memory,disk,price,region,isolation,egress,ports,bandwidth,volumes,rail"`
	Best      uint64    `json:"best" doc:"the nearest that there is: thousandths of a core, bytes, base units an hour, ports, or bytes a second; of what is no number 0"`
	Has       string    `json:"has" doc:"in words, such as: 4 cores free"`
	Text      string    `json:"text" doc:"in a sentence, such as: none has more than 4 cores free"`
}

// asked is one criterion of a query.
type asked struct {
	Criterion
	of    func(o Offer) uint64 // more is nearer
	least uint64               // passes
	none  string               // of several offers, with the nearest as %s
	one   string               // of a single one
	show  func(v uint64) string
}

// criteria are those that a query has.
func (q Query) criteria() []asked {
	yes := func(wanted bool) uint64 {
		if wanted {
			return 1
		}
		return 0
	}
	word := func(s string) func(uint64) string { return func(uint64) string { return s } }
	has := func(f func(o Offer) bool) func(o Offer) uint64 { return func(o Offer) uint64 { return yes(f(o)) } }
	priced, cheap := q.priced(), uint64(0)
	if q.MaxRate != 0 {
		cheap = ^uint64(q.MaxRate)
	}
	all := []asked{
		{ByCPU, func(o Offer) uint64 { return o.Capacity.MilliCPU }, q.For.MilliCPU, "has more than %s free", "%s free", coreText},
		{ByMemory, func(o Offer) uint64 { return o.Capacity.MemoryBytes }, q.For.MemoryBytes, "has more than %s of memory free", "%s of memory free", byteText},
		{ByDisk, func(o Offer) uint64 { return o.Capacity.DiskBytes }, q.For.DiskBytes, "has more than %s of disk free", "%s of disk free", byteText},
		{ByPrice, func(o Offer) uint64 {
			rate, err := o.Rate(priced)
			if err != nil {
				return 0
			}
			return ^uint64(rate) // the cheaper the nearer
		}, cheap, "costs less than %s an hour", "%s an hour", func(v uint64) string { return pktcloud.Amount(^v).String() }},
		{ByRegion, has(func(o Offer) bool { return inRegion(o.Region, q.Region) }), yes(q.Region != ""), "says that it is in %s", "not in %s", word(q.Region)},
		{ByIsolation, has(func(o Offer) bool { return slices.Contains(o.Isolation, q.Isolation) }), yes(q.Isolation != ""), "has isolation %s", "no isolation %s", word(q.Isolation)},
		{ByEgress, has(func(o Offer) bool { return o.Network.Egress }), yes(q.Network.Egress), "lets services connect to %s", "no way to %s", word("the internet")},
		{ByPorts, func(o Offer) uint64 { return o.Network.Ports }, q.Network.Ports, "has more than %s to publish", "%s to publish", func(v uint64) string {
			return strings.TrimSuffix(strconv.FormatUint(v, 10)+" ports", strings.Repeat("s", int(yes(v == 1))))
		}},
		{ByBandwidth, func(o Offer) uint64 { return cmp.Or(o.Network.BytesPerSecond, ^uint64(0)) }, q.Network.BytesPerSecond, "carries more than %s a second for a lease", "%s a second", byteText},
		{ByVolumes, has(func(o Offer) bool { return o.Volumes }), yes(q.Volumes), "has %s", "no %s", word("volumes")},
		{ByRail, has(func(o Offer) bool { _, ok := o.Rail(q.Rail); return ok }), yes(q.Rail != ""), "is paid by %s", "not paid by %s", word(q.Rail)},
	}
	return slices.DeleteFunc(all, func(a asked) bool { return a.least == 0 })
}

func (a asked) lack(best uint64) Lack {
	l := Lack{Criterion: a.Criterion, Best: best, Has: fmt.Sprintf(a.one, a.show(best)), Text: fmt.Sprintf("none "+a.none, a.show(best))}
	switch {
	case a.Criterion == ByPrice:
		l.Best = ^best
	case a.Criterion == ByPorts && best == 0:
		l.Has, l.Text = "no ports to publish", "none publishes ports"
	}
	return l
}

// nearest is the most that some offers have of something.
type nearest struct {
	best      uint64
	seen, met bool
}

func (n *nearest) take(v uint64, met bool) {
	n.best, n.seen, n.met = max(n.best, v), true, n.met || met
}

// Explain says why no offer passes a query: the criteria that none of them
// meets; where each is met somewhere, those that stand alone in the way of an
// offer; and where there is no such offer, what the nearest one lacks. The list is
// empty where an offer passes, or there is none.
func Explain(offers iter.Seq[Offer], q Query) Lacks {
	criteria := q.criteria()
	out := Lacks{List: []Lack{}}
	passes := false
	all, alone := make([]nearest, len(criteria)), make([]nearest, len(criteria))
	var fewest []Lack
	for o := range offers {
		out.Offers++
		var lacks []Lack
		last := 0
		for i, c := range criteria {
			v := c.of(o)
			all[i].take(v, v >= c.least)
			if v < c.least {
				lacks, last = append(lacks, c.lack(v)), i
			}
		}
		switch {
		case len(lacks) == 0:
			passes = true
		case len(lacks) == 1:
			alone[last].take(criteria[last].of(o), false)
		case fewest == nil || len(lacks) < len(fewest):
			fewest = lacks
		}
	}
	if passes || out.Offers == 0 {
		return out
	}
	for i, c := range criteria {
		if !all[i].met {
			out.Of, out.List = LacksAll, append(out.List, c.lack(all[i].best))
		}
	}
	if len(out.List) > 0 {
		return out
	}
	for i, c := range criteria {
		if alone[i].seen {
			out.Of, out.List = LacksAlone, append(out.List, c.lack(alone[i].best))
		}
	}
	if len(out.List) == 0 {
		out.Of, out.List = LacksNearest, fewest
	}
	return out
}

// remedies say what to do about what lacks.
var remedies = []struct {
	text string
	of   []Criterion
}{
	{"ask for less", []Criterion{ByCPU, ByMemory, ByDisk, ByPorts, ByBandwidth}},
	{"allow a higher price", []Criterion{ByPrice}},
	{"take any region", []Criterion{ByRegion}},
	{"take any isolation", []Criterion{ByIsolation}},
	{"do without the internet", []Criterion{ByEgress}},
	{"do without volumes", []Criterion{ByVolumes}},
}

// String says it to people, without a full stop: how many offers there are, what
// they lack, and what to do. It is empty where an offer passes.
func (l Lacks) String() string {
	if l.Offers == 0 {
		return "no provider has an offer that this node knows of; new ones come in by themselves"
	}
	if len(l.List) == 0 {
		return ""
	}
	out := "1 offer, "
	if l.Offers > 1 {
		out = strconv.Itoa(l.Offers) + " offers, "
	}
	between, do := " and ", " and "
	switch l.Of {
	case LacksAlone:
		between, do = " or ", " or "
		out += "of those that have all the rest "
	case LacksNearest:
		between = ", "
		out += "none has all of it, the nearest: "
	}
	var texts, dos []string
	for _, v := range l.List {
		if l.Of == LacksNearest {
			v.Text = v.Has
		}
		texts = append(texts, v.Text)
	}
	for _, r := range remedies {
		if slices.ContainsFunc(l.List, func(v Lack) bool { return slices.Contains(r.of, v.Criterion) }) {
			dos = append(dos, r.text)
		}
	}
	if out += strings.Join(texts, between); len(dos) > 0 {
		out += "; " + strings.Join(dos, do)
	}
	return out
}

func coreText(milli uint64) string {
	text := strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)
	if milli == 1000 {
		return text + " core"
	}
	return text + " cores"
}

// byteText rounds down: what is shown is to be had.
func byteText(n uint64) string {
	const unit = 1024
	v, i := float64(n), 0
	for ; v >= unit && i < 6; i++ {
		v /= unit
	}
	return strconv.FormatFloat(float64(int64(v*10))/10, 'f', -1, 64) + [...]string{" bytes", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"}[i]
}
