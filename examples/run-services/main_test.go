//go:build linux && cgo && amd64

package main

import (
	"io"
	"os"
	"testing"

	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

func TestExample(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: real containers are started")
	}
	if err := libcontainer.CheckVolumes(); err != nil {
		t.Skip(err)
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
	if err != nil || string(got) != "visit 1\nvisit 2\n" {
		t.Errorf("got %q, %v", got, err)
	}
}
