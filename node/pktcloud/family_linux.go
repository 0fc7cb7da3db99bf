package main

import (
	"os/exec"
	"syscall"
)

// bindLife keeps the terminal's signals from a child, and ends it in order
// when this program dies.
func bindLife(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
