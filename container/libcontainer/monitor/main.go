// Command monitor is nothing but the monitors of package libcontainer: a
// program that a larger one carries within it, as Config.Monitor, so that each
// container has a small process beside it and not a copy of the large one. It
// is of no use by itself.
//
// "make build" makes it, static and without symbols, and puts it into
// pktcloud.
package main

import (
	"fmt"
	"os"

	_ "github.com/pkt-cash/pkt-cloud/container/libcontainer" // acts in its init function
)

func main() {
	fmt.Fprintln(os.Stderr, "monitor: this program is started by pktcloud, for one container each")
	os.Exit(2)
}
