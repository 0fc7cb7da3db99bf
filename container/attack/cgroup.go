//go:build linux && amd64

package main

import (
	"bytes"
	"errors"
	"os"
	"syscall"
)

var cgroupAttacks = []attack{
	{
		Name: "cgroup/release-agent", About: "name the program that the machine runs when a control group is empty",
		Without: []string{filter, capAdmin, ownUsers, ownCgroups}, V1: true,
		run: func(*targets) error {
			return inHierarchy("cgroup", "memory", "release_agent")
		},
	},
	{
		Name: "cgroup/limit", About: "raise a limit of its own control group",
		Without: []string{filter, capAdmin, ownUsers},
		run: func(*targets) error {
			return firstError(
				inHierarchy("cgroup", "memory", "memory.swappiness"),
				inHierarchy("cgroup2", "", "cgroup.max.depth"),
				rewrite("/sys/fs/cgroup/memory/memory.limit_in_bytes")(nil),
				rewrite("/sys/fs/cgroup/memory.max")(nil))
		},
	},
	{
		Name: "cgroup/see", About: "learn its place among the machine's control groups", Without: []string{ownCgroups}, V2: true,
		run: func(*targets) error {
			b, err := os.ReadFile("/proc/self/cgroup")
			if err == nil && !bytes.Contains(b, []byte("/pktcloud-")) {
				err = errors.New("it is at the root, as far as it sees")
			}
			return err
		},
	},
}

// inHierarchy mounts a hierarchy and writes to one of its files what stands in
// it.
func inHierarchy(kind, options, file string) error {
	const dir = "/groups"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer func() { _ = os.Remove(dir) }()
	if err := syscall.Mount("none", dir, kind, 0, options); err != nil {
		return err
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	return rewrite(dir + "/" + file)(nil)
}
