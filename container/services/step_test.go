package services_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/services"
)

var day = time.Date(2027, 1, 15, 12, 0, 0, 0, time.UTC)

func plain(name string, depends ...services.Dependency) services.Service {
	return services.Service{
		Name: name, Image: digest, Args: []string{"run"}, Limits: container.SmallLimits(), Restart: services.Restart{Policy: services.Always}, Depends: depends,
	}
}

func job(name string, depends ...services.Dependency) services.Service {
	v := plain(name, depends...)
	v.Job, v.Restart = true, services.Restart{Policy: services.Never}
	return v
}

func checked(v services.Service, h services.Health) services.Service {
	v.Health = h
	return v
}

var tcp = services.Health{Check: services.CheckTCP, Port: 80, Interval: 10 * time.Second, Timeout: time.Second, Retries: 3}

func setOf(list ...services.Service) services.Set { return services.Set{ID: "set", Services: list} }

func on(name string, when services.Condition) services.Dependency {
	return services.Dependency{Service: name, When: when}
}

// script drives a state.
type script struct {
	t     *testing.T
	set   services.Set
	state services.State
	now   time.Time
	did   []services.Action
}

func begin(t *testing.T, list ...services.Service) *script {
	t.Helper()
	s := &script{t: t, set: setOf(list...), now: day}
	if err := s.set.Validate(); err != nil {
		t.Fatal(err)
	}
	s.state = services.NewState(s.set, s.now)
	s.take(services.Tick{})
	return s
}

func (s *script) take(e services.Event) {
	s.t.Helper()
	s.state, s.did = s.state.Step(s.set, e, s.now)
	if err := s.state.Check(s.set); err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) pass(d time.Duration) {
	s.t.Helper()
	s.now = s.now.Add(d)
	s.take(services.Tick{})
}

func (s *script) see(i int, was services.Sight, code int) {
	s.t.Helper()
	s.take(services.Seen{Service: i, Run: s.state.Services[i].Run, Was: was, ExitCode: code})
}

func (s *script) look(i int, ok bool) {
	s.t.Helper()
	s.take(services.Looked{Service: i, Run: s.state.Services[i].Run, OK: ok, Text: "no answer"})
}

func (s *script) want(phases ...services.Phase) {
	s.t.Helper()
	for i, p := range phases {
		if got := s.state.Services[i]; got.Phase != p {
			s.t.Errorf("got %s %s (%s), want %s", s.set.Services[i].Name, got.Phase, got.Text, p)
		}
	}
}

func (s *script) wantDo(want ...services.Action) {
	s.t.Helper()
	if !slices.Equal(s.did, want) {
		s.t.Errorf("got actions %+v, want %+v", s.did, want)
	}
}

func TestDependencies(t *testing.T) {
	s := begin(t, plain("web", on("db", services.Healthy), on("migrate", services.Completed)), checked(plain("db"), tcp), job("migrate", on("db", services.Healthy)))
	s.want(services.Waiting, services.Starting, services.Waiting)
	s.wantDo(services.Action{Do: services.DoStart, Service: 1, Run: 1})
	s.see(1, services.Up, 0)
	s.want(services.Waiting, services.Running, services.Waiting)
	s.look(1, true)
	s.want(services.Waiting, services.Running, services.Starting)
	s.see(2, services.Up, 0)
	s.see(2, services.Exited, 0)
	s.want(services.Starting, services.Running, services.Done)
	s.see(0, services.Up, 0)

	// What has started stays when a dependency ends, and waits for it when it
	// starts again [SERVICE-6].
	s.see(1, services.Exited, 1)
	s.want(services.Running, services.Backoff, services.Done)
	s.see(0, services.Exited, 1)
	s.now = s.now.Add(time.Minute)
	s.take(services.Tick{})
	s.want(services.Waiting, services.Starting, services.Done)

	failed := begin(t, plain("web", on("migrate", services.Completed)), job("migrate"))
	failed.see(1, services.Up, 0)
	failed.see(1, services.Exited, 3)
	failed.want(services.Failed, services.Failed)
	if o, why := failed.state.Outcome(failed.set); o != services.Broken || !strings.Contains(why, "web cannot start: migrate ended with exit code 3") {
		t.Errorf("got %d, %q, want it broken for the job", o, why)
	}
}

