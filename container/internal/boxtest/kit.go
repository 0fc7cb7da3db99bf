//go:build linux && cgo && amd64

package boxtest

import (
	"fmt"
	"path/filepath"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
)

// Fixture is what containertest's kits need to know of the world and its image.
func (w *World) Fixture() containertest.Fixture {
	w.T.Helper()
	badRef, badDigest := w.badLayout()
	return containertest.Fixture{
		Ref: w.Ref, UnknownRef: "oci:/no/such/layout", BadRef: badRef, BadDigest: badDigest, QuitRef: w.QuitRef, Say: []string{"echo"},
		Serve: Sh("echo serving; exec nc -ll -p 8080 -e echo hello"), Port: 8080,
		Exit: func(code int) []string { return Sh(fmt.Sprintf("echo out; echo err >&2; exit %d", code)) },
		Late: func(code int) []string { return Sh(fmt.Sprintf("sleep 0.3; exit %d", code)) },
		Cat:  []string{"cat"}, Env: Sh("echo $NAME"),
		Trap: Sh("trap 'echo usr2' USR2; trap 'echo term; exit 5' TERM; trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done"),
		// Files in memory cannot be freed. A shell that waits takes up orphans.
		Hold: func(n uint64) []string {
			return Sh(fmt.Sprintf("dd if=/dev/zero of=/dev/shm/held bs=1M count=%d; echo holding; sleep 1000 & wait", n>>20))
		},
		Exhaust: []string{"dd", "if=/dev/zero", "of=/dev/null", fmt.Sprintf("bs=%dM", w.kind.Limits.MemoryBytes>>20*3), "count=1"},
		Fork:    Sh("i=0; while [ $i -lt 200 ]; do sleep 3 & i=$((i+1)); done"),
		Fill:    Sh("dd if=/dev/zero of=/fill bs=64k; dd if=/dev/zero of=/fill count=0 conv=notrunc,fsync"),
		Spin:    Sh("spin() { i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; }; spin & spin; wait"),
		Reopen: func(meanwhile func()) (container.Runtime, error) {
			if err := w.RT.Close(); err != nil {
				return nil, err
			}
			meanwhile()
			w.Open()
			return w.RT, nil
		},
		Left: func() []string {
			boxes, _ := filepath.Glob(w.Box("*"))
			return append(boxes, w.ContainerTraces()...)
		},
		Limits:   w.kind.Limits,
		Write:    func(path, text string) []string { return Sh("echo -n " + text + " > " + path) },
		Read:     func(path string) []string { return []string{"cat", path} },
		FillFile: func(path string) []string { return []string{"dd", "if=/dev/zero", "of=" + path, "bs=1M"} },
	}
}
