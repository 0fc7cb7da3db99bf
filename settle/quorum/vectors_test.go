package quorum_test

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/quorum"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorDir = "../../spec/vectors/quorum"

// TestVectors: what a set of answers makes of each question.
func TestVectors(t *testing.T) {
	cases, err := vector.Sync(vectorDir, "", vectors(t), *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, answer := runVector(t, c)
				if want := c.Value("expect"); got != want || answer != c.Value("answer") {
					t.Errorf("got %s %s, want %s %s", got, answer, want, c.Value("answer"))
				}
			})
		})
	}
}

func vectors(t *testing.T) []vector.Case {
	made := func(name, answer, about string, servers ...string) vector.Case {
		c := vector.New(name, answer, about)
		if !slices.Contains([]string{"disagree", "unavailable", "rejected"}, answer) {
			c = vector.New(name, "ok", about).With("answer", answer)
		}
		for _, s := range servers {
			c = c.With("server", s)
		}
		return c
	}
	const a, b = "0014aa", "0014bb"
	spend, forged, at, paid := spends(t)
	spent := func(c vector.Case) vector.Case { return c.With("outpoint", at) }
	return []vector.Case{
		made("tip-alike", "100 a", "all have one block", "100 a", "100 a", "100 a"),
		made("tip-lags", "100 a", "one lags", "97 a", "100 a", "100 a"),
		made("tip-ahead", "100 a", "one has a block more", "101 a", "100 a", "100 a"),
		made("tip-spread", "99 a", "each at a height of its own", "98 a", "99 a", "120 a"),
		made("tip-fork", "100 a", "one on another branch", "100 b", "100 a", "100 a"),
		made("tip-fork-lags", "99 a", "one on another branch, one behind", "100 b", "99 a", "100 a"),
		made("tip-invented", "100 a", "one names a height that is none", "1000000 b", "100 a", "100 a"),
		made("tip-two", "disagree", "two on two branches", "100 a", "100 b"),
		made("tip-silent", "100 a", "one is silent", "silent", "100 a", "100 a"),
		made("tip-all-silent", "unavailable", "two of three are silent", "silent", "silent", "100 a"),

		made("output-alike", "5000 "+a+" depth 3", "all know it", "5000 "+a+" 3", "5000 "+a+" 3", "5000 "+a+" 3"),
		made("output-depths", "5000 "+a+" depth 2", "no depth counts that fewer than enough see", "5000 "+a+" 1", "5000 "+a+" 9", "5000 "+a+" 2"),
		made("output-hidden", "5000 "+a+" depth 3", "one hides it", "5000 "+a+" 3", "unknown", "5000 "+a+" 3"),
		made("output-invented", "unknown", "one makes it up", "unknown", "5000 "+a+" 9", "unknown"),
		made("output-amount", "5000 "+a+" depth 3", "one names another amount", "5001 "+a+" 3", "5000 "+a+" 3", "5000 "+a+" 3"),
		made("output-script", "5000 "+a+" depth 3", "one names another script", "5000 "+a+" 3", "5000 "+b+" 3", "5000 "+a+" 3"),
		made("output-two", "disagree", "one of two knows it", "5000 "+a+" 3", "unknown"),
		made("output-open", "disagree", "two of four know it", "5000 "+a+" 3", "unknown", "5000 "+a+" 3", "unknown"),
		made("output-three-say-three", "disagree", "three say three things", "5000 "+a+" 3", "6000 "+a+" 3", "unknown"),
		made("output-silent", "unavailable", "two of three are silent", "silent", "silent", "5000 "+a+" 3"),
		spent(made("output-spent", paid+" depth 3 spent depth 2", "all show the spend", paid+" 3 2 "+spend, paid+" 3 2 "+spend, paid+" 3 1 "+spend)),
		spent(made("output-spend-of-one", paid+" depth 3 spent depth 0", "one shows a spend that is signed", paid+" 3 2 "+spend, paid+" 3", paid+" 3")),
		spent(made("output-spend-forged", paid+" depth 3", "one shows a spend that is not signed", paid+" 3 2 "+forged, paid+" 3", paid+" 3")),
		spent(made("output-spend-hidden", paid+" depth 3 spent depth 2", "one hides the spend", paid+" 3", paid+" 3 2 "+spend, paid+" 3 2 "+spend)),

		made("coins-alike", "01 5000 depth 3", "all list it", "01 5000 3", "01 5000 3", "01 5000 3"),
		made("coins-invented", "none", "one makes one up, twice", "01 5000 3, 01 5000 3", "none", "none"),
		made("coins-hidden", "01 5000 depth 2", "one hides it", "01 5000 3", "none", "01 5000 2"),
		made("coins-amount", "01 5000 depth 3", "one names another amount", "01 5000 3", "01 9000 3", "01 5000 3"),
		made("coins-pool", "none", "one of two has it in the mempool", "01 5000 0", "none"),
		made("coins-two", "disagree", "one of two lists one that is deep", "01 5000 9", "none"),

		made("used-most", "yes", "two of three", "yes", "no", "yes"),
		made("used-one", "no", "one of three", "yes", "no", "no"),
		made("used-two", "disagree", "one of two", "yes", "no"),

		made("fee-median", "5000", "one drives it up", "5000", "900000", "4000"),
		made("fee-two", "5000", "the lower one of two", "5000", "900000", "silent"),
		made("fee-floor", "1000", "never below the floor", "1", "1", "1"),

		made("send-accepted", "accepted", "one refuses", "accepted", "rejected", "accepted"),
		made("send-rejected", "rejected", "one accepts", "rejected", "accepted", "rejected"),

		made("follow-mined", "block 90", "all have it in a block", "90", "90", "90"),
		made("follow-pool", "mempool", "no block counts that fewer than enough name", "90", "mempool", "mempool"),
		made("follow-moved", "block 90", "one names another block", "90", "91", "90"),
		made("follow-hidden", "block 90", "one hides it", "90", "none", "90"),
		made("follow-invented", "none", "one makes it up", "90", "none", "none"),
		made("follow-two", "disagree", "one of two has it in a block", "90", "none"),
		made("follow-two-pool", "none", "one of two has it in the mempool", "mempool", "none"),
		made("follow-above", "mempool", "a block above the tip that enough have", "101", "mempool", "mempool"),
	}
}

