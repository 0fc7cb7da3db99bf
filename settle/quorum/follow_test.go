package quorum_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/quorum"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// reader follows as a wallet does.
type reader struct {
	next uint64
	txs  map[[32]byte]settle.TxState
}

// read takes the changes over and reports whether there was an answer.
func (r *reader) read(ctx context.Context, l *quorum.Ledger, scripts [][]byte) (settle.Tip, error) {
	added := [][]byte(nil)
	if r.next == 0 {
		added, r.txs = scripts, map[[32]byte]settle.TxState{}
	}
	c, err := l.Follow(ctx, r.next, added)
	if err != nil {
		return settle.Tip{}, err
	}
	if c.Lost {
		return settle.Tip{}, errors.New("changes were lost")
	}
	r.next = c.Next
	for _, s := range c.Txs {
		if s.Gone {
			delete(r.txs, s.TxID)
		} else {
			s.Raw = nil
			r.txs[s.TxID] = s
		}
	}
	return c.Tip, nil
}

// truth is what a server says that hides nothing.
func truth(t testing.TB, chain *settletest.Ledger, scripts [][]byte) map[[32]byte]settle.TxState {
	c, err := settletest.NewFollower(chain, 1).Follow(context.Background(), 0, scripts)
	if err != nil {
		t.Fatal(err)
	}
	txs := map[[32]byte]settle.TxState{}
	for _, s := range c.Txs {
		s.Raw = nil
		txs[s.TxID] = s
	}
	return txs
}

// TestFollowModel: payments come, wait, are mined and lost by reorganisations,
// while one of three servers lies in any way and another is silent or restarts
// at times. Whoever follows the three knows exactly what the honest ones know as
// soon as both are asked again; until then nothing is made up and nothing is denied
// [LEDGER-60].
func TestFollowModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		order := rapid.Permutation([]int{0, 1, 2}).Draw(rt, "order")
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) modelStep {
			return modelStep{
				do: rapid.SampledFrom([]string{"pay", "pay", "mine", "reorg", "restart", "lie", "lie", "silence"}).Draw(rt, "do"),
				n:  rapid.IntRange(0, 23).Draw(rt, "n"),
			}
		}), 4, 25).Draw(rt, "steps")
		var err error
		synctest.Test(t, func(t *testing.T) { err = newModel(t, order).run(steps) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

type modelStep struct {
	do string
	n  int
}

// lies are what a server may make of its answer.
var lies = []func(settle.Changes) settle.Changes{
	nil, invent, elsewhere, gone, pooled,
	func(c settle.Changes) settle.Changes { c.Txs = nil; return c },
	func(settle.Changes) settle.Changes { return settle.Changes{Lost: true} },
	func(c settle.Changes) settle.Changes { c.Tip.Hash[3] ^= 1; c.Tip.Height++; return c },
}

type followModel struct {
	*testing.T
	chain  *settletest.Ledger
	all    [][]byte // scripts
	liar   *server
	honest [2]*server
	silent bool // the second honest one
	l      *quorum.Ledger
}

func newModel(t *testing.T, order []int) *followModel {
	m := &followModel{T: t, chain: twin(t), all: [][]byte{script(1), script(2)}}
	m.liar = &server{Ledger: m.chain, follower: settletest.NewFollower(m.chain, 900)}
	m.honest[0] = &server{Ledger: m.chain, follower: settletest.NewFollower(m.chain, 1)}
	m.honest[1] = &server{Ledger: m.chain, follower: settletest.NewFollower(m.chain, 500), before: func(context.Context) error {
		if m.silent {
			return settle.ErrLedgerUnavailable
		}
		return nil
	}}
	servers := []quorum.Server{m.liar, m.honest[0], m.honest[1]}
	m.l = over(t, servers[order[0]], servers[order[1]], servers[order[2]])
	return m
}

func (m *followModel) run(steps []modelStep) error {
	early, late := &reader{}, &reader{}
	for i, s := range steps {
		synctest.Wait() // for answers that nobody waited for
		switch s.do {
		case "pay":
			m.chain.Mint(m.all[s.n%2], 5_000)
		case "mine":
			m.chain.Mine(1 + s.n%5)
		case "reorg":
			if tip, _ := m.chain.Tip(m.Context()); tip.Height > 4 {
				m.chain.Reorg(1 + s.n%3)
			}
		case "restart":
			m.honest[i%2].follower = settletest.NewFollower(m.chain, uint64(1_000*(i+1)))
		case "lie":
			m.liar.follow = lies[s.n%len(lies)]
		case "silence":
			if m.silent = !m.silent; !m.silent {
				time.Sleep(time.Minute) // until it is asked again
			}
		}
		check := m.exact
		if m.silent {
			check = m.careful
		}
		if err := check(early, m.all); err != nil {
			return fmt.Errorf("step %d, %s: %w", i, s.do, err)
		}
	}
	m.silent = false
	time.Sleep(time.Minute)
	return errors.Join(m.exact(early, m.all), m.exact(late, m.all[:1]))
}

// careful wants a reader to be told nothing that is not so, while one server is
// silent and another lies; but it may be told nothing.
func (m *followModel) careful(r *reader, scripts [][]byte) error {
	if _, err := r.read(m.Context(), m.l, scripts); err != nil {
		if !errors.Is(err, settle.ErrLedgerUnavailable) {
			return err
		}
		return nil
	}
	want := truth(m.T, m.chain, scripts)
	for id, s := range r.txs {
		if s.Height > 0 && want[id].Height != s.Height {
			return fmt.Errorf("got %x in block %d, want %d", id[:4], s.Height, want[id].Height)
		}
	}
	for id, s := range want {
		if _, ok := r.txs[id]; !ok {
			return fmt.Errorf("transaction %x of block %d is denied", id[:4], s.Height)
		}
	}
	return nil
}

// exact wants a reader to know the truth.
func (m *followModel) exact(r *reader, scripts [][]byte) error {
	tip, err := r.read(m.Context(), m.l, scripts)
	if err != nil {
		return err
	}
	if want, _ := m.chain.Tip(m.Context()); tip != want {
		return fmt.Errorf("tip: got %+v, want %+v", tip, want)
	}
	there := truth(m.T, m.chain, m.all)
	for id, s := range r.txs { // it may name others, but none that is not there
		if fmt.Sprint(there[id]) != fmt.Sprint(s) {
			return fmt.Errorf("transaction %x: got %+v, want %+v", id[:4], s, there[id])
		}
	}
	for id := range truth(m.T, m.chain, scripts) {
		if _, ok := r.txs[id]; !ok {
			return fmt.Errorf("transaction %x is missing", id[:4])
		}
	}
	return nil
}

func gone(c settle.Changes) settle.Changes {
	c.Txs = slices.Clone(c.Txs)
	for i := range c.Txs {
		c.Txs[i].Gone = true
	}
	return c
}

func pooled(c settle.Changes) settle.Changes {
	c.Txs = slices.Clone(c.Txs)
	for i := range c.Txs {
		c.Txs[i].Height, c.Txs[i].Position, c.Txs[i].Time = 0, 0, 0
	}
	return c
}

// TestFollowDisagreement: two servers that differ about a block make an error
// that blames both; about the mempool they may differ [LEDGER-60].
func TestFollowDisagreement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain := twin(t)
		chain.Mint(script(1), 5_000)
		chain.Mine(10)
		l := over(t, &server{Ledger: chain}, &server{Ledger: chain, follow: gone})
		if c, err := l.Follow(t.Context(), 0, [][]byte{script(1)}); !errors.Is(err, quorum.ErrDisagree) {
			t.Errorf("a block: got %+v, %v, want ErrDisagree", c, err)
		}
		if tr := l.Troubles(); len(tr) != 2 {
			t.Errorf("troubles: got %v, want both", tr)
		}
		pool := func(c settle.Changes) settle.Changes { return pooled(invent(c)) }
		other := twin(t)
		l = over(t, &server{Ledger: other}, &server{Ledger: other, follow: pool})
		if c, err := l.Follow(t.Context(), 0, [][]byte{script(1)}); err != nil || len(c.Txs) != 0 {
			t.Errorf("the mempool: got %+v, %v, want nothing", c, err)
		}
	})
}

