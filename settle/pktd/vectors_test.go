package pktd

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorDir = "../../spec/vectors/ledger"

// nodeAnswers is what a node of a chain of two blocks says to each question.
type nodeAnswers map[string]string

// answersOf are those of a good node; blocks and transaction are made, since no
// driver checks work.
func answersOf(t *testing.T) (good nodeAnswers, tx []byte) {
	t.Helper()
	good = nodeAnswers{"getcurrentnet": result(uint32(0xdab5bffa)), "getblockcount": result(2), "getrawmempool": result([]string{})}
	previous := chainhash.Hash{}
	for height := 1; height <= 2; height++ {
		reward := wire.NewMsgTx(1)
		reward.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: wire.MaxPrevOutIndex}, []byte{1, byte(height)}, nil))
		reward.AddTxOut(wire.NewTxOut(5_000_000_000, append([]byte{0, 20}, make([]byte, 20)...)))
		b := wire.NewMsgBlock(&wire.BlockHeader{
			Version: 4, PrevBlock: previous, MerkleRoot: reward.TxHash(), Bits: 0x207fffff, Timestamp: time.Unix(1_800_000_000+int64(height), 0),
		})
		if err := b.AddTransaction(reward); err != nil {
			t.Fatal(err)
		}
		previous = b.Header.BlockHash()
		good[fmt.Sprintf("getblockhash %d", height)] = result(previous.String())
		good["getblock "+previous.String()] = result(hex.EncodeToString(serialized(t, b)))
	}
	good["getbestblockhash"] = result(previous.String())
	spend := wire.NewMsgTx(2)
	spend.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: chainhash.Hash{5}}, nil, [][]byte{{1}}))
	spend.AddTxOut(wire.NewTxOut(40_000, append([]byte{0, 20}, make([]byte, 20)...)))
	return good, serialized(t, spend)
}

func serialized(t *testing.T, v interface{ Serialize(w io.Writer) error }) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := v.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// result is an answer that holds a result.
func result(v any) string {
	b, err := json.Marshal(map[string]any{"result": v, "error": nil, "id": 1})
	if err != nil {
		panic(err)
	}
	return "200 " + string(b)
}

// refusal is an answer in the shape of a pktd: the program's version, the
// error's name, and a stack.
func refusal(code int, text string) string {
	b, err := json.Marshal(map[string]any{"result": nil, "id": 1, "error": map[string]any{
		"code": code, "message": "1.0.1 " + text, "stack": []string{"  rpcserver.go:4147 +0xc3\t  main.(*rpcServer).standardCmdResult()"},
	}})
	if err != nil {
		panic(err)
	}
	return "200 " + string(b)
}

