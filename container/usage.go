package container

import (
	"fmt"
	"time"
)

// End is why a container ended. It says what happened to its first process,
// never what was wanted.
type End uint8

// Ends of a container.
const (
	// NotEnded: it has not.
	NotEnded End = iota
	// EndExit: the program ended by itself, with Status.ExitCode.
	EndExit
	// EndSignal: a signal ended it, from whomever: Status.ExitCode less 128.
	EndSignal
	// EndOOM: the kernel killed it for memory.
	EndOOM
	// EndDestroyed: a Destroy killed it, and was interrupted before it had
	// removed the rest; Destroy it again.
	EndDestroyed
	// EndLost: nobody saw its end, as when the machine went down.
	EndLost
)

// String returns a word or two in lower case.
func (e End) String() string {
	switch e {
	case NotEnded:
		return "not ended"
	case EndExit:
		return "exit"
	case EndSignal:
		return "signal"
	case EndOOM:
		return "out of memory"
	case EndDestroyed:
		return "destroyed"
	case EndLost:
		return "lost"
	}
	return "unknown"
}

// Usage is what a container has used, all its programs together. Numbers that
// the machine's kernel does not count are 0.
type Usage struct {
	// CPUTime is processor time. ThrottledTime is how long its programs
	// together had work, and waited because the processor limit was used up.
	CPUTime, ThrottledTime time.Duration
	// MemoryBytes is memory in use, the cache of its files included, and
	// MemoryPeakBytes the most there ever was.
	MemoryBytes, MemoryPeakBytes uint64
	// Pids are processes and threads, and PidsPeak the most there ever were; where
	// the kernel keeps no peak, the most that were seen.
	Pids, PidsPeak uint64
	// DiskBytes is what is in use of the writable layer, and DiskSizeBytes what
	// of it can be used at all: the limit, less what the file system itself
	// takes.
	DiskBytes, DiskSizeBytes uint64
	// ReadBytes and WrittenBytes passed between it and its own disks. What the
	// cache served does not count.
	ReadBytes, WrittenBytes uint64
	// OOMKills are processes that the kernel killed for memory.
	OOMKills uint64
	Hits     Hits
}

// Hits is how often a container hit each of its limits.
type Hits struct {
	// CPU counts the periods of 100 ms in which it had used up its processor
	// time and was made to wait.
	CPU uint64
	// Memory counts how often it wanted more, and the kernel first looked for
	// something to free.
	Memory uint64
	// Pids counts processes and threads that were refused.
	Pids uint64
	// Disk counts how often its disk was found full, with less than 128 KiB or no
	// further file to give. The driver looks about each second, and for every
	// Usage.
	Disk uint64
	// IO counts the seconds, about, in which it read or wrote as much as the
	// machine's owner lets it.
	IO uint64
	// Network counts the seconds, about, in which it sent or received as much as
	// the machine's owner lets it.
	Network uint64
}

// CheckFit reports whether a container that uses u fits into limits l in place
// of was. The error is [CodeDoesNotFit] and names what does not. Memory is not
// judged: how much of it can be freed only the kernel knows.
func (u Usage) CheckFit(was, l Limits) error {
	switch {
	case l.DiskBytes < was.DiskBytes:
		return misfit("a disk of %d bytes cannot become one of %d; disks only grow", was.DiskBytes, l.DiskBytes)
	case l.Pids < u.Pids:
		return misfit("%d processes and threads run, the new limit is %d", u.Pids, l.Pids)
	}
	return nil
}

func misfit(format string, args ...any) error {
	return &Error{Code: CodeDoesNotFit, Detail: fmt.Sprintf(format, args...)}
}