// TestFollowLagging: a block that only one has is none yet; the transaction waits
// until enough have it.
func TestFollowLagging(t *testing.T) {
	ahead, behind := twin(t), twin(t)
	for _, c := range []*settletest.Ledger{ahead, behind} {
		c.Mine(3)
	}
	ahead.Mint(script(1), 5_000)
	l := over(t, &server{Ledger: ahead}, &server{Ledger: behind}, &server{Ledger: behind})
	r := &reader{}
	for height := range uint64(2) {
		tip, err := r.read(t.Context(), l, [][]byte{script(1)})
		if err != nil || tip.Height != 4+height || uint64(len(r.txs)) != height {
			t.Errorf("got %d transactions at %+v, %v, want %d at height %d", len(r.txs), tip, err, height, 4+height)
		}
		behind.Mint(script(1), 5_000)
	}
	// The same, of two that have the block: one names another tip for a while.
	behind = twin(t)
	behind.Mine(3)
	fork := func(tip settle.Tip) settle.Tip { tip.Hash[0] ^= 1; return tip }
	unsure := &server{Ledger: ahead, tip: fork}
	l, r = over(t, &server{Ledger: ahead}, unsure, &server{Ledger: behind}), &reader{}
	for height := range uint64(2) {
		tip, err := r.read(t.Context(), l, [][]byte{script(1)})
		if err != nil || tip.Height != 4+height {
			t.Fatalf("got %+v, %v, want height %d", tip, err, 4+height)
		}
		for _, s := range r.txs {
			if want := (4 + height) * height; s.Height != want {
				t.Errorf("got a transaction in block %d, want %d", s.Height, want)
			}
		}
		unsure.tip = nil
	}
}

