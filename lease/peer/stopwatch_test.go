package peer

import (
	"testing"
	"time"
)

// handClock shows what it is set to.
type handClock struct{ boot time.Duration }

func (c *handClock) Now() time.Time                        { return time.Unix(0, 0).Add(c.boot) }
func (c *handClock) Boot() (since time.Duration, _ string) { return c.boot, "boot" }

// TestStopwatch: what runs is counted to the second as long as somebody looks,
// and a provider that stood still charges next to nothing of that time [LEASE-13].
func TestStopwatch(t *testing.T) {
	clock := &handClock{boot: time.Hour}
	w := stopwatch{clock: clock, ran: 100 * time.Second}
	look := func(after time.Duration, want uint64) {
		t.Helper()
		clock.boot += after
		if got := w.seconds(); got != want {
			t.Errorf("%s later: got %d s, want %d", after, got, want)
		}
	}
	look(time.Minute, 100) // it does not run yet
	w.start()
	look(700*time.Millisecond, 100)
	look(700*time.Millisecond, 101)
	look(1600*time.Millisecond, 103)
	look(0, 103)
	look(time.Hour, 105) // the machine slept
	look(time.Second, 106)
	look(-time.Minute, 106)
	look(time.Second, 107)
	clock.boot += time.Second
	w.stop()
	look(time.Minute, 108)
	w.start()
	w.start()
	look(time.Second, 109)
}
