package gvisor

import (
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// Config configures [New].
type Config struct {
	libcontainer.Config
	// Runsc is the path of the program; empty looks for it in PATH.
	Runsc string
}

// MinMemoryBytes is the least memory of a container: what gVisor's kernel and
// a small program take [CONTAINER-82].
const MinMemoryBytes = 48 << 20

// MaxExecs is how many programs Exec runs at once in a container: each has a
// process beside the container, which is not counted to it [CONTAINER-82].
const MaxExecs = 32