func TestRestarts(t *testing.T) {
	limited := plain("limited")
	limited.Restart = services.Restart{Policy: services.OnFailure, Max: 2}
	endless := plain("endless")
	for _, c := range []struct {
		name    string
		service services.Service
		codes   []int
		want    services.Phase
		runs    uint64
	}{
		{"no", services.Service{Restart: services.Restart{Policy: services.Never}}, []int{1}, services.Failed, 1},
		{"no, and no need", services.Service{Restart: services.Restart{Policy: services.Never}}, []int{0}, services.Done, 1},
		{"on failure, until it is good", limited, []int{1, 0}, services.Done, 2},
		{"on failure, to its end", limited, []int{1, 1, 137}, services.Failed, 3},
		{"always, also when it is good", endless, []int{0, 0, 1, 0}, services.Backoff, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := plain("it")
			v.Restart = c.service.Restart
			s := begin(t, v)
			for _, code := range c.codes {
				s.pass(services.MaxDelay)
				s.see(0, services.Up, 0)
				s.see(0, services.Exited, code)
			}
			s.want(c.want)
			if got := s.state.Services[0]; got.Run != c.runs || got.ExitCode != c.codes[len(c.codes)-1] {
				t.Errorf("got %d runs and exit code %d, want %d and the last code", got.Run, got.ExitCode, c.runs)
			}
		})
	}
}

// TestBackoff: a crash loop is slowed down and reported [SERVICE-8].
func TestBackoff(t *testing.T) {
	s := begin(t, plain("it"))
	var waits []time.Duration
	for range 10 {
		s.see(0, services.Up, 0)
		s.see(0, services.Exited, 1)
		waits = append(waits, s.state.Services[0].Until.Sub(s.now))
		s.pass(waits[len(waits)-1] - 1)
		s.want(services.Backoff)
		s.pass(1)
		s.want(services.Starting)
	}
	want := []time.Duration{500e6, 1e9, 2e9, 4e9, 8e9, 16e9, 32e9, 60e9, 60e9, 60e9}
	if !slices.Equal(waits, want) {
		t.Errorf("got %v, want %v", waits, want)
	}
	if !s.state.Services[0].Looping(s.now) {
		t.Error("got no crash loop after ten restarts")
	}
	s.see(0, services.Up, 0)
	s.pass(services.StableAfter)
	if s.state.Services[0].Looping(s.now) {
		t.Error("got a crash loop of what has run for long")
	}
	s.see(0, services.Exited, 1)
	if got := s.state.Services[0].Until.Sub(s.now); got != services.FirstDelay {
		t.Errorf("got %s after a stable run, want the first delay", got)
	}
	// A clock that goes back makes no wait longer.
	s.pass(-24 * time.Hour)
	s.pass(services.FirstDelay)
	s.want(services.Starting)
}

func TestHealth(t *testing.T) {
	h := tcp
	h.Start = 20 * time.Second
	s := begin(t, checked(plain("it"), h))
	s.see(0, services.Up, 0)
	s.wantDo(services.Action{Do: services.DoLook, Service: 0, Run: 1})
	began := s.now
	for s.state.Services[0].Phase == services.Running && s.now.Sub(began) < time.Hour {
		if slices.ContainsFunc(s.did, func(a services.Action) bool { return a.Do == services.DoLook }) {
			s.look(0, false)
		}
		if s.state.Services[0].Phase == services.Running {
			s.pass(time.Second)
		}
	}
	if got, want := s.now.Sub(began), h.Start+3*h.Interval; got != want {
		t.Errorf("unhealthy after %s, want %s", got, want)
	}
	s.want(services.Stopping)
	s.wantDo(services.Action{Do: services.DoRemove, Service: 0, Run: 1})
	s.see(0, services.Removed, 0)
	s.want(services.Backoff)
	s.pass(time.Second)
	s.see(0, services.Up, 0)
	s.look(0, true)
	for range 2 {
		s.look(0, false)
	}
	if got := s.state.Services[0]; got.Health != services.HealthHealthy {
		t.Errorf("got %s after fewer misses than count", got.Health)
	}
	s.look(0, true)
	for range 3 {
		s.look(0, false)
	}
	s.want(services.Stopping)

	never := plain("it")
	never.Restart.Policy = services.Never
	s = begin(t, checked(never, tcp))
	s.see(0, services.Up, 0)
	s.look(0, true)
	for range 4 {
		s.look(0, false)
	}
	s.want(services.Running)
	if got := s.state.Services[0].Health; got != services.HealthUnhealthy {
		t.Errorf("got %q of a service that is not restarted, want it reported", got)
	}
}

