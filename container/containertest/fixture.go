package containertest

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/pkt-cash/pkt-cloud/container"
)

// TwinRef is the image of [NewTwinWithPrograms].
const TwinRef = "twin:latest"

// NewTwinWithPrograms returns a twin whose image [TwinRef] has the programs
// "serve PORT", "exit CODE", "cat", "env" and "sleep", and its fixture for
// [TestRuntime].
func NewTwinWithPrograms() (*Twin, Fixture) {
	img := TwinImage{
		Image: container.Image{
			Digest: "sha256:" + strings.Repeat("a", 64), Index: "sha256:" + strings.Repeat("a", 64), SizeBytes: 1 << 20,
			UnpackedBytes: 1 << 20, OS: "linux", Arch: "amd64", Args: []string{"serve", "8080"}, Ports: []uint16{8080},
		},
		Programs: map[string]Program{"serve": serve, "exit": exit, "cat": cat, "env": env, "sleep": sleep},
	}
	return NewTwin(map[string]TwinImage{TwinRef: img}), Fixture{
		Ref: TwinRef, UnknownRef: "none:latest", Serve: []string{"serve", "8080"}, Port: 8080,
		Exit: func(code int) []string { return []string{"exit", strconv.Itoa(code)} },
		Cat:  []string{"cat"}, Env: []string{"env"},
	}
}

func serve(ctx context.Context, p *Process) int {
	port := 8080
	if len(p.Args) > 1 {
		port, _ = strconv.Atoi(p.Args[1])
	}
	l, err := p.Listen(uint16(port))
	if err != nil {
		return 1
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	fmt.Fprintln(p.Stdout, "serving")
	for {
		c, err := l.Accept()
		if err != nil {
			return 0
		}
		_, _ = io.WriteString(c, "hello\n")
		_ = c.Close()
	}
}

func exit(_ context.Context, p *Process) int {
	fmt.Fprintln(p.Stdout, "out")
	fmt.Fprintln(p.Stderr, "err")
	if len(p.Args) < 2 {
		return 0
	}
	code, _ := strconv.Atoi(p.Args[1])
	return code
}

func cat(_ context.Context, p *Process) int {
	_, _ = io.Copy(p.Stdout, p.Stdin)
	return 0
}

func env(_ context.Context, p *Process) int {
	value := ""
	for _, v := range p.Env {
		if s, ok := strings.CutPrefix(v, "NAME="); ok {
			value = s
		}
	}
	fmt.Fprintln(p.Stdout, value)
	return 0
}

func sleep(ctx context.Context, _ *Process) int {
	<-ctx.Done()
	return 0
}
