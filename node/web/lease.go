package web

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

const (
	logLines     = 200
	logBytes     = 512 // of a line that is shown
	liveInterval = time.Second
	logRetry     = 3 * time.Second
	// The provider is asked how services stand once in so many ticks, and has so
	// long to answer.
	servicesEvery   = 3
	servicesTimeout = 2 * time.Second
)

type leasesPage struct {
	page
	Leases []service.Lease
}

func (w *Web) leases(rw http.ResponseWriter, r *http.Request) {
	leases, err := w.svc.Leases(r.Context())
	status := http.StatusOK
	if err != nil {
		status = service.CodeOf(err).Status()
	}
	w.show(rw, status, "leases", leasesPage{page: w.page(r, "Leases", err), Leases: leases})
}

type leasePage struct {
	page
	Lease    service.Lease
	Service  string // whose metrics and log are shown; "": all
	Life     bool   // metrics since the lease began, not only the last while
	Services servicesPart
	Metrics  metricsPart
	Volumes  []service.VolumeStanding
	Log      logPart
}

// At is the page's address with a service, or with another span of metrics.
func (p leasePage) At(service string, life bool) string {
	q := url.Values{}
	if service != "" {
		q.Set("service", service)
	}
	if life {
		q.Set("span", "life")
	}
	at := "/leases/" + url.PathEscape(p.Lease.Label)
	if len(q) > 0 {
		at += "?" + q.Encode()
	}
	return at
}

// pick leads from one service to another, at a place of the page.
type pick struct {
	leasePage
	Place, Label string
}

// Pick is what leads to each service's part at a place.
func (p leasePage) Pick(place string) pick {
	return pick{p, place, strings.ToUpper(place[:1]) + place[1:]}
}

// Live is the address of what changes on the page.
func (p leasePage) Live() string {
	at, query, asks := strings.Cut(p.At(p.Service, p.Life), "?")
	if at += "/live"; asks {
		at += "?" + query
	}
	return at
}

// servicesPart is how services stand. Their names lead to their metrics and logs
// where there are several.
type servicesPart struct {
	Label string
	List  []service.Standing
}

// servicesOf asks how a lease's services stand: nil when nobody says.
func (w *Web) servicesOf(ctx context.Context, l service.Lease) []service.Standing {
	if l.Phase != "active" && l.Phase != "suspended" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, servicesTimeout)
	defer cancel()
	list, err := w.svc.LeaseServices(ctx, l.ID.String())
	if err != nil {
		w.log.Debug("the services of a lease", "lease", l.Label, "error", err)
		return nil
	}
	return list
}

// asked is the service of ?service=, "" unless the lease has it.
func asked(r *http.Request, l service.Lease) string {
	name := r.URL.Query().Get("service")
	if slices.ContainsFunc(l.Services, func(s service.LeaseService) bool { return s.Name == name }) {
		return name
	}
	return ""
}

// logPart is the end of a log.
type logPart struct {
	Lines []string
	Over  bool
}

func over(l service.Lease) bool {
	switch l.Phase {
	case "closing", "closed", "refused", "failed":
		return true
	}
	return false
}

// milestones leaves the routine out of a history: of the statements and
// payments it keeps the last.
func milestones(all []service.Entry) []service.Entry {
	last := map[string]int{}
	for i, e := range all {
		last[e.Kind] = i
	}
	var out []service.Entry
	for i, e := range all {
		if e.Kind != "statement" && e.Kind != "voucher" || i == last[e.Kind] {
			out = append(out, e)
		}
	}
	return out
}

func (w *Web) lease(rw http.ResponseWriter, r *http.Request) {
	w.showLease(rw, r, nil)
}

func (w *Web) showLease(rw http.ResponseWriter, r *http.Request, problem error) {
	l, err := w.svc.Lease(r.Context(), r.PathValue("lease"))
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	status := http.StatusOK
	if problem != nil {
		status = service.CodeOf(problem).Status()
	}
	p := leasePage{
		page: w.page(r, "Lease "+l.Label, problem), Lease: l, Service: asked(r, l), Life: wantsLife(r),
		Services: servicesPart{l.Label, w.servicesOf(r.Context(), l)}, Volumes: w.volumesOf(r.Context(), l), Log: logPart{Over: over(l)},
	}
	p.Metrics, _ = w.metricsOf(r.Context(), l, p.Service, p.Life)
	p.Metrics = p.Metrics.explain(p.Services.List)
	w.show(rw, status, "lease", p)
}