func TestFrozen(t *testing.T) {
	s := begin(t, checked(plain("it"), tcp), plain("other"))
	s.see(0, services.Up, 0)
	s.see(1, services.Up, 0)
	s.see(1, services.Exited, 1)
	s.take(services.Freeze{})
	s.wantDo(services.Action{Do: services.DoPause, Service: 0, Run: 1})
	s.pass(time.Hour)
	s.wantDo()
	for range 10 {
		s.look(0, false)
	}
	s.want(services.Running, services.Backoff)
	s.take(services.Thaw{})
	if len(s.did) != 3 || s.did[0].Do != services.DoResume {
		t.Errorf("got %+v, want a resume, a look and a start", s.did)
	}
}

// TestEnd: what others wait for goes last [SERVICE-10].
func TestEnd(t *testing.T) {
	s := begin(t, plain("db"), plain("web", on("db", services.Started)))
	s.see(0, services.Up, 0)
	s.see(1, services.Up, 0)
	s.take(services.End{})
	s.wantDo(services.Action{Do: services.DoRemove, Service: 1, Run: 1})
	s.see(1, services.Removed, 0)
	s.wantDo(services.Action{Do: services.DoRemove, Service: 0, Run: 1})
	s.see(0, services.Removed, 0)
	if !s.state.Ended() {
		t.Errorf("got %+v, want the end", s.state)
	}
}

func TestOutcome(t *testing.T) {
	type end struct{ service, code int }
	other := job("other")
	serve := plain("serve")
	serve.Restart.Policy = services.Never
	for _, c := range []struct {
		name string
		set  []services.Service
		ends []end
		want services.Outcome
	}{
		{"runs", []services.Service{serve}, nil, services.Going},
		{"a service that fails", []services.Service{serve, other}, []end{{0, 1}}, services.Broken},
		{"a service that ends well", []services.Service{serve, other}, []end{{0, 0}}, services.Broken},
		{"a job that is done beside a service", []services.Service{serve, other}, []end{{1, 0}}, services.Going},
		{"a job that fails beside a service", []services.Service{serve, other}, []end{{1, 1}}, services.Going},
		{"one of two jobs", []services.Service{job("one"), other}, []end{{0, 0}}, services.Going},
		{"all jobs", []services.Service{job("one"), other}, []end{{0, 0}, {1, 0}}, services.Finished},
		{"a job of two fails", []services.Service{job("one"), other}, []end{{0, 7}, {1, 0}}, services.Broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := begin(t, c.set...)
			for _, e := range c.ends {
				s.see(e.service, services.Up, 0)
				s.see(e.service, services.Exited, e.code)
			}
			if got, why := s.state.Outcome(s.set); got != c.want || (got == services.Going) != (why == "") {
				t.Errorf("got %d, %q, want %d", got, why, c.want)
			}
		})
	}
}

