package quorum_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
	"github.com/pkt-cash/pkt-cloud/settle/quorum"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// server is the twin as a quorum asks it. A test bends its answers.
type server struct {
	*settletest.Ledger
	before func(ctx context.Context) error // nil: answer at once
	tip    func(settle.Tip) settle.Tip
	output func(settle.Output) settle.Output
	coins  func([]settle.Coin) []settle.Coin
	used   func(bool) bool
	send   func(error) error
	rate   pktcloud.Amount

	follower *settletest.Follower // nil: the twin's
	follow   func(settle.Changes) settle.Changes
}

func (s *server) wait(ctx context.Context) error {
	if s.before == nil {
		return nil
	}
	return s.before(ctx)
}

func (s *server) Tip(ctx context.Context) (settle.Tip, error) {
	if err := s.wait(ctx); err != nil {
		return settle.Tip{}, err
	}
	tip, err := s.Ledger.Tip(ctx)
	if s.tip != nil {
		tip = s.tip(tip)
	}
	return tip, err
}

func (s *server) Output(ctx context.Context, at settle.Outpoint) (settle.Output, error) {
	if err := s.wait(ctx); err != nil {
		return settle.Output{}, err
	}
	out, err := s.Ledger.Output(ctx, at)
	if s.output != nil {
		out = s.output(out)
	}
	return out, err
}

func (s *server) Unspent(ctx context.Context, at settle.Outpoint) (settle.Output, error) {
	out, err := s.Output(ctx, at)
	if out.Spend != nil || out.Depth == 0 {
		out = settle.Output{}
	}
	return out, err
}

func (s *server) Coins(ctx context.Context, script []byte) ([]settle.Coin, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	coins, err := s.Ledger.Coins(ctx, script)
	if s.coins != nil {
		coins = s.coins(coins)
	}
	return coins, err
}

func (s *server) Broadcast(ctx context.Context, raw []byte) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	err := s.Ledger.Broadcast(ctx, raw)
	if s.send != nil {
		err = s.send(err)
	}
	return err
}

func (s *server) FeeRate(ctx context.Context) (pktcloud.Amount, error) {
	if err := s.wait(ctx); err != nil {
		return 0, err
	}
	if s.rate != 0 {
		return s.rate, nil
	}
	return s.Ledger.FeeRate(ctx)
}

func (s *server) Search(ctx context.Context, after settle.Tip, match func([]byte) bool) ([]settle.Found, settle.Tip, error) {
	if err := s.wait(ctx); err != nil {
		return nil, after, err
	}
	found, end, err := s.Ledger.Search(ctx, after, match)
	if s.tip != nil {
		end = s.tip(end)
	}
	return found, end, err
}

func (s *server) Follow(ctx context.Context, since uint64, added [][]byte) (settle.Changes, error) {
	if err := s.wait(ctx); err != nil {
		return settle.Changes{}, err
	}
	var c settle.Changes
	var err error
	if s.follower != nil {
		c, err = s.follower.Follow(ctx, since, added)
	} else {
		c, err = s.Ledger.Follow(ctx, since, added)
	}
	if s.tip != nil {
		c.Tip = s.tip(c.Tip)
	}
	if s.follow != nil {
		c = s.follow(c)
	}
	return c, err
}

func (*server) Watch(...settle.Watch) {}

func (s *server) Used(ctx context.Context, script []byte) (bool, error) {
	if err := s.wait(ctx); err != nil {
		return false, err
	}
	found, _, err := s.Ledger.Search(ctx, settle.Tip{}, func(o []byte) bool { return bytes.Equal(o, script) })
	used := len(found) > 0
	if s.used != nil {
		used = s.used(used)
	}
	return used, err
}

func twin(t *testing.T) *settletest.Ledger {
	t.Helper()
	n, ok := pktchain.NetworkOf("pkt-devnet")
	if !ok {
		t.Fatal("no devnet")
	}
	return settletest.NewLedger(n)
}

