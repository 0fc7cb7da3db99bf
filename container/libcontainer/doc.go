// Package libcontainer runs containers on Linux with runc's libcontainer.
// [New] returns the driver; it needs root, and on other platforms or in builds
// without cgo New says so in one sentence.
//
// Each container has a monitor: a small process of the same binary, which is
// the parent of the container's first process and outlives the node. Monitors
// and libcontainer's own first stage are started by running /proc/self/exe
// again; this package's init function notices that and never returns. It acts
// only when both the argument list and the environment say so, so a program
// may use any arguments of its own. With the first start comes one process that
// stands by: it waits before Go's runtime begins, and monitors are copies of it.
// It ends with the caller or with [Runtime.Close].
//
// The package does not pull images: that is container/image, whose store it
// uses. The rules are those of spec/container.md.
package libcontainer
