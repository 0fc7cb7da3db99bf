//go:build soak

package manager_test

import (
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// TestMachineForLong is TestMachine for a million steps, or as many as
// SOAK_STEPS says.
func TestMachineForLong(t *testing.T) {
	steps := 1_000_000
	if s := os.Getenv("SOAK_STEPS"); s != "" {
		var err error
		if steps, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	runMachine(t, steps, 200, runtime.GOMAXPROCS(0))
	t.Logf("%d steps in %.0f s", steps, time.Since(start).Seconds())
}
