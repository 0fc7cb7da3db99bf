package container

import (
	"time"

	"github.com/pkt-cash/pkt-cloud/internal/reach"
)

// Limits of a [Spec] [CONTAINER-2].
const (
	MaxIDBytes   = 128
	MaxHostname  = 63
	MaxArgs      = 512
	MaxArgBytes  = 64 << 10 // all arguments together
	MaxEnv       = 512
	MaxEnvBytes  = 64 << 10 // all variables together
	MaxPathBytes = 1024
	MaxUserBytes = 64

	MinMilliCPU = 10
	MaxMilliCPU = 1024 * 1000
	MinMemory   = 16 << 20
	MaxMemory   = 64 << 40
	MinDisk     = 4 << 20
	MaxDisk     = 16 << 40
	MinPids     = 8
	MaxPids     = 32768
)

// MaxStopGrace is the longest that Stop waits before SIGKILL [CONTAINER-71].
const MaxStopGrace = time.Hour

// MaxSignal is the last signal of Linux [CONTAINER-70].
const MaxSignal = 64

// Limits of images and logs [CONTAINER-11] [CONTAINER-14].
const (
	MaxRefBytes   = 1024
	MaxPorts      = 64
	MaxLogText    = 16 << 10 // longer lines are split
	MaxLogLine    = MaxLogText + 64
	MaxTail       = 100_000
	MaxTailBytes  = 1 << 20  // of the lines that Tail asks for
	DefaultLogCap = 16 << 20 // kept log bytes of one container
)

// Limits of a [Network] [CONTAINER-2].
const (
	MaxPublished  = 32
	MaxAllow      = 64
	MaxAllowBytes = reach.MaxBytes
	MaxGroup      = 64 // containers of one group
	MinBandwidth  = 1 << 10
)