// nodeVectors are questions to a driver, and what its node answers: a good node's
// answers but for the one that a case is about.
func nodeVectors(t *testing.T) []vector.Case {
	good, tx := answersOf(t)
	txid := chainhash.DoubleHashH(legacy(t, tx)).String()
	keys := slices.Sorted(maps.Keys(good))
	made := func(name, expect, about, question string, change nodeAnswers) vector.Case {
		c := vector.New("node-"+name, expect, about).With("question", question)
		for _, key := range keys {
			if _, ok := change[key]; !ok {
				c = c.With("answer", key+" = "+good[key])
			}
		}
		for _, key := range slices.Sorted(maps.Keys(change)) {
			c = c.With("answer", key+" = "+change[key])
		}
		return c
	}
	tip := func(name, expect, about string, change nodeAnswers) vector.Case {
		return made("tip-"+name, expect, about, "tip", change)
	}
	send := func(name, expect, about string, change nodeAnswers) vector.Case {
		return made("send-"+name, expect, about, "send "+hex.EncodeToString(tx), change)
	}
	of := func(key, answer string) nodeAnswers { return nodeAnswers{key: answer} }
	first, best := quoted(good["getblockhash 1"]), quoted(good["getbestblockhash"])
	block1 := good["getblock "+first]
	block2 := good["getblock "+best]
	const unknown = "getrawtransaction"
	notThere := refusal(-5, "ErrRPCNoTxInfo(-5): No information available about transaction")
	return []vector.Case{
		tip("good", "ok", "the best block", nil),
		tip("other-network", "unavailable", "the node of PKT's own network", of("getcurrentnet", result(uint32(0x082f00fc)))),
		tip("other-password", "unavailable", "the node does not know this user and password", of("getbestblockhash", "401 401 Unauthorized.")),
		tip("busy", "unavailable", "the node has no room for the question, however often", of("getbestblockhash", "503 503 Too busy.  Try again later.")),
		tip("redirect", "unavailable", "the node names another", of("getbestblockhash", "307 elsewhere")),
		tip("empty", "unavailable", "an answer of no bytes", of("getbestblockhash", "200 ")),
		tip("no-json", "unavailable", "an answer that is no JSON", of("getbestblockhash", "200 <html>")),
		tip("too-large", "unavailable", "an answer of more bytes than any block has", of("getbestblockhash", "200 @zeros "+strconv.Itoa(MaxReplyBytes+1))),
		tip("no-hash", "unavailable", "a hash of one byte", of("getbestblockhash", result("00"))),
		tip("no-number", "unavailable", "a height that is a text", of("getblockcount", result("two"))),
		tip("negative", "unavailable", "a height below nothing", of("getblockcount", result(-2))),
		tip("error", "unavailable", "an error of a code that is none of the chain's, as a pktd words it", of("getbestblockhash", refusal(-32603, "ErrRPCInternal(-32603): internal\nstack"))),
		tip("older", "unavailable", "a best block below the height that the node names, each time", of("getblockhash 2", refusal(-1, "ErrRPCOutOfRange(-1): Block number out of range"))),
		tip("moving", "unavailable", "a best block that is never the one at the best height", of("getblockhash 2", result(first))),
		tip("no-block", "unavailable", "a block of one byte", of("getblock "+best, result("00"))),
		tip("other-block", "unavailable", "another block than asked for", of("getblock "+best, block1)),
		tip("other-transactions", "unavailable", "a block with other transactions than its header names", of("getblock "+best, strings.Replace(block2, "00f2052a01000000", "00f2052a01000001", 1))),
		tip("trailing", "unavailable", "a byte after the block", of("getblock "+best, result(quoted(block2)+"00"))),
		tip("pool-gone", "ok", "a transaction that left the mempool since it was listed", nodeAnswers{"getrawmempool": result([]string{txid}), unknown: notThere}),
		tip("pool", "ok", "a transaction in the mempool", nodeAnswers{"getrawmempool": result([]string{txid}), unknown: result(hex.EncodeToString(tx))}),
		tip("pool-other", "unavailable", "another transaction than asked for", nodeAnswers{"getrawmempool": result([]string{best}), unknown: result(hex.EncodeToString(tx))}),
		tip("pool-no-hash", "unavailable", "a mempool that lists what is no id", of("getrawmempool", result([]string{"01"}))),

		made("search-lost", "searching", "an old block that the node does not give", "coins 001499", of("getblockhash 1", refusal(-32603, "ErrRPCInternal(-32603): no such block"))),
		made("search-good", "ok", "coins of a script that nobody used", "coins 001499", nil),
		made("send-no-transaction", "rejected", "bytes that are none are not sent", "send 00", nil),
		send("good", "ok", "the node takes it", of("sendrawtransaction", result(txid))),
		send("policy", "rejected", "refused by policy", nodeAnswers{"sendrawtransaction": refusal(-26, "ErrRPCTxRejected(-26): transaction is not finalized"), unknown: notThere}),
		send("orphan", "rejected", "an input that nobody knows", nodeAnswers{
			"sendrawtransaction": refusal(-25, "ErrOrphanTransactionDisallowed(-25): orphan"), unknown: notThere,
			"gettxout": result(nil),
		}),
		send("decode", "rejected", "the node cannot read it", nodeAnswers{"sendrawtransaction": refusal(-22, "ErrRPCDeserialization(-22): TX decode failed"), unknown: notThere}),
		send("known", "ok", "in the mempool already, which a pktd answers like a refusal", nodeAnswers{
			"sendrawtransaction": refusal(-26, "ErrRPCTxRejected(-26): already have transaction"), unknown: result(hex.EncodeToString(tx)),
		}),
		send("mined", "ok", "in a block already", of("sendrawtransaction", refusal(-27, "ErrRPCTxAlreadyInChain(-27): transaction already in chain"))),
		send("unknown-code", "unavailable", "a code that says nothing of the transaction", of("sendrawtransaction", refusal(-99, "?"))),
		send("no-second-look", "unavailable", "a refusal of which nobody can tell whether it is known", nodeAnswers{
			"sendrawtransaction": refusal(-26, "ErrRPCTxRejected(-26): ?"), unknown: refusal(-32603, "ErrRPCInternal(-32603): ?"),
		}),
	}
}

