// Package container says what it means to run a lease's services: the
// [Runtime] interface with its promises, the [Spec] of one container, and the
// refusals. It is pure; it starts nothing and imports no container software.
//
// Start with [Spec] and [Runtime]. The driver for Linux is in
// container/libcontainer, the image store in container/image, an in-memory
// twin and the kit for drivers in container/containertest. The rules are those
// of spec/container.md.
package container
