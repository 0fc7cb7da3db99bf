//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/pkt-cash/pkt-cloud/container"
)

// firstProgram lets the runtime start programs while somebody inside waits for
// that, to write to them.
func (s *siege) firstProgram(id string) string {
	return s.whileStarting(id, "watch", "fs/first-program")
}

// traceStart does so while somebody inside waits to trace them.
func (s *siege) traceStart(id string) string { return s.whileStarting(id, "trace", "proc/trace-start") }

// whileStarting lets the runtime start programs beside a command of the attack.
// A long PATH makes the moment longer.
func (s *siege) whileStarting(id, command, name string) string {
	s.T.Helper()
	type result struct {
		out string
		err error
	}
	done := make(chan result)
	r, w, _ := os.Pipe()
	defer r.Close()
	go func() {
		var b bytes.Buffer
		_, err := s.RT.Exec(s.T.Context(), id, container.ExecSpec{Args: []string{"/attack", command}, Stdout: &tee{&b, w}})
		w.Close()
		done <- result{b.String(), err}
	}()
	_, _ = r.Read(make([]byte, 64)) // it watches
	path := "PATH=" + strings.Repeat("/a:", 20000) + "/"
	for range tries(20) {
		_, _ = s.RT.Exec(s.T.Context(), id, container.ExecSpec{Args: []string{"no-such-program"}, Env: []string{path}})
		select {
		case got := <-done:
			return s.verdict(name, got.out, got.err)
		default:
		}
	}
	got := <-done
	return s.verdict(name, got.out, got.err)
}

func (s *siege) verdict(name, out string, err error) string {
	if err != nil {
		s.T.Fatal(err)
	}
	return verdicts(out)[name]
}

// tee writes to two places and never fails.
type tee struct {
	b *bytes.Buffer
	w *os.File
}

func (t *tee) Write(p []byte) (int, error) {
	_, _ = t.w.Write(p)
	return t.b.Write(p)
}

// workingDirectory starts a program in a directory of the machine.
func (s *siege) workingDirectory(id string) string { return s.startIn(id, s.machine) }

// descriptorDirectory starts programs in whatever descriptors their first
// process may have had open: in the container, and as the first of another that
// lacks the same defences.
func (s *siege) descriptorDirectory(id string) string {
	s.T.Helper()
	var dirs []string
	for fd := 3; fd < 3+tries(17); fd++ {
		dirs = append(dirs, fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	last := s.startIn(id, dirs...)
	for i, dir := range dirs {
		first := fmt.Sprintf("%s-first-%d", id, i)
		spec := s.lease(first, append([]string{"log cap"}, s.shared...)...)
		spec.Args, spec.WorkDir = []string{"/attack", "where"}, dir
		if err := s.RT.Start(s.T.Context(), spec); err != nil {
			continue
		}
		s.Await(first, func(st container.Status) bool { return st.State == container.Exited })
		if strings.Contains(s.Logs(first), "outside") {
			last = "SUCCEEDED"
		}
		s.destroy(first)
	}
	return last
}

func (s *siege) startIn(id string, dirs ...string) string {
	s.T.Helper()
	last := "could not"
	for _, dir := range dirs {
		var b bytes.Buffer
		_, err := s.RT.Exec(s.T.Context(), id, container.ExecSpec{Args: []string{"/attack", "where"}, WorkDir: dir, Stdout: &b, Stderr: &b})
		if strings.Contains(b.String(), "outside") {
			return "SUCCEEDED"
		}
		if err != nil {
			last = "could not: it does not start"
		}
	}
	return last
}
