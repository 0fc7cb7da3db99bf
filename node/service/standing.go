package service

import (
	"fmt"
	"strings"
	"time"
)

// SettledAfter is how long a service without a health check is to run before it
// counts as one that runs: many programs end soon after their start.
const SettledAfter = 3 * time.Second

// Problem says what is wrong with a service, "" while nothing is: that it has
// failed, is unhealthy, or ends again and again.
func (s Standing) Problem() string {
	text := strings.TrimSuffix(s.Text, ".")
	switch {
	case s.State == "failed" && s.Exit == nil && text == "":
		return fmt.Sprintf("Service %s failed.", s.Name)
	case s.State == "failed":
		return fmt.Sprintf("Service %s %s.", s.Name, s.ended(text))
	case s.Looping:
		return fmt.Sprintf("Service %s ended %s, last it %s. It is started again and again.", s.Name, times(s.ends()), s.ended(text))
	case s.Health == "unhealthy" && text != "":
		return fmt.Sprintf("Service %s is unhealthy: %s.", s.Name, text)
	case s.Health == "unhealthy":
		return fmt.Sprintf("Service %s is unhealthy.", s.Name)
	}
	return ""
}

// ends is how often the service ended.
func (s Standing) ends() uint64 {
	switch s.State {
	case "starting", "running", "stopping":
		return s.Restarts
	}
	return s.Restarts + 1
}

// ended says how the last run ended.
func (s Standing) ended(text string) string {
	switch {
	case text != "":
		return text
	case s.Exit == nil:
		return "failed"
	case s.OOM:
		return fmt.Sprintf("ended with exit code %d, out of memory", *s.Exit)
	}
	return fmt.Sprintf("ended with exit code %d", *s.Exit)
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// Problems says what is wrong with services, "" while nothing is.
func Problems(list []Standing) string {
	var all []string
	for _, s := range list {
		if p := s.Problem(); p != "" {
			all = append(all, p)
		}
	}
	return strings.Join(all, " ")
}

// Up is whether all services do what they are for: those with a check are
// healthy, those without have run for so long, jobs too, or are done.
type Up uint8

// The answers.
const (
	NotYet Up = iota // they may still
	AllUp
	NotUp // and they will not without help
)

// Settling follows services until they all do what they are for. The zero value
// has seen nothing.
type Settling struct {
	since map[string]settled
}

type settled struct {
	restarts uint64
	at       time.Time
}

// Look takes how services stand at a moment of the caller's clock. A service that
// is no job and has ended for good ends its lease: that is told as a problem, also
// where it ended with 0.
func (s *Settling) Look(list []Standing, now time.Time) (Up, string) {
	if len(list) == 0 {
		return NotYet, ""
	}
	if s.since == nil {
		s.since = map[string]settled{}
	}
	up, wrong := AllUp, ""
	for _, v := range list {
		if v.State == "running" && v.Health == "" {
			if was, ok := s.since[v.Name]; !ok || was.restarts != v.Restarts {
				s.since[v.Name] = settled{v.Restarts, now}
			}
		} else {
			delete(s.since, v.Name)
		}
		switch was, runs := s.since[v.Name]; {
		case v.Problem() != "":
			wrong = strings.TrimSpace(wrong + " " + v.Problem())
		case v.State == "done" && v.Job, v.State == "running" && v.Health == "healthy":
		case v.State == "done":
			wrong = strings.TrimSpace(fmt.Sprintf("%s Service %s %s.", wrong, v.Name, v.ended(strings.TrimSuffix(v.Text, "."))))
		case runs && now.Sub(was.at) >= SettledAfter:
		default:
			up = NotYet
		}
	}
	if wrong != "" {
		return NotUp, wrong
	}
	return up, ""
}
