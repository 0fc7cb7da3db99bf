// Command node is what TestUpgrade kills and replaces: a program over a
// runtime, of a version that the linker sets.
//
//	node DIR start ID SCRIPT…   starts a container for each pair, and waits
//	node DIR look               prints what it finds, as JSON, and exits
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

var version = "none"

// service is what the next version knows of one container.
type service struct {
	Status container.Status
	Usage  container.Usage
	Log    string
	Exec   string
}

func main() {
	ctx := context.Background()
	dir, args := os.Args[1], os.Args[3:]
	store := must(image.Open(image.Config{Dir: filepath.Join(dir, "images"), Local: true}))
	rt := must(libcontainer.New(libcontainer.Config{Dir: filepath.Join(dir, "run"), Images: store}))
	if os.Args[2] == "start" {
		img := must(rt.Pull(ctx, "oci:"+filepath.Join(dir, "layout"), container.PullOptions{}))
		for ; len(args) > 1; args = args[2:] {
			s := container.Spec{ID: args[0], Image: img.Digest, Args: []string{"sh", "-c", args[1]}, Limits: container.SmallLimits()}
			must(0, rt.Start(ctx, s))
		}
		fmt.Println("version", version)
		select {}
	}
	out := map[string]service{}
	for _, st := range must(rt.List(ctx)) {
		s := service{Status: st, Usage: must(rt.Usage(ctx, st.ID))}
		s.Log = string(must(io.ReadAll(must(rt.Logs(ctx, st.ID, container.LogOptions{})))))
		if st.State == container.Running {
			var b bytes.Buffer
			must(rt.Exec(ctx, st.ID, container.ExecSpec{Args: []string{"hostname"}, Stdout: &b}))
			s.Exec = b.String()
			l := st.Limits
			l.Pids++
			must(0, rt.Update(ctx, st.ID, l))
		}
		out[st.ID] = s
	}
	must(0, json.NewEncoder(os.Stdout).Encode(map[string]any{"Version": version, "Services": out}))
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
