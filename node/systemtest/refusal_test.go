//go:build system

package systemtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/internal/leftover"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// refusal is what a command line that fails has to say.
type refusal struct {
	exit int
	code service.Code
	says []string // parts of the sentence
}

// insideWords are words of this program's inside, which tell a person nothing.
var insideWords = []string{"lease: ", "market: ", "container: ", "p2p: ", "settle: ", "sqlite", "goroutine", "panic", "%!", "rpc error", "context deadline", "EOF\n"}

// fails runs a command line with --json that has to fail: one sentence on
// standard error, the exit code, and an object on standard output.
func (w *world) fails(t *testing.T, want refusal, args ...string) {
	t.Helper()
	w.failsAs(t, want, nil, exec.Command(w.bin, append(args, "--json")...))
}

func (w *world) failsAs(t *testing.T, want refusal, attr *syscall.SysProcAttr, cmd *exec.Cmd) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &stdout, &stderr, attr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer late.Stop()
	cmd.Wait()
	var sentences []string
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, "time=") { // the log of a node
			sentences = append(sentences, strings.TrimSpace(line))
		}
	}
	t.Logf("exit %d: %s", cmd.ProcessState.ExitCode(), strings.Join(sentences, " / "))
	if got := cmd.ProcessState.ExitCode(); got != want.exit {
		t.Errorf("got exit code %d, want %d", got, want.exit)
	}
	text := strings.Join(sentences, "\n")
	if len(sentences) != 1 || !strings.HasPrefix(text, "pktcloud: ") {
		t.Errorf("got %q on standard error, want one sentence", text)
	}
	for _, part := range want.says {
		if !strings.Contains(text, part) {
			t.Errorf("the sentence %q lacks %q", text, part)
		}
	}
	for _, word := range insideWords {
		if strings.Contains(text, word) {
			t.Errorf("the sentence %q speaks of %q", text, word)
		}
	}
	var object struct {
		OK     bool         `json:"ok"`
		Code   service.Code `json:"code"`
		Detail string       `json:"detail"`
	}
	object.OK = true
	if err := json.Unmarshal(stdout.Bytes(), &object); err != nil || object.OK || object.Code != want.code || "pktcloud: "+object.Detail != text {
		t.Errorf("got %q on standard output (%v), want an object with code %q and the sentence", stdout.String(), err, want.code)
	}
}

// standing is what a refusal must leave as it was.
type standing struct {
	spendable, reserved pktcloud.Amount
}

func (w *world) standing(t *testing.T) standing {
	t.Helper()
	b, err := w.tenant.client().WalletBalance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return standing{b.Spendable + b.Unconfirmed, b.Reserved}
}

// untouched waits until the tenant's money is what it was, and wants no lease,
// container, mount or control group to be left.
func (w *world) untouched(t *testing.T, before standing) {
	t.Helper()
	eventually(t, "the money is free again", func() (bool, error) {
		if now := w.standing(t); now != before {
			return false, fmt.Errorf("spendable and reserved are %+v, were %+v", now, before)
		}
		return true, nil
	})
	if open := w.openLeases(t, w.tenant); open != 0 {
		t.Errorf("the tenant has %d open leases", open)
	}
	if w.provider.dead() {
		return
	}
	eventually(t, "nothing is left at the provider", func() (bool, error) { // who may hear of the end after the tenant
		if open := w.openLeases(t, w.provider); open != 0 {
			return false, fmt.Errorf("it has %d open leases", open)
		}
		if left := w.provider.containers(); len(left) > 0 {
			return false, fmt.Errorf("on its machine: %s", strings.Join(left, ", "))
		}
		return true, nil
	})
}

func (w *world) openLeases(t *testing.T, p *party) int {
	t.Helper()
	leases, err := p.client().Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(slices.DeleteFunc(leases, func(l service.Lease) bool { return final[l.Phase] }))
}

// containers lists what a provider's containers consist of: their monitors,
// mounts, loop devices and control groups.
func (p *party) containers() []string {
	dir := filepath.Join(p.dir, "runtime")
	left := leftover.What(dir)
	for _, group := range leftover.Groups(dir) {
		boxes, _ := filepath.Glob(group + "/*/")
		left = append(left, boxes...)
	}
	return left
}
