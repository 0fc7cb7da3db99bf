package services_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
	"github.com/pkt-cash/pkt-cloud/container/services"
)

// stiff is a twin that may refuse other limits, and takes its time.
type stiff struct {
	*containertest.Twin
	refuse func(id string, l container.Limits) error // nil: never
	grow   func(v container.VolumeSpec) error        // nil: never
	slow   time.Duration
	hangs  bool // a start is made and never answered
}

func (s *stiff) Start(ctx context.Context, spec container.Spec) error {
	err := s.Twin.Start(ctx, spec)
	if s.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (s *stiff) Update(ctx context.Context, id string, l container.Limits) error {
	time.Sleep(s.slow)
	if s.refuse != nil {
		if err := s.refuse(id, l); err != nil {
			return err
		}
	}
	return s.Twin.Update(context.WithoutCancel(ctx), id, l)
}

func (s *stiff) GrowVolume(ctx context.Context, v container.VolumeSpec) error {
	time.Sleep(s.slow)
	if s.grow != nil {
		if err := s.grow(v); err != nil {
			return err
		}
	}
	return s.Twin.GrowVolume(context.WithoutCancel(ctx), v)
}

// onStiff runs a lab of the keeper's set on a stiff machine.
func onStiff(t *testing.T, test func(t *testing.T, l *lab, s *stiff)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		l.die()
		s := &stiff{Twin: l.twin}
		l.runtime = s
		l.live()
		if err := l.m.Begin(t.Context(), keeper()); err != nil {
			t.Fatal(err)
		}
		l.await("both run", phases(services.Running, services.Running))
		test(t, l, s)
	})
}

// bigger is limits and sizes that are not those of keeper.
func bigger() services.Sizes {
	l := container.SmallLimits()
	l.MilliCPU, l.MemoryBytes, l.DiskBytes = 2*l.MilliCPU, 2*l.MemoryBytes, 2*l.DiskBytes
	return services.Sizes{
		Limits:  map[string]container.Limits{"db": l, "web": l},
		Volumes: map[string]uint64{"data": 2 * container.MinVolumeBytes},
	}
}

func (l *lab) limits(service string, run uint64) container.Limits {
	l.t.Helper()
	st, err := l.twin.Status(l.t.Context(), services.Container("set", service, run))
	if err != nil {
		l.t.Fatal(err)
	}
	return st.Limits
}

// wantSizes wants the machine to be as the set says, and that to be some sizes.
func (l *lab) wantSizes(db, web container.Limits, data uint64) {
	l.t.Helper()
	set := l.m.Sets()[0]
	s, err := l.m.Status("set")
	if err != nil {
		l.t.Fatal(err)
	}
	for i, want := range []container.Limits{db, web} {
		if got := set.Services[i].Limits; got != want {
			l.t.Errorf("%s: got %+v of the set, want %+v", set.Services[i].Name, got, want)
		}
		if got := l.limits(set.Services[i].Name, s.Services[i].Run); got != want {
			l.t.Errorf("%s: got %+v of the machine, want %+v", set.Services[i].Name, got, want)
		}
	}
	if got := set.Volumes[0].SizeBytes; got != data || l.volumes()[0].SizeBytes != data {
		l.t.Errorf("got a volume of %d in the set and of %d in the machine, want %d", got, l.volumes()[0].SizeBytes, data)
	}
}

// TestResize: other sizes hold for what runs, for its next run and for the next
// manager; nothing is started again for them.
func TestResize(t *testing.T) {
	onStiff(t, func(t *testing.T, l *lab, _ *stiff) {
		to := bigger()
		for range 2 { // it is idempotent
			if err := l.m.Resize(t.Context(), "set", to); err != nil {
				t.Fatal(err)
			}
		}
		big := to.Limits["db"]
		l.wantSizes(big, big, to.Volumes["data"])
		l.die()
		l.live()
		l.wantSizes(big, big, to.Volumes["data"])
		if s := l.await("nothing", func(services.Status) bool { return true }); s.Services[0].Run != 1 || s.Services[1].Run != 1 {
			t.Errorf("got %+v, want the first runs", s.Services)
		}
		kill(t, l, "db", 1)
		l.await("db is back", func(s services.Status) bool { return s.Services[0].Run == 2 && s.Services[0].Phase == services.Running })
		small := container.SmallLimits()
		small.DiskBytes = big.DiskBytes
		if err := l.m.Resize(t.Context(), "set", services.Sizes{Limits: map[string]container.Limits{"db": small}}); err != nil {
			t.Fatal(err)
		}
		l.wantSizes(small, big, to.Volumes["data"])
		if err := l.m.End(t.Context(), "set"); err != nil || len(l.disk.values) != 0 {
			t.Errorf("got %v, and %d values left", err, len(l.disk.values))
		}
	})
}

