//go:build !linux

package peer

import "time"

// SystemClock is this machine's clock. Elsewhere than on Linux it counts from
// the start of the process, and names no boot.
type SystemClock struct{}

var processStart = time.Now()

// Now returns the wall clock.
func (SystemClock) Now() time.Time { return time.Now() }

// Boot returns the time since the process came up.
func (SystemClock) Boot() (since time.Duration, boot string) { return time.Since(processStart), "" }
