//go:build monitor

package main

import _ "embed"

// monitorProgram is container/libcontainer/monitor, which "make build" has
// built just before.
//
//go:embed monitor.bin
var monitorProgram []byte
