package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// watcher is what a process that watches over one container is called; the
// container's directory follows.
const watcher = "pktcloud-monitor"

// checkLost finds containers that run on although the directory of their node
// is gone: no node can take them up again, or end them. There is no such check
// on a machine without.
func checkLost(proc string) []service.Check {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	lost := map[string][]string{} // processes, by the directory of their runtime
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		args, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		fields := strings.Split(string(args), "\x00")
		if err != nil || len(fields) < 2 || fields[0] != watcher || !filepath.IsAbs(fields[1]) {
			continue
		}
		runtime := filepath.Dir(filepath.Dir(fields[1])) // RUNTIME/boxes/ID
		if _, err := os.Stat(runtime); errors.Is(err, fs.ErrNotExist) {
			lost[runtime] = append(lost[runtime], e.Name()) // first, or it would tell of the others' end
		}
	}
	var checks []service.Check
	for runtime, pids := range lost {
		group := "/" + libcontainer.Group(runtime) + "/"
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(proc, e.Name(), "cgroup"))
			if err == nil && strings.Contains(string(b), group) && !slices.Contains(pids, e.Name()) {
				pids = append(pids, e.Name())
			}
		}
		checks = append(checks, check("directory", false, "", fmt.Sprintf("%s is gone, and containers that were started from it run on", runtime),
			"put it back, or end them: kill -9 "+strings.Join(pids, " ")))
	}
	slices.SortFunc(checks, func(a, b service.Check) int { return strings.Compare(a.Detail, b.Detail) })
	return checks
}