// TestResizeRefused: what one refuses none has, but for disks, which do not
// shrink; and the set goes on.
func TestResizeRefused(t *testing.T) {
	no := &container.Error{Code: container.CodeDoesNotFit, Detail: "memory"}
	small, to := container.SmallLimits(), bigger()
	big := to.Limits["db"]
	grown := small
	grown.DiskBytes = big.DiskBytes
	onStiff(t, func(t *testing.T, l *lab, s *stiff) {
		s.refuse = func(id string, got container.Limits) error {
			if id == services.Container("set", "web", 1) && got == big {
				return no
			}
			return nil
		}
		long, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		if err := l.m.Resize(long, "set", to); !errors.Is(err, container.CodeDoesNotFit) {
			t.Errorf("got %v, want what web says", err)
		}
		l.wantSizes(grown, small, container.MinVolumeBytes)
		s.refuse, s.grow = nil, func(container.VolumeSpec) error { return &container.Error{Code: container.CodeDiskFull} }
		if err := l.m.Resize(long, "set", to); !errors.Is(err, container.CodeDiskFull) {
			t.Errorf("got %v, want what the disk says", err)
		}
		l.wantSizes(grown, grown, container.MinVolumeBytes)

		// A machine that takes back nothing is asked until it does.
		var deaf atomic.Bool
		deaf.Store(true)
		s.refuse = func(_ string, got container.Limits) error {
			if deaf.Load() && got != big {
				return &container.Error{Code: container.CodeRuntime}
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := l.m.Resize(ctx, "set", to); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want no answer", err)
		}
		if got := l.m.Sets()[0].Services[0].Limits; got != big {
			t.Errorf("got %+v of a set that may still have %+v", got, big)
		}
		if err := l.m.Resize(t.Context(), "set", to); !errors.Is(err, container.CodeNotRunning) {
			t.Errorf("got %v of a second change", err)
		}
		deaf.Store(false)
		time.Sleep(time.Minute)
		l.wantSizes(grown, grown, container.MinVolumeBytes)
		s.refuse, s.grow = nil, nil
		if err := l.m.Resize(t.Context(), "set", to); err != nil {
			t.Fatal(err)
		}
		l.wantSizes(big, big, to.Volumes["data"])
	})
}

// TestResizeWhileStarting: a container that was made before the change, by a
// manager that never learned of it, is no other one after it.
func TestResizeWhileStarting(t *testing.T) {
	onStiff(t, func(t *testing.T, l *lab, s *stiff) {
		s.hangs = true
		kill(t, l, "web", 1)
		l.await("web starts", func(s services.Status) bool {
			return s.Services[1].Run == 2 && s.Services[1].Phase == services.Starting
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.m.Resize(ctx, "set", bigger()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want no answer yet", err)
		}
		l.die()
		s.hangs = false
		l.live()
		time.Sleep(time.Minute)
		big := bigger().Limits["web"]
		l.wantSizes(big, big, bigger().Volumes["data"])
		if st := l.await("both run", phases(services.Running, services.Running)); st.Services[1].Run != 2 {
			t.Errorf("got run %d, want the second", st.Services[1].Run)
		}
	})
}

// TestResizeShape: what no set can have is refused, and changes nothing.
func TestResizeShape(t *testing.T) {
	onStiff(t, func(t *testing.T, l *lab, _ *stiff) {
		writes := l.disk.writes
		for want, to := range map[container.Code]services.Sizes{
			container.CodeNotFound:       {Limits: map[string]container.Limits{"other": container.SmallLimits()}},
			container.CodeInvalidSpec:    {Limits: map[string]container.Limits{"db": {}}},
			container.CodeNoVolume:       {Volumes: map[string]uint64{"other": container.MinVolumeBytes}},
			container.CodeVolumeConflict: {Volumes: map[string]uint64{"data": container.MinVolumeBytes - container.VolumeStep}},
		} {
			if err := l.m.Resize(t.Context(), "set", to); !errors.Is(err, want) {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		if err := l.m.Resize(t.Context(), "other", bigger()); !errors.Is(err, container.CodeNotFound) {
			t.Errorf("got %v of a set that is not there", err)
		}
		l.disk.setFull(true)
		if err := l.m.Resize(t.Context(), "set", bigger()); !errors.Is(err, errFull) {
			t.Errorf("got %v, want the store's fault", err)
		}
		l.disk.setFull(false)
		small := container.SmallLimits()
		if l.wantSizes(small, small, container.MinVolumeBytes); l.disk.writes != writes {
			t.Errorf("got %d writes for nothing", l.disk.writes-writes)
		}
	})
}

// TestResizeCrash: a manager that dies at any moment of a change, on a machine
// that refuses now and then, leaves all or nothing of it, and each run is told.
func TestResizeCrash(t *testing.T) {
	small, to := container.SmallLimits(), bigger()
	big := to.Limits["db"]
	small.DiskBytes = big.DiskBytes // disks do not shrink: they are left out of it
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		onStiff(t, func(t *testing.T, l *lab, s *stiff) {
			first := services.Sizes{Limits: map[string]container.Limits{"db": small, "web": small}}
			if err := l.m.Resize(t.Context(), "set", first); err != nil {
				t.Fatal(err)
			}
			s.slow = 10 * time.Millisecond
			if refuses := rnd.IntN(3) == 0; refuses {
				s.refuse = func(id string, got container.Limits) error {
					if got == big && id[len("set.")] == 'w' {
						return &container.Error{Code: container.CodeDoesNotFit}
					}
					return nil
				}
			}
			m := l.m
			go func() { _ = m.Resize(context.Background(), "set", to) }()
			for range 1 + rnd.IntN(3) {
				time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
				switch rnd.IntN(4) {
				case 0:
					st, err := l.m.Status("set")
					if err != nil {
						t.Fatal(err)
					}
					kill(t, l, "web", st.Services[1].Run)
				case 1:
					l.disk.setFull(true)
					time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
					l.disk.setFull(false)
				default:
					l.die()
					l.live()
				}
			}
			time.Sleep(time.Minute)
			l.await("both run", phases(services.Running, services.Running))
			set := l.m.Sets()[0]
			if got := set.Services[0].Limits; got == big {
				l.wantSizes(big, big, to.Volumes["data"])
			} else {
				l.wantSizes(small, small, container.MinVolumeBytes)
			}
			if err := l.m.Resize(t.Context(), "set", services.Sizes{Volumes: to.Volumes}); err != nil {
				t.Errorf("seed %d: got %v from another change afterwards", seed, err)
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		})
	}
}