// spends is a coin and a transaction that spends it, with a good signature and
// with a bad one.
func spends(t *testing.T) (good, bad, at, paid string) {
	chain := twin(t)
	n, _ := pktchain.NetworkOf("pkt-devnet")
	w := settletest.NewWallet(n, chain, "w")
	own, err := w.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	coin := chain.Mint(own, 50_000)
	raw, err := w.Fund(t.Context(), []settle.Payment{{Script: own, Amount: 40_000}}, 1_000)
	if err != nil {
		t.Fatal(err)
	}
	good = hex.EncodeToString(raw)
	raw[len(raw)-50] ^= 1
	return good, hex.EncodeToString(raw), hex.EncodeToString(coin.TxID[:]), fmt.Sprintf("50000 %x", own)
}

// scripted answers as a vector's line says. The branches part above block 98.
type scripted struct {
	*server
	line string
	tx   settle.TxState
}

func (s scripted) words() []string { return strings.Fields(s.line) }

func number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(err) // a vector is part of the test
	}
	return n
}

func block(height uint64, branch string) settle.Tip {
	tip := settle.Tip{Height: height, Time: 1}
	if height > 98 {
		tip.Hash[0] = branch[0]
	}
	return tip
}

func (s scripted) Tip(ctx context.Context) (settle.Tip, error) {
	if s.line == "silent" {
		return settle.Tip{}, silent(ctx)
	}
	return block(number(s.words()[0]), s.words()[1]), nil
}

func (s scripted) TipAt(_ context.Context, height uint64) (settle.Tip, error) {
	if len(s.words()) == 2 {
		return block(height, s.words()[1]), nil
	}
	return block(height, "a"), nil
}

func (s scripted) Output(ctx context.Context, _ settle.Outpoint) (settle.Output, error) {
	w := s.words()
	switch s.line {
	case "silent":
		return settle.Output{}, silent(ctx)
	case "unknown":
		return settle.Output{}, nil
	}
	of, err := hex.DecodeString(w[1])
	out := settle.Output{Known: true, Amount: pktcloud.Amount(number(w[0])), Script: of, Depth: number(w[2])}
	if len(w) == 5 {
		raw, err := hex.DecodeString(w[4])
		if err != nil {
			return out, err
		}
		out.Spend = &settle.Spend{TxID: txidOf(raw), Raw: raw, Depth: number(w[3])}
	}
	return out, err
}

