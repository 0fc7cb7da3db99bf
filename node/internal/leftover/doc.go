// Package leftover finds and removes what a run of this program, or of its
// tests, left behind because it was killed: processes, containers, mounts,
// control groups and files.
//
// A run makes its directory with [New], puts all that it does in there, and
// gives [Run.Env] to the processes that it starts. The next run begins with
// [Sweep]. Nothing else is ever touched: a directory counts when it has a
// marker that this user made and no living process holds; a process counts
// when the variable in its environment names that directory.
package leftover

// variable names in a process's environment the run that it is part of.
const variable = "PKTCLOUD_RUN"

// Env is what the processes of a run carry in their environment.
func (r *Run) Env() string { return variable + "=" + r.Dir }
