package containertest

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// References of [NewTwinWithPrograms].
const (
	TwinRef     = "twin:latest"
	twinQuitRef = "twin:quit"
	twinBadRef  = "twin:bad"
)

// NewTwinWithPrograms returns a twin whose image [TwinRef] has the programs of
// a [Fixture], such as "serve PORT" and "exit CODE", and its fixture for
// [TestRuntime] and [TestVolumes].
func NewTwinWithPrograms() (*Twin, Fixture) {
	img := TwinImage{
		Image: container.Image{
			Digest: "sha256:" + strings.Repeat("a", 64), Index: "sha256:" + strings.Repeat("a", 64), SizeBytes: 1 << 20,
			UnpackedBytes: 1 << 20, OS: "linux", Arch: "amd64", Args: []string{"serve", "8080"}, Ports: []uint16{8080},
		},
		Programs: map[string]Program{
			"serve": serve, "exit": exit, "cat": cat, "env": env, "sleep": sleep, "trap": trap, "late": late, "hold": hold,
			"exhaust": exhaust, "fork": fork, "fill": fill, "spin": spin, "say": say, "write": write, "read": read, "fill-file": fillFile,
		},
	}
	quit, bad := img, img
	quit.Image.Digest, quit.Image.StopSignal = "sha256:"+strings.Repeat("b", 64), "SIGUSR1"
	quit.Image.Args, quit.Image.Entrypoint = []string{"say", "image"}, 1
	bad.Image.Digest, bad.Bad = "sha256:"+strings.Repeat("c", 64), true
	t := NewTwin(map[string]TwinImage{TwinRef: img, twinQuitRef: quit, twinBadRef: bad})
	return t, Fixture{
		Ref: TwinRef, UnknownRef: "none:latest", BadRef: twinBadRef, BadDigest: bad.Image.Digest, QuitRef: twinQuitRef, Say: []string{"say"},
		Serve: []string{"serve", "8080"}, Port: 8080,
		Exit: func(code int) []string { return []string{"exit", strconv.Itoa(code)} },
		Late: func(code int) []string { return []string{"late", strconv.Itoa(code)} },
		Hold: func(n uint64) []string { return []string{"hold", strconv.FormatUint(n, 10)} },
		Cat:  []string{"cat"}, Env: []string{"env"}, Trap: []string{"trap"}, Exhaust: []string{"exhaust"}, Fork: []string{"fork"},
		Fill: []string{"fill"}, Spin: []string{"spin"},
		Write:    func(path, text string) []string { return []string{"write", path, text} },
		Read:     func(path string) []string { return []string{"read", path} },
		FillFile: func(path string) []string { return []string{"fill-file", path} },
		Reopen:   func(meanwhile func()) (container.Runtime, error) { meanwhile(); return t, nil },
		Left:     func() []string { return t.left() },
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

func say(_ context.Context, p *Process) int {
	fmt.Fprintln(p.Stdout, strings.Join(p.Args[1:], " "))
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

func number(p *Process) uint64 {
	if len(p.Args) < 2 {
		return 0
	}
	n, _ := strconv.ParseUint(p.Args[1], 10, 64)
	return n
}

// trap writes each signal that it gets, and ends at two of them.
func trap(ctx context.Context, p *Process) int {
	fmt.Fprintln(p.Stdout, "ready")
	for {
		select {
		case <-ctx.Done():
			return 0
		case s := <-p.Signals:
			switch s.String() {
			case "SIGTERM":
				fmt.Fprintln(p.Stdout, "term")
				return 5
			case "SIGUSR1":
				return 6
			case "SIGUSR2":
				fmt.Fprintln(p.Stdout, "usr2")
			}
		}
	}
}

func late(ctx context.Context, p *Process) int {
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
	return int(number(p))
}

func hold(ctx context.Context, p *Process) int {
	p.Memory(number(p))
	fmt.Fprintln(p.Stdout, "holding")
	<-ctx.Done()
	return 0
}

func exhaust(ctx context.Context, p *Process) int {
	for p.Memory(1<<20) && ctx.Err() == nil {
		continue
	}
	return 0
}

func fork(_ context.Context, p *Process) int {
	for range container.MaxPids {
		if !p.Pids(1) {
			return 1
		}
	}
	return 0
}

func fill(_ context.Context, p *Process) int {
	for p.Disk(1 << 20) {
		p.Write(1 << 20)
	}
	return 1
}

func spin(_ context.Context, p *Process) int {
	p.CPU(time.Second)
	return 0
}
