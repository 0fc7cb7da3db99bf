//go:build system

package systemtest

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/audit"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestStory is the main job: a lease agreed, reached, entered, paid interval
// by interval and closed, and the chain pays out what was owed to the unit.
// Then one record after another is tampered with, and the audit names each.
func TestStory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	l := w.rent()
	w.paidIntervals(l.ID, 1)
	w.reach(l)
	w.enter(l)
	l = w.paidIntervals(l.ID, 4)
	l = w.closeLease(l.ID)

	r := w.clean()
	if len(r.Leases) != 1 {
		t.Fatalf("the audit knows %d leases, want 1", len(r.Leases))
	}
	got := r.Leases[0]
	if got.Paid == 0 || got.Paid != got.Claimed || got.Due != got.Paid || !got.Settled {
		t.Errorf("got due %d, paid %d, claimed %d, settled %v; want all equal and settled", got.Due, got.Paid, got.Claimed, got.Settled)
	}
	w.payoutReaches(got)
	w.provider.stop(t)
	w.tenant.stop(t)
	w.devnet.stop(t)
	w.tamper(l.ID)
}

// reach opens the page that the workload serves, through the tunnel. A service
// that has just come up, or a lease that is suspended for a moment, is asked
// again.
func (w *world) reach(l service.Lease) {
	w.t.Helper()
	eventually(w.t, "the page comes through the tunnel", func() (bool, error) {
		conn, err := w.tenant.client().Forward(w.t.Context(), l.ID.String(), 8080)
		if err != nil {
			return false, err
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET / HTTP/1.0\r\n\r\n")
		answer, err := io.ReadAll(conn)
		if err == nil && !strings.Contains(string(answer), page) {
			err = fmt.Errorf("got %q", answer)
		}
		return err == nil, err
	})
	endpoint := w.lease(l).Endpoint // l may be from before it ran
	eventually(w.t, "the page is at "+endpoint, func() (bool, error) {
		response, err := http.Get(endpoint)
		if _, ok := errors.AsType[*net.DNSError](err); ok {
			w.t.Logf("this machine does not find names below localhost: %v", err)
			return true, nil
		}
		if err != nil {
			return false, err
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		if !strings.Contains(string(body), page) {
			return false, fmt.Errorf("got %s %q", response.Status, body)
		}
		return true, nil
	})
}

// enter runs a program inside and looks how it is confined.
func (w *world) enter(l service.Lease) {
	w.t.Helper()
	var out bytes.Buffer
	code, err := w.exec(l.ID.String(), service.Streams{Stdout: &out, Stderr: &out}, "/bin/busybox", "cat", "/proc/self/status", "/proc/self/uid_map")
	if err != nil || code != 0 {
		w.t.Fatalf("exec: code %d, %v: %s", code, err, &out)
	}
	for _, want := range []string{"Seccomp:\t2", "NoNewPrivs:\t1"} {
		if !strings.Contains(out.String(), want) {
			w.t.Errorf("inside, /proc/self/status lacks %q", want)
		}
	}
	if code, err := w.exec(l.ID.String(), service.Streams{}, "/bin/sh", "-c", "exit 7"); code != 7 {
		w.t.Errorf("exec of exit 7: got code %d, %v", code, err)
	}
	eventually(w.t, "the log tells of a request that was served", func() (bool, error) {
		var logs bytes.Buffer
		err := w.tenant.client().Logs(w.t.Context(), l.ID.String(), service.LogRequest{}, &logs)
		return strings.Contains(logs.String(), "response:200"), err
	})
}

// payoutReaches looks whether the provider's wallet has what the chain paid.
func (w *world) payoutReaches(l audit.Lease) {
	w.t.Helper()
	c := w.provider.client()
	eventually(w.t, "the provider's wallet shows the payout", func() (bool, error) {
		b, err := c.WalletBalance(w.t.Context())
		return uint64(b.Spendable+b.Unconfirmed) == l.Claimed, err
	})
}

// tamper changes one record at a time in a copy of the world, and wants the
// audit to name it.
func (w *world) tamper(id pktcloud.ID) {
	prefix := "lease/" + id.Hex()
	for _, c := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   string
	}{
		{"voucher", flipRecord("tenant", prefix+"/voucher/00000000000000000002"), "voucher 2"},
		{"voucher of the provider", flipRecord("provider", prefix+"/voucher/00000000000000000002"), "voucher 2"},
		{"statement", flipRecord("provider", prefix+"/statement/00000000000000000003"), "statement 3"},
		{"statement of the tenant", flipRecord("tenant", prefix+"/statement/00000000000000000003"), "statement 3"},
		{"offer", flipRecord("tenant", prefix+"/offer"), "offer"},
		{"terms", flipRecord("provider", prefix+"/terms"), "terms"},
		{"close record", flipRecord("provider", prefix+"/close"), "close record"},
		{"block", flipBlock, "block record"},
		{"nothing", func(*testing.T, string) {}, ""},
	} {
		w.t.Run("tamper/"+c.name, func(t *testing.T) {
			dir := t.TempDir()
			if out, err := exec.Command("cp", "-a", w.provider.dir, w.tenant.dir, w.chainDir(), dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			c.change(t, dir)
			out, err := w.tryRun("audit", "--json", "--provider", filepath.Join(dir, "provider"), "--tenant", filepath.Join(dir, "tenant"), "--chain", filepath.Join(dir, "chain"))
			switch {
			case c.want == "" && (err != nil || !strings.Contains(out, `"ok":true`)):
				t.Errorf("untouched: got %v: %s", err, out)
			case c.want != "" && (err == nil || !strings.Contains(out, `"ok":false`) || !strings.Contains(out, c.want)):
				t.Errorf("got %v and %s, want ok false and a finding about %q", err, out, c.want)
			}
		})
	}
}

// flipRecord changes one bit in the middle of a stored record.
func flipRecord(side, key string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		db, err := sql.Open("sqlite", filepath.Join(dir, side, "node.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var value []byte
		if err := db.QueryRow("SELECT value FROM kv WHERE key = CAST(? AS BLOB)", key).Scan(&value); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		value[len(value)/2] ^= 1
		if _, err := db.Exec("UPDATE kv SET value = ? WHERE key = CAST(? AS BLOB)", value, key); err != nil {
			t.Fatal(err)
		}
	}
}

// flipBlock changes one bit near the end of the last block file.
func flipBlock(t *testing.T, dir string) {
	var path string
	err := filepath.WalkDir(filepath.Join(dir, "chain"), func(p string, _ os.DirEntry, err error) error {
		if filepath.Ext(p) == ".fdb" {
			path = p
		}
		return err
	})
	if err != nil || path == "" {
		t.Fatalf("no block file: %v", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)*3/4] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
