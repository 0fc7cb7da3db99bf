// Command light measures what embedding one package costs: for each package of
// limits.txt it writes a module that imports that package alone, lists what it
// would compile, builds it, and compares the number of modules and the size of
// the stripped binary with the limits. It fails for a module that embedders must
// never compile.
//
// Run it in the root of the tree. With -update it writes limits.txt anew, a tenth
// above what was measured.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pkt-cash/pkt-cloud/internal/source"
)

const limitsFile = "internal/tools/light/limits.txt"

// neverModules begin the paths of modules that no light package may need.
var neverModules = []string{
	"github.com/libp2p/", "github.com/opencontainers/runc", "modernc.org/sqlite", "github.com/containerd/containerd",
	"github.com/google/go-containerregistry", "github.com/spf13/cobra", "github.com/danielgtaylor/huma", "gvisor.dev/",
}

func main() {
	update := flag.Bool("update", false, "write "+limitsFile+" anew")
	flag.Parse()
	if err := run(*update); err != nil {
		fmt.Fprintln(os.Stderr, "light:", err)
		os.Exit(1)
	}
}

func run(update bool) error {
	text, err := os.ReadFile(limitsFile)
	if err != nil {
		return err
	}
	limits, err := parseLimits(string(text))
	if err != nil {
		return err
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	var faults []error
	for i, l := range limits {
		c, err := measure(root, l.folder)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", l.folder, err))
			continue
		}
		fmt.Printf("%-10s %2d modules (limit %d)  %8d bytes (limit %d)\n", l.folder, len(c.modules), l.modules, c.bytes, l.bytes)
		faults = append(faults, never(l.folder, c.modules))
		if update {
			limits[i] = limit{l.folder, len(c.modules), c.bytes + c.bytes/10}
		} else {
			faults = append(faults, l.check(c))
		}
	}
	if update {
		if err := os.WriteFile(limitsFile, []byte(formatLimits(limits)), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(faults...)
}

// cost is what a package brings along: outside modules, and a binary's size.
type cost struct {
	modules []string
	bytes   int64
}

// measure builds a program that embeds one package, in a module of its own.
func measure(root, folder string) (cost, error) {
	dir, err := os.MkdirTemp("", "pktcloud-light-")
	if err != nil {
		return cost{}, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return cost{}, err
	}
	program, err := os.ReadFile(filepath.Join(root, "internal/tools/light/testdata", folder+".go.txt"))
	if err != nil {
		return cost{}, err
	}
	for name, text := range map[string][]byte{
		"go.mod":  fmt.Appendf(nil, "module scratch\n\ngo 1.26\n\nrequire %s v0.0.0\n\nreplace %s => %s\n", source.Module, source.Module, root),
		"go.sum":  sums,
		"main.go": program,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return cost{}, err
		}
	}
	list, err := goCommand(dir, "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".")
	if err != nil {
		return cost{}, err
	}
	if _, err := goCommand(dir, "build", "-trimpath", "-ldflags=-s -w", "-o", "scratch", "."); err != nil {
		return cost{}, err
	}
	info, err := os.Stat(filepath.Join(dir, "scratch"))
	if err != nil {
		return cost{}, err
	}
	return cost{outsideModules(list), info.Size()}, nil
}

// outsideModules returns the sorted modules of a list, but ours and the scratch
// module.
func outsideModules(list string) []string {
	modules := strings.Fields(list)
	slices.Sort(modules)
	modules = slices.Compact(modules)
	return slices.DeleteFunc(modules, func(m string) bool { return m == source.Module || m == "scratch" })
}

func goCommand(dir string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false", "GOWORK=off", "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, stderr.String())
	}
	return string(out), nil
}

func never(folder string, modules []string) error {
	var faults []error
	for _, m := range modules {
		if slices.ContainsFunc(neverModules, func(prefix string) bool { return strings.HasPrefix(m+"/", prefix) || m == prefix }) {
			faults = append(faults, fmt.Errorf("%s: an embedder would compile %s; move what imports it to a running half (go mod why -m shows the way)", folder, m))
		}
	}
	return errors.Join(faults...)
}
