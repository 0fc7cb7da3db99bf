package services_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
	"github.com/pkt-cash/pkt-cloud/container/services"
)

// disk is a store in memory that can be full.
type disk struct {
	mu     sync.Mutex
	values map[string][]byte
	full   bool
	writes int
}

var errFull = errors.New("disk full")

func (d *disk) Apply(_ context.Context, puts []services.Put) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return errFull
	}
	d.writes++
	for _, p := range puts {
		if p.Value == nil {
			delete(d.values, p.Key)
			continue
		}
		d.values[p.Key] = slices.Clone(p.Value)
	}
	return nil
}

func (d *disk) Load(_ context.Context, prefix string, fn func(string, []byte) error) error {
	d.mu.Lock()
	values := maps.Clone(d.values)
	d.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if strings.HasPrefix(k, prefix) {
			if err := fn(k, values[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *disk) setFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// lab is a machine with a manager that may die.
type lab struct {
	t    *testing.T
	twin *containertest.Twin
	// runtime is twin, unless a test puts something before it.
	runtime container.Runtime
	disk    *disk
	m       *services.Manager
	die     func()
	runs    sync.Map // of the program "count": by its argument, an *atomic.Int64
	broken  atomic.Bool
	limit   time.Duration // of a manager for sets that are being ended
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, disk: &disk{values: map[string][]byte{}}}
	serve := func(ctx context.Context, p *containertest.Process) int {
		fmt.Fprintf(p.Stdout, "run %d\n", l.count(p.Args[1]).Add(1))
		ln, err := p.Listen(80)
		if err != nil {
			return 1
		}
		defer ln.Close()
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go l.answer(c)
			}
		}()
		<-ctx.Done()
		return 0
	}
	exit := func(_ context.Context, p *containertest.Process) int {
		fmt.Fprintf(p.Stdout, "run %d\n", l.count(p.Args[1]).Add(1))
		return len(p.Args) - 2 // an exit code in strokes
	}
	later := func(ctx context.Context, p *containertest.Process) int {
		fmt.Fprintf(p.Stdout, "run %d\n", l.count(p.Args[1]).Add(1))
		select {
		case <-ctx.Done():
		case <-time.After(time.Minute):
		}
		return 0
	}
	check := func(context.Context, *containertest.Process) int {
		if l.broken.Load() {
			return 1
		}
		return 0
	}
	keep := func(ctx context.Context, p *containertest.Process) int {
		data := p.Volumes["/data"]
		b, _ := data.ReadFile("runs")
		if err := data.WriteFile("runs", append(b, '.')); err != nil {
			return 1
		}
		<-ctx.Done()
		return 0
	}
	l.twin = containertest.NewTwin(map[string]containertest.TwinImage{"image": {
		Image: container.Image{Digest: digest, OS: "linux", Arch: "amd64"}, Programs: map[string]containertest.Program{"serve": serve, "exit": exit, "later": later, "check": check, "keep": keep},
	}})
	l.runtime = l.twin
	if _, err := l.twin.Pull(t.Context(), "image", container.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	l.live()
	return l
}

func (l *lab) answer(c net.Conn) {
	defer c.Close()
	c.Read(make([]byte, 1024))
	status := "200 OK"
	if l.broken.Load() {
		status = "500 Broken"
	}
	fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", status)
}

func (l *lab) count(name string) *atomic.Int64 {
	v, _ := l.runs.LoadOrStore(name, &atomic.Int64{})
	return v.(*atomic.Int64) //nolint:forcetypeassert // nothing else is stored
}

// live begins the life of a manager.
func (l *lab) live() {
	l.t.Helper()
	m, err := services.New(l.t.Context(), services.Config{Runtime: l.runtime, Store: l.disk, EndLimit: l.limit})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	l.m, l.die = m, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			l.t.Errorf("got %v from Run", err)
		}
	}
}

func (l *lab) close() {
	l.die()
	l.twin.Close()
}

func (l *lab) await(what string, ok func(services.Status) bool) services.Status {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	s, err := l.m.Await(ctx, "set", ok)
	if err != nil {
		l.t.Fatalf("%s: %v in %+v", what, err, s)
	}
	return s
}

func (l *lab) begin(list ...services.Service) {
	l.t.Helper()
	for range 2 { // it is idempotent
		if err := l.m.Begin(l.t.Context(), setOf(list...)); err != nil {
			l.t.Fatal(err)
		}
	}
}

func phases(want ...services.Phase) func(services.Status) bool {
	return func(s services.Status) bool {
		for i, p := range want {
			if s.Services[i].Phase != p {
				return false
			}
		}
		return true
	}
}

