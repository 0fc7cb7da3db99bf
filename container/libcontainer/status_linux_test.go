//go:build linux && cgo && amd64

package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pkt-cash/pkt-cloud/container"
)

// TestStatusWhileDestroyed: a container that is set aside while its files are
// read was not found, or is as it was; it never seems to have not begun.
func TestStatusWhileDestroyed(t *testing.T) {
	r := &Runtime{boxes: t.TempDir()}
	dir, away := filepath.Join(r.boxes, "one"), filepath.Join(t.TempDir(), "away")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{recordFile: record{}, startedFile: started{}, exitFile: exited{Code: 7}} {
		if err := writeJSON(dir, name, v); err != nil {
			t.Fatal(err)
		}
	}
	for range 300 {
		moved := make(chan error, 1)
		go func() { moved <- os.Rename(dir, away) }()
		for {
			s, err := r.Status(t.Context(), "one")
			if errors.Is(err, container.CodeNotFound) {
				break
			}
			if err != nil || s.State != container.Exited || s.ExitCode != 7 {
				t.Fatalf("got %+v, %v, want exit code 7, or not found", s, err)
			}
		}
		if err := errors.Join(<-moved, os.Rename(away, dir)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStatusAfterPowerLoss: what was cut off, or is missing though the machine was
// started again since, says that the container ran and that nobody saw its end. A
// Start that was interrupted is begun anew all the same.
func TestStatusAfterPowerLoss(t *testing.T) {
	now, before := record{Boot: bootID()}, record{Boot: "before"}
	if now.Boot == "" {
		t.Skip("the kernel does not tell when the machine was started")
	}
	lost := container.Status{State: container.Exited, ExitCode: -1, End: container.EndLost}
	for name, c := range map[string]struct {
		rec           record
		started, exit string
		alive         bool
		want          container.Status
		code          container.Code
	}{
		"not begun":                     {rec: now, want: container.Status{State: container.Created}},
		"not begun, of an old version":  {want: container.Status{State: container.Created}},
		"being started":                 {rec: now, alive: true, want: container.Status{State: container.Created}},
		"before the machine started":    {rec: before, want: lost},
		"ran before that":               {rec: before, started: "{}", want: lost},
		"its start is cut off":          {rec: before, started: "{", want: lost},
		"its start is empty":            {rec: before, started: " ", want: lost},
		"its end is cut off":            {rec: before, started: "{}", exit: `{"Code":`, want: lost},
		"ended":                         {rec: before, started: "{}", exit: `{"Code":3}`, want: container.Status{State: container.Exited, ExitCode: 3, End: container.EndExit}},
		"ended, its start is cut off":   {rec: before, started: "{", exit: `{"Code":3}`, want: container.Status{State: container.Exited, ExitCode: 3, End: container.EndExit}},
		"its monitor writes half files": {rec: now, alive: true, started: "{", code: container.CodeRuntime},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Runtime{boxes: t.TempDir(), trash: t.TempDir(), register: register{dir: t.TempDir()}}
			dir := filepath.Join(r.boxes, "one")
			err := errors.Join(os.Mkdir(dir, 0o700), writeJSON(dir, recordFile, c.rec))
			for file, text := range map[string]string{startedFile: c.started, exitFile: c.exit} {
				if text != "" {
					err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.alive {
				f, err := lockAlive(dir)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
			}
			s, err := status(dir, "one")
			if c.code != "" {
				if !errors.Is(err, c.code) {
					t.Fatalf("got %+v, %v, want %v", s, err, c.code)
				}
				return
			}
			if err != nil || s.State != c.want.State || s.ExitCode != c.want.ExitCode || s.End != c.want.End {
				t.Errorf("got %+v, %v, want %+v", s, err, c.want)
			}
			if c.alive {
				return
			}
			done, err := r.startedBefore(dir, container.Spec{})
			if err != nil || done != (c.started != "") {
				t.Errorf("a second Start: got %v, %v, want it begun anew only if it did not begin", done, err)
			}
		})
	}
}

// TestWriteSoon: what is written soon is whole under its name, also over another,
// and can be kept.
func TestWriteSoon(t *testing.T) {
	dir := t.TempDir()
	for code := range 3 {
		if err := errors.Join(writeSoon(dir, exitFile, exited{Code: code}), keep(dir, exitFile)); err != nil {
			t.Fatal(err)
		}
		var end exited
		if ok, err := readJSON(dir, exitFile, &end); err != nil || !ok || end.Code != code {
			t.Errorf("got %+v, %v, %v, want code %d", end, ok, err, code)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v, want one file", entries, err)
	}
	if err := keep(dir, startedFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: got %v", err)
	}
}

// TestAwaitWord: a monitor begins when it is told to, and not when whoever would
// tell it is gone.
func TestAwaitWord(t *testing.T) {
	for _, told := range []bool{true, false} {
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		if told {
			if _, err := ours.Write([]byte{0}); err != nil {
				t.Fatal(err)
			}
		}
		_ = ours.Close()
		if got := awaitWord(int(theirs.Fd())); got != told {
			t.Errorf("got %v, want %v", got, told)
		}
		_ = theirs.Close()
	}
}

// TestWait: whoever waits is told of the end, of a monitor that dies and of a
// container that is not there.
func TestWait(t *testing.T) {
	r := &Runtime{boxes: t.TempDir(), locks: map[string]*idLock{}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begin := func(id string) (string, *os.File) {
		t.Helper()
		dir := filepath.Join(r.boxes, id)
		err := errors.Join(os.Mkdir(dir, 0o700), writeJSON(dir, recordFile, record{}), writeJSON(dir, startedFile, started{}))
		f, lerr := lockAlive(dir)
		if err := errors.Join(err, lerr); err != nil {
			t.Fatal(err)
		}
		return dir, f
	}
	dir, alive := begin("ends")
	done := make(chan error, 1)
	go func() {
		s, err := r.Wait(t.Context(), "ends")
		if err == nil && (s.State != container.Exited || s.ExitCode != 4) {
			err = fmt.Errorf("got %+v, want exit code 4", s)
		}
		done <- err
	}()
	if err := errors.Join(writeSoon(dir, startedFile, started{}), writeSoon(dir, exitFile, exited{Code: 4}), <-done, alive.Close()); err != nil {
		t.Error(err)
	}
	_, alive = begin("dies")
	go func() {
		s, err := r.Wait(t.Context(), "dies")
		if err == nil && s.End != container.EndLost {
			err = fmt.Errorf("got %+v, want it lost", s)
		}
		done <- err
	}()
	if err := errors.Join(alive.Close(), <-done); err != nil {
		t.Error(err)
	}
	if _, err := r.Wait(t.Context(), "missing"); !errors.Is(err, container.CodeNotFound) {
		t.Errorf("a container that is not there: got %v", err)
	}
	_, alive = begin("runs")
	defer alive.Close()
	if _, err := r.Wait(ctx, "runs"); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits any more: got %v", err)
	}
}