func (s scripted) Coins(context.Context, []byte) (coins []settle.Coin, err error) {
	if s.line == "none" {
		return nil, nil
	}
	for text := range strings.SplitSeq(s.line, ", ") {
		w := strings.Fields(text)
		coins = append(coins, settle.Coin{
			At: settle.Outpoint{TxID: [32]byte{byte(number(w[0]))}}, Amount: pktcloud.Amount(number(w[1])), Depth: number(w[2]),
		})
	}
	return coins, nil
}

func (s scripted) Used(context.Context, []byte) (bool, error) { return s.line == "yes", nil }

func (s scripted) FeeRate(ctx context.Context) (pktcloud.Amount, error) {
	if s.line == "silent" {
		return 0, silent(ctx)
	}
	return pktcloud.Amount(number(s.line)), nil
}

func (s scripted) Broadcast(context.Context, []byte) error {
	if s.line == "rejected" {
		return &settle.Rejection{Code: -26}
	}
	return nil
}

func (s scripted) Follow(context.Context, uint64, [][]byte) (settle.Changes, error) {
	c := settle.Changes{Tip: block(100, "a"), Next: 2}
	tx := s.tx
	switch s.line {
	case "none":
		return c, nil
	case "mempool":
		tx.Height, tx.Time = 0, 0
	default:
		tx.Height = number(s.line)
		c.Tip = block(max(100, tx.Height), "a")
	}
	c.Txs = []settle.TxState{tx}
	return c, nil
}

func runVector(t *testing.T, c vector.Case) (expect, answer string) {
	tx := paying(script(1), 1)
	var servers []quorum.Server
	for _, l := range c.Lines {
		if l.Key == "server" {
			servers = append(servers, scripted{&server{}, l.Value, tx})
		}
	}
	l := over(t, servers...)
	got, err := "", error(nil)
	switch kind, _, _ := strings.Cut(c.Name, "-"); kind {
	case "tip":
		got, err = showTip(l.Tip(t.Context()))
	case "output":
		var at settle.Outpoint
		copy(at.TxID[:], c.Bytes("outpoint"))
		got, err = showOutput(l.Output(t.Context(), at))
	case "coins":
		got, err = showCoins(l.Coins(t.Context(), script(1)))
	case "used":
		used, usedErr := l.Used(t.Context(), script(1))
		got, err = map[bool]string{true: "yes", false: "no"}[used], usedErr
	case "fee":
		rate, rateErr := l.FeeRate(t.Context())
		got, err = fmt.Sprint(uint64(rate)), rateErr
	case "send":
		got, err = "accepted", l.Broadcast(t.Context(), nil)
	case "follow":
		got, err = showChanges(l.Follow(t.Context(), 0, [][]byte{script(1)}))
	}
	switch {
	case err == nil:
		return "ok", got
	case errors.Is(err, settle.ErrRejected):
		return "rejected", ""
	case errors.Is(err, quorum.ErrDisagree):
		return "disagree", ""
	case errors.Is(err, settle.ErrLedgerUnavailable):
		return "unavailable", ""
	}
	return err.Error(), ""
}

func showTip(tip settle.Tip, err error) (string, error) {
	branch := "a"
	if tip.Height > 98 {
		branch = string(tip.Hash[:1])
	}
	return fmt.Sprintf("%d %s", tip.Height, branch), err
}

func showOutput(out settle.Output, err error) (string, error) {
	if !out.Known {
		return "unknown", err
	}
	text := fmt.Sprintf("%d %x depth %d", uint64(out.Amount), out.Script, out.Depth)
	if out.Spend != nil {
		text += fmt.Sprintf(" spent depth %d", out.Spend.Depth)
	}
	return text, err
}

func showCoins(coins []settle.Coin, err error) (string, error) {
	text := []string{}
	for _, c := range coins {
		text = append(text, fmt.Sprintf("%02x %d depth %d", c.At.TxID[0], uint64(c.Amount), c.Depth))
	}
	if len(text) == 0 {
		return "none", err
	}
	return strings.Join(text, ", "), err
}

func showChanges(c settle.Changes, err error) (string, error) {
	switch {
	case len(c.Txs) == 0 || c.Txs[0].Gone:
		return "none", err
	case c.Txs[0].Height == 0:
		return "mempool", err
	}
	return fmt.Sprintf("block %d", c.Txs[0].Height), err
}
