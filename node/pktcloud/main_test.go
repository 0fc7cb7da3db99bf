package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/rogpeppe/go-internal/testscript"
)

// asCommand makes the test binary be pktcloud: the demo starts its own
// executable.
const asCommand = "PKTCLOUD_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	testscript.Main(m, map[string]func(){"pktcloud": main})
}

// TestScripts runs the transcripts in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfile": waitFile, "chain": setChain, "faucet": faucet, "stopjob": stopJob, "retry": retry,
			"pay": pay, "bump": bump,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("PKTCLOUD_DIR", e.Getenv("WORK")+"/data")
			return nil
		},
	})
}

// patience is for what surely comes, however slow the machine is.
const patience = 2 * time.Minute

// waitFile waits until a file exists: "waitfile FILE".
func waitFile(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s did not appear", path)
		}
	}
}

// retry runs a command until its output matches: "retry PATTERN COMMAND…".
func retry(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile(args[0])
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Dir, cmd.Env = ts.MkAbs("."), append(os.Environ(), "PATH="+ts.Getenv("PATH"))
		text, err := cmd.Output()
		if err == nil && want.Match(text) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%v: %s (%v) does not match %s", args[1:], text, err, want)
		}
	}
}

// setChain sets CHAIN to the address of the devnet.
func setChain(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Setenv("CHAIN", "http://"+strings.TrimSpace(ts.ReadFile("data/devnet/rpc-address")))
}

// faucet gives coins to the address in a file: "faucet FILE AMOUNT".
func faucet(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("pktcloud", "devnet", "faucet", strings.TrimSpace(ts.ReadFile(args[0])), args[1]))
}

// stopJob ends a background command in order and waits: "stopjob NAME".
func stopJob(ts *testscript.TestScript, _ bool, args []string) {
	for _, job := range ts.BackgroundCmds() {
		if job.Process != nil && strings.Contains(strings.Join(job.Args, " "), " "+args[0]+" ") {
			ts.Check(job.Process.Signal(os.Interrupt))
		}
	}
}

// pay sends money to the address in the file "own": "pay FLAGS AMOUNT".
func pay(ts *testscript.TestScript, neg bool, args []string) {
	args, amount := args[:len(args)-1], args[len(args)-1]
	ts.Logf("[pay %s %s]", strings.Join(args, " "), amount)
	ts.Setenv("OWN", strings.TrimSpace(ts.ReadFile("own")))
	err := ts.Exec("pktcloud", append(append([]string{"wallet", "send"}, args...), ts.Getenv("OWN"), amount)...)
	if (err != nil) != neg {
		ts.Fatalf("got %v, want failure: %t", err, neg)
	}
}

// bump raises the fee of the payment in a file: "bump FILE".
func bump(ts *testscript.TestScript, _ bool, args []string) {
	var p struct{ TxID string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &p))
	ts.Check(ts.Exec("pktcloud", "wallet", "bump", p.TxID))
}

func TestExitReason(t *testing.T) {
	for code, want := range map[int]bool{0: false, 1: false, 126: true, 127: true, 128: false} {
		if got := exitReason(code) != ""; got != want {
			t.Errorf("exit code %d: got a reason: %v, want %v", code, got, want)
		}
	}
}

func TestPeriod(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "600": 600, "10m": 600, "1h30m": 5400, "30d": 2592000} {
		var p period
		if err := p.Set(text); err != nil || uint64(p) != want {
			t.Errorf("%q: got %d, %v, want %d", text, p, err, want)
		}
	}
	for _, text := range []string{"", "d", "-1", "-5m", "1.5s", "1x", "99999999999"} {
		if err := new(period).Set(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// TestParseMoney: what rounds to nothing is refused, nothing itself is not.
func TestCellsCommandNoTerminal(t *testing.T) {
	var b strings.Builder
	out := newTable(&b)
	out.row("TOWER", "PROBLEM")
	out.row("a", "\x1b[2J\tgone\nfar")
	out.end()
	if got, want := b.String(), "TOWER  PROBLEM\na      ?[2J?gone?far\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseMoney(t *testing.T) {
	for text, want := range map[string]pktcloud.Amount{"0": 0, "0.000": 0, "0.000000001": 1, "1": pktcloud.UnitsPerPKT} {
		if a, err := parseMoney(text); err != nil || a != want {
			t.Errorf("%q: got %d, %v, want %d", text, uint64(a), err, want)
		}
	}
	for _, text := range []string{"0.0000000001", "0.0000000000001 PKT", "1e3", "-1"} {
		if a, err := parseMoney(text); err == nil {
			t.Errorf("%q: taken as %s", text, a)
		}
	}
}

func TestOnlyHere(t *testing.T) {
	for _, c := range []struct {
		addresses []string
		want      bool
	}{
		{nil, false},
		{[]string{"/ip4/127.0.0.1/tcp/1/p2p/x", "/ip6/::1/tcp/1/p2p/x"}, true},
		{[]string{"/ip4/127.0.0.1/tcp/1/p2p/x", "/ip4/192.0.2.1/tcp/1/p2p/x"}, false},
	} {
		if got := onlyHere(c.addresses); got != c.want {
			t.Errorf("%v: got %v, want %v", c.addresses, got, c.want)
		}
	}
}

// TestUsageExit: whatever cannot be understood ends with 2, before a node is
// asked; without a node a good command ends with 3.
func TestUsageExit(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		line string
		want int
	}{
		{"no-such-command", 2},
		{"lease create --image x", 2},
		{"lease create --image x --max-price 1 --memory lots", 2},
		{"lease create --image x --max-price 0.0000000001", 2},
		{"lease create --image x --max-price 1 --term soon", 2},
		{"wallet send A -1", 2},
		{"lease show", 2},
		{"audit --tenant x", 2},
		{"offer publish", 2},
		{"init --unattended --password-file x", 2},
		{"devnet faucet A -5", 2},
		{"lease list", 3},
		{"version", 0},
	} {
		if got := run(append(strings.Fields(c.line), "--dir", dir), strings.NewReader(""), io.Discard, io.Discard); got != c.want {
			t.Errorf("%q: exit code %d, want %d", c.line, got, c.want)
		}
	}
}

func TestInterruptedExit(t *testing.T) {
	a := &app{out: io.Discard, err: io.Discard}
	if got := a.report(fmt.Errorf("%w during step %q", errInterrupted, "pay")); got != exitInterrupted {
		t.Errorf("got exit code %d, want %d", got, exitInterrupted)
	}
}
