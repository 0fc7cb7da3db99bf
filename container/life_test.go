package container

import (
	"errors"
	"testing"
)

// TestSignals has names as images write them.
func TestSignals(t *testing.T) {
	for name, want := range map[string]Signal{
		"SIGTERM": 15, "term": 15, "15": 15, "SIGQUIT": 3, "KILL": 9, "sigwinch": 28, "SIGRTMIN": 34, "SIGRTMIN+3": 37,
		"RTMAX": 64, "SIGRTMAX-1": 63, "64": 64, "1": 1,
	} {
		if got, err := SignalNamed(name); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %d", name, got, err, want)
		}
		if got := StopSignalOf(Image{StopSignal: name}); got != want {
			t.Errorf("an image's %s: got %v", name, got)
		}
	}
	for _, name := range []string{"", "0", "65", "300", "-1", "SIG", "SIGTERM ", "SIGRTMIN-1", "SIGRTMAX+1", "SIGRTMIN+31", "SIGRTMIN+", "TERM\n"} {
		if got, err := SignalNamed(name); !errors.Is(err, CodeInvalidSpec) {
			t.Errorf("%q: got %v, %v, want it refused", name, got, err)
		}
		if got := StopSignalOf(Image{StopSignal: name}); got != SIGTERM {
			t.Errorf("an image's %q: got %v, want SIGTERM", name, got)
		}
	}
	for s := Signal(1); s <= MaxSignal; s++ {
		if got, err := SignalNamed(s.String()); err != nil || got != s || !s.Valid() {
			t.Errorf("%d is named %q, which is %d, %v", s, s, got, err)
		}
	}
	if Signal(0).Valid() || Signal(MaxSignal+1).Valid() {
		t.Error("0 or 65 is a signal")
	}
}

func TestCheckFit(t *testing.T) {
	was := Limits{MilliCPU: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20, Pids: 100}
	u := Usage{Pids: 20, DiskBytes: 1 << 20, MemoryBytes: 60 << 20}
	for name, c := range map[string]struct {
		change func(*Limits)
		fits   bool
	}{
		"the same":        {func(*Limits) {}, true},
		"more":            {func(l *Limits) { l.DiskBytes, l.Pids = 65<<20, 101 }, true},
		"just enough":     {func(l *Limits) { l.Pids = 20 }, true},
		"too few":         {func(l *Limits) { l.Pids = 19 }, false},
		"smaller disk":    {func(l *Limits) { l.DiskBytes-- }, false},
		"less memory":     {func(l *Limits) { l.MemoryBytes = MinMemory }, true}, // the kernel's to say
		"less processor":  {func(l *Limits) { l.MilliCPU = MinMilliCPU }, true},
		"smaller, unused": {func(l *Limits) { l.DiskBytes = 32 << 20 }, false},
	} {
		l := was
		c.change(&l)
		if err := u.CheckFit(was, l); c.fits != (err == nil) || err != nil && !errors.Is(err, CodeDoesNotFit) {
			t.Errorf("%s: got %v, want it to fit %v", name, err, c.fits)
		}
	}
}