// legacy is a transaction without its witness, which its id is the hash of.
func legacy(t *testing.T, raw []byte) []byte {
	t.Helper()
	tx, err := parseTx(raw)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tx.SerializeNoWitness(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// quoted is the text that an answer's result is.
func quoted(answer string) string {
	var a struct{ Result string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(answer, "200 ")), &a); err != nil {
		panic(err)
	}
	return a.Result
}

// scriptedNode answers as a vector says, and to all else that it knows no such
// method. The most exact line counts.
func scriptedNode(t *testing.T, c vector.Case) http.HandlerFunc {
	answers := nodeAnswers{}
	for _, l := range c.Lines {
		if l.Key != "answer" {
			continue
		}
		key, answer, ok := strings.Cut(l.Value, " = ")
		if !ok {
			t.Fatalf("vector %s: no answer: %q", c.Name, l.Value)
		}
		answers[key] = answer
	}
	return func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Method string
			Params []any
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		answer, ok := answers[q.Method]
		if len(q.Params) > 0 {
			if exact, found := answers[fmt.Sprint(q.Method, " ", q.Params[0])]; found {
				answer, ok = exact, true
			}
		}
		if !ok {
			answer = refusal(-32601, "ErrRPCMethodNotFound(-32601)")
		}
		code, body, _ := strings.Cut(answer, " ")
		status, err := strconv.Atoi(code)
		if err != nil {
			t.Errorf("vector %s: no status: %q", c.Name, answer)
		}
		if zeroed, ok := strings.CutPrefix(body, "@zeros "); ok {
			n, err := strconv.Atoi(zeroed)
			if err != nil {
				t.Error(err)
			}
			w.WriteHeader(status)
			_, _ = io.CopyN(w, zeros{}, int64(n)) // the driver hangs up before the end
			return
		}
		if status == http.StatusTemporaryRedirect {
			w.Header().Set("Location", "http://127.0.0.1:1/"+body)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// TestVectors: what the driver makes of a node's answers.
func TestVectors(t *testing.T) {
	cases, err := vector.Sync(vectorDir, "", nodeVectors(t), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			server := httptest.NewServer(scriptedNode(t, c))
			defer server.Close()
			d, err := New(Config{URL: server.URL, User: "u", Password: "p", Magic: 0xdab5bffa})
			if err != nil {
				t.Fatal(err)
			}
			got := outcome(ask(t, d, c.Value("question")))
			if want := c.Value("expect"); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func ask(t *testing.T, d *Driver, question string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	what, argument, _ := strings.Cut(question, " ")
	b, err := hex.DecodeString(argument)
	if err != nil {
		t.Fatal(err)
	}
	switch what {
	case "tip":
		_, err = d.Tip(ctx)
	case "coins":
		_, err = d.Coins(ctx, b)
	case "send":
		err = d.Broadcast(ctx, b)
	default:
		t.Fatalf("no question %q", question)
	}
	return err
}

func outcome(err error) string {
	if _, ok := errors.AsType[*settle.Searching](err); ok {
		return "searching"
	}
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, settle.ErrRejected):
		return "rejected"
	case errors.Is(err, settle.ErrLedgerUnavailable):
		return "unavailable"
	}
	return err.Error()
}
