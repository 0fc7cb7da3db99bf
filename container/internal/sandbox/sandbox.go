// Package sandbox is what a driver's monitor asks of software that runs a
// container's programs with a kernel of its own. It is declared apart from
// container/libcontainer, whose monitor calls it, so that container/gvisor can
// implement it without runc's types.
package sandbox

import (
	"os"
	"syscall"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Class is a class of isolation that a runtime has beside its own.
type Class struct {
	Name container.Class
	// Monitor is the first argument of the monitors of its containers, by
	// which they know that they are: the process of this binary that is begun
	// with it calls libcontainer.Monitor.
	Monitor string
	// Option is what the engine needs to know of this machine, such as where
	// its program is.
	Option string
	// MinMemoryBytes is what the kernel inside takes for itself; a container
	// has no less.
	MinMemoryBytes uint64
}

// Engine runs one container. The monitor makes one, and calls Start once,
// before anything else; the others may be called at once.
type Engine interface {
	// Start runs p as the first program of the box. It returns when the
	// container runs: p may not have been executed yet.
	Start(b *Box, p *Process) (Program, error)
	// Exec runs another program.
	Exec(p *Process) (Program, error)
	// Dial connects to 127.0.0.1:port inside. Errors match
	// [container.CodePortRefused] when nobody listens.
	Dial(port uint16) (*os.File, error)
	// Executed waits until Start's program, or its failure to be one, has
	// replaced what p.Shim began.
	Executed() error
	// Kernel is the process that answers the system calls of those inside; 0
	// if it had ended when Executed returned.
	Kernel() int
	// Ended is how Start's program ended inside, once Wait has returned; false
	// if that is not known.
	Ended() (syscall.WaitStatus, bool)
}

// Program is one that runs inside. *libcontainer.Process is one too.
type Program interface {
	// Wait returns how it ended. It may be called once.
	Wait() (*os.ProcessState, error)
	// Signal returns when the program has the signal, which may be when it is
	// no longer frozen. SIGKILL does not wait.
	Signal(s os.Signal) error
}

// Box is a container that is ready to be run. What it names is the monitor's,
// and goes with it.
type Box struct {
	Base         string // a directory for the engine's files, on a small file system in memory
	Rootfs       string // owned by FirstID and the ids after it
	Hostname     string
	FirstID, IDs uint32 // the machine's ids of those inside, from 0 on
	Cgroup       string // path in each hierarchy; exists and has its limits
	Network      string // a file that is the network namespace, with the interfaces that those inside have
	Mounts       []Mount
	Memory, Shm  uint64 // bytes
	Pids         uint64
	Files        uint64 // descriptors of one program
	Capabilities []string
	Option       string // of the class
}

// Mount is a directory that others may change meanwhile, shown at a path inside,
// without links, that is a directory of Rootfs.
type Mount struct {
	Source, Path string
	ReadOnly     bool
}

// Process is a program to run. Shim, on descriptor 3, is executed instead; it
// loads the filter and becomes the program, or writes why not to descriptor 4,
// which is Report.
type Process struct {
	Args, Env []string // Args begin with what Shim expects
	WorkDir   string
	UID, GID  int // inside
	Groups    []int
	Stdio     [3]*os.File
	Terminal  bool // Stdio is one
	Shim      *os.File
	Report    *os.File
}
