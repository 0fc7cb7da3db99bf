package pktd

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/pkt-cash/pkt-cloud/settle"
)

func chainOf(n int, salt byte) []wire.MsgBlock {
	var blocks []wire.MsgBlock
	var prev chainhash.Hash
	for h := range n {
		tx := wire.NewMsgTx(1)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: wire.MaxPrevOutIndex}, []byte{byte(h), salt}, nil))
		tx.AddTxOut(wire.NewTxOut(1000+int64(salt), []byte{0x51}))
		b := wire.MsgBlock{Header: wire.BlockHeader{PrevBlock: prev, MerkleRoot: tx.TxHash()}, Transactions: []*wire.MsgTx{tx}}
		blocks, prev = append(blocks, b), b.BlockHash()
	}
	return blocks
}

// The node's chain moves to another branch right after it listed its mempool,
// and once more, while it is followed, the node answers for the old branch: the
// driver ends on the new branch and keeps nothing of the old.
func TestMovingChain(t *testing.T) {
	old, other := chainOf(3, 1), chainOf(4, 2)
	var moves, moved, lied bool // moves: at the next listing of the mempool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Method string
			Params []json.RawMessage
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		blocks := old
		if moved {
			blocks = other
		}
		var result any
		switch q.Method {
		case "getbestblockhash":
			result = blocks[len(blocks)-1].BlockHash().String()
		case "getblockcount":
			result = len(blocks) - 1
		case "getblockhash":
			var h int
			_ = json.Unmarshal(q.Params[0], &h)
			// Once, in the midst of following, a height of the old branch.
			if moved && !lied {
				lied, blocks = true, old
			}
			result = blocks[h].BlockHash().String()
		case "getblock":
			var hash string
			_ = json.Unmarshal(q.Params[0], &hash)
			for _, b := range append(append([]wire.MsgBlock{}, old...), other...) {
				if b.BlockHash().String() == hash {
					result = hex.EncodeToString(blockBytes(t, &b))
				}
			}
		case "getrawmempool":
			moved = moved || moves
			result = []string{}
		}
		text, err := json.Marshal(map[string]any{"result": result, "error": nil, "id": 1})
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s\n", text)
	}))
	defer server.Close()
	d, err := New(Config{URL: server.URL, User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	coins, err := d.Coins(t.Context(), []byte{0x51})
	if err != nil || len(coins) != 2 || coins[0].Amount != 1001 {
		t.Fatalf("coins of the old branch: got %+v, %v", coins, err)
	}
	moves = true
	tip, err := d.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := (settle.Tip{Height: 3, Hash: other[3].BlockHash(), Time: tip.Time}); tip != want {
		t.Errorf("tip: got %+v, want %+v", tip, want)
	}
	if coins, err = d.Coins(t.Context(), []byte{0x51}); err != nil {
		t.Fatal(err)
	}
	for _, c := range coins {
		if c.Amount != 1002 {
			t.Errorf("got a coin of the branch that was left: %+v", c)
		}
	}
	if len(coins) != 3 {
		t.Errorf("got %d coins, want those of the blocks 1 to 3", len(coins))
	}
}

func blockBytes(t *testing.T, b *wire.MsgBlock) []byte {
	t.Helper()
	raw := new(writer)
	if err := b.Serialize(raw); err != nil {
		t.Error(err)
	}
	return raw.b
}

type writer struct{ b []byte }

func (w *writer) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

// answering is a driver of a node that has these blocks; at tells which one it
// names at a height.
func answering(t *testing.T, best []wire.MsgBlock, at func(height int) wire.MsgBlock, others ...wire.MsgBlock) *Driver {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Method string
			Params []json.RawMessage
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		var result any
		switch q.Method {
		case "getbestblockhash":
			result = best[len(best)-1].BlockHash().String()
		case "getblockcount":
			result = len(best) - 1
		case "getblockhash":
			var h int
			_ = json.Unmarshal(q.Params[0], &h)
			named := at(h)
			result = named.BlockHash().String()
		case "getblock":
			var hash string
			_ = json.Unmarshal(q.Params[0], &hash)
			for _, b := range append(append([]wire.MsgBlock{}, best...), others...) {
				if b.BlockHash().String() == hash {
					result = hex.EncodeToString(blockBytes(t, &b))
				}
			}
		case "getrawmempool":
			result = []string{}
		}
		text, err := json.Marshal(map[string]any{"result": result, "error": nil, "id": 1})
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s\n", text)
	}))
	t.Cleanup(server.Close)
	d, err := New(Config{URL: server.URL, User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestSearchOfTwoBranches: a node that answers one height of another branch, for
// good, is not believed.
func TestSearchOfTwoBranches(t *testing.T) {
	right, other := chainOf(6, 1), chainOf(6, 2)
	d := answering(t, right, func(height int) wire.MsgBlock {
		if height == 2 {
			return other[height]
		}
		return right[height]
	}, other...)
	if coins, err := d.Coins(t.Context(), []byte{0x51}); !errors.Is(err, settle.ErrLedgerUnavailable) {
		t.Errorf("got %d coins, %v; want unavailable", len(coins), err)
	}
}

// TestSearchIsBounded: blocks that are full of what is searched for do not come all
// at once, and nothing is left out.
func TestSearchIsBounded(t *testing.T) {
	const most = 64 << 10
	blocks := chainOf(8, 1)
	for i := range blocks { // each nearly half of what one search may return
		b := &blocks[i]
		b.Transactions[0].TxOut[0].PkScript = make([]byte, most*4/10)
		b.Header.MerkleRoot = b.Transactions[0].TxHash()
		if i > 0 {
			b.Header.PrevBlock = blocks[i-1].BlockHash()
		}
	}
	d := answering(t, blocks, func(height int) wire.MsgBlock { return blocks[height] })
	if d.maxFound != MaxFoundBytes {
		t.Errorf("a search ends at %d bytes, want %d", d.maxFound, MaxFoundBytes)
	}
	d.maxFound = most // so much less to send
	var after settle.Tip
	for _, want := range []uint64{3, 6, 7, 7} {
		found, next, err := d.Search(t.Context(), after, func([]byte) bool { return true })
		if err != nil || next.Height != want || uint64(len(found)) != want-after.Height {
			t.Fatalf("after block %d: got %d found up to block %d, %v, want up to block %d", after.Height, len(found), next.Height, err, want)
		}
		after = next
	}
}
