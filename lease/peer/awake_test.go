//go:build unix

package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// awakeEnv makes a process of these tests wait, and tell how long.
const awakeEnv = "PKTCLOUD_TEST_AWAKE"

// TestAwake has a process stop itself, for longer than it waits: nobody has to
// be in time to stop it. Afterwards the time is not over, and then it ends all the
// same [LEASE-11].
func TestAwake(t *testing.T) {
	if os.Getenv(awakeEnv) != "" {
		waitAwake()
		return
	}
	const long = 2 * time.Second
	cmd := exec.Command(os.Args[0], "-test.run=^TestAwake$")
	cmd.Env = append(os.Environ(), awakeEnv+"="+long.String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(out)
	said := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the process says nothing more: %v", lines.Err())
		}
		return lines.Text()
	}
	if got := said(); got != "waits" {
		t.Fatalf("got %q", got)
	}
	for { // until it has stopped itself
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(cmd.Process.Pid, &ws, syscall.WUNTRACED, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || !ws.Stopped() {
			t.Fatalf("got %v, %v, want it stopped", ws, err)
		}
		break
	}
	time.Sleep(2 * long)
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	got := said()
	if got != "goes on" {
		t.Errorf("after it stood still: got %q, want it to go on", got)
	}
	for got == "goes on" { // once more for each time that the machine stands still
		got = said()
	}
	if got != "late: true" {
		t.Errorf("got %q, want the time to end", got)
	}
}

// waitAwake says when it begins to wait, that it still does some moments after
// it stood still, and how it ended.
func waitAwake() {
	long, err := time.ParseDuration(os.Getenv(awakeEnv))
	if err != nil {
		panic(err)
	}
	ctx, stop := awake(context.Background(), long)
	defer stop()
	last := time.Now()
	fmt.Println("waits")
	if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
		panic(err)
	}
	for ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
		stood := time.Since(last) >= long
		if last = time.Now(); !stood {
			continue
		}
		time.Sleep(10 * time.Millisecond) // whoever waits for plain time is told now
		if ctx.Err() == nil {
			fmt.Println("goes on")
		}
	}
	fmt.Println("late:", errors.Is(context.Cause(ctx), context.DeadlineExceeded))
}
