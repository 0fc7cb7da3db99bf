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
	kinds map[string]int
}

// Point numbers its calls from 1. It notes each in the file that
// PKTCLOUD_CRASH_LOG names, and kills the process at the one that
// PKTCLOUD_CRASH_AT numbers: "7" is the seventh of all, "lease store:2" the
// second of its label.
func Point(label string) {
	point.Lock()
	defer point.Unlock()
	point.count++
	if point.kinds == nil {
		point.kinds = map[string]int{}
	}
	point.kinds[label]++
	if path := os.Getenv("PKTCLOUD_CRASH_LOG"); path != "" {
		if f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			fmt.Fprintf(f, "%d %s\n", point.count, label)
			f.Close()
		}
	}
	if at := os.Getenv("PKTCLOUD_CRASH_AT"); at == strconv.Itoa(point.count) || at == fmt.Sprintf("%s:%d", label, point.kinds[label]) {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
