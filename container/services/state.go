package services

import (
	"fmt"
	"slices"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Times of restarts [SERVICE-8].
const (
	FirstDelay  = 500 * time.Millisecond // before the first restart in a row
	MaxDelay    = time.Minute
	StableAfter = 30 * time.Second // what ran so long begins a new row
	LoopAfter   = 4                // restarts in a row are a crash loop
)

// earlyInterval is the longest time between looks at a service that has not
// been healthy yet, so that what waits for it does not wait long.
const earlyInterval = time.Second

// Phase is where a service stands:
//
//	Waiting ──► Starting ──► Running ──► Stopping
//	   ▲           │            │           │
//	   └─ Backoff ◄┴────────────┴───────────┴──► Done, Failed, Stopped
//
// Done and Failed are ends for good; Stopped is the end of the set.
type Phase uint8

// Phases of a service.
const (
	Waiting  Phase = iota // for what it depends on
	Starting              // its container is being started
	Running
	Stopping // its container is being removed
	Backoff  // it has ended and is started again after a while
	Done     // it ended with exit code 0, for good
	Failed   // it ended otherwise, for good, or can never start
	Stopped  // it was removed with the set
)

// String returns the phase's name in lower case.
func (p Phase) String() string {
	switch p {
	case Waiting:
		return "waiting"
	case Starting:
		return "starting"
	case Running:
		return "running"
	case Stopping:
		return "stopping"
	case Backoff:
		return "backoff"
	case Done:
		return "done"
	case Failed:
		return "failed"
	case Stopped:
		return "stopped"
	}
	return "unknown"
}

// Over reports whether the service has ended for good.
func (p Phase) Over() bool { return p == Done || p == Failed || p == Stopped }

// Condition of health of a service.
const (
	HealthNone      = ""          // it has no check, or does not run
	HealthStarting  = "starting"  // it has not been healthy yet
	HealthHealthy   = "healthy"   //
	HealthUnhealthy = "unhealthy" //
)

// How the text of a service begins that has a Refusal: it never will be started,
// or was not this time.
const (
	CannotStart   = "cannot be started: "
	CouldNotStart = "could not be started: "
)

// State is where a set stands: a value, one element a service. The zero times
// of a state mean none.
type State struct {
	Services []ServiceState
	// Frozen says that no process of the set may go on; Ending that the set is
	// being removed.
	Frozen, Ending bool
	// Making says that the volumes are still to be made, and no service is
	// started. Afterwards none is ever made again: what is missing then is lost,
	// and not to be taken for empty [SERVICE-28].
	Making bool
}

// ServiceState is where a service stands.
type ServiceState struct {
	Phase Phase
	Since time.Time // it is in this phase
	// Run counts the containers that the service has had; 0: none yet.
	Run uint64
	// Begun says that the service has run at least once, InRow how often it has
	// ended without being stable between.
	Begun bool
	InRow uint64
	// Ended says that a run has ended; the rest tells of the last one that did.
	Ended     bool
	ExitCode  int
	OOMKilled bool
	// Health is one of the words above, Misses the looks that failed in a row,
	// Look when to look next.
	Health string
	Misses uint64
	Look   time.Time
	// Until is when a backoff ends.
	Until time.Time
	// Text says why a service does not run, for people; Refusal is why it could
	// not be started at all, "" where it could.
	Text    string
	Refusal container.Code
}

// Restarts is how often the service was started again.
func (s ServiceState) Restarts() uint64 { return max(s.Run, 1) - 1 }

// Looping reports whether the service ends again and again soon after its
// start [SERVICE-8].
func (s ServiceState) Looping(now time.Time) bool {
	return s.InRow >= LoopAfter && (s.Phase != Running || now.Sub(s.Since) < StableAfter)
}

// NewState returns the state of a set of which nothing has been started.
func NewState(set Set, now time.Time) State {
	st := State{Services: make([]ServiceState, len(set.Services)), Making: len(set.Volumes) > 0}
	for i := range st.Services {
		st.Services[i].Since = now
	}
	return st
}

// durable is what of a state is written down. When to look next is not worth it,
// nor is what a look has found: a program inside could have the machine's disk
// written at each look. One looks anew instead.
func (s State) durable() State {
	s.Services = slices.Clone(s.Services)
	for i := range s.Services {
		v := &s.Services[i]
		v.Look = time.Time{}
		if v.Phase == Running && v.Health != HealthNone {
			v.Health, v.Misses, v.Text = HealthStarting, 0, ""
		}
	}
	return s
}

// shows reports whether another state looks the same from outside.
func (s State) shows(o State) bool {
	return s.Frozen == o.Frozen && s.Ending == o.Ending && slices.EqualFunc(s.Services, o.Services, func(a, b ServiceState) bool {
		a.Look, b.Look = time.Time{}, time.Time{}
		return a == b
	})
}

// delay returns how long to wait before the nth restart in a row, from 1
// [SERVICE-8].
func delay(n uint64) time.Duration {
	d := FirstDelay
	for ; n > 1 && d < MaxDelay; n-- {
		d *= 2
	}
	return min(d, MaxDelay)
}

// Outcome is how a set as a whole stands.
type Outcome uint8

// Outcomes of a set [SERVICE-11].
const (
	Going    Outcome = iota // it runs, or is on its way
	Finished                // it had only jobs, and all have ended with 0
	Broken                  // what it is for cannot go on
)

// Outcome says whether a set goes on and, where it does not, why [SERVICE-11]:
// a service that is no job and has ended for good ends the set; a job that has
// failed ends it only by what waits for it, or when nothing else is left.
func (s State) Outcome(set Set) (o Outcome, why string) {
	over, failed := 0, -1
	for i, v := range s.Services {
		switch {
		case !v.Phase.Over():
			continue
		case !set.Services[i].Job:
			return Broken, fmt.Sprintf("service %s %s", set.Services[i].Name, v.Text)
		case v.Phase == Failed && failed < 0:
			failed = i
		}
		over++
	}
	switch {
	case over < len(s.Services):
		return Going, ""
	case failed >= 0:
		return Broken, fmt.Sprintf("job %s %s", set.Services[failed].Name, s.Services[failed].Text)
	}
	return Finished, "all jobs have ended with exit code 0"
}

// Check states what always holds of a state [SERVICE-2].
func (s State) Check(set Set) error {
	if len(s.Services) != len(set.Services) {
		return fmt.Errorf("services: a state of %d services for a set of %d", len(s.Services), len(set.Services))
	}
	for i, v := range s.Services {
		spec := set.Services[i]
		var fault string
		switch {
		case v.InRow > v.Run:
			fault = "it ended more often than it was started"
		case s.Making && (v.Run != 0 || len(set.Volumes) == 0):
			fault = "it was started before there were volumes"
		case v.Run == 0 && (v.Begun || v.Phase == Running || v.Phase == Stopping || v.Phase == Starting):
			fault = "it runs and never was started"
		case spec.Restart.Max != 0 && v.InRow > spec.Restart.Max:
			fault = "more restarts in a row than its policy has"
		case spec.Restart.Policy == Never && v.Restarts() != 0:
			fault = "a restart that its policy does not have"
		case v.Phase != Running && v.Health != HealthNone:
			fault = "it is healthy and does not run"
		case v.Phase == Done && (!v.Ended || v.ExitCode != 0):
			fault = "it is done without an exit code of 0"
		case v.Phase == Stopped && !s.Ending:
			fault = "it was stopped and the set goes on"
		}
		if fault != "" {
			return fmt.Errorf("services: %s: %s", spec.Name, fault)
		}
	}
	return nil
}
