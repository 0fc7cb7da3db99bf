package node

import "github.com/pkt-cash/pkt-cloud/node/service"

// Examine looks at the machine: what renting and providing need. It changes
// nothing.
func Examine() service.Report {
	r := service.Report{OK: true, Provider: true, Checks: append([]service.Check{}, machineChecks()...)}
	for _, c := range r.Checks {
		if !c.OK && c.Needed == "tenant" {
			r.OK = false
		}
		if !c.OK && c.Needed != "volumes" {
			r.Provider = false
		}
	}
	r.Checks = append(r.Checks, checkLost("/proc")...) // nothing that anybody needs
	return r
}
