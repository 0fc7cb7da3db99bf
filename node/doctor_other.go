//go:build !linux

package node

import (
	"runtime"

	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

func machineChecks() []service.Check {
	return []service.Check{{
		Name: "platform", Needed: "provider", Detail: "containers run on Linux only; this is " + runtime.GOOS,
		Remedy: "rent from here, and provide from a Linux machine",
	}}
}

// space is the machine's memory and the free disk of a directory.
func space(string) (memory, disk uint64) {
	return market.Reference.MemoryBytes, market.Reference.DiskBytes
}

// checkLost finds nothing: there are no containers.
func checkLost(string) []service.Check { return nil }
