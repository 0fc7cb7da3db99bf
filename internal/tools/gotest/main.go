// Command gotest runs go test, passes on what matters of its output as it
// comes, and ends with totals. It can pick the packages that have tests behind a
// build tag, check first what the machine offers, and count a skipped test as a
// failure.
//
//	gotest -race ./...
//	gotest -tagged system -capabilities .ci/capabilities -doctor "bin/pktcloud doctor --json" -p 1
package main

import (
	"errors"
	"flag"
	"fmt"
	"go/build/constraint"
	"go/parser"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pkt-cash/pkt-cloud/internal/source"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	tagged, capabilities, doctor, verbose, logs := "", "", "", false, false
	// The flags of go test follow ours and are not known here.
	ours := flag.NewFlagSet("gotest", flag.ContinueOnError)
	ours.StringVar(&tagged, "tagged", "", "run the packages that have test files behind this build `tag`, with the tag set")
	ours.StringVar(&capabilities, "capabilities", "", "check first that the machine has what this `file` lists, and count skipped tests as failures, but those that name something optional of it")
	ours.StringVar(&doctor, "doctor", "", "the `command` that checks the machine; see capabilities")
	ours.BoolVar(&verbose, "each", false, "print a line for each test, not only for each package")
	ours.BoolVar(&logs, "logs", false, "print what tests say as they say it, be they good or not")
	// Parsed one by one, since flag refuses those of go test.
	for len(args) > 0 {
		name, _, _ := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
		if ours.Lookup(name) == nil {
			break
		}
		n := 1
		if !strings.Contains(args[0], "=") && name != "each" && name != "logs" {
			n = 2
		}
		if err := ours.Parse(args[:min(n, len(args))]); err != nil {
			return err
		}
		args = args[min(n, len(args)):]
	}

	s := summary{out: os.Stdout, each: verbose, logs: logs}
	if capabilities != "" {
		text, err := os.ReadFile(capabilities)
		if err != nil {
			return err
		}
		list, err := parseCapabilities(string(text))
		if err != nil {
			return err
		}
		report, err := askDoctor(doctor)
		if err != nil {
			return err
		}
		if err := checkCapabilities(os.Stdout, list, report, onPath, isBuilt); err != nil {
			return err
		}
		s.noSkips, s.optional = true, optionalNames(list)
	}
	command := append([]string{"test", "-json"}, args...)
	if tagged != "" {
		tree, err := source.Load(os.DirFS("."), parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		folders := taggedFolders(tree, tagged)
		if len(folders) == 0 {
			return fmt.Errorf("no test file is behind the build tag %q", tagged)
		}
		command = append(append(command, "-tags", tagged), folders...)
	}
	return s.follow(exec.Command("go", command...))
}

// follow runs go test and returns an error when it, or a test, failed.
func (s *summary) follow(cmd *exec.Cmd) error {
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := s.read(stdout)
	waitErr := cmd.Wait()
	ok := s.finish(waitErr == nil)
	if err := errors.Join(readErr, waitErr); err != nil {
		return err
	}
	if !ok {
		return errors.New("not all that should have run did")
	}
	return nil
}

// taggedFolders returns the folders with a test file whose build constraint
// names tag, as arguments for go test.
func taggedFolders(tree *source.Tree, tag string) []string {
	var folders []string
	for _, f := range tree.Files {
		folder := "./" + f.Dir
		if !f.Test || slices.Contains(folders, folder) {
			continue
		}
		for _, group := range f.AST.Comments {
			for _, c := range group.List {
				if c.Pos() < f.AST.Package && constraint.IsGoBuild(c.Text) && namesTag(c.Text, tag) {
					folders = append(folders, folder)
				}
			}
		}
	}
	return folders
}

func namesTag(line, tag string) bool {
	expr, err := constraint.Parse(line)
	if err != nil {
		return false
	}
	// The file counts when setting the tag can bring it in.
	with := expr.Eval(func(string) bool { return true })
	without := expr.Eval(func(name string) bool { return name != tag })
	return with && !without
}

func onPath(command string) bool {
	_, err := exec.LookPath(command)
	return err == nil
}

// isBuilt reports whether a program is where scripts/NAME puts what it builds.
func isBuilt(program string) bool {
	cache, err := os.UserCacheDir()
	if err != nil {
		return false
	}
	found, _ := filepath.Glob(filepath.Join(cache, "pktcloud-tools", program+"-*"))
	return len(found) > 0
}
