package devnet

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/chainview"
)

type rpc struct {
	t    *testing.T
	url  string
	auth Auth
}

func serve(t *testing.T, c *Chain) rpc {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cookie := filepath.Join(t.TempDir(), ".cookie")
	auth, err := NewCookie(cookie)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(cookie); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("cookie: got %v, %v; want mode 0600", info.Mode(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Serve(ctx, l, auth) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return rpc{t, "http://" + l.Addr().String(), auth}
}

func (r rpc) post(auth Auth, body string) (status int, reply []byte) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPost, r.url, bytes.NewBufferString(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.SetBasicAuth(auth.User, auth.Password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	reply, err = io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, reply
}

// call returns a result, or the code of the error.
func (r rpc) call(method string, params ...any) (json.RawMessage, int) {
	r.t.Helper()
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 7, "method": method, "params": params})
	if err != nil {
		r.t.Fatal(err)
	}
	_, text := r.post(r.auth, string(body))
	var reply struct {
		Result json.RawMessage
		Error  *rpcError
		ID     int
	}
	if err := json.Unmarshal(text, &reply); err != nil || reply.ID != 7 {
		r.t.Fatalf("%s: %s, %v", method, text, err)
	}
	if reply.Error != nil {
		return nil, reply.Error.Code
	}
	return reply.Result, 0
}

func TestServeAccess(t *testing.T) {
	r := serve(t, open(t, t.TempDir(), Config{InitialBlocks: -1}))
	for name, auth := range map[string]Auth{
		"no password": {User: r.auth.User}, "other user": {"root", r.auth.Password}, "nobody": {},
	} {
		if status, body := r.post(auth, `{"method":"getblockcount","params":[],"id":1}`); status != http.StatusUnauthorized {
			t.Errorf("%s: got %d %s, want 401", name, status, body)
		}
	}
	if status, _ := r.post(r.auth, `{"method":"getblockcount","params":[],"id":1}`); status != http.StatusOK {
		t.Errorf("with the cookie: got %d", status)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := open(t, t.TempDir(), Config{InitialBlocks: -1})
	if err := c.Serve(t.Context(), l, Auth{User: "u"}); err == nil {
		t.Error("serving without a password: accepted")
	}
}

// The codes are those that a real pktd gave, see settle/pktd/testdata.
func TestServeCodes(t *testing.T) {
	c := open(t, t.TempDir(), Config{})
	r := serve(t, c)
	coins, enough := c.faucetCoins(BlockReward)
	if !enough {
		t.Fatal("the faucet is empty")
	}
	pay := func(units pktcloud.Amount, change func(*wire.MsgTx)) string {
		tx, err := faucetTx(coins, script(1), units)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(tx)
		}
		raw, err := chainview.Raw(tx)
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(raw)
	}
	good := pay(BlockReward, nil)
	for _, tt := range []struct {
		name   string
		method string
		params []any
		code   int
	}{
		{"unknown method", "getnewaddress", nil, -32601},
		{"parameter of another kind", "getblockhash", []any{"x"}, -32602},
		{"no parameter", "getblock", nil, -32602},
		{"height beyond the tip", "getblockhash", []any{100000}, -1},
		{"unknown block", "getblock", []any{chainhash.Hash{}.String(), 0}, -5},
		{"unknown transaction", "getrawtransaction", []any{chainhash.Hash{}.String(), 0}, -5},
		{"no hexadecimal", "sendrawtransaction", []any{"zz"}, -22},
		{"no transaction", "sendrawtransaction", []any{"00"}, -22},
		{"dust", "sendrawtransaction", []any{pay(100, nil)}, -26},
		{"script fails", "sendrawtransaction", []any{pay(BlockReward, func(tx *wire.MsgTx) { tx.TxOut[0].Value-- })}, -26},
		{"not final", "sendrawtransaction", []any{pay(BlockReward, func(tx *wire.MsgTx) { tx.LockTime = 100000 })}, -26},
		{"unknown input", "sendrawtransaction", []any{pay(BlockReward, func(tx *wire.MsgTx) { tx.TxIn[0].PreviousOutPoint.Hash[0] ^= 1 })}, -25},
		{"good", "sendrawtransaction", []any{good}, 0},
		{"in the mempool already", "sendrawtransaction", []any{good}, -26},
		{"spent in the mempool", "sendrawtransaction", []any{pay(2*dustUnits, nil)}, -26},
		{"mine", "generate", []any{1}, 0},
		{"mined already", "sendrawtransaction", []any{good}, -27},
		{"spent in the chain", "sendrawtransaction", []any{pay(2*dustUnits, nil)}, -25},
		{"faucet", "devnetfaucet", []any{hex.EncodeToString(script(2)), 100000}, 0},
	} {
		if result, code := r.call(tt.method, tt.params...); code != tt.code {
			t.Errorf("%s: got %s, code %d, want %d", tt.name, result, code, tt.code)
		}
	}
}

func TestServeShapes(t *testing.T) {
	c := open(t, t.TempDir(), Config{})
	r := serve(t, c)
	txid, err := c.Faucet(t.Context(), script(3), 3582061445)
	if err != nil {
		t.Fatal(err)
	}
	result, _ := r.call("gettxout", txid.String(), 0, true)
	var out struct {
		Value  json.Number
		SValue string
	}
	if err := json.Unmarshal(result, &out); err != nil {
		t.Fatal(err)
	}
	if out.SValue != "3582061445" || out.Value.String() != "3.336054687388241291046142578125" {
		t.Errorf("gettxout: got %s", result)
	}
	if result, code := r.call("getrawmempool"); code != 0 || string(result) != "[]" {
		t.Errorf("getrawmempool: got %s, code %d", result, code)
	}
	if result, _ := r.call("getcurrentnet"); string(result) != fmt.Sprint(Magic) {
		t.Errorf("getcurrentnet: got %s", result)
	}
	header, _ := r.call("getblockheader", params().GenesisHash.String(), false)
	if len(header) != 2*80+2 {
		t.Errorf("getblockheader: got %s", header)
	}
}

// A reader that knows only the layout of the block files finds every block.
func TestBlockFiles(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Config{InitialBlocks: 20})
	raws, err := rawBlocks(filepath.Join(dir, blocksDir)) // while the chain runs
	if err != nil {
		t.Fatal(err)
	}
	if len(raws) != 21 {
		t.Fatalf("got %d blocks, want 21", len(raws))
	}
	prev := chainhash.Hash{}
	for i, raw := range raws {
		block, err := btcutil.NewBlockFromBytes(raw)
		if err != nil {
			t.Fatal(err)
		}
		if block.MsgBlock().Header.PrevBlock != prev {
			t.Errorf("block %d does not follow the one before", i)
		}
		prev = *block.Hash()
	}
	tip, err := c.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if prev != tip.Hash {
		t.Errorf("last block: got %s, want the tip", prev)
	}
	file := filepath.Join(dir, blocksDir, "000000000.fdb")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range 40 {
		if _, rest, ok := cutBlock(data[:cut]); ok {
			t.Errorf("a record of %d bytes: accepted, %d left", cut, len(rest))
		}
	}
	data[20] ^= 1
	if _, _, ok := cutBlock(data); ok {
		t.Error("a record with a wrong checksum: accepted")
	}
}

func TestClosed(t *testing.T) {
	c := open(t, t.TempDir(), Config{InitialBlocks: -1})
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Mine(1, nil); !errors.Is(err, settle.ErrLedgerUnavailable) {
		t.Errorf("mine: got %v", err)
	}
	if _, err := c.Faucet(t.Context(), script(1), 5000); !errors.Is(err, settle.ErrLedgerUnavailable) {
		t.Errorf("faucet: got %v", err)
	}
}
