package services_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
	"github.com/pkt-cash/pkt-cloud/container/services"
)

// shaky is a twin whose volumes may fail, or take long to be made.
type shaky struct {
	*containertest.Twin
	making   error
	slow     time.Duration
	made     atomic.Int64
	removing atomic.Bool // fails
	starting error
}

func (s *shaky) Start(ctx context.Context, spec container.Spec) error {
	if s.starting != nil {
		return s.starting
	}
	return s.Twin.Start(ctx, spec)
}

func (s *shaky) CreateVolume(ctx context.Context, v container.VolumeSpec) error {
	s.made.Add(1)
	time.Sleep(s.slow)
	if s.making != nil {
		return s.making
	}
	return s.Twin.CreateVolume(context.WithoutCancel(ctx), v) // it has begun, and does not look up
}

func (s *shaky) RemoveVolume(ctx context.Context, v container.VolumeID) error {
	if s.removing.Load() {
		return &container.Error{Code: container.CodeRuntime, Detail: "the disk is away"}
	}
	return s.Twin.RemoveVolume(ctx, v)
}

// onShaky runs a lab on a shaky machine.
func onShaky(t *testing.T, s *shaky, test func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		defer l.close()
		l.die()
		s.Twin, l.runtime = l.twin, s
		l.live()
		test(t, l)
	})
}

// keeper is a set of a service that counts its runs in a volume, and of another
// one that only reads it.
func keeper() services.Set {
	set := setOf(program(plain("db"), "keep", "db"), program(plain("web"), "serve", "web"))
	set.Volumes = []services.Volume{{Name: "data", SizeBytes: container.MinVolumeBytes}}
	set.Services[0].Mounts = []container.Mount{{Volume: "data", Path: "/data"}}
	set.Services[1].Mounts = []container.Mount{{Volume: "data", Path: "/srv", ReadOnly: true}}
	return set
}

func (l *lab) volumes() []container.Volume {
	l.t.Helper()
	list, err := l.twin.Volumes(l.t.Context(), "")
	if err != nil {
		l.t.Fatal(err)
	}
	return list
}

// runsSeen is what the volume says of how often its service ran.
func (l *lab) runsSeen() int {
	l.t.Helper()
	s, err := l.twin.Snapshot(l.t.Context(), "set", "data")
	if err != nil {
		l.t.Fatal(err)
	}
	defer s.Close()
	tree, err := s.Tree("data")
	if err != nil {
		l.t.Fatal(err)
	}
	var n int64
	if err := tree.Walk(l.t.Context(), func(e *container.Entry) error {
		if e.Path == "runs" {
			n = e.Size
		}
		return nil
	}); err != nil {
		l.t.Fatal(err)
	}
	return int(n)
}

// TestVolumesOutliveRuns: what a service wrote is there for its next run and for
// the next manager, and gone with the set [SERVICE-28] [SERVICE-29]
// [SERVICE-30].
func TestVolumesOutliveRuns(t *testing.T) {
	s := &shaky{}
	onShaky(t, s, func(t *testing.T, l *lab) {
		set := keeper()
		if err := l.m.Begin(t.Context(), set); err != nil {
			t.Fatal(err)
		}
		l.await("both run", phases(services.Running, services.Running))
		kill(t, l, "db", 1)
		l.await("db is back", func(s services.Status) bool { return s.Services[0].Run == 2 && s.Services[0].Phase == services.Running })
		l.die()
		kill(t, l, "db", 2)
		l.live()
		l.await("db is back once more", func(s services.Status) bool { return s.Services[0].Run == 3 && s.Services[0].Phase == services.Running })
		synctest.Wait()
		if got := l.runsSeen(); got != 3 || s.made.Load() != 1 {
			t.Errorf("the volume has seen %d runs and was made %d times, want 3 and once", got, s.made.Load())
		}
		list, err := l.m.Volumes(t.Context(), "set")
		if err != nil || len(list) != 1 || !list[0].Ready || list[0].Name != "data" || list[0].FreeBytes == 0 || list[0].FreeBytes >= list[0].SizeBytes {
			t.Errorf("got %+v, %v of the volume", list, err)
		}

		// The end removes it, however often the machine refuses.
		s.removing.Store(true)
		short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := l.m.End(short, "set"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v from an end that could not remove the volume", err)
		}
		if _, err := l.m.Status("set"); err != nil || len(l.volumes()) != 1 {
			t.Errorf("the set is forgotten and %d volumes are left", len(l.volumes()))
		}
		l.die()
		s.removing.Store(false)
		l.live()
		if err := l.m.End(t.Context(), "set"); err != nil {
			t.Fatal(err)
		}
		if len(l.volumes()) != 0 || len(l.disk.values) != 0 || s.made.Load() != 1 {
			t.Errorf("got volumes %+v and %d values left", l.volumes(), len(l.disk.values))
		}
	})
}

// TestVolumesUnmade: a set whose volumes cannot be made ends, says why, and
// leaves nothing [SERVICE-28].
func TestVolumesUnmade(t *testing.T) {
	for code, want := range map[container.Code]string{
		container.CodeDiskFull:       "cannot be started: the machine's disk has no room for volume data of 314572800 bytes",
		container.CodeMissingFeature: "cannot be started: the machine cannot make volumes",
		container.CodeRuntime:        "cannot be started: the machine could not make volume data",
	} {
		t.Run(string(code), func(t *testing.T) {
			onShaky(t, &shaky{making: &container.Error{Code: code, Detail: "/home/secret"}}, func(t *testing.T, l *lab) {
				if err := l.m.Begin(t.Context(), keeper()); err != nil {
					t.Fatal(err)
				}
				s := l.await("it ends", func(s services.Status) bool { return s.Outcome == services.Broken })
				if v := s.Services[0]; v.Text != want || v.Refusal != code || v.Run != 0 {
					t.Errorf("got %+v, want %q", v, want)
				}
				if err := l.m.End(t.Context(), "set"); err != nil {
					t.Fatal(err)
				}
				if len(l.volumes()) != 0 || len(l.disk.values) != 0 {
					t.Errorf("got volumes %+v and %d values left", l.volumes(), len(l.disk.values))
				}
			})
		})
	}
}

