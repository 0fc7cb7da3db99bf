package libcontainer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/pkt-cash/pkt-cloud/container"
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
	// get, 65536 each; 0 means 1<<30. Two runtimes of one machine should not
	// share a range.
	FirstID uint32
	// MaxContainers bounds how many exist at once; 0 means 1024.
	MaxContainers int
	// LogBytes bounds the kept log of one container; 0 means
	// [container.DefaultLogCap].
	LogBytes int64
}

// Ids of a container and the first of them all.
const (
	idsPerContainer      = 1 << 16
	defaultFirstID       = 1 << 30
	defaultMaxContainers = 1024
)

func (c Config) withDefaults() Config {
	if c.FirstID == 0 {
		c.FirstID = defaultFirstID
	}
	if c.MaxContainers == 0 {
		c.MaxContainers = defaultMaxContainers
	}
	if c.LogBytes == 0 {
		c.LogBytes = container.DefaultLogCap
	}
	return c
}

// Group returns the name of the control group, in the root of each hierarchy,
// below which a Runtime over dir keeps its containers. The path is absolute.
func Group(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "pktcloud-" + hex.EncodeToString(sum[:4])
}