// TestFollowRestart: what went while all servers restarted is gone, too.
func TestFollowRestart(t *testing.T) {
	chain := twin(t)
	n, _ := pktchain.NetworkOf("pkt-devnet")
	w := settletest.NewWallet(n, chain, "w")
	own, err := w.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	chain.Mint(own, 50_000)
	raw, err := w.Fund(t.Context(), []settle.Payment{{Script: own, Amount: 40_000}}, 1_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := chain.Broadcast(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	servers := []*server{{Ledger: chain}, {Ledger: chain}, {Ledger: chain}}
	l, r := over(t, servers[0], servers[1], servers[2]), &reader{}
	if _, err := r.read(t.Context(), l, [][]byte{own}); err != nil || len(r.txs) != 2 {
		t.Fatalf("got %d transactions, %v, want 2", len(r.txs), err)
	}
	chain.Reorg(1) // forgets the mempool
	for _, s := range servers {
		s.follower = settletest.NewFollower(chain, 5_000)
	}
	if _, err := r.read(t.Context(), l, [][]byte{own}); err != nil || len(r.txs) != 1 {
		t.Errorf("after a restart: got %d transactions, %v, want 1", len(r.txs), err)
	}
}

// TestFollowTooMany: a server that makes up transactions without end is told off,
// and what it named is forgotten [LEDGER-61].
func TestFollowTooMany(t *testing.T) {
	chain := twin(t)
	chain.Mint(script(1), 5_000)
	asked := 0
	flood := func(c settle.Changes) settle.Changes {
		asked++
		for n := range quorum.MaxDoubtful + 1 {
			c.Txs = append(c.Txs, paying(script(1), n))
		}
		return c
	}
	l := of(t, chain, &server{follow: flood})
	r := &reader{}
	for range 3 {
		if _, err := r.read(t.Context(), l, [][]byte{script(1)}); err != nil || len(r.txs) != 1 {
			t.Fatalf("got %d transactions, %v, want 1", len(r.txs), err)
		}
	}
	if asked != 1 {
		t.Errorf("the flooding server was asked %d times, want once for a while", asked)
	}
	if tr := l.Troubles(); len(tr) != 1 || tr[0].Name != "server 1" {
		t.Errorf("troubles: got %v, want server 1", tr)
	}
}

// TestFollowBytes: bytes that are not the transaction are no answer, and of two
// witnesses the one of most counts.
func TestFollowBytes(t *testing.T) {
	chain := twin(t)
	chain.Mint(script(1), 5_000)
	mangled := func(c settle.Changes) settle.Changes {
		c.Txs = slices.Clone(c.Txs)
		for i := range c.Txs {
			c.Txs[i].Raw = paying(script(1), 3).Raw
		}
		return c
	}
	l := of(t, chain, &server{follow: mangled})
	if c, err := l.Follow(t.Context(), 0, [][]byte{script(1)}); err != nil || len(c.Txs) != 1 || c.Txs[0].Height != 2 {
		t.Errorf("got %+v, %v, want the payment in block 2", c, err)
	}
	if tr := l.Troubles(); len(tr) != 1 || tr[0].Name != "server 1" {
		t.Errorf("troubles: got %v, want server 1", tr)
	}
}

// TestFollowHeals: a server that loses count, and does not say so, is asked for
// everything after a while, also when that hides who is right.
func TestFollowHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain := twin(t)
		chain.Mint(script(1), 5_000)
		chain.Mine(5)
		skip := func(c settle.Changes) settle.Changes { c.Txs = nil; return c }
		lost := &server{Ledger: chain}
		l, r := over(t, lost, &server{Ledger: chain}, &server{Ledger: chain, follow: pooled}), &reader{}
		if _, err := r.read(t.Context(), l, [][]byte{script(1)}); err != nil {
			t.Fatal(err)
		}
		lost.follow = skip
		chain.Reorg(6) // the payment moves
		chain.Mine(5)
		if _, err := r.read(t.Context(), l, nil); err != nil {
			t.Fatal(err)
		}
		lost.follow = nil
		time.Sleep(2 * time.Minute)
		for range 2 {
			if _, err := r.read(t.Context(), l, nil); err != nil {
				t.Fatal(err)
			}
		}
		want := truth(t, chain, [][]byte{script(1)})
		if fmt.Sprint(r.txs) != fmt.Sprint(want) {
			t.Errorf("got %+v, want %+v", r.txs, want)
		}
	})
}

// TestFollowBlames: who hides or moves a transaction of a block is named once it
// is no news any more [LEDGER-58].
func TestFollowBlames(t *testing.T) {
	for name, lie := range map[string]func(settle.Changes) settle.Changes{"hides": gone, "moves": elsewhere} {
		chain := twin(t)
		l := of(t, chain, &server{follow: lie})
		r := &reader{}
		chain.Mint(script(1), 5_000)
		for n := range 5 {
			if _, err := r.read(t.Context(), l, [][]byte{script(1)}); err != nil || len(r.txs) != 1 {
				t.Fatalf("%s: got %d transactions, %v, want 1", name, len(r.txs), err)
			}
			if tr := l.Troubles(); (len(tr) == 1 && tr[0].Name == "server 1") != (n >= 3) {
				t.Errorf("%s: troubles %d blocks later: got %v", name, n, tr)
			}
			chain.Mine(1)
		}
	}
}
