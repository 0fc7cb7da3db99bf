package node

import (
	"errors"
	"path/filepath"

	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// openRuntime opens what runs containers, and returns what lets go of it.
// Containers go on running.
func openRuntime(c Config) (*workload, func() error, error) {
	if c.Runtime != nil {
		return &workload{runtime: c.Runtime, log: c.Log}, func() error { return nil }, nil
	}
	d, err := dialer.New(c.AllowDial)
	if err != nil {
		return nil, nil, service.Errorf(service.CodeInvalid, "addresses that may be dialled: %v", err)
	}
	images, err := image.Open(image.Config{Dir: filepath.Join(c.Dir, imagesDir), Dial: d.DialContext})
	if err != nil {
		return nil, nil, err
	}
	runtime, err := libcontainer.New(libcontainer.Config{Dir: filepath.Join(c.Dir, runtimeDir), Images: images})
	if err != nil {
		return nil, nil, errors.Join(err, images.Close())
	}
	return &workload{runtime: runtime, log: c.Log}, func() error { return errors.Join(runtime.Close(), images.Close()) }, nil
}
