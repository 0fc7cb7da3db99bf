package peer

import (
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SystemClock is this machine's clock: CLOCK_BOOTTIME and the kernel's boot id.
type SystemClock struct{}

var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
})

// Now returns the wall clock.
func (SystemClock) Now() time.Time { return time.Now() }

// Boot returns the time since the machine came up, sleep included.
func (SystemClock) Boot() (since time.Duration, boot string) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Since(processStart), ""
	}
	return time.Duration(ts.Nano()), bootID()
}

var processStart = time.Now()