func program(v services.Service, args ...string) services.Service {
	v.Args = args
	return v
}

var http = services.Health{Check: services.CheckHTTP, Port: 80, Path: "/", Interval: 2 * time.Second, Timeout: time.Second, Retries: 2}

func trio() []services.Service {
	return []services.Service{
		program(plain("web", on("db", services.Healthy), on("migrate", services.Completed)), "serve", "web"),
		checked(program(plain("db"), "serve", "db"), http),
		program(job("migrate", on("db", services.Healthy)), "exit", "migrate"),
	}
}

// TestStory runs three services with a manager that dies between all steps.
func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		l.begin(trio()...)
		l.await("all run", phases(services.Running, services.Running, services.Done))

		// The database dies while nobody looks, and comes back; the job does not.
		l.die()
		kill(t, l, "db", 1)
		time.Sleep(time.Hour)
		l.live()
		s := l.await("db is back", func(s services.Status) bool {
			return s.Services[1].Run == 2 && s.Services[1].Health == services.HealthHealthy
		})
		if s.Services[1].Restarts() != 1 || s.Services[0].Run != 1 || s.Services[2].Run != 1 || s.Services[2].ExitCode != 0 {
			t.Errorf("got %+v, want one restart of db alone", s.Services)
		}
		for name, want := range map[string]int64{"web": 1, "db": 2, "migrate": 1} {
			if got := l.count(name).Load(); got != want {
				t.Errorf("%s ran %d times, want %d", name, got, want)
			}
		}
		if err := l.m.End(t.Context(), "set"); err != nil {
			t.Fatal(err)
		}
		if all, _ := l.twin.List(t.Context()); len(all) != 0 || len(l.disk.values) != 0 {
			t.Errorf("got %+v and %d values left", all, len(l.disk.values))
		}
		if err := l.m.End(t.Context(), "set"); err != nil {
			t.Errorf("got %v from a second end", err)
		}
	})
}

// kill ends a container from outside: the twin forgets it, as a machine that
// lost it would.
func kill(t *testing.T, l *lab, service string, run uint64) {
	t.Helper()
	if err := l.twin.Destroy(t.Context(), services.Container("set", service, run)); err != nil {
		t.Fatal(err)
	}
}

// TestCrashLoopIsSlow: twenty minutes of crashes cost few starts [SERVICE-8].
func TestCrashLoopIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		l.begin(program(plain("it"), "exit", "it", "1"))
		time.Sleep(20 * time.Minute)
		s, err := l.m.Status("set")
		if err != nil || !s.Services[0].Looping || s.Services[0].ExitCode != 1 || s.Outcome != services.Going {
			t.Errorf("got %+v, %v, want a crash loop that goes on", s, err)
		}
		if got := l.count("it").Load(); got < 15 || got > 35 {
			t.Errorf("got %d starts in 20 minutes, want about one a minute", got)
		}
		synctest.Wait()
		if l.disk.writes > 200 {
			t.Errorf("got %d writes in 20 minutes", l.disk.writes)
		}
	})
}

func TestChecks(t *testing.T) {
	for name, h := range map[string]services.Health{
		"http":    http,
		"command": {Check: services.CheckCommand, Command: []string{"check"}, Interval: 2 * time.Second, Timeout: time.Second, Retries: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				defer l.close()
				l.begin(checked(program(plain("it"), "serve", "it"), h))
				healthy := func(s services.Status) bool { return s.Services[0].Health == services.HealthHealthy }
				l.await("healthy", healthy)
				l.broken.Store(true)
				s := l.await("taken down", func(s services.Status) bool { return s.Services[0].Phase == services.Backoff })
				if !strings.Contains(s.Services[0].Text, "was unhealthy") || s.Services[0].ExitCode == 0 {
					t.Errorf("got %+v, want it said why", s.Services[0])
				}
				l.broken.Store(false)
				l.await("healthy again", func(s services.Status) bool { return healthy(s) && s.Services[0].Run > 1 })
			})
		})
	}
	t.Run("tcp", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			defer l.close()
			wrong := tcp
			wrong.Port = 81
			l.begin(checked(program(plain("it"), "serve", "it"), wrong), checked(program(plain("other"), "serve", "other"), tcp))
			s := l.await("taken down", func(s services.Status) bool { return s.Services[0].Phase == services.Backoff })
			if s.Services[1].Health != services.HealthHealthy || !strings.Contains(s.Services[0].Text, container.CodePortRefused.Error()) {
				t.Errorf("got %+v, want the other healthy", s.Services)
			}
		})
	})
}

