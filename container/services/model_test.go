package services_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/services"
)

// box is a container of the model's machine.
type box struct {
	service int
	run     uint64
	live    bool
	paused  bool
	code    int
}

// world is a machine, a disk and a process that may die: what is on disk and on
// the machine stays, what was to be done and what was seen is lost.
type world struct {
	t       *rapid.T
	set     services.Set
	now     time.Time
	state   services.State
	disk    []byte
	todo    []services.Action // durable already, not yet done
	seen    []services.Event  // on its way
	boxes   map[string]*box
	starts  map[int][]time.Time
	refused map[int]bool
	volumes bool // they are there
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, set: drawSet(t), now: time.Unix(1_800_000_000, 0), boxes: map[string]*box{}, starts: map[int][]time.Time{}, refused: map[int]bool{},
	}
	if err := w.set.Validate(); err != nil {
		t.Fatal(err)
	}
	w.state = services.NewState(w.set, w.now)
	w.save()
	w.todo = w.state.Recover()
	return w
}

func drawSet(t *rapid.T) services.Set {
	set := services.Set{ID: "lease"}
	for i := range rapid.IntRange(1, 4).Draw(t, "services") {
		v := services.Service{
			Name: fmt.Sprintf("s%d", i), Image: digest, Args: []string{"run"}, Limits: container.SmallLimits(),
			Job:     rapid.Bool().Draw(t, "job"),
			Restart: services.Restart{Policy: rapid.SampledFrom([]services.Policy{services.Never, services.OnFailure, services.Always}).Draw(t, "policy")},
		}
		if v.Job && v.Restart.Policy == services.Always {
			v.Restart.Policy = services.OnFailure
		}
		if v.Restart.Policy == services.OnFailure {
			v.Restart.Max = rapid.Uint64Range(0, 3).Draw(t, "max")
		}
		if !v.Job && rapid.Bool().Draw(t, "checked") {
			v.Health = services.Health{Check: services.CheckTCP, Port: 80, Interval: 5 * time.Second, Timeout: time.Second, Retries: 2}
		}
		for k := range i {
			if !rapid.Bool().Draw(t, "waits") {
				continue
			}
			d := services.Dependency{Service: set.Services[k].Name, When: services.Started}
			switch {
			case set.Services[k].Job:
				d.When = services.Completed
			case set.Services[k].Health.Check != services.CheckNone:
				d.When = services.Healthy
			}
			v.Depends = append(v.Depends, d)
		}
		set.Services = append(set.Services, v)
	}
	if rapid.Bool().Draw(t, "volumes") {
		set.Volumes = []services.Volume{{Name: "data", SizeBytes: container.MinVolumeBytes}}
		set.Services[0].Mounts = []container.Mount{{Volume: "data", Path: "/data"}}
	}
	return set
}

func (w *world) save() {
	b, err := json.Marshal(w.state)
	if err != nil {
		w.t.Fatal(err)
	}
	w.disk = b
}

// step is what a running half does with an event, and may die in between.
func (w *world) step(e services.Event, dies bool) {
	next, actions := w.state.Step(w.set, e, w.now)
	if dies && rapid.Bool().Draw(w.t, "before the write") {
		w.crash()
		return
	}
	w.check(next, actions)
	w.state = next
	w.save()
	if dies {
		w.crash()
		return
	}
	w.todo = append(w.todo, actions...)
}

func (w *world) check(next services.State, actions []services.Action) {
	if err := next.Check(w.set); err != nil {
		w.t.Fatal(err)
	}
	for i, v := range next.Services {
		old := w.state.Services[i]
		switch {
		case v.Run < old.Run || v.Run > old.Run+1:
			w.t.Fatalf("got run %d after run %d", v.Run, old.Run)
		case v.Run == old.Run+1 && (old.Phase.Over() || old.Run > 0 && w.set.Services[i].Restart.Policy == services.Never):
			w.t.Fatalf("got run %d of %s, which was %s and is restarted %v", v.Run, w.set.Services[i].Name, old.Phase, w.set.Services[i].Restart.Policy)
		case v.Run == old.Run+1:
			w.started(next, i)
		}
		if wait := v.Until.Sub(w.now); wait > services.MaxDelay && !next.Frozen { // a thaw shortens it
			w.t.Fatalf("got a backoff of %s", wait)
		}
	}
	for _, a := range actions {
		if next.Frozen && (a.Do == services.DoStart || a.Do == services.DoLook) {
			w.t.Fatalf("got %+v in a frozen set", a)
		}
	}
}

