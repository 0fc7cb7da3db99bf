package node

import (
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// openRuntime opens what runs containers.
func openRuntime(Config) (*workload, func() error, error) {
	return nil, nil, service.Errorf(service.CodeMissing, "this build cannot run containers")
}
