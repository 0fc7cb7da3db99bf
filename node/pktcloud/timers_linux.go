package main

import "os"

// lateTimers lets the timers of this process be late by up to a millisecond. Go
// has a thread that looks every 20 µs, as long as there is something to do,
// whether another waits for the kernel: to wake it so often takes more of a
// container's start than all that this process does for it. Where it may not be
// done it stays as it is.
func lateTimers() {
	// A new thread has what the one has that made it.
	for done := map[string]bool{}; ; {
		threads, _ := os.ReadDir("/proc/self/task")
		before := len(done)
		for _, t := range threads {
			if !done[t.Name()] {
				done[t.Name()] = true
				_ = os.WriteFile("/proc/"+t.Name()+"/timerslack_ns", []byte("1000000"), 0)
			}
		}
		if len(done) == before {
			return
		}
	}
}