// started wants what a service depends on to hold when it is to be started.
func (w *world) started(next services.State, i int) {
	for _, d := range w.set.Services[i].Depends {
		k := slices.IndexFunc(w.set.Services, func(v services.Service) bool { return v.Name == d.Service })
		dep := next.Services[k]
		if d.When == services.Started && !dep.Begun || d.When == services.Healthy && dep.Health != services.HealthHealthy ||
			d.When == services.Completed && dep.Phase != services.Done {
			w.t.Fatalf("%s is started while %s is %+v, want it %s", w.set.Services[i].Name, d.Service, dep, d.When)
		}
	}
	if len(w.set.Volumes) > 0 && !w.volumes {
		w.t.Fatalf("%s is started before its volumes are there", w.set.Services[i].Name)
	}
	w.starts[i] = append(w.starts[i], w.now)
}

func (w *world) crash() {
	w.todo, w.seen = nil, nil
	var st services.State
	if err := json.Unmarshal(w.disk, &st); err != nil {
		w.t.Fatal(err)
	}
	w.state = st
	w.todo = st.Recover()
}

// perform does an action on the machine; the answer is on its way.
func (w *world) perform(a services.Action) {
	spec := w.set.Services[a.Service]
	id := services.Container(w.set.ID, spec.Name, a.Run)
	b := w.boxes[id]
	switch a.Do {
	case services.DoMake:
		if len(w.starts) > 0 {
			w.t.Fatal("a volume is made when services may have written to it")
		}
		if !w.volumes && rapid.IntRange(0, 9).Draw(w.t, "no room") == 0 {
			w.seen = append(w.seen, services.Unmade{Code: container.CodeDiskFull, Text: "no"})
			return
		}
		w.volumes = true
		w.seen = append(w.seen, services.Made{})
	case services.DoStart:
		if a.Run > 1 {
			delete(w.boxes, services.Container(w.set.ID, spec.Name, a.Run-1))
		}
		if b == nil && rapid.IntRange(0, 9).Draw(w.t, "refuses") == 0 {
			w.seen = append(w.seen, services.Refused{Service: a.Service, Run: a.Run, Text: "no"})
			return
		}
		if b == nil {
			b = &box{service: a.Service, run: a.Run, live: true}
			w.boxes[id] = b
		}
		w.observe(id)
	case services.DoRemove:
		delete(w.boxes, id)
		w.seen = append(w.seen, services.Seen{Service: a.Service, Run: a.Run, Was: services.Removed, ExitCode: rapid.IntRange(0, 1).Draw(w.t, "at last")})
	case services.DoPause:
		if b != nil {
			b.paused = true
		}
	case services.DoResume:
		if b != nil {
			b.paused = false
		}
	case services.DoLimit:
		w.t.Fatal("a state asks for other limits")
	case services.DoLook:
		w.seen = append(w.seen, services.Looked{Service: a.Service, Run: a.Run, OK: b != nil && b.live && rapid.IntRange(0, 3).Draw(w.t, "well") != 0})
	}
}

// observe is a look at a container.
func (w *world) observe(id string) {
	for k, v := range w.set.Services {
		run := w.state.Services[k].Run
		if services.Container(w.set.ID, v.Name, run) != id {
			continue
		}
		e := services.Seen{Service: k, Run: run, Was: services.Missing}
		if b := w.boxes[id]; b != nil {
			e.Was = services.Up
			if !b.live {
				e.Was, e.ExitCode = services.Exited, b.code
			}
		}
		w.seen = append(w.seen, e)
	}
}

// do performs the next action that is on the list for a service: those about
// one service keep their order.
func (w *world) do(service int) {
	for k, a := range w.todo {
		if a.Service == service {
			w.todo = slices.Delete(w.todo, k, k+1)
			w.perform(a)
			return
		}
	}
}

// alone wants no service to have two live containers.
func (w *world) alone() {
	live := map[int]int{}
	for _, b := range w.boxes {
		if b.live {
			live[b.service]++
		}
	}
	for i, n := range live {
		if n > 1 {
			w.t.Fatalf("%s runs %d times at once", w.set.Services[i].Name, n)
		}
	}
}

