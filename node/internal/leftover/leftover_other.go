//go:build !linux

package leftover

import (
	"context"
	"os"
)

// Run is one run and its directory.
type Run struct{ Dir string }

// New makes a directory for a run of this process.
func New(prefix string, _ bool) (*Run, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	return &Run{Dir: dir}, nil
}

// Close does nothing.
func (*Run) Close() error { return nil }

// Sweep does nothing: containers run on Linux only.
func Sweep(context.Context, string) ([]string, error) { return nil, nil }

// Containers does nothing.
func Containers(context.Context, string) error { return nil }

// What does nothing.
func What(string) []string { return nil }

// Groups does nothing.
func Groups(string) []string { return nil }
