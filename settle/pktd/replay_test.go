package pktd

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// exchange is one recorded question to a real pktd, and its answer.
type exchange struct {
	Request struct {
		Method string            `json:"method"`
		Params []json.RawMessage `json:"params"`
	} `json:"request"`
	Status   int    `json:"status"`
	Response string `json:"response"`
}

func (e exchange) key() string {
	p, _ := json.Marshal(e.Request.Params)
	return e.Request.Method + string(p)
}

func (e exchange) answer(t *testing.T) (result json.RawMessage, code int) {
	t.Helper()
	var a struct {
		Result json.RawMessage `json:"result"`
		Error  *nodeError      `json:"error"`
	}
	if err := json.Unmarshal([]byte(e.Response), &a); err != nil {
		t.Fatal(err)
	}
	if a.Error != nil {
		code = a.Error.Code
	}
	return a.Result, code
}

func recorded(t *testing.T, name string) []exchange {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []exchange
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e exchange
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// replay is a server that answers as recorded, the last answer to a question
// again and again, and anything else as a pktd that does not know.
type replay struct {
	t       *testing.T
	answers map[string][]exchange
	forced  map[string]string // results that no record holds
}

func newReplay(t *testing.T, all []exchange) (*replay, *Driver) {
	r := &replay{t: t, answers: map[string][]exchange{}, forced: map[string]string{"getrawmempool[]": "[]"}}
	for _, e := range all {
		r.answers[e.key()] = append(r.answers[e.key()], e)
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	d, err := New(Config{URL: server.URL, User: "u", Password: "p", Birthday: 1})
	if err != nil {
		t.Fatal(err)
	}
	return r, d
}

func (r *replay) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	var e exchange
	if err := json.NewDecoder(q.Body).Decode(&e.Request); err != nil {
		r.t.Error(err)
	}
	key := e.key()
	if s, ok := r.forced[key]; ok {
		fmt.Fprintf(w, `{"result":%s,"error":null,"id":1}`, s)
		return
	}
	left := r.answers[key]
	if len(left) == 0 {
		fmt.Fprintf(w, `{"result":null,"error":{"code":-5,"message":"not recorded: %s"},"id":1}`, e.Request.Method)
		return
	}
	if len(left) > 1 {
		r.answers[key] = left[1:]
	}
	w.WriteHeader(left[0].Status)
	fmt.Fprint(w, left[0].Response)
}

// chain makes the server's best block the last of those recorded without a gap.
func (r *replay) chain(all []exchange) (height int, txs []*wire.MsgTx) {
	hashes, blocks := map[string]string{}, map[string]*block{}
	for _, e := range all {
		result, code := e.answer(r.t)
		if code != 0 {
			continue
		}
		var text string
		switch {
		case e.Request.Method == "getblockhash":
			_ = json.Unmarshal(result, &text)
			hashes[string(e.Request.Params[0])] = text
		case e.Request.Method == "getblock" && string(e.Request.Params[1]) == "0":
			_ = json.Unmarshal(result, &text)
			raw, err := hex.DecodeString(text)
			if err != nil {
				r.t.Fatal(err)
			}
			b, err := parseBlock(raw)
			if err != nil {
				r.t.Fatal(err)
			}
			blocks[string(e.Request.Params[0])] = b
		}
	}
	best := ""
	for h := 1; ; h++ {
		hash, ok := hashes[fmt.Sprint(h)]
		b := blocks[`"`+hash+`"`]
		if !ok || b == nil {
			break
		}
		height, best, txs = h, hash, append(txs, b.txs...)
	}
	r.forced["getbestblockhash[]"] = `"` + best + `"`
	r.forced["getblockcount[]"] = fmt.Sprint(height)
	return height, txs
}

// The driver follows the recorded chain and finds the miner's coins in it,
// exact to the unit, though the node's JSON has no script and a floating sum.
func TestReplayChain(t *testing.T) {
	for _, name := range []string{"channel-life.jsonl", "rpc-matrix.jsonl"} {
		t.Run(name, func(t *testing.T) {
			all := recorded(t, name)
			r, d := newReplay(t, all)
			height, txs := r.chain(all)
			if height < 30 {
				t.Fatalf("got %d blocks recorded, want 30 or more", height)
			}
			miner := txs[0].TxOut[0].PkScript
			var want pktcloud.Amount
			var n int
			for _, tx := range txs {
				for _, out := range tx.TxOut {
					if bytes.Equal(out.PkScript, miner) {
						want, n = want+pktcloud.Amount(out.Value), n+1
					}
				}
			}
			coins, err := d.Coins(t.Context(), miner)
			if err != nil {
				t.Fatal(err)
			}
			var got pktcloud.Amount
			for _, c := range coins {
				got += c.Amount
			}
			if got != want || len(coins) != n || coins[0].Amount != 3582061445120 || !coins[0].Coinbase || coins[0].Depth != uint64(height) {
				t.Errorf("miner's coins: got %d units in %d, want %d in %d; the first is %+v", got, len(coins), want, n, coins[0])
			}
		})
	}
}

// A steward's output of a real coinbase is found by its outpoint too.
func TestReplayOutput(t *testing.T) {
	all := recorded(t, "channel-life.jsonl")
	r, d := newReplay(t, all)
	_, txs := r.chain(all)
	out, err := d.Output(t.Context(), settle.Outpoint{TxID: txs[0].TxHash(), Index: 1})
	if err != nil {
		t.Fatal(err)
	}
	const steward = "0020d5c1005c0d4012d3ae2672319e7f9eb15a57516aeefabbbc062265f67e308f2b"
	if out.Amount != 891146993664 || hex.EncodeToString(out.Script) != steward {
		t.Errorf("got %d units to %x", out.Amount, out.Script)
	}
}

// Every recorded broadcast comes out as the code says: accepted, known, or
// refused with the node's code.
func TestReplayBroadcast(t *testing.T) {
	seen := map[int]int{}
	for _, name := range []string{"channel-life.jsonl", "rpc-matrix.jsonl"} {
		all := recorded(t, name)
		for i, e := range all {
			if e.Request.Method != "sendrawtransaction" || len(e.Request.Params) != 1 {
				continue
			}
			_, code := e.answer(t)
			r, d := newReplay(t, []exchange{e})
			r.chain(all)
			for _, e := range all {
				if m := e.Request.Method; m == "getblock" || m == "getblockhash" {
					r.answers[e.key()] = []exchange{e}
				}
			}
			var text string
			if err := json.Unmarshal(e.Request.Params[0], &text); err != nil {
				t.Fatal(err)
			}
			raw, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			seen[code]++
			err = d.Broadcast(t.Context(), raw)
			var refused *settle.Rejection
			switch {
			case code == 0 || code == codeAlreadyInChain:
				if err != nil {
					t.Errorf("%s line %d, code %d: got %v, want nil", name, i+1, code, err)
				}
			case !errors.Is(err, settle.ErrRejected) || !errors.As(err, &refused) || refused.Code != code:
				t.Errorf("%s line %d, code %d: got %v, want ErrRejected with that code", name, i+1, code, err)
			case strings.Contains(refused.Reason, "\n"):
				t.Errorf("%s line %d: the node's stack is in the reason", name, i+1)
			}
		}
	}
	for _, code := range []int{0, -25, -26, -27} {
		if seen[code] == 0 {
			t.Errorf("no recorded broadcast was answered with %d", code)
		}
	}
}

// PKT's own genesis block has a proof between header and transactions.
func TestGenesisBlock(t *testing.T) {
	text, err := os.ReadFile("testdata/pkt-genesis-block.hex")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseBlock(raw)
	if err != nil {
		t.Fatal(err)
	}
	const want = "0bdc1712a46194e552cf417ab0439c2d4f456c35cf63a0a406964c6f93432d85"
	if got := b.header.BlockHash().String(); got != want {
		t.Errorf("hash: got %s, want %s", got, want)
	}
	if got := b.txs[0].TxHash().String(); len(b.txs) != 1 || !strings.HasPrefix(got, "fb91c86a") {
		t.Errorf("transactions: got %d, the first %s", len(b.txs), got)
	}
	if len(b.proof) == 0 {
		t.Error("no proof was skipped")
	}
	raw[len(raw)-1] ^= 1
	if _, err := parseBlock(raw); err == nil {
		t.Error("a block whose transaction was changed: accepted")
	}
}

// What parseBlock accepts comes back from its parts, byte for byte.
func FuzzParseBlock(f *testing.F) {
	text, err := os.ReadFile("testdata/pkt-genesis-block.hex")
	if err != nil {
		f.Fatal(err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(append(append([]byte{}, raw[:80]...), 0, 0, 1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := parseBlock(raw)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := b.header.Serialize(&again); err != nil {
			t.Fatal(err)
		}
		again.Write(b.proof)
		if err := wire.WriteVarInt(&again, 0, uint64(len(b.txs))); err != nil {
			t.Fatal(err)
		}
		for _, tx := range b.txs {
			if err := tx.Serialize(&again); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(again.Bytes(), raw) {
			t.Errorf("%d bytes came back as %d others", len(raw), again.Len())
		}
	})
}
