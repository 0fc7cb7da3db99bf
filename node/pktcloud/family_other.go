//go:build !linux

package main

import "os/exec"

// bindLife does nothing: the demo runs on Linux only.
func bindLife(*exec.Cmd) {}
