// Package gvisor runs containers with gVisor: a kernel of their own, in a
// process without rights, answers their system calls. [New] returns the
// driver. A provider that has both classes gives what [Find] returns to
// libcontainer.Config.Classes instead.
//
// It uses the program runsc of this machine, and is otherwise
// container/libcontainer: the same directory, monitors, ids, control groups,
// disks, volumes, networks, logs and filter, and the same conditions; volumes
// and networks are shared with containers of the other class. A monitor is a
// process of this binary, which this package's init function notices.
//
// The rules are those of spec/container.md, from CONTAINER-80 on.
package gvisor