// of makes a quorum of three servers; one of them is bad.
func of(t *testing.T, chain *settletest.Ledger, bad *server) *quorum.Ledger {
	t.Helper()
	bad.Ledger = chain
	return over(t, &server{Ledger: chain}, bad, &server{Ledger: chain})
}

func over(t *testing.T, servers ...quorum.Server) *quorum.Ledger {
	t.Helper()
	return within(t, 2*time.Minute, servers...)
}

func within(t *testing.T, patience time.Duration, servers ...quorum.Server) *quorum.Ledger {
	t.Helper()
	var members []quorum.Member
	for i, s := range servers {
		members = append(members, quorum.Member{Name: fmt.Sprint("server ", i), Server: s})
	}
	l, err := quorum.New(members, quorum.Config{Patience: patience, PollInterval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// silent never answers; frozen does not even notice that it was given up.
func silent(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// kit runs the ledger's kit over a quorum of servers of one twin.
func kit(t *testing.T, chain *settletest.Ledger, l *quorum.Ledger) error {
	t.Helper()
	return settletest.TestLedger(t.Context(), settletest.LedgerFixture{
		Ledger: l,
		Mine:   func(_ context.Context, n int) error { chain.Mine(n); return nil },
		Fund: func(_ context.Context, script []byte, amount pktcloud.Amount) error {
			chain.Mint(script, amount)
			return nil
		},
		Break: func() error { chain.SetDown(true); return nil },
	})
}

// TestQuorumKit: three servers keep all promises of one, also when one of them
// lies, is slow, silent or frozen [LEDGER-50] to [LEDGER-56].
func TestQuorumKit(t *testing.T) {
	forever := make(chan struct{})
	t.Cleanup(func() { close(forever) })
	fake := settle.Coin{At: settle.Outpoint{TxID: [32]byte{7}}, Amount: 1 << 40, Script: []byte{0, 20}, Depth: 50}
	for i, c := range []struct {
		name string
		bad  *server
	}{
		{"all honest", &server{}},
		{"silent", &server{before: silent}},
		{"frozen", &server{before: func(context.Context) error { <-forever; return nil }}},
		{"slow", &server{before: func(ctx context.Context) error {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
			return ctx.Err()
		}}},
		{"unavailable", &server{before: func(context.Context) error { return settle.ErrLedgerUnavailable }}},
		{"one that makes things up", &server{
			tip:    func(tip settle.Tip) settle.Tip { tip.Height += 1000; return tip },
			output: func(o settle.Output) settle.Output { o.Amount++; return o },
			coins:  func(c []settle.Coin) []settle.Coin { return append(c, fake) },
			used:   func(bool) bool { return true },
			send:   func(error) error { return nil },
			rate:   1 << 50,
			follow: invent,
		}},
		{"one that hides things", &server{
			tip:    func(settle.Tip) settle.Tip { return settle.Tip{Height: 1} },
			output: func(o settle.Output) settle.Output { o.Spend = nil; return o },
			coins:  func([]settle.Coin) []settle.Coin { return nil },
			used:   func(bool) bool { return false },
			send:   func(error) error { return &settle.Rejection{Code: -26} },
			rate:   1,
			follow: func(c settle.Changes) settle.Changes { c.Txs = nil; return c },
		}},
		{"one on another chain", &server{
			tip: func(tip settle.Tip) settle.Tip { tip.Hash[0] ^= 1; return tip },
			output: func(o settle.Output) settle.Output {
				o.Depth += 100
				o.Spend = &settle.Spend{TxID: [32]byte{9}, Raw: []byte("nothing"), Depth: 7}
				return o
			},
			follow: elsewhere,
		}},
		{"one that always forgets", &server{follow: func(settle.Changes) settle.Changes { return settle.Changes{Lost: true} }}},
		{"one that fails in its own way", &server{before: func(context.Context) error { return errors.New("boom") }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain := twin(t)
			c.bad.Ledger = chain
			servers := []quorum.Server{&server{Ledger: chain}, &server{Ledger: chain}, c.bad}
			if i%2 == 0 { // the liar is not always the last to be heard
				servers[0], servers[2] = servers[2], servers[0]
			}
			if err := kit(t, chain, over(t, servers...)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFeeRate(t *testing.T) {
	chain := twin(t)
	chain.SetFeeRate(5_000)
	for _, lie := range []pktcloud.Amount{1, 1 << 50} {
		if rate, err := of(t, chain, &server{rate: lie}).FeeRate(t.Context()); err != nil || rate != 5_000 {
			t.Errorf("with one that says %d: got %d, %v; want 5000", uint64(lie), uint64(rate), err)
		}
	}
}

// TestNeverAbsence: what neither enough servers know nor enough deny is an error,
// never an output that does not exist; and no liar alone makes it one [LEDGER-52].
func TestNeverAbsence(t *testing.T) {
	chain := twin(t)
	script := append([]byte{0, 20}, make([]byte, 20)...)
	at := chain.Mint(script, 5_000)
	hide := func(settle.Output) settle.Output { return settle.Output{} }
	honest := func() *server { return &server{Ledger: chain} }
	liar := func() *server { return &server{Ledger: chain, output: hide} }
	for _, c := range []struct {
		name    string
		servers []quorum.Server
		known   bool
		blamed  []string
	}{
		{"one of three hides it", []quorum.Server{honest(), liar(), honest()}, true, []string{"server 1"}},
		{"one of two hides it", []quorum.Server{honest(), liar()}, false, []string{"server 0", "server 1"}},
		{"two of four hide it", []quorum.Server{honest(), liar(), honest(), liar()}, false, []string{"server 0", "server 1", "server 2", "server 3"}},
	} {
		l := over(t, c.servers...)
		for name, ask := range map[string]func(context.Context, settle.Outpoint) (settle.Output, error){"Output": l.Output, "Unspent": l.Unspent} {
			out, err := ask(t.Context(), at)
			if c.known && (err != nil || !out.Known || out.Amount != 5_000) {
				t.Errorf("%s: %s: got %+v, %v; want the output", c.name, name, out, err)
			}
			if !c.known && (!errors.Is(err, quorum.ErrDisagree) || !errors.Is(err, settle.ErrLedgerUnavailable)) {
				t.Errorf("%s: %s: got %+v, %v; want ErrDisagree", c.name, name, out, err)
			}
		}
		var names []string
		for _, tr := range l.Troubles() {
			names = append(names, tr.Name)
		}
		if fmt.Sprint(names) != fmt.Sprint(c.blamed) {
			t.Errorf("%s: troubles with %v, want %v", c.name, l.Troubles(), c.blamed)
		}
	}
}

// TestSignedSpend: a spend that one server alone shows counts if its signatures
// are good, as one that no block holds [LEDGER-52].
func TestSignedSpend(t *testing.T) {
	chain, ahead := twin(t), twin(t)
	n, _ := pktchain.NetworkOf("pkt-devnet")
	w := settletest.NewWallet(n, ahead, "w")
	script, err := w.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := chain.Mint(script, 50_000)
	if other := ahead.Mint(script, 50_000); other != at {
		t.Fatal("the chains differ")
	}
	raw, err := w.Fund(t.Context(), []settle.Payment{{Script: script, Amount: 40_000}}, 1_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := ahead.Broadcast(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	l := over(t, &server{Ledger: chain}, &server{Ledger: ahead}, &server{Ledger: chain})
	out, err := l.Output(t.Context(), at)
	if err != nil || out.Spend == nil || out.Spend.Depth != 0 {
		t.Errorf("got %+v, %v; want a spend at depth 0", out, err)
	}
	broken := append([]byte{}, raw...)
	broken[len(broken)-10] ^= 1
	forger := &server{Ledger: ahead, output: func(o settle.Output) settle.Output {
		if o.Spend != nil {
			o.Spend = &settle.Spend{TxID: o.Spend.TxID, Raw: broken, Depth: 3}
		}
		return o
	}}
	l = over(t, &server{Ledger: chain}, forger, &server{Ledger: chain})
	if out, err = l.Output(t.Context(), at); err != nil || out.Spend != nil {
		t.Errorf("got %+v, %v; want no spend", out, err)
	}
	if tr := l.Troubles(); len(tr) != 1 || tr[0].Name != "server 1" {
		t.Errorf("troubles: got %v, want server 1", tr)
	}
}

// TestTipOfMost: the height is one that enough servers reach: neither one that
// is ahead nor one that is stuck decides it [LEDGER-50].
func TestTipOfMost(t *testing.T) {
	low, mid, high := twin(t), twin(t), twin(t)
	low.Mine(1)
	mid.Mine(3)
	high.Mine(9)
	l := over(t, &server{Ledger: low}, &server{Ledger: high}, &server{Ledger: mid})
	tip, err := l.Tip(t.Context())
	if want, _ := mid.Tip(t.Context()); err != nil || tip != want {
		t.Errorf("got %+v, %v; want %+v", tip, err, want)
	}
	fork := func(tip settle.Tip) settle.Tip { tip.Hash[0] ^= 1; return tip }
	l = over(t, &server{Ledger: mid}, &server{Ledger: mid, tip: fork})
	if _, err := l.Tip(t.Context()); !errors.Is(err, quorum.ErrDisagree) {
		t.Errorf("two chains of one height: got %v, want ErrDisagree", err)
	}
}

// TestSilentServerIsLeftAlone: a server that does not answer costs one wait.
func TestSilentServerIsLeftAlone(t *testing.T) { synctest.Test(t, silentServer) }

func silentServer(t *testing.T) {
	chain := twin(t)
	l := of(t, chain, &server{before: silent})
	began := time.Now()
	for range 50 {
		if _, err := l.Tip(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("50 questions took %v", took)
	}
	if tr := l.Troubles(); len(tr) != 1 || tr[0].Name != "server 1" {
		t.Errorf("troubles: got %v, want server 1", tr)
	}
	l = within(t, 100*time.Millisecond, &server{Ledger: chain, before: silent}, &server{Ledger: chain}, &server{Ledger: chain, before: silent})
	if _, err := l.Tip(t.Context()); !errors.Is(err, settle.ErrLedgerUnavailable) {
		t.Errorf("one of three answers: got %v, want ErrLedgerUnavailable", err)
	}
}

// TestQuorumOverDevnet runs the kit over three drivers of a real chain.
func TestQuorumOverDevnet(t *testing.T) {
	chain, err := devnet.Open(t.TempDir(), devnet.Config{InitialBlocks: 110})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cookie := filepath.Join(t.TempDir(), "cookie")
	auth, err := devnet.NewCookie(cookie)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- chain.Serve(ctx, ln, auth) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, chain.Close()); err != nil {
			t.Error(err)
		}
	})
	var members []quorum.Member
	for i := range 3 {
		d, err := pktd.New(pktd.Config{URL: "http://" + ln.Addr().String(), CookieFile: cookie, Magic: devnet.Magic, PollInterval: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, quorum.Member{Name: fmt.Sprint(i), Server: d})
	}
	l, err := quorum.New(members, quorum.Config{Patience: 2 * time.Minute, PollInterval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	err = settletest.TestLedger(t.Context(), settletest.LedgerFixture{
		Ledger: l,
		Mine:   func(_ context.Context, n int) error { _, err := chain.Mine(n, nil); return err },
		Fund: func(ctx context.Context, script []byte, amount pktcloud.Amount) error {
			_, err := chain.Faucet(ctx, script, amount)
			return err
		},
		Invalidate: func(_ context.Context, n int) error { return chain.Invalidate(n) },
	})
	if err != nil {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	chain := &server{Ledger: twin(t)}
	for name, members := range map[string][]quorum.Member{
		"one":           {{Name: "a", Server: chain}},
		"two of a name": {{Name: "a", Server: chain}, {Name: "a", Server: chain}},
		"no name":       {{Name: "a", Server: chain}, {Server: chain}},
		"no server":     {{Name: "a", Server: chain}, {Name: "b"}},
	} {
		if _, err := quorum.New(members, quorum.Config{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
