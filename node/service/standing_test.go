package service_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestProblemOfAService: what is wrong with a service is said with how its last
// run ended, and with nothing while it is well.
func TestProblemOfAService(t *testing.T) {
	three, killed := 3, 137
	for _, c := range []struct {
		name string
		of   service.Standing
		want string
	}{
		{"runs", service.Standing{Name: "web", State: "running"}, ""},
		{"healthy after restarts", service.Standing{Name: "web", State: "running", Health: "healthy", Restarts: 2, Exit: &three}, ""},
		{"not healthy yet", service.Standing{Name: "web", State: "running", Health: "starting", Text: "connection refused"}, ""},
		{"the first restart", service.Standing{Name: "web", State: "backoff", Restarts: 0, Exit: &three, Text: "ended with exit code 3"}, ""},
		{"done", service.Standing{Name: "job", State: "done", Job: true, Text: "ended with exit code 0"}, ""},
		{
			"a loop between two runs",
			service.Standing{Name: "web", State: "backoff", Restarts: 4, Looping: true, Exit: &three, Text: "ended with exit code 3: no such table"},
			"Service web ended 5 times, last it ended with exit code 3: no such table. It is started again and again.",
		},
		{
			"a loop in a run",
			service.Standing{Name: "web", State: "running", Restarts: 5, Looping: true, Exit: &killed, OOM: true},
			"Service web ended 5 times, last it ended with exit code 137, out of memory. It is started again and again.",
		},
		{"unhealthy", service.Standing{Name: "web", State: "running", Health: "unhealthy", Text: "status 500"}, "Service web is unhealthy: status 500."},
		{"unhealthy without a word", service.Standing{Name: "web", State: "running", Health: "unhealthy"}, "Service web is unhealthy."},
		{"a job that failed", service.Standing{Name: "migrate", Job: true, State: "failed", Exit: &three, Text: "ended with exit code 3: cannot migrate"}, "Service migrate ended with exit code 3: cannot migrate."},
		{"failed without a word", service.Standing{Name: "web", State: "failed"}, "Service web failed."},
	} {
		if got := c.of.Problem(); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if got := service.Problems([]service.Standing{{Name: "a", State: "failed"}, {Name: "b", State: "running"}, {Name: "c", State: "failed"}}); got != "Service a failed. Service c failed." {
		t.Errorf("got %q, want both", got)
	}
}

// TestSettling: services are up once those with a check are healthy, those
// without have run for a while without an end, and jobs so too, or are done.
func TestSettling(t *testing.T) {
	zero, three := 0, 3
	web := func(restarts uint64) service.Standing {
		return service.Standing{Name: "web", State: "running", Restarts: restarts}
	}
	job := func(state string, exit *int) service.Standing {
		return service.Standing{Name: "job", Job: true, State: state, Exit: exit}
	}
	type look struct {
		at   time.Duration
		list []service.Standing
		want service.Up
		says string
	}
	for name, looks := range map[string][]look{
		"nobody says":       {{0, nil, service.NotYet, ""}},
		"runs on":           {{0, []service.Standing{web(0)}, service.NotYet, ""}, {2900 * time.Millisecond, []service.Standing{web(0)}, service.NotYet, ""}, {3 * time.Second, []service.Standing{web(0)}, service.AllUp, ""}},
		"ended between":     {{0, []service.Standing{web(0)}, service.NotYet, ""}, {3 * time.Second, []service.Standing{web(1)}, service.NotYet, ""}, {6 * time.Second, []service.Standing{web(1)}, service.AllUp, ""}},
		"seen in a backoff": {{0, []service.Standing{web(0)}, service.NotYet, ""}, {time.Second, []service.Standing{{Name: "web", State: "backoff"}}, service.NotYet, ""}, {3 * time.Second, []service.Standing{web(0)}, service.NotYet, ""}},
		"healthy at once":   {{0, []service.Standing{{Name: "web", State: "running", Health: "starting"}}, service.NotYet, ""}, {1, []service.Standing{{Name: "web", State: "running", Health: "healthy"}}, service.AllUp, ""}},
		"never healthy":     {{0, []service.Standing{{Name: "web", State: "running", Health: "starting"}}, service.NotYet, ""}, {time.Hour, []service.Standing{{Name: "web", State: "running", Health: "unhealthy", Text: "status 500"}}, service.NotUp, "unhealthy: status 500"}},
		"a job runs":        {{0, []service.Standing{{Name: "web", State: "running", Health: "healthy"}, job("starting", nil)}, service.NotYet, ""}},
		"a long job":        {{0, []service.Standing{job("running", nil)}, service.NotYet, ""}, {time.Minute, []service.Standing{job("running", nil)}, service.AllUp, ""}},
		"a job is done":     {{0, []service.Standing{{Name: "web", State: "running", Health: "healthy"}, job("done", &zero)}, service.AllUp, ""}},
		"a job failed":      {{0, []service.Standing{{Name: "web", State: "running", Health: "healthy"}, job("failed", &three)}, service.NotUp, "Service job ended with exit code 3."}},
		"the program ended": {{0, []service.Standing{{Name: "app", State: "done", Exit: &zero}}, service.NotUp, "Service app ended with exit code 0."}},
		"a crash loop":      {{0, []service.Standing{{Name: "web", State: "backoff", Looping: true, Restarts: 3, Exit: &three}, job("waiting", nil)}, service.NotUp, "ended 4 times"}},
	} {
		var s service.Settling
		for _, l := range looks {
			up, says := s.Look(l.list, time.Unix(1_800_000_000, 0).Add(l.at))
			if up != l.want || (l.says == "") != (says == "") || !strings.Contains(says, l.says) {
				t.Errorf("%s after %s: got %v %q, want %v %q", name, l.at, up, says, l.want, l.says)
			}
		}
	}
}