// TestEndOutlivesTheNode: a manager that stops sees those sets to their end that
// are being ended, for as long as it may, and leaves the others alone.
func TestEndOutlivesTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		slow := program(plain("web"), "serve", "web")
		slow.StopGrace = 10 * time.Second
		l.begin(slow)
		other := setOf(program(plain("web"), "serve", "other"))
		other.ID = "other"
		if err := l.m.Begin(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		l.await("it runs", phases(services.Running))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.m.End(ctx, "set"); !errors.Is(err, context.DeadlineExceeded) || l.m.Ending() != 1 {
			t.Fatalf("got %v from an end that takes 10 s, and %d ending", err, l.m.Ending())
		}
		begun := time.Now()
		l.die()
		if got := time.Since(begun); got != 0 {
			t.Errorf("a manager without a limit waited %s", got)
		}
		l.limit = 30 * time.Second
		l.live()
		synctest.Wait()
		l.die()
		if err := l.m.Begin(t.Context(), setOf(slow)); err == nil {
			t.Error("a set began after the end")
		}
		all, err := l.twin.List(t.Context())
		if err != nil || len(all) != 1 || all[0].ID != services.Container("other", "web", 1) || all[0].State != container.Running || l.m.Ending() != 0 {
			t.Errorf("got %+v, %v, want the other set's container alone", all, err)
		}
		l.live()
	})
}

// TestFreezeStops: nothing runs, starts or is looked at in a frozen set, also
// after a restart, and while the store takes nothing [SERVICE-5].
func TestFreezeStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		l.begin(trio()...)
		l.await("all run", phases(services.Running, services.Running, services.Done))
		paused := func(want container.State) {
			t.Helper()
			for _, id := range []string{"set.web.1", "set.db.1"} {
				if s, err := l.twin.Status(t.Context(), id); err != nil || s.State != want {
					t.Errorf("got %s %s, %v, want %s", id, s.State, err, want)
				}
			}
		}
		for range 2 {
			if err := l.m.Freeze(t.Context(), "set"); err != nil {
				t.Fatal(err)
			}
			paused(container.Paused)
		}
		l.die()
		l.live()
		time.Sleep(10 * time.Minute)
		paused(container.Paused)
		if err := l.m.Thaw(t.Context(), "set"); err != nil {
			t.Fatal(err)
		}
		paused(container.Running)
		l.disk.setFull(true)
		if err := l.m.Freeze(t.Context(), "set"); err != nil {
			t.Fatalf("got %v from a freeze with a full disk", err)
		}
		paused(container.Paused)
		time.Sleep(10 * time.Minute)
		l.disk.setFull(false)
		if err := l.m.Thaw(t.Context(), "set"); err != nil {
			t.Fatal(err)
		}
		paused(container.Running)
		s := l.await("all run", phases(services.Running, services.Running, services.Done))
		if s.Services[1].Run != 1 {
			t.Errorf("got %+v, want nothing started again", s.Services[1])
		}
	})
}

// TestNothingBeforeTheStore: while the store takes nothing, nothing is started;
// what happened meanwhile is caught up [SERVICE-4].
func TestNothingBeforeTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		l.begin(program(plain("it"), "serve", "it"), program(plain("again"), "exit", "again", "1"),
			program(job("slow"), "later", "slow"), program(plain("first", on("slow", services.Completed)), "serve", "first"))
		l.await("one runs, one is to run again, one waits", phases(services.Running, services.Backoff, services.Running, services.Waiting))
		l.disk.setFull(true)
		kill(t, l, "it", 1)
		time.Sleep(3 * time.Minute)
		// Of "first" nothing but its state has to be kept before it is started.
		for name, want := range map[string]int64{"it": 1, "again": 1, "slow": 1, "first": 0} {
			if got := l.count(name).Load(); got != want {
				t.Fatalf("got %d starts of %s with a store that takes nothing, want %d", got, name, want)
			}
		}
		l.disk.setFull(false)
		l.await("all are started", func(s services.Status) bool {
			return s.Services[0].Run == 2 && s.Services[1].Run > 1 && s.Services[3].Run == 1
		})
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		l.begin(program(plain("it"), "nosuchprogram"))
		s := l.await("failed", phases(services.Failed))
		if s.Outcome != services.Broken || s.Services[0].Refusal != container.CodeProgram || !strings.Contains(s.Why, "nosuchprogram") {
			t.Errorf("got %+v, want the program named", s)
		}
		if err := l.m.Begin(t.Context(), setOf(program(plain("it"), "serve", "it"))); !errors.Is(err, container.CodeConflict) {
			t.Errorf("got %v for another set of the id, want a conflict", err)
		}
		if _, err := l.m.Status("other"); !errors.Is(err, container.CodeNotFound) {
			t.Errorf("got %v for no set", err)
		}
		if err := l.m.Freeze(t.Context(), "other"); !errors.Is(err, container.CodeNotFound) {
			t.Errorf("got %v for no set", err)
		}
	})
}

