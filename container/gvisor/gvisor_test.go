//go:build linux && cgo && amd64

package gvisor

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/sandbox"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// program writes a script that answers "help COMMAND" with the given flags.
func program(t *testing.T, flags string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runsc")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n[ \"$1\" = help ] || exit 1\necho '"+flags+"' >&2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFind shows [CONTAINER-83].
func TestFind(t *testing.T) {
	t.Setenv("PATH", "/bin:/usr/bin:"+t.TempDir())
	good := program(t, "-exec-fd value -pass-fd value")
	for name, c := range map[string]struct {
		path string
		want string
	}{
		"none in PATH":     {"", "install it from gvisor.dev"},
		"none there":       {"/no/such/runsc", "install it from gvisor.dev"},
		"one that is old":  {program(t, "-pass-fd value"), "does not know -exec-fd"},
		"none that can":    {"/bin/false", "too old, or no runsc"},
		"one that is good": {good, ""},
	} {
		got, err := Find(c.path)
		switch {
		case c.want == "":
			if err != nil || got.Option != good || got.Name != container.ClassGVisor || got.Monitor == "" || got.MinMemoryBytes != MinMemoryBytes {
				t.Errorf("%s: got %+v, %v", name, got, err)
			}
		case !errors.Is(err, container.CodeMissingFeature) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), Version):
			t.Errorf("%s: got %v, want it to say %q and what to install", name, err, c.want)
		}
	}
	if _, err := New(Config{Config: libcontainer.Config{Dir: t.TempDir()}, Runsc: "/no/such/runsc"}); !errors.Is(err, container.CodeMissingFeature) {
		t.Errorf("New without runsc: got %v", err)
	}
}

// TestBundle shows what runsc is told [CONTAINER-81].
func TestBundle(t *testing.T) {
	b := &sandbox.Box{
		Rootfs: "/root", Hostname: "web", FirstID: 1 << 20, IDs: 1 << 16, Cgroup: "/group/web", Network: "/network",
		Shm: 1000, Pids: 64, Files: 1024, Capabilities: []string{"CAP_CHOWN"},
		Mounts: []sandbox.Mount{{Source: "/stage/volume-0", Path: "/data"}, {Source: "/stage/volume-1", Path: "/read", ReadOnly: true}},
	}
	got := bundle(b, &sandbox.Process{Args: []string{"shim", "0", "serve"}, Env: []string{"A=b"}, WorkDir: "/srv", UID: 33, GID: 44, Groups: []int{45}})
	id := specs.LinuxIDMapping{ContainerID: 0, HostID: 1 << 20, Size: 1 << 16}
	if !slices.Equal(got.Linux.UIDMappings, []specs.LinuxIDMapping{id}) || !slices.Equal(got.Linux.GIDMappings, []specs.LinuxIDMapping{id}) {
		t.Errorf("got ids %+v and %+v", got.Linux.UIDMappings, got.Linux.GIDMappings)
	}
	var kinds []string
	for _, n := range got.Linux.Namespaces {
		kinds = append(kinds, string(n.Type))
		if (n.Path != "") != (n.Type == specs.NetworkNamespace) {
			t.Errorf("namespace %s is at %q", n.Type, n.Path)
		}
	}
	slices.Sort(kinds)
	if want := []string{"ipc", "mount", "network", "pid", "user", "uts"}; !slices.Equal(kinds, want) {
		t.Errorf("got namespaces %v, want %v", kinds, want)
	}
	p := got.Process
	for _, caps := range [][]string{p.Capabilities.Bounding, p.Capabilities.Effective, p.Capabilities.Permitted} {
		if !slices.Equal(caps, b.Capabilities) {
			t.Errorf("got capabilities %v", caps)
		}
	}
	if len(p.Capabilities.Ambient)+len(p.Capabilities.Inheritable) != 0 || !p.NoNewPrivileges || p.Terminal || p.User.UID != 33 || p.User.GID != 44 ||
		!slices.Equal(p.User.AdditionalGids, []uint32{45}) || p.Cwd != "/srv" {
		t.Errorf("got process %+v", p)
	}
	limits := map[string]uint64{}
	for _, l := range p.Rlimits {
		limits[l.Type] = l.Hard
		if l.Soft != l.Hard {
			t.Errorf("%s: %d of %d", l.Type, l.Soft, l.Hard)
		}
	}
	if limits["RLIMIT_NPROC"] != 64 || limits["RLIMIT_NOFILE"] != 1024 || limits["RLIMIT_CORE"] != 0 || len(limits) != 3 {
		t.Errorf("got limits %v", limits)
	}
	if got.Linux.CgroupsPath != "/group/web" || got.Root.Path != "/root" || got.Root.Readonly || got.Hooks != nil || len(got.Annotations) != 0 {
		t.Errorf("got %+v", got)
	}
	at := len(got.Mounts) - len(b.Mounts)
	for i, m := range got.Mounts[at:] {
		want := b.Mounts[i]
		if m.Source != want.Source || m.Destination != want.Path || m.Type != "bind" || slices.Contains(m.Options, "ro") != want.ReadOnly ||
			!slices.Contains(m.Options, "nosuid") || !slices.Contains(m.Options, "nodev") {
			t.Errorf("got the volume %+v, want %+v", m, want)
		}
	}
	for _, m := range got.Mounts[:at] {
		if strings.HasPrefix(m.Source, "/") || m.Type == "bind" {
			t.Errorf("%s is a directory of the machine, %s", m.Destination, m.Source)
		}
		if m.Destination == "/sys" && !slices.Contains(m.Options, "ro") || m.Destination == "/dev/shm" && !slices.Contains(m.Options, "size=1000") {
			t.Errorf("%s is mounted with %v", m.Destination, m.Options)
		}
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
}
