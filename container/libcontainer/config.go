package libcontainer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/sandbox"
)

// Images is what the driver asks of an image store; *image.Store is one. It
// may be called from several goroutines at once.
type Images interface {
	// Pull is Runtime.Pull.
	Pull(ctx context.Context, ref string, o container.PullOptions) (container.Image, error)
	// Root returns an image of the store, the absolute path of its unpacked
	// root, and the id on disk that stands for root in it: files belong to
	// firstID up to firstID+65535. The tree is never changed after. Errors are
	// [container.CodeUnknownImage].
	Root(digest string) (img container.Image, path string, firstID uint32, err error)
}

// Config configures [New]. Dir and Images are required.
type Config struct {
	// Dir keeps the state of all containers. One Runtime at a time uses it.
	Dir string
	// Images is the store that Pull fills and Start reads.
	Images Images
	// FirstID is the first of the host's user and group ids that containers
	// get, 65536 each; 0 means 0x70000000, which systemd and the tools of
	// unprivileged users leave alone. At least 65536: containers never have ids
	// of the machine's own users.
	FirstID uint32
	// IDs is the directory in which all runtimes of this machine write down
	// which ids are taken, so that no two containers have the same; empty means
	// /var/lib/pktcloud/ids.
	IDs string
	// MaxContainers bounds how many exist at once; 0 means 1024.
	MaxContainers int
	// LogBytes bounds the kept log of one container; 0 means
	// [container.DefaultLogCap].
	LogBytes int64
	// IOBytesPerSecond bounds what each container reads, and what it writes, on
	// its own disk and on that of the images; 0 means unbounded. With cgroup v1
	// the kernel does not bound writes that go through its cache.
	IOBytesPerSecond uint64
	// Monitor is the program of container/libcontainer/monitor, built for this
	// platform by whoever builds the caller: each container has a process of it
	// beside it. Empty means the caller's own program, whose size and init
	// functions each start pays for then. Containers of Classes have the caller's
	// program in any case. It is not changed after.
	Monitor []byte
	// Files is the program of container/libcontainer/fileserver, built as Monitor
	// is and static: what serves [container.ExecSpec.Files]. Empty means that
	// nothing does. It is not changed after.
	Files []byte
	// Network is what the owner allows containers that ask for a network.
	Network NetworkConfig
	// Classes are those of isolation that containers can demand beside this
	// driver's own, such as what container/gvisor.Find returns.
	Classes []Class
	// Default is the class of a container that demands none; empty means this
	// driver's own.
	Default container.Class
}

// Ids of a container and the first of them all.
const (
	idsPerContainer      = 1 << 16
	defaultFirstID       = 0x70000000
	defaultIDs           = "/var/lib/pktcloud/ids"
	defaultMaxContainers = 1024
)

func (c Config) withDefaults() Config {
	if c.FirstID == 0 {
		c.FirstID = defaultFirstID
	}
	if c.IDs == "" {
		c.IDs = defaultIDs
	}
	if c.MaxContainers == 0 {
		c.MaxContainers = defaultMaxContainers
	}
	if c.LogBytes == 0 {
		c.LogBytes = container.DefaultLogCap
	}
	c.Network = c.Network.withDefaults()
	return c
}

// Group returns the name of the control group, in the root of each hierarchy,
// below which a Runtime over dir keeps its containers. The path is absolute.
func Group(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "pktcloud-" + hex.EncodeToString(sum[:4])
}

// Class is a class of isolation that a Runtime has beside its own.
type Class = sandbox.Class
