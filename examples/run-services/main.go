// Run-services runs two services that find each other by name: web, behind a port
// of this machine, and db, which counts in a volume.
package main

import (
	"context"
	"log"
	"os"
	"path/filepath"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

func main() {
	ctx, dir, self := context.Background(), must(os.MkdirTemp("", "run-services")), filepath.Base(os.Args[0])
	must(0, image.WriteLayout(dir+"/layout", must(image.FromExecutable(must(os.Executable()), image.Build{}))))
	rt := must(libcontainer.New(libcontainer.Config{Dir: dir, Images: must(image.Open(image.Config{Dir: dir + "/images", Local: true}))}))
	img := must(rt.Pull(ctx, "oci:"+dir+"/layout", container.PullOptions{}))
	volume := container.VolumeSpec{VolumeID: container.VolumeID{Lease: "shop", Name: "data"}, SizeBytes: container.MinVolumeBytes}
	must(0, rt.CreateVolume(ctx, volume))
	defer func() {
		_, _, _, _ = rt.Destroy(ctx, "web"), rt.Destroy(ctx, "db"), rt.RemoveVolume(ctx, volume.VolumeID), os.RemoveAll(dir)
	}()
	db := container.Spec{ID: "db", Image: img.Digest, Args: []string{self, "db"}, Lease: "shop", Limits: limits}
	db.Volumes, db.Network = []container.Mount{{Volume: "data", Path: "/data"}}, container.Network{Group: "shop", Name: "db"}
	must(0, rt.Start(ctx, db))
	web := container.Spec{ID: "web", Image: img.Digest, Args: []string{self, "web"}, Limits: limits}
	web.Network = container.Network{Group: "shop", Name: "web", Publish: []container.PublishedPort{{Port: port, Inside: port, Protocol: container.TCP}}}
	must(0, rt.Start(ctx, web))
	visit(2)
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Panic(err)
	}
	return v
}