// TestVolumeLost: a volume that is gone is not made again; what mounts it ends,
// and says so [SERVICE-28].
func TestVolumeLost(t *testing.T) {
	s := &shaky{}
	onShaky(t, s, func(t *testing.T, l *lab) {
		if err := l.m.Begin(t.Context(), keeper()); err != nil {
			t.Fatal(err)
		}
		l.await("both run", phases(services.Running, services.Running))
		l.die()
		kill(t, l, "db", 1)
		kill(t, l, "web", 1)
		if err := l.twin.RemoveVolume(t.Context(), container.VolumeID{Lease: "set", Name: "data"}); err != nil {
			t.Fatal(err)
		}
		l.live()
		st := l.await("it ends", func(s services.Status) bool { return s.Outcome == services.Broken })
		if !strings.Contains(st.Why, "volume data and what it held are lost") || s.made.Load() != 1 {
			t.Errorf("got %q and %d volumes made, want that it is lost", st.Why, s.made.Load())
		}
	})
}

// TestMountRefused: where the image has no place for a volume the tenant is told
// so, and nothing of the machine [SERVICE-13].
func TestMountRefused(t *testing.T) {
	s := &shaky{starting: &container.Error{
		Code: container.CodeInvalidSpec, Detail: "the image has something else than a directory at /data", Err: errors.New("open /home/secret"),
	}}
	onShaky(t, s, func(t *testing.T, l *lab) {
		if err := l.m.Begin(t.Context(), keeper()); err != nil {
			t.Fatal(err)
		}
		st := l.await("both end", phases(services.Failed, services.Failed))
		if want := "cannot be started: the image has something else than a directory at /data"; st.Services[0].Text != want {
			t.Errorf("got %q, want %q", st.Services[0].Text, want)
		}
	})
}

// TestEndWhileVolumesAreMade leaves nothing, whoever comes first [SERVICE-30].
func TestEndWhileVolumesAreMade(t *testing.T) {
	s := &shaky{slow: time.Minute}
	onShaky(t, s, func(t *testing.T, l *lab) {
		if err := l.m.Begin(t.Context(), keeper()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := l.m.End(t.Context(), "set"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if s.made.Load() != 1 || len(l.volumes()) != 0 || len(l.disk.values) != 0 {
			t.Errorf("got %d volumes made, %+v and %d values left", s.made.Load(), l.volumes(), len(l.disk.values))
		}
	})
}

func TestVolumesValidate(t *testing.T) {
	for name, edit := range map[string]func(*services.Set){
		"a volume that is not there": func(s *services.Set) { s.Services[0].Mounts[0].Volume = "other" },
		"two of a name":              func(s *services.Set) { s.Volumes = append(s.Volumes, s.Volumes[0]) },
		"too small":                  func(s *services.Set) { s.Volumes[0].SizeBytes = 1 << 20 },
		"over all files":             func(s *services.Set) { s.Services[0].Mounts[0].Path = "/" },
	} {
		set := keeper()
		edit(&set)
		if err := set.Validate(); !errors.Is(err, container.CodeInvalidSpec) {
			t.Errorf("%s: got %v, want %s", name, err, container.CodeInvalidSpec)
		}
	}
	if err := keeper().Validate(); err != nil {
		t.Error(err)
	}
}

// TestRandomEnds: whatever happens to a set with volumes and to its manager, an
// end leaves nothing [SERVICE-30].
func TestRandomEnds(t *testing.T) {
	for seed := range uint64(60) {
		s := &shaky{slow: time.Duration(seed%3) * 700 * time.Millisecond}
		onShaky(t, s, func(t *testing.T, l *lab) {
			rng := rand.New(rand.NewPCG(seed, 1))
			short := func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(t.Context(), time.Duration(rng.IntN(5))*time.Second)
			}
			if err := l.m.Begin(t.Context(), keeper()); err != nil {
				t.Fatal(err)
			}
			for range rng.IntN(12) {
				time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
				ctx, cancel := short()
				switch rng.IntN(5) {
				case 0:
					l.m.Freeze(ctx, "set")
				case 1:
					l.m.Thaw(ctx, "set")
				case 2:
					l.die()
					l.live()
				case 3, 4:
					st, err := l.m.Status("set")
					if err != nil {
						t.Fatal(err)
					}
					if v := st.Services[rng.IntN(2)]; v.Run > 0 {
						kill(t, l, v.Name, v.Run)
					}
				}
				cancel()
			}
			ctx, cancel := short()
			l.m.End(ctx, "set")
			cancel()
			if rng.IntN(2) == 0 {
				l.die()
				l.live()
			}
			late, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if err := l.m.End(late, "set"); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			all, err := l.twin.List(t.Context())
			if err != nil || len(all) != 0 || len(l.volumes()) != 0 || len(l.disk.values) != 0 {
				t.Fatalf("seed %d: got %+v, %+v and %d values left, %v", seed, all, l.volumes(), len(l.disk.values), err)
			}
		})
	}
}
