package container

import (
	"strconv"
	"strings"
)

// Signal is a signal of Linux, by its number on x86 and ARM: 1 to [MaxSignal].
type Signal uint8

// Signals that have a meaning of their own for a [Runtime].
const (
	SIGKILL Signal = 9
	SIGTERM Signal = 15
)

// realTime are the first and the last signal without a fixed meaning, as C
// libraries leave them to programs.
const (
	firstRealTime = 34
	lastRealTime  = 64
)

// signalNames are by number, from 1.
var signalNames = [...]string{
	"HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
	"CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
}

// Valid reports whether s is a signal at all.
func (s Signal) Valid() bool { return s >= 1 && s <= MaxSignal }

// String returns the name, such as "SIGTERM" or "SIGRTMIN+3", or the number of
// what has no name.
func (s Signal) String() string {
	switch {
	case s >= 1 && int(s) <= len(signalNames):
		return "SIG" + signalNames[s-1]
	case s == firstRealTime:
		return "SIGRTMIN"
	case s > firstRealTime && s <= lastRealTime:
		return "SIGRTMIN+" + strconv.Itoa(int(s)-firstRealTime)
	}
	return strconv.Itoa(int(s))
}

// SignalNamed returns the signal of a name as images and people write it:
// "SIGTERM", "term", "15", "SIGRTMIN+3", "SIGRTMAX-1". Errors are
// [CodeInvalidSpec].
func SignalNamed(name string) (Signal, error) {
	if n, err := strconv.ParseUint(name, 10, 8); err == nil && Signal(n).Valid() {
		return Signal(n), nil
	}
	short := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	for i, n := range signalNames {
		if n == short {
			return Signal(i + 1), nil
		}
	}
	for _, rt := range []struct {
		name string
		from int
		sign byte
	}{{"RTMIN", firstRealTime, '+'}, {"RTMAX", lastRealTime, '-'}} {
		rest, ok := strings.CutPrefix(short, rt.name)
		switch {
		case !ok:
		case rest == "":
			return Signal(rt.from), nil
		case rest[0] == rt.sign:
			n, err := strconv.ParseUint(rest[1:], 10, 8)
			if err == nil && n <= lastRealTime-firstRealTime && rt.sign == '+' {
				return Signal(rt.from + int(n)), nil
			}
			if err == nil && n <= lastRealTime-firstRealTime {
				return Signal(rt.from - int(n)), nil
			}
		}
	}
	return 0, invalid("%.40q is no signal; use a name such as SIGTERM or a number up to %d", name, MaxSignal)
}

// StopSignalOf returns the signal that asks a program of the image to end:
// what the image names, or SIGTERM if that is nothing of use.
func StopSignalOf(img Image) Signal {
	if s, err := SignalNamed(img.StopSignal); err == nil {
		return s
	}
	return SIGTERM
}
