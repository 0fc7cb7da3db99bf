//go:build linux && cgo && amd64

package boxtest

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// CPUCounters are what a container's control group counts of its processor time,
// from its beginning or since an earlier look.
type CPUCounters struct {
	Used      time.Duration
	Periods   uint64 // of those in which a quota holds
	Throttled uint64 // periods in which it was used up
}

func (c CPUCounters) since(b CPUCounters) CPUCounters {
	return CPUCounters{c.Used - b.Used, c.Periods - b.Periods, c.Throttled - b.Throttled}
}

// CPUCounters reads them from the kernel.
func (w *World) CPUCounters(id string) CPUCounters {
	w.T.Helper()
	n := CPUCounters{
		Used:    time.Duration(w.groupNumber(id, "cpu.stat", "usage_usec")) * time.Microsecond,
		Periods: w.groupNumber(id, "cpu.stat", "nr_periods"), Throttled: w.groupNumber(id, "cpu.stat", "nr_throttled"),
	}
	if n.Used == 0 { // with cgroup v1
		n.Used = time.Duration(w.groupNumber(id, "cpuacct.usage", ""))
	}
	return n
}

// quota is how much processor time a container has in each period.
func (w *World) quota(id string) (quota, period time.Duration) {
	w.T.Helper()
	if files := w.GroupFiles("/" + id + "/cpu.max"); len(files) > 0 {
		b, _ := os.ReadFile(files[0])
		if f := strings.Fields(string(b)); len(f) == 2 && f[0] != "max" {
			return time.Duration(Number(w.T, f[0])) * time.Microsecond, time.Duration(Number(w.T, f[1])) * time.Microsecond
		}
		return 0, 0
	}
	return time.Duration(w.groupNumber(id, "cpu.cfs_quota_us", "")) * time.Microsecond, time.Duration(w.groupNumber(id, "cpu.cfs_period_us", "")) * time.Microsecond
}

// groupNumber reads a number from a file of a container's control group: all of
// it or, where it has lines, the one of a field; 0 where there is none.
func (w *World) groupNumber(id, name, field string) uint64 {
	w.T.Helper()
	for _, f := range w.GroupFiles("/" + id + "/" + name) {
		b, err := os.ReadFile(f)
		if err != nil {
			w.T.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			words := strings.Fields(line)
			if field != "" && (len(words) != 2 || words[0] != field) || len(words) == 0 {
				continue
			}
			n, err := strconv.ParseUint(words[len(words)-1], 10, 64)
			if err != nil {
				w.T.Fatalf("%s: %q", f, line)
			}
			return n
		}
	}
	return 0
}

// CompareCPU waits until the kernel has counted enough of a busy container. Then
// the runtime must have told of as much as the kernel counted, within a twentieth,
// and the kernel must have counted no more than so many thousandths of a processor
// for the periods that it counted.
func (w *World) CompareCPU(id string, milliCPU uint64, enough func(CPUCounters) bool) {
	w.T.Helper()
	quota, period := w.quota(id)
	if want := period * time.Duration(milliCPU) / 1000; quota != want || quota == 0 {
		w.T.Fatalf("the group may use %v in each %v, want %v", quota, period, want)
	}
	a, said, b := w.CPUCounters(id), w.Usage(id), w.CPUCounters(id) // each of the runtime's between two of the kernel's
	var c CPUCounters
	for deadline := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
		if c = w.CPUCounters(id); enough(c.since(b)) {
			break
		}
		if time.Now().After(deadline) {
			w.T.Fatalf("the group has counted %+v for too long", c.since(b))
		}
	}
	now, d := w.Usage(id), w.CPUCounters(id)
	least, most, used := c.since(b), d.since(a), now.CPUTime-said.CPUTime
	if used < least.Used-least.Used/20 || used > most.Used+most.Used/20 {
		w.T.Errorf("the runtime tells of %v of processor time, the group of %v to %v", used, least.Used, most.Used)
	}
	if hits := now.Hits.CPU - said.Hits.CPU; hits < least.Throttled || hits > most.Throttled {
		w.T.Errorf("the runtime tells of %d periods in which the limit was hit, the group of %d to %d", hits, least.Throttled, most.Throttled)
	}
	if now.Hits.CPU > said.Hits.CPU+1 && now.ThrottledTime <= said.ThrottledTime { // the kernel counts time when it ends
		w.T.Errorf("got %+v, and before %+v: the limit was hit, and nothing waited", now, said)
	}
	// The period that had begun before and the one that ends later, and what each
	// processor may still have of one.
	if bound := time.Duration(most.Periods+2)*quota + quota/2; most.Used > bound {
		w.T.Errorf("the group used %v in %d periods of %v, want at most %v", most.Used, most.Periods, quota, bound)
	}
	w.T.Logf("%v; the group counts %+v to %+v", used, least, most)
}
