package services

import (
	"fmt"
	"slices"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Event is what a state takes: something that was seen or asked for.
type Event interface{ event() }

// The events. Service is an index of the set, Run the container that it is
// about: what comes late, of an older run, changes nothing.
type (
	// Tick is the passing of time.
	Tick struct{}
	// Seen is how a container was found.
	Seen struct {
		Service   int
		Run       uint64
		Was       Sight
		ExitCode  int // when Exited
		OOMKilled bool
		Ran       time.Duration // how long, when Exited; 0: not known
		Last      string        // line that it wrote, where it failed
	}
	// Refused says that a container could not be started, and by which code.
	// Final means that it never will be: the image, the program or the
	// specification is at fault.
	Refused struct {
		Service int
		Run     uint64
		Final   bool
		Code    container.Code
		Text    string
	}
	// Made says that all volumes are there.
	Made struct{}
	// Unmade says that the volumes could not be made, and by which code. No
	// service is ever started.
	Unmade struct {
		Code container.Code
		Text string
	}
	// Looked is the answer of a health check.
	Looked struct {
		Service int
		Run     uint64
		OK      bool
		Text    string
	}
	// Freeze stops all processes where they are.
	Freeze struct{}
	// Thaw lets them go on.
	Thaw struct{}
	// End removes the set.
	End struct{}
)

func (Tick) event()    {}
func (Seen) event()    {}
func (Refused) event() {}
func (Made) event()    {}
func (Unmade) event()  {}
func (Looked) event()  {}
func (Freeze) event()  {}
func (Thaw) event()    {}
func (End) event()     {}

// Sight is how a container was found.
type Sight uint8

// Sights of a container.
const (
	Up      Sight = iota + 1 // running or paused
	Exited                   // its program has ended
	Missing                  // there was none when somebody looked
	Removed                  // it was removed just now, and is surely gone
)

// Do is what to do with a container.
type Do uint8

// What an [Action] asks for. All are idempotent by service and run.
const (
	DoStart  Do = iota + 1 // remove the run before, start this one, report Seen or Refused
	DoRemove               // stop and remove it, report Seen as Removed
	DoPause
	DoResume
	DoLook // at its health, report Looked
	DoMake // the volumes of the set, report Made or Unmade
	// DoLimit tells it its limits anew. No state asks for it.
	DoLimit
)

// Action is something to do. It is done only after the state that it came with
// is durable [SERVICE-4].
type Action struct {
	Do      Do
	Service int
	Run     uint64
}

// Step takes an event and returns the next state and what to do. It changes
// nothing that it was given. now may jump; no wait becomes longer by it.
func (s State) Step(set Set, e Event, now time.Time) (State, []Action) {
	m := &machine{State: s, set: set, now: now}
	m.Services = slices.Clone(s.Services)
	m.take(e)
	m.settle()
	return m.State, m.actions
}

// Recover returns what to do for a state that was read back, whatever of it
// was done before [SERVICE-4].
func (s State) Recover() []Action {
	var out []Action
	if s.Making && !s.Ending {
		out = append(out, Action{Do: DoMake})
	}
	for i, v := range s.Services {
		switch v.Phase {
		case Starting:
			out = append(out, Action{DoStart, i, v.Run})
		case Stopping:
			out = append(out, Action{DoRemove, i, v.Run})
		case Running:
			do := DoResume
			if s.Frozen {
				do = DoPause
			}
			out = append(out, Action{do, i, v.Run})
		case Waiting, Backoff, Done, Failed, Stopped:
		}
	}
	return out
}

// machine is one step.
type machine struct {
	State
	set     Set
	now     time.Time
	actions []Action
}

func (m *machine) act(do Do, i int) {
	m.actions = append(m.actions, Action{do, i, m.Services[i].Run})
}

// enter moves a service to a phase.
func (m *machine) enter(i int, p Phase, text string) *ServiceState {
	v := &m.Services[i]
	v.Phase, v.Since, v.Text = p, m.now, text
	v.Health, v.Misses, v.Look, v.Until = HealthNone, 0, time.Time{}, time.Time{}
	return v
}

// of returns the service that an event is about, if it is about its present run.
func (m *machine) of(i int, run uint64) *ServiceState {
	if i < 0 || i >= len(m.Services) || run == 0 || m.Services[i].Run != run {
		return nil
	}
	return &m.Services[i]
}

func (m *machine) take(e Event) {
	switch e := e.(type) {
	case Tick:
	case Seen:
		m.seen(e)
	case Refused:
		if v := m.of(e.Service, e.Run); v != nil && v.Phase == Starting {
			m.refused(e)
		}
	case Looked:
		if v := m.of(e.Service, e.Run); v != nil && v.Phase == Running && !m.Frozen && m.set.Services[e.Service].Health.Check != CheckNone {
			m.looked(e, v)
		}
	case Freeze, Thaw:
		_, freeze := e.(Freeze)
		if m.Ending || m.Frozen == freeze {
			return
		}
		m.Frozen = freeze
		m.actions = append(m.actions, m.pausing()...)
		for i := range m.Services {
			if v := &m.Services[i]; v.Health == HealthStarting { // it has had no time meanwhile
				v.Since = m.now
			}
		}
	case Made:
		m.Making = false
	case Unmade:
		m.unmade(e)
	case End:
		m.Ending = true
	}
}

// pausing returns what Frozen means for each container.
func (m *machine) pausing() []Action {
	return slices.DeleteFunc(m.Recover(), func(a Action) bool { return a.Do != DoPause && a.Do != DoResume })
}

func (m *machine) seen(e Seen) {
	v := m.of(e.Service, e.Run)
	if v == nil {
		return
	}
	switch {
	case e.Was == Up && v.Phase == Starting:
		m.running(e.Service)
	case e.Was == Exited && (v.Phase == Starting || v.Phase == Running):
		text := fmt.Sprintf("ended with exit code %d", e.ExitCode)
		if e.OOMKilled {
			text += ", out of memory"
		}
		if e.Last != "" {
			text = clip(text + ": " + e.Last)
		}
		m.over(e, text)
	case e.Was == Exited && v.Phase == Stopping:
		v.Ended, v.ExitCode, v.OOMKilled = true, e.ExitCode, e.OOMKilled
	case e.Was == Missing && v.Phase == Running: // or was, before it ran
		m.stable(v)
		m.enter(e.Service, Stopping, "its container is gone")
		m.act(DoRemove, e.Service)
	case e.Was == Removed && v.Phase == Stopping && m.Ending:
		m.enter(e.Service, Stopped, "")
	case e.Was == Removed && v.Phase == Stopping:
		if e.ExitCode == 0 { // it failed, whatever it said in the end
			e.ExitCode = -1
		}
		m.over(e, v.Text)
	}
}

// stable ends a row of restarts by a run that was long enough [SERVICE-8].
func (m *machine) stable(v *ServiceState) {
	if m.now.Sub(v.Since) >= StableAfter {
		v.InRow = 0
	}
}

// running begins the life of a container.
func (m *machine) running(i int) {
	v := m.enter(i, Running, "")
	v.Begun, v.Refusal = true, ""
	if m.set.Services[i].Health.Check != CheckNone {
		v.Health, v.Look = HealthStarting, m.now
	}
	if m.Frozen {
		m.act(DoPause, i)
	}
}

// unmade ends a set that cannot have its volumes.
func (m *machine) unmade(e Unmade) {
	if !m.Making || m.Ending {
		return
	}
	m.Making = false
	for i := range m.Services {
		m.enter(i, Failed, CannotStart+e.Text).Refusal = e.Code
	}
}

func (m *machine) refused(e Refused) {
	m.Services[e.Service].Refusal = e.Code
	if e.Final {
		m.enter(e.Service, Failed, CannotStart+e.Text)
		return
	}
	m.over(Seen{Service: e.Service, Run: e.Run, Was: Missing, ExitCode: -1}, CouldNotStart+e.Text)
}

// over takes the end of a run, and decides by the policy what follows
// [SERVICE-7].
func (m *machine) over(e Seen, text string) {
	spec, v := m.set.Services[e.Service], &m.Services[e.Service]
	ran := max(e.Ran, 0)
	if v.Phase == Running {
		ran = max(ran, m.now.Sub(v.Since))
	}
	if ran >= StableAfter {
		v.InRow = 0
	}
	v.Ended, v.ExitCode, v.OOMKilled = true, e.ExitCode, e.OOMKilled
	good := e.ExitCode == 0
	again := spec.Restart.Policy == Always || spec.Restart.Policy == OnFailure && !good
	if again && spec.Restart.Max != 0 && v.InRow >= spec.Restart.Max {
		again = false
		text += fmt.Sprintf(", and was restarted %d times in a row", v.InRow)
	}
	switch {
	case again:
		v = m.enter(e.Service, Backoff, text)
		v.InRow++
		v.Until = m.now.Add(delay(v.InRow))
	case good:
		m.enter(e.Service, Done, text)
	default:
		m.enter(e.Service, Failed, text)
	}
}

// looked takes the answer of a check [SERVICE-9].
func (m *machine) looked(e Looked, v *ServiceState) {
	h := m.set.Services[e.Service].Health
	v.Look = m.now.Add(h.Interval)
	if e.OK {
		v.Health, v.Misses, v.Text = HealthHealthy, 0, ""
		return
	}
	v.Text = e.Text
	if v.Health == HealthStarting {
		// It is looked at more often than its interval; only one miss an interval counts.
		v.Look = m.now.Add(min(h.Interval, earlyInterval))
		if m.now.Sub(v.Since) < h.Start+time.Duration(v.Misses+1)*h.Interval {
			return
		}
	}
	if v.Misses++; v.Misses < h.Retries {
		return
	}
	v.Health = HealthUnhealthy
	if m.set.Services[e.Service].Restart.Policy != Never {
		m.stable(v)
		m.enter(e.Service, Stopping, "was unhealthy: "+e.Text)
		m.act(DoRemove, e.Service)
	}
}

// settle does what time and the other services allow.
func (m *machine) settle() {
	switch {
	case m.Ending:
		m.wind()
		return
	case m.Frozen || m.Making:
		return
	}
	for range m.Services { // a failure may reach from one to the next
		for i := range m.Services {
			m.advance(i)
		}
	}
}

func (m *machine) advance(i int) {
	spec, v := m.set.Services[i], &m.Services[i]
	switch v.Phase {
	case Backoff:
		v.Until = earlier(v.Until, m.now.Add(delay(v.InRow)))
		if !m.now.Before(v.Until) {
			text := v.Text
			m.enter(i, Waiting, text)
			m.advance(i)
		}
	case Waiting:
		for _, d := range spec.Depends {
			met, never := m.met(d)
			if never {
				m.enter(i, Failed, clip(fmt.Sprintf("cannot start: %s %s", d.Service, m.Services[m.set.index(d.Service)].Text)))
			}
			if !met {
				return
			}
		}
		v = m.enter(i, Starting, "")
		v.Run++
		m.act(DoStart, i)
	case Running:
		h := spec.Health
		if h.Check == CheckNone {
			return
		}
		v.Since = earlier(v.Since, m.now) // the clock went back
		v.Look = earlier(v.Look, m.now.Add(h.Interval+h.Timeout))
		if !m.now.Before(v.Look) {
			v.Look = m.now.Add(h.Interval + h.Timeout) // an answer that is lost
			m.act(DoLook, i)
		}
	case Starting, Stopping, Done, Failed, Stopped:
	}
}

// met reports whether a dependency holds now, and whether it never will
// [SERVICE-6].
func (m *machine) met(d Dependency) (met, never bool) {
	v := m.Services[m.set.index(d.Service)]
	switch d.When {
	case Started:
		met = v.Begun
	case Healthy:
		met = v.Health == HealthHealthy
	case Completed:
		met = v.Phase == Done
	}
	return met, !met && v.Phase.Over()
}

// wind removes what nobody needs any more: those first that others do not wait
// for [SERVICE-10]. What is frozen is removed all at once.
func (m *machine) wind() {
	for i := range m.Services {
		v := &m.Services[i]
		switch {
		case v.Phase == Stopped || v.Phase == Stopping:
			continue
		case v.Run == 0:
			m.enter(i, Stopped, "")
			continue
		case !m.Frozen && m.needed(i):
			continue
		}
		m.enter(i, Stopping, "")
		m.act(DoRemove, i)
	}
}

// needed reports whether a service that waits for this one is still there.
func (m *machine) needed(i int) bool {
	for k, v := range m.Services {
		if v.Phase != Stopped && v.Run != 0 && slices.Contains(m.set.waits(k), i) {
			return true
		}
	}
	return false
}

// Next returns when a state wants a Tick, the zero time for never.
func (s State) Next() (at time.Time) {
	if s.Frozen || s.Ending {
		return at
	}
	for _, v := range s.Services {
		for _, t := range []time.Time{v.Until, v.Look} {
			if !t.IsZero() && (at.IsZero() || t.Before(at)) {
				at = t
			}
		}
	}
	return at
}

// Ended reports whether nothing of the set is left.
func (s State) Ended() bool {
	return s.Ending && !slices.ContainsFunc(s.Services, func(v ServiceState) bool { return v.Phase != Stopped })
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
