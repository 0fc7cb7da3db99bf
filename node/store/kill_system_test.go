//go:build system

package store_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/node/store"
)

// TestKilledWriter kills a process that writes, at arbitrary moments, and
// finds every change that it had reported, whole.
func TestKilledWriter(t *testing.T) {
	if path := os.Getenv("PKTCLOUD_STORE_TEST"); path != "" {
		writeUntilKilled(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "node.db")
	last := -1
	for round := range 20 {
		last = max(last, runAndKill(t, path, time.Duration(5+7*round)*time.Millisecond))
		s, err := store.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		a, b := readPair(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if a != b || a < last {
			t.Fatalf("round %d: got a=%d b=%d, want them equal and at least %d", round, a, b, last)
		}
	}
	if last < 10 {
		t.Fatalf("only %d changes were written in all", last)
	}
}

func readPair(t *testing.T, s *store.Store) (a, b int) {
	t.Helper()
	a, b = -1, -1
	err := s.Load(t.Context(), "", func(key string, value []byte) (err error) {
		if key == "a" {
			a, err = strconv.Atoi(string(value))
		} else {
			b, err = strconv.Atoi(string(value))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func writeUntilKilled(t *testing.T, path string) {
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := readPair(t, s)
	fmt.Println("ready")
	for n := a + 1; ; n++ {
		v := []byte(strconv.Itoa(n))
		if err := s.Apply(t.Context(), []store.Put{{Key: "a", Value: v}, {Key: "b", Value: v}}); err != nil {
			t.Fatal(err)
		}
		fmt.Println(n)
	}
}

// runAndKill returns the last change that the writer reported.
func runAndKill(t *testing.T, path string, after time.Duration) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWriter$")
	cmd.Env = append(os.Environ(), "PKTCLOUD_STORE_TEST="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := -1
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "ready" {
			time.AfterFunc(after, func() { cmd.Process.Kill() })
		} else if n, err := strconv.Atoi(lines.Text()); err == nil {
			last = n
		}
	}
	cmd.Wait()
	return last
}
