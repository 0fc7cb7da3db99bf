//go:build crashpoints

package crash

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
)

var point struct {
	sync.Mutex
	count int
}

// Point numbers its calls from 1. It notes each in the file that
// PKTCLOUD_CRASH_LOG names, and kills the process at the one that
// PKTCLOUD_CRASH_AT numbers.
func Point(label string) {
	point.Lock()
	defer point.Unlock()
	point.count++
	if path := os.Getenv("PKTCLOUD_CRASH_LOG"); path != "" {
		if f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			fmt.Fprintf(f, "%d %s\n", point.count, label)
			f.Close()
		}
	}
	if at, err := strconv.Atoi(os.Getenv("PKTCLOUD_CRASH_AT")); err == nil && at == point.count {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
