//go:build cgo && amd64

package gvisor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/pkt-cash/pkt-cloud/container/internal/sandbox"
)

// bundle is what runsc is told of a container [CONTAINER-81].
func bundle(b *sandbox.Box, p *sandbox.Process) *specs.Spec {
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: b.FirstID, Size: b.IDs}}
	return &specs.Spec{
		Version:  "1.0.2",
		Root:     &specs.Root{Path: b.Rootfs},
		Hostname: b.Hostname,
		Process:  process(b, p),
		Mounts: append([]specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec"}},
			{
				Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
				Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", b.Shm)},
			},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		}, volumes(b.Mounts)...),
		Linux: &specs.Linux{
			UIDMappings: ids,
			GIDMappings: ids,
			CgroupsPath: b.Cgroup,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.UserNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace, Path: b.Network},
			},
		},
	}
}

// volumes are shared with other containers and with snapshots, so that nothing of
// them may be kept inside; runsc keeps nothing of a mount that is no root.
func volumes(list []sandbox.Mount) []specs.Mount {
	var out []specs.Mount
	for _, m := range list {
		how := "rw"
		if m.ReadOnly {
			how = "ro"
		}
		out = append(out, specs.Mount{Destination: m.Path, Type: "bind", Source: m.Source, Options: []string{"bind", "nosuid", "nodev", how}})
	}
	return out
}

// process is one program; its limits count for the first one, whose all others
// share.
func process(b *sandbox.Box, p *sandbox.Process) *specs.Process {
	groups := make([]uint32, 0, len(p.Groups))
	for _, g := range p.Groups {
		groups = append(groups, uint32(g))
	}
	return &specs.Process{
		Terminal:        p.Terminal,
		User:            specs.User{UID: uint32(p.UID), GID: uint32(p.GID), AdditionalGids: groups},
		Args:            p.Args,
		Env:             p.Env,
		Cwd:             p.WorkDir,
		NoNewPrivileges: true,
		Capabilities:    &specs.LinuxCapabilities{Bounding: b.Capabilities, Effective: b.Capabilities, Permitted: b.Capabilities},
		Rlimits: []specs.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Hard: b.Files, Soft: b.Files},
			{Type: "RLIMIT_NPROC", Hard: b.Pids, Soft: b.Pids},
			{Type: "RLIMIT_CORE", Hard: 0, Soft: 0},
		},
	}
}

func writeJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), b, 0o600)
}
