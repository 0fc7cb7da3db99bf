//go:build linux && cgo && amd64

package main

import (
	"io"
	"os"
	"strings"
	"testing"
)

func TestExample(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	main()
	os.Stdout = stdout
	w.Close()
	got, err := io.ReadAll(r)
	if err != nil || !strings.HasSuffix(string(got), " stdout hello\n") {
		t.Errorf("got %q, %v", got, err)
	}
}
