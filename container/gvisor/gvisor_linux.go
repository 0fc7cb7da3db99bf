//go:build cgo && amd64

package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/internal/sandbox"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// monitorArg tells a process of this binary that it is a monitor.
const monitorArg = "pktcloud-monitor-gvisor"

func init() {
	if len(os.Args) == 2 && os.Args[0] == monitorArg && os.Getenv(libcontainer.MonitorEnv) != "" {
		os.Exit(libcontainer.Monitor(os.Args[1], &engine{}))
	}
}

// New opens a runtime over cfg.Dir that runs every container in gVisor, but for
// those that demand another class. Errors are those of [Find] and of
// libcontainer.New.
func New(cfg Config) (*libcontainer.Runtime, error) {
	class, err := Find(cfg.Runsc)
	if err != nil {
		return nil, err
	}
	cfg.Classes = append(cfg.Classes, class)
	cfg.Default = class.Name
	return libcontainer.New(cfg.Config)
}

// install is what a machine without runsc is told.
const install = "install it from gvisor.dev, or with: go install gvisor.dev/gvisor/runsc@" + Version

// Find looks for runsc at path, or in PATH if that is empty, and returns the
// class for libcontainer.Config. It runs it to see that it can do what the
// driver needs. Errors are [container.CodeMissingFeature] and say what to
// install.
func Find(path string) (sandbox.Class, error) {
	missing := func(detail string, err error) (sandbox.Class, error) {
		return sandbox.Class{}, &container.Error{Code: container.CodeMissingFeature, Detail: detail + "; " + install, Err: err}
	}
	if path == "" {
		path = "runsc"
	}
	found, err := exec.LookPath(path)
	if err == nil {
		found, err = filepath.Abs(found)
	}
	if err == nil {
		found, err = filepath.EvalSymlinks(found)
	}
	if err != nil {
		return missing("gVisor's program runsc is not there", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, command := range []string{"run", "exec"} {
		out, err := exec.CommandContext(ctx, found, "help", command).CombinedOutput()
		for _, flag := range []string{"-exec-fd", "-pass-fd"} {
			if err == nil && !strings.Contains(string(out), flag) {
				err = fmt.Errorf("runsc %s does not know %s", command, flag)
			}
		}
		if err != nil {
			return missing(found+" is too old, or no runsc", err)
		}
	}
	return sandbox.Class{Name: container.ClassGVisor, Monitor: monitorArg, Option: found, MinMemoryBytes: MinMemoryBytes}, nil
}

var errEnded = errors.New("runsc ended")