// TestLastWords: of a run that failed one hears the last line that it wrote, and
// so of what waits for it in vain; of one that was good nothing [SERVICE-13].
func TestLastWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		l.begin(program(job("migrate"), "exit", "migrate", "1"), program(plain("web", on("migrate", services.Completed)), "serve", "web"))
		s := l.await("it fails", phases(services.Failed, services.Failed))
		for i, want := range []string{"ended with exit code 1: run 1", "cannot start: migrate ended with exit code 1: run 1"} {
			if got := s.Services[i].Text; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if want := "service web cannot start: migrate ended with exit code 1: run 1"; s.Why != want {
			t.Errorf("got %q, want %q", s.Why, want)
		}
		if err := l.m.End(t.Context(), "set"); err != nil {
			t.Fatal(err)
		}
		l.begin(program(job("good"), "exit", "good"))
		if s := l.await("it is done", phases(services.Done)); s.Services[0].Text != "ended with exit code 0" {
			t.Errorf("got %q", s.Services[0].Text)
		}
	})
}

// TestLogsOutliveRestarts [SERVICE-12].
func TestLogsOutliveRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		flaky := program(plain("flaky"), "exit", "flaky", "1")
		flaky.Restart = services.Restart{Policy: services.OnFailure, Max: 2}
		l.begin(flaky, program(plain("web"), "serve", "web"))
		follow, err := l.m.Logs(t.Context(), "set", services.LogOptions{Service: "flaky", LogOptions: container.LogOptions{Follow: true}})
		if err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(follow)
		follow.Close()
		if err != nil || texts(all) != "run 1, run 2, run 3" {
			t.Errorf("got %q, %v from following over restarts", texts(all), err)
		}
		l.await("given up", phases(services.Failed))
		for _, c := range []struct {
			o    services.LogOptions
			want string
		}{
			{services.LogOptions{Service: "flaky"}, "run 1, run 2, run 3"},
			{services.LogOptions{Service: "flaky", LogOptions: container.LogOptions{Tail: 1}}, "run 3"},
			{services.LogOptions{LogOptions: container.LogOptions{Tail: 2}}, "flaky | run 2, flaky | run 3"},
		} {
			rd, err := l.m.Logs(t.Context(), "set", c.o)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(rd)
			rd.Close()
			if got := texts(b); got != c.want {
				t.Errorf("%+v: got %q, want %q", c.o, got, c.want)
			}
		}
		if _, err := l.m.Logs(t.Context(), "set", services.LogOptions{Service: "none"}); !errors.Is(err, container.CodeNotFound) {
			t.Errorf("got %v for no service", err)
		}
	})
}

func texts(b []byte) string {
	var out []string
	for l := range strings.Lines(string(b)) {
		p, err := container.ParseLogLine([]byte(l))
		if err != nil {
			return err.Error()
		}
		out = append(out, string(p.Text))
	}
	return strings.Join(out, ", ")
}

// broken is a machine on which nothing starts.
type broken struct{ *containertest.Twin }

func (broken) Start(context.Context, container.Spec) error {
	return &container.Error{Code: container.CodeDiskFull, Detail: "/var/lib/secret/path"}
}

// TestMachineFaultsAreNotTold: a tenant learns that the machine is at fault, and
// nothing of it; and the start is tried again [SERVICE-13].
func TestMachineFaultsAreNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		l.die()
		m, err := services.New(t.Context(), services.Config{Runtime: broken{l.twin}, Store: l.disk})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		l.m, l.die = m, func() { cancel(); <-done }
		l.begin(program(plain("it"), "serve", "it"))
		s := l.await("several attempts", func(s services.Status) bool { return s.Services[0].Run == 3 && s.Services[0].Phase == services.Backoff })
		if v := s.Services[0]; v.Refusal != container.CodeDiskFull || strings.Contains(v.Text, "secret") || !strings.Contains(v.Text, "the machine could not run it") {
			t.Errorf("got %+v, want the machine blamed and nothing told of it", v)
		}
	})
}
