package pktd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// Whatever a broken or hostile node answers is an error, bounded, and carries
// the password nowhere.
func TestHostileNode(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the driver followed a redirect with %q", r.Header.Get("Authorization"))
	}))
	defer other.Close()
	const hash = `"0f414f623e6d5dfc4190e6b3288ebea8ea1f1856e0c13836f4dae1cd67e28a34"`
	answer := func(results map[string]string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var q struct{ Method string }
			if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, `{"result":%s,"error":null,"id":1}`, results[q.Method])
		}
	}
	genesis := recorded(t, "rpc-matrix.jsonl")[4] // getblock of block 1
	block, _ := genesis.answer(t)
	for name, h := range map[string]http.HandlerFunc{
		"empty answer": func(http.ResponseWriter, *http.Request) {},
		"no JSON":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, io.LimitReader(zeros{}, 2*MaxReplyBytes))
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		},
		"unknown code": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"result":null,"error":{"code":-99,"message":%q},"id":1}`, strings.Repeat("x\n", 9999))
		},
		"no hash":       answer(map[string]string{"getbestblockhash": `"00"`}),
		"another kind":  answer(map[string]string{"getbestblockhash": hash, "getblockcount": `"one"`}),
		"negative":      answer(map[string]string{"getbestblockhash": hash, "getblockcount": `-1`}),
		"no block":      answer(map[string]string{"getbestblockhash": hash, "getblockcount": `1`, "getblockhash": hash, "getblock": `"00"`}),
		"another block": answer(map[string]string{"getbestblockhash": hash, "getblockcount": `1`, "getblockhash": hash, "getblock": string(block)}),
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(h)
			defer server.Close()
			d, err := New(Config{URL: server.URL, User: "u", Password: "secret"})
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.Tip(t.Context())
			if !errors.Is(err, settle.ErrLedgerUnavailable) {
				t.Fatalf("got %v, want ErrLedgerUnavailable", err)
			}
			if text := err.Error(); len(text) > 1000 || strings.Contains(text, "secret") || strings.Contains(text, "\n") {
				t.Errorf("the error is no short sentence: %q", text[:min(len(text), 1000)])
			}
		})
	}
}

// A block that is not the one asked for is none, wherever it is asked for.
func TestAnotherBlock(t *testing.T) {
	block, _ := recorded(t, "rpc-matrix.jsonl")[4].answer(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"result":%s,"error":null,"id":1}`, block)
	}))
	defer server.Close()
	d, err := New(Config{URL: server.URL, User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	right, err := parseHash("55bc257734efb1a7f613b2be58bb139120096e6a6c6b7e629089f9d369f694ff")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.readBlock(t.Context(), right); err != nil {
		t.Errorf("the right block: got %v", err)
	}
	right[0] ^= 1
	if _, err := d.readBlock(t.Context(), right); !errors.Is(err, settle.ErrLedgerUnavailable) {
		t.Errorf("another block: got %v, want ErrLedgerUnavailable", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestBusyNode shows [LEDGER-62]: a node that has no room for a question for a
// moment gets it again; one that never has is unavailable, which says why.
func TestBusyNode(t *testing.T) {
	for away, want := range map[int]int{1: 2, BusyTries - 1: BusyTries, 1000: BusyTries} {
		asked := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if asked++; asked <= away {
				http.Error(w, "503 Too busy.  Try again later.", http.StatusServiceUnavailable) // as a pktd does
				return
			}
			fmt.Fprint(w, `{"result":7,"error":null,"id":1}`)
		}))
		c, err := newClient(Config{URL: server.URL, User: "u", Password: "p"})
		if err != nil {
			t.Fatal(err)
		}
		var count int
		err = c.call(t.Context(), &count, "getblockcount")
		if good := away < BusyTries; good && (err != nil || count != 7) || !good && (!errors.Is(err, settle.ErrLedgerUnavailable) || !strings.Contains(err.Error(), "--rpcmaxclients")) {
			t.Errorf("sent away %d times: got %d, %v", away, count, err)
		}
		if asked != want {
			t.Errorf("sent away %d times: asked %d times, want %d", away, asked, want)
		}
		server.Close()
	}
	stopped, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		http.Error(w, "503 Too busy.", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	c, err := newClient(Config{URL: server.URL, User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.call(stopped, new(int), "getblockcount"); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: got %v, want the context's error", err)
	}
}
