//go:build system && linux && cgo && amd64

package libcontainer_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

const fakeDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000001"

type dirImages struct{ root string }

func (d dirImages) Pull(_ context.Context, ref string, o container.PullOptions) (container.Image, error) {
	if ref != "busybox" {
		return container.Image{}, &container.Error{Code: container.CodeUnknownImage}
	}
	if o.MaxBytes == 1 {
		return container.Image{}, &container.Error{Code: container.CodeTooLarge}
	}
	if o.Progress != nil {
		o.Progress(1, 1)
	}
	return container.Image{Digest: fakeDigest}, nil
}

func (d dirImages) Root(digest string) (container.Image, string, uint32, error) {
	if digest != fakeDigest {
		return container.Image{}, "", 0, &container.Error{Code: container.CodeUnknownImage}
	}
	return container.Image{Digest: fakeDigest}, d.root, 0, nil
}

func busyboxRoot(t *testing.T) string {
	root := t.TempDir()
	b, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		t.Skip(err)
	}
	os.Chmod(root, 0o755)
	os.MkdirAll(filepath.Join(root, "bin"), 0o755)
	os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755)
	for _, n := range []string{"sh", "cat", "echo", "nc", "sleep", "true", "unshare", "env", "id", "grep", "dd", "mount", "ls", "httpd", "stty"} {
		os.Symlink("busybox", filepath.Join(root, "bin", n))
	}
	return root
}

func TestKit(t *testing.T) {
	rt, err := libcontainer.New(libcontainer.Config{Dir: t.TempDir(), Images: dirImages{busyboxRoot(t)}})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	begun := time.Now()
	ctx := context.Background()
	for i := range 5 {
		begun = time.Now()
		id := fmt.Sprintf("warm-%d", i)
		err = rt.Start(ctx, container.Spec{ID: id, Image: fakeDigest, Args: []string{"sleep", "1000"}, Limits: container.Limits{MilliCPU: 1000, MemoryBytes: 64 << 20, DiskBytes: 16 << 20, Pids: 64}})
		t.Log(time.Since(begun), err)
		begun = time.Now()
		err = rt.Destroy(ctx, id)
		t.Log("destroy", time.Since(begun), err)
	}
	sh := func(s string) []string { return []string{"sh", "-c", s} }
	err = containertest.TestRuntime(rt, containertest.Fixture{
		Ref: "busybox", UnknownRef: "none",
		Serve: sh("echo serving; exec nc -ll -p 8080 -e echo hello"), Port: 8080,
		Exit: func(code int) []string { return sh(fmt.Sprintf("echo out; echo err >&2; exit %d", code)) },
		Cat:  []string{"cat"}, Env: sh("echo $NAME"),
	})
	if err != nil {
		t.Error(err)
	}
	_ = strings.TrimSpace
}
