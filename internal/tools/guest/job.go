//go:build linux

package main

// Kinds of control groups.
const (
	cgroupV1 = "v1"
	cgroupV2 = "v2"
)

// Places and names that host and guest agree on.
const (
	jobFile     = "guest/job.json"
	moduleDir   = "guest/modules"
	programDir  = "guest/bin"
	outputPort  = "guest.output"
	outcomePort = "guest.outcome"
)

// job tells the guest what to do.
type job struct {
	Args   []string
	Env    []string
	Cgroup string
	// Modules are files of moduleDir, in the order of loading.
	Modules []string
}

// outcome is what the guest has to tell: one when the program begins, one
// when it has ended or could not be started.
type outcome struct {
	Started bool
	Exit    int
	Error   string
}
