package node

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/gvisor"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/internal/dialer"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// openRuntime opens what runs containers, and returns what lets go of it.
// Containers go on running.
func openRuntime(c Config) (*workload, func() error, error) {
	if err := c.LeaseNetwork.validate(); err != nil {
		return nil, nil, err
	}
	if c.Runtime != nil {
		look, _ := c.Runtime.(inspector)
		return &workload{runtime: c.Runtime, look: look, lend: c.LeaseNetwork, log: c.Log}, func() error { return nil }, nil
	}
	d, err := dialer.New(c.AllowDial)
	if err != nil {
		return nil, nil, service.Errorf(service.CodeInvalid, "addresses that may be dialled: %v", err)
	}
	var runtime *libcontainer.Runtime
	images, err := image.Open(image.Config{
		Dir: filepath.Join(c.Dir, imagesDir), Dial: d.DialContext, MaxStoreBytes: c.ImageBytes,
		InUse: func(ctx context.Context) ([]string, error) { return imagesOf(ctx, runtime) },
	})
	if err != nil {
		return nil, nil, err
	}
	var classes []libcontainer.Class
	switch class, err := gvisor.Find(c.Runsc); {
	case err == nil:
		classes = append(classes, class)
	case c.Runsc != "":
		return nil, nil, errors.Join(err, images.Close())
	}
	runtime, err = libcontainer.New(libcontainer.Config{
		Dir: filepath.Join(c.Dir, runtimeDir), Images: images, Monitor: c.Monitor, Files: c.Files, IOBytesPerSecond: c.ContainerIO, Classes: classes,
		Network: c.LeaseNetwork.config(),
	})
	if err != nil {
		return nil, nil, errors.Join(err, images.Close())
	}
	w := &workload{runtime: runtime, look: images, images: images, lend: c.LeaseNetwork, log: c.Log}
	return w, func() error { return errors.Join(runtime.Close(), images.Close()) }, nil
}

// imagesOf returns the images that containers were started from, ended ones
// too: they may be looked at until their lease is over.
func imagesOf(ctx context.Context, r container.Runtime) ([]string, error) {
	list, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range list {
		if s.Image == "" { // it cannot be read now: any may be its own
			return nil, &container.Error{Code: container.CodeRuntime, Detail: s.ID + " does not say its image"}
		}
		out = append(out, s.Image)
	}
	return out, nil
}