// TestLateEvents: what is about an older run changes nothing.
func TestLateEvents(t *testing.T) {
	s := begin(t, plain("it"))
	s.see(0, services.Up, 0)
	s.see(0, services.Exited, 1)
	s.pass(time.Minute)
	s.see(0, services.Up, 0)
	before := s.state
	for _, e := range []services.Event{
		services.Seen{Service: 0, Run: 1, Was: services.Exited, ExitCode: 1},
		services.Seen{Service: 0, Run: 1, Was: services.Missing},
		services.Seen{Service: 0, Run: 1, Was: services.Removed},
		services.Refused{Service: 0, Run: 1, Final: true},
		services.Seen{Service: 3, Run: 2, Was: services.Exited},
		services.Seen{Service: -1, Run: 2},
		services.Looked{Service: 0, Run: 2},
	} {
		s.take(e)
		if !reflect.DeepEqual(s.state, before) || len(s.did) != 0 {
			t.Errorf("%+v: got %+v and %+v, want nothing", e, s.state, s.did)
		}
	}
	// That a container is not there is believed only once it was removed.
	s.see(0, services.Missing, 0)
	s.want(services.Stopping)
	s.wantDo(services.Action{Do: services.DoRemove, Service: 0, Run: 2})
}

func TestValidate(t *testing.T) {
	edit := func(f func(*services.Service)) services.Set {
		v := plain("it")
		f(&v)
		return setOf(v)
	}
	many := setOf()
	for i := range services.MaxServices + 1 {
		many.Services = append(many.Services, plain(fmt.Sprint("s", i)))
	}
	for name, set := range map[string]services.Set{
		"no services":            setOf(),
		"too many":               many,
		"a bad id":               {ID: "Not", Services: []services.Service{plain("it")}},
		"a long id":              {ID: strings.Repeat("a", 65), Services: []services.Service{plain("it")}},
		"two of a name":          setOf(plain("a"), plain("a")),
		"upper case":             setOf(plain("It")),
		"a dash at the end":      setOf(plain("it-")),
		"a long name":            setOf(plain(strings.Repeat("a", services.MaxName+1))),
		"an unknown dependency":  setOf(plain("a", on("b", services.Started))),
		"a dependency twice":     setOf(plain("a", on("b", services.Started), on("b", services.Started)), plain("b")),
		"a circle":               setOf(plain("a", on("b", services.Started)), plain("b", on("a", services.Started))),
		"health without a check": setOf(plain("a", on("b", services.Healthy)), plain("b")),
		"completion of no job":   setOf(plain("a", on("b", services.Completed)), plain("b")),
		"a started job":          setOf(plain("a", on("b", services.Started)), job("b")),
		"an unknown condition":   setOf(plain("a", on("b", "well")), plain("b")),
		"no policy":              edit(func(v *services.Service) { v.Restart.Policy = "" }),
		"a maximum of always":    edit(func(v *services.Service) { v.Restart.Max = 1 }),
		"a job for ever":         edit(func(v *services.Service) { v.Job = true }),
		"a port of both": func() services.Set {
			a, b := plain("a"), plain("b")
			a.Network.Publish = []container.PublishedPort{{Port: 8080, Inside: 80, Protocol: container.TCP}}
			b.Network = a.Network
			return setOf(a, b)
		}(),
		"an egress without a port":    edit(func(v *services.Service) { v.Network.Egress.Allow = []string{"example.org"} }),
		"an interval of nothing":      edit(func(v *services.Service) { v.Health = tcp; v.Health.Interval = 0 }),
		"no retries":                  edit(func(v *services.Service) { v.Health = tcp; v.Health.Retries = 0 }),
		"a TCP check with a path":     edit(func(v *services.Service) { v.Health = tcp; v.Health.Path = "/" }),
		"a check of another kind":     edit(func(v *services.Service) { v.Health = tcp; v.Health.Check = "icmp" }),
		"an HTTP path with a newline": edit(func(v *services.Service) { v.Health = tcp; v.Health.Check, v.Health.Path = services.CheckHTTP, "/\r\n" }),
		"a check without a program":   edit(func(v *services.Service) { v.Health = tcp; v.Health.Check, v.Health.Port = services.CheckCommand, 0 }),
		"a long grace":                edit(func(v *services.Service) { v.StopGrace = services.MaxStopGrace + 1 }),
		"no memory":                   edit(func(v *services.Service) { v.Limits.MemoryBytes = 0 }),
	} {
		if err := set.Validate(); !errors.Is(err, container.CodeInvalidSpec) {
			t.Errorf("%s: got %v, want invalid-spec", name, err)
		}
	}
}