// drain lets everything that is under way happen, for a while.
func (w *world) drain(rounds int) {
	for range rounds {
		w.poll()
		w.now = w.now.Add(time.Second)
		w.step(services.Tick{}, false)
		for len(w.todo) > 0 || len(w.seen) > 0 {
			for i := range w.set.Services {
				w.do(i)
			}
			for len(w.seen) > 0 {
				e := w.seen[0]
				w.seen = w.seen[1:]
				w.step(e, false)
			}
			w.alone()
		}
	}
}

func (w *world) poll() {
	for k, v := range w.state.Services {
		if v.Phase == services.Running {
			w.observe(services.Container(w.set.ID, w.set.Services[k].Name, v.Run))
		}
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		dies := func() bool { return rapid.IntRange(0, 5).Draw(t, "dies") == 0 }
		t.Repeat(map[string]func(*rapid.T){
			"":        func(*rapid.T) { w.alone() },
			"tick":    func(*rapid.T) { w.now = w.now.Add(time.Second); w.step(services.Tick{}, dies()) },
			"do":      func(t *rapid.T) { w.do(rapid.IntRange(0, len(w.set.Services)-1).Draw(t, "which")) },
			"observe": func(*rapid.T) { w.poll() },
			"crash":   func(*rapid.T) { w.crash() },
			"end of a program": func(t *rapid.T) {
				for _, id := range ids(w.boxes) {
					if b := w.boxes[id]; b.live && !b.paused && rapid.Bool().Draw(t, "this") {
						b.live, b.code = false, rapid.IntRange(0, 2).Draw(t, "code")
					}
				}
			},
			"somebody removes": func(t *rapid.T) {
				if all := ids(w.boxes); len(all) > 0 {
					delete(w.boxes, rapid.SampledFrom(all).Draw(t, "container"))
				}
			},
			"learn": func(t *rapid.T) {
				if len(w.seen) == 0 {
					return
				}
				k := rapid.IntRange(0, len(w.seen)-1).Draw(t, "late")
				e := w.seen[k]
				if !rapid.Bool().Draw(t, "twice") {
					w.seen = slices.Delete(w.seen, k, k+1)
				}
				w.step(e, dies())
			},
			"lose": func(t *rapid.T) {
				if len(w.seen) > 0 {
					w.seen = w.seen[1:]
				}
			},
			"jump": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(-100_000, 100_000).Draw(t, "seconds")) * time.Second)
			},
			"freeze": func(*rapid.T) { w.step(services.Freeze{}, dies()) },
			"thaw":   func(*rapid.T) { w.step(services.Thaw{}, dies()) },
		})
		w.finish()
	})
}

// finish wants a set that is left alone to come to rest, and one that is ended
// to leave nothing.
func (w *world) finish() {
	w.crash()
	w.step(services.Thaw{}, false)
	w.drain(300)
	if w.state.Making {
		w.t.Fatal("the volumes are not made after five minutes")
	}
	for i, v := range w.state.Services {
		if v.Phase == services.Starting || v.Phase == services.Stopping {
			w.t.Fatalf("%s is %s after five minutes", w.set.Services[i].Name, v.Phase)
		}
		if v.Phase == services.Running && w.boxes[services.Container(w.set.ID, w.set.Services[i].Name, v.Run)] == nil {
			w.t.Fatalf("%s has no container", w.set.Services[i].Name)
		}
	}
	w.step(services.Freeze{}, false)
	w.drain(1)
	for id, b := range w.boxes {
		if b.live && !b.paused {
			w.t.Fatalf("%s goes on in a frozen set", id)
		}
	}
	if rapid.Bool().Draw(w.t, "thawed") {
		w.step(services.Thaw{}, false)
	}
	w.step(services.End{}, rapid.Bool().Draw(w.t, "dies at the end"))
	w.step(services.End{}, false)
	w.drain(2)
	if len(w.boxes) != 0 || !w.state.Ended() {
		w.t.Fatalf("got %d containers and %+v after the end", len(w.boxes), w.state)
	}
}

func ids(m map[string]*box) []string {
	var out []string
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
