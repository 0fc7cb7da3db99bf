package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain lets the test's own program be the example, when it is told so.
func TestMain(m *testing.M) {
	if os.Getenv("PAY_BETWEEN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestTwoPrograms(t *testing.T) {
	start := func(args ...string) (*exec.Cmd, *bufio.Reader) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
		cmd.Env = append(os.Environ(), "PAY_BETWEEN=1")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, bufio.NewReader(out)
	}
	payee, lines := start()
	address, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	payer, _ := start(strings.TrimSpace(address))
	if err := payer.Wait(); err != nil {
		t.Errorf("the payer's program: %v", err)
	}
	got, err := lines.ReadString('\n')
	if want := "the payee's wallet holds 5000 units\n"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if err := payee.Wait(); err != nil {
		t.Errorf("the payee's program: %v", err)
	}
}
