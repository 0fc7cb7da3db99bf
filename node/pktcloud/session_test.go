package main

import (
	"io"
	"slices"
	"testing"
)

// TestExecArguments: flags stand before the program, and what stands behind its
// name is the program's.
func TestExecArguments(t *testing.T) {
	for _, line := range [][]string{
		{"-t", "L", "sh", "-c", "x -t"},
		{"L", "-t", "sh", "-c", "x -t"},
		{"L", "-it", "--", "sh", "-c", "x -t"},
		{"-it", "L", "--", "sh", "-c", "x -t"},
		{"-i", "-t", "--", "L", "sh", "-c", "x -t"},
	} {
		c := (&app{in: nil, out: io.Discard, err: io.Discard}).execCommand()
		if err := c.ParseFlags(line); err != nil {
			t.Fatal(err)
		}
		args := c.Flags().Args()
		if err := c.ValidateArgs(args); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		tty, err := c.Flags().GetBool("tty")
		if got := c.Flags().Args(); err != nil || args[0] != "L" || !tty || !slices.Equal(got, []string{"sh", "-c", "x -t"}) {
			t.Errorf("%q: got lease %q, %q, a terminal: %t, %v", line, args[0], got, tty, err)
		}
	}
}