func (w *Web) closeLease(rw http.ResponseWriter, r *http.Request) {
	if _, err := w.svc.CloseLease(r.Context(), r.PathValue("lease")); err != nil {
		w.showLease(rw, r, err)
		return
	}
	http.Redirect(rw, r, "/leases/"+url.PathEscape(r.PathValue("lease")), http.StatusSeeOther)
}

// live sends the lease's state and the end of its log whenever they change.
func (w *Web) live(rw http.ResponseWriter, r *http.Request) {
	name := r.PathValue("lease")
	first, err := w.svc.Lease(r.Context(), name)
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	source, part := name, asked(r, first)
	if part != "" {
		source += "/" + part
	}
	rw.Header().Set("Content-Type", "text/event-stream")
	ctx, cancel := context.WithCancel(r.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var log tail
	wg.Go(func() { w.follow(ctx, source, &log) })

	sent := map[string][]byte{}
	var list []service.Standing
	var volumes []service.VolumeStanding
	var use metricsPart
	asks, asksUse := 0, 0 // ticks until the provider is asked again
	tick := time.NewTicker(liveInterval)
	defer tick.Stop()
	for {
		lease, err := w.svc.Lease(ctx, name)
		if err != nil {
			return
		}
		if asks--; asks <= 0 {
			asks, list, volumes = servicesEvery, w.servicesOf(ctx, lease), w.volumesOf(ctx, lease)
		}
		if asksUse--; asksUse <= 0 || over(lease) {
			asksUse = metricsEvery
			if now, ok := w.metricsOf(ctx, lease, part, wantsLife(r)); ok { // else what was shown stands
				use = now
			}
		}
		for event, data := range map[string]any{"state": lease, "services": servicesPart{lease.Label, list}, "volumes": volumes, "metrics": use.explain(list), "log": logPart{Lines: log.last(), Over: over(lease)}, "end": lease} {
			if event == "end" && !over(lease) {
				continue // a confirmation that is open stays open
			}
			b, err := w.part("lease", event, data)
			if err != nil {
				w.log.Error("render a part", "part", event, "error", err)
				return
			}
			if bytes.Equal(b, sent[event]) {
				continue
			}
			sent[event] = b
			if err := sendEvent(rw, event, b); err != nil {
				return
			}
		}
		if err := http.NewResponseController(rw).Flush(); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func sendEvent(w io.Writer, event string, data []byte) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "event: %s\n", event)
	for line := range bytes.Lines(data) {
		fmt.Fprintf(&b, "data: %s\n", bytes.TrimRight(line, "\r\n"))
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

// follow reads the lease's log into t until ctx ends, again and again while
// the lease is not there yet.
func (w *Web) follow(ctx context.Context, name string, t *tail) {
	for ctx.Err() == nil {
		r, pipe := io.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			pipe.CloseWithError(w.svc.Logs(ctx, name, service.LogRequest{Follow: true, Tail: logLines}, pipe))
		})
		t.reset()
		t.read(r)
		r.Close() //nolint:errcheck // it never fails
		wg.Wait()
		select {
		case <-time.After(logRetry):
		case <-ctx.Done():
		}
	}
}

// tail keeps the last lines of a log.
type tail struct {
	mu     sync.Mutex // guards all below
	lines  []string
	before []string // of the reading before, until this one has a line
}

func (t *tail) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) > 0 {
		t.before, t.lines = t.lines, nil
	}
}

func (t *tail) last() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 0 {
		return slices.Clone(t.before)
	}
	return slices.Clone(t.lines)
}

func (t *tail) read(r io.Reader) {
	in := bufio.NewReaderSize(r, 32<<10)
	for {
		part, err := in.ReadSlice('\n')
		line := string(part[:min(len(part), logBytes)])
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		if len(line) > 0 {
			t.add(line)
		}
		if err != nil {
			return
		}
	}
}

// add keeps a line in the form "15:04:05 text".
func (t *tail) add(line string) {
	line = strings.TrimRight(line, "\r\n")
	if stamp, rest, ok := strings.Cut(line, " "); ok {
		if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			_, text, _ := strings.Cut(rest, " ")
			line = at.Local().Format("15:04:05") + " " + text
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, strings.ToValidUTF8(line, "\uFFFD"))
	if len(t.lines) > logLines {
		t.lines = slices.Delete(t.lines, 0, len(t.lines)-logLines)
	}
}
