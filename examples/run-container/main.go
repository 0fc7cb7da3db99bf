// Run-container runs a program of this machine in a container and shows what it wrote.
package main

import (
	"context"
	"io"
	"log"
	"os"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

func main() {
	ctx, dir := context.Background(), must(os.MkdirTemp("", "run-container"))
	must(0, image.WriteLayout(dir+"/layout", must(image.FromExecutable("/bin/echo", image.Build{Args: []string{"echo", "hello"}}))))
	rt := must(libcontainer.New(libcontainer.Config{Dir: dir, Images: must(image.Open(image.Config{Dir: dir + "/images", Local: true}))}))
	img := must(rt.Pull(ctx, "oci:"+dir+"/layout", container.PullOptions{}))
	must(0, rt.Start(ctx, container.Spec{ID: "hello", Image: img.Digest, Limits: container.SmallLimits()}))
	defer func() { _, _ = rt.Destroy(ctx, "hello"), os.RemoveAll(dir) }()
	must(io.Copy(os.Stdout, must(rt.Logs(ctx, "hello", container.LogOptions{Follow: true}))))
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Panic(err)
	}
	return v
}
