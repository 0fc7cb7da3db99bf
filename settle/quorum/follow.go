package quorum

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"github.com/pkt-cash/pkt-cloud/settle"
)

const (
	// MaxDoubtful is how many transactions a server may name beyond those that
	// the servers agree on; who names more begins anew [LEDGER-61].
	MaxDoubtful = 10_000
	// maxLog is how many changes are remembered; whoever asks for older ones is
	// told to begin again.
	maxLog = 1 << 17
	// anewAfter is how long a server that says otherwise of transactions is asked
	// for changes before it is asked for everything: it may have lost count.
	anewAfter = time.Minute
)

type txid = [32]byte

// followed is what the members told of the transactions of followed scripts, and
// what is made of it.
type followed struct {
	turn    chan struct{} // guards all below; held while the members are asked
	scripts [][]byte      // in the order in which they came
	known   map[string]bool
	sights  map[*member]*sight
	dirty   map[txid]bool // to be judged anew
	counted []*member     // whose word was judged last, in the members' order
	tip     settle.Tip
	ledger  agreed
}

// sight is what one member told.
type sight struct {
	began  time.Time // when it told everything
	cursor uint64    // its own, of its next change
	asked  int       // for how many of the scripts
	txs    map[txid]settle.TxState
	odd    map[txid]uint64 // about which it says otherwise, and from what height on
}

// told is a member's answer.
type told struct {
	settle.Changes
	anew  bool // it is all there is
	asked int
}

func newFollowed() followed {
	return followed{
		turn: make(chan struct{}, 1), known: map[string]bool{}, sights: map[*member]*sight{},
		dirty: map[txid]bool{}, ledger: newAgreed(),
	}
}

// Follow implements settle.TxFollower: a transaction is where enough servers have
// it, and its changes are numbered by the quorum itself [LEDGER-60].
func (l *Ledger) Follow(ctx context.Context, since uint64, added [][]byte) (settle.Changes, error) {
	f := &l.follow
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return settle.Changes{}, ctx.Err()
	}
	defer func() { <-f.turn }()
	for _, s := range added {
		if !f.known[string(s)] {
			f.known[string(s)] = true
			f.scripts = append(f.scripts, slices.Clone(s))
		}
	}
	first := true
	err := l.settled(ctx, func(w whom) error {
		err := l.look(ctx, w, first)
		first = false
		return err
	})
	if err != nil {
		return settle.Changes{}, err
	}
	return f.ledger.changes(f.tip, since, added), nil
}

// look asks members what changed and judges it. When they disagree for the first
// time, they are asked for everything the next time.
func (l *Ledger) look(ctx context.Context, w whom, first bool) error {
	f := &l.follow
	type query struct {
		since uint64
		from  int
	}
	queries := map[*member]query{} // a copy: an answer that comes too late meets nothing
	for _, m := range w.of {
		if s := f.sights[m]; s != nil {
			queries[m] = query{s.cursor, s.asked}
		}
	}
	scripts := slices.Clone(f.scripts)
	answers, err := everybody(l, w, searchPatience*l.cfg.Patience, func(ctx context.Context, m *member) (told, error) {
		q := queries[m]
		return followOne(ctx, m, q.since, scripts[q.from:], scripts)
	}).ask(ctx, l)
	if err != nil {
		return err
	}
	tips := make([]answer[settle.Tip], 0, len(answers))
	for _, a := range answers {
		f.take(a.from, a.value)
		tips = append(tips, answer[settle.Tip]{a.from, a.value.Tip})
	}
	tip, err := l.agreeTip(ctx, tips)
	if err != nil {
		return err
	}
	asked := make([]*member, 0, len(answers))
	for _, m := range l.members {
		if slices.ContainsFunc(answers, func(a answer[told]) bool { return a.from == m }) {
			asked = append(asked, m)
		}
	}
	open := f.judge(asked, l.need, tip)
	for _, m := range asked {
		l.judgeSight(m)
	}
	if open == 0 {
		return nil
	}
	for _, m := range asked {
		if first {
			f.forget(m)
		} else {
			l.tell(m, facts, otherwise) // whoever is right
		}
	}
	return disagree("%d transactions are known to some of %d servers", open, len(asked))
}

// followOne asks one member, and for everything if it does not remember. All it
// names is what it says it is.
func followOne(ctx context.Context, m *member, since uint64, added, all [][]byte) (told, error) {
	t := told{anew: since == 0, asked: len(all)}
	var err error
	if t.Changes, err = m.Server.Follow(ctx, since, added); err != nil {
		return t, err
	}
	if t.Lost && since != 0 {
		t.anew = true
		if t.Changes, err = m.Server.Follow(ctx, 0, all); err != nil {
			return t, err
		}
	}
	if t.Lost || t.Next == 0 {
		return t, fmt.Errorf("%w: it forgets at once what it said", settle.ErrLedgerUnavailable)
	}
	for _, s := range t.Txs {
		if s.Gone {
			continue
		}
		if tx, err := parse(s.Raw); err != nil || tx.TxHash() != s.TxID {
			return t, fmt.Errorf("%w: the bytes of transaction %x are not it", settle.ErrLedgerUnavailable, s.TxID)
		}
	}
	return t, nil
}

// take makes an answer the member's sight.
func (f *followed) take(m *member, t told) {
	s := f.sights[m]
	if t.anew || s == nil {
		f.forget(m)
		s = &sight{began: time.Now(), txs: map[txid]settle.TxState{}, odd: map[txid]uint64{}}
		f.sights[m] = s
	}
	s.cursor, s.asked = t.Next, t.asked
	for _, state := range t.Txs {
		f.dirty[state.TxID] = true
		if state.Gone {
			delete(s.txs, state.TxID)
			continue
		}
		state.Raw = f.shared(state)
		s.txs[state.TxID] = state
	}
}

// shared returns a transaction's bytes, those of another member if they are the
// same.
func (f *followed) shared(state settle.TxState) []byte {
	for _, other := range f.sights {
		if had, ok := other.txs[state.TxID]; ok && string(had.Raw) == string(state.Raw) {
			return had.Raw
		}
	}
	return slices.Clone(state.Raw)
}

// forget lets a member be asked for everything.
func (f *followed) forget(m *member) {
	if s := f.sights[m]; s != nil {
		for id := range s.txs {
			f.dirty[id] = true
		}
		delete(f.sights, m)
	}
}

// judge brings what is agreed up to date. It returns how many transactions the
// members disagree about.
func (f *followed) judge(asked []*member, need int, tip settle.Tip) (open int) {
	if !slices.Equal(asked, f.counted) || tip.Height < f.tip.Height {
		for id := range f.ledger.txs {
			f.dirty[id] = true
		}
		for _, m := range asked {
			for id := range f.sights[m].txs {
				f.dirty[id] = true
			}
		}
	}
	f.counted, f.tip = asked, tip
	claims := make([]*settle.TxState, len(asked))
	for id := range f.dirty {
		above := false
		for i, m := range asked {
			claims[i] = nil
			if s, ok := f.sights[m].txs[id]; ok {
				claims[i] = &s
				above = above || s.Height > tip.Height
			}
		}
		state, v := judge(claims, need, tip.Height, f.ledger.txs[id] != nil)
		if !above && v != undecided {
			delete(f.dirty, id)
		}
		state.TxID = id
		switch v {
		case undecided:
			open++
			continue
		case absent:
			f.ledger.drop(id)
		case unmined, mined:
			f.ledger.put(state)
		}
		for i, m := range asked {
			f.sights[m].note(id, claims[i], state, tip.Height)
		}
	}
	return open
}

// note keeps in mind whether a member says otherwise of a transaction than the
// others.
func (s *sight) note(id txid, claim *settle.TxState, agreed settle.TxState, tip uint64) {
	has := settle.TxState{}
	if claim != nil && claim.Height <= tip {
		has = *claim
	}
	delete(s.odd, id)
	if has.Height > 0 || agreed.Height > 0 {
		if placeOf(has) != placeOf(agreed) {
			s.odd[id] = cmp.Or(agreed.Height, has.Height)
		}
	}
}

// judgeSight names a member that says otherwise of transactions that are no news,
// and lets one begin anew that makes up too many.
func (l *Ledger) judgeSight(m *member) {
	f := &l.follow
	s := f.sights[m]
	if len(s.txs) > len(f.ledger.txs)+MaxDoubtful {
		f.forget(m)
		m.mu.Lock()
		m.away = time.Now().Add(awayFor)
		m.mu.Unlock()
		l.tell(m, facts, "names very many transactions that the others do not know")
		return
	}
	for _, height := range s.odd {
		if height+lagging <= f.tip.Height {
			l.tell(m, facts, "says otherwise of a transaction than the others")
			if time.Since(s.began) >= anewAfter {
				f.forget(m)
			}
			return
		}
	}
	l.tell(m, facts, "")
}

// agreed is the transactions on which enough members agree, and in what order
// they changed. The change with number first+i is of the transaction log[i].
type agreed struct {
	txs    map[txid]*settle.TxState
	paying map[string]map[txid]bool // by script
	spends map[settle.Outpoint]map[txid]bool
	first  uint64
	log    []txid
}

func newAgreed() agreed {
	return agreed{
		txs: map[txid]*settle.TxState{}, paying: map[string]map[txid]bool{},
		spends: map[settle.Outpoint]map[txid]bool{}, first: 1,
	}
}

func (g *agreed) put(state settle.TxState) {
	old := g.txs[state.TxID]
	if old != nil && placeOf(*old) == placeOf(state) {
		return
	}
	g.txs[state.TxID] = &state
	if old == nil {
		g.index(state, func(list map[txid]bool) { list[state.TxID] = true })
	}
	g.changed(state.TxID)
}

func (g *agreed) drop(id txid) {
	old := g.txs[id]
	if old == nil {
		return
	}
	delete(g.txs, id)
	g.index(*old, func(list map[txid]bool) { delete(list, id) })
	g.changed(id)
}

// index calls change for the list of each script that a transaction pays and of
// each output that it spends.
func (g *agreed) index(state settle.TxState, change func(list map[txid]bool)) {
	tx, err := parse(state.Raw)
	if err != nil {
		return // it was parsed when it came
	}
	for _, out := range tx.TxOut {
		changeIn(g.paying, string(out.PkScript), change)
	}
	for _, in := range tx.TxIn {
		changeIn(g.spends, spentBy(in), change)
	}
}

func spentBy(in *wire.TxIn) settle.Outpoint {
	return settle.Outpoint{TxID: in.PreviousOutPoint.Hash, Index: in.PreviousOutPoint.Index}
}

func changeIn[K comparable](lists map[K]map[txid]bool, key K, change func(map[txid]bool)) {
	if lists[key] == nil {
		lists[key] = map[txid]bool{}
	}
	change(lists[key])
	if len(lists[key]) == 0 {
		delete(lists, key)
	}
}

func (g *agreed) changed(id txid) {
	if len(g.log) >= maxLog {
		g.first += maxLog / 2
		g.log = slices.Clone(g.log[maxLog/2:])
	}
	g.log = append(g.log, id)
}

// changes answers Follow's question.
func (g *agreed) changes(tip settle.Tip, since uint64, added [][]byte) settle.Changes {
	c := settle.Changes{Tip: tip, Next: g.first + uint64(len(g.log))}
	if since != 0 && (since < g.first || since > c.Next) {
		c.Lost = true
		return c
	}
	ids := map[txid]bool{}
	for _, script := range added {
		for id := range g.paying[string(script)] {
			ids[id] = true
			tx, err := parse(g.txs[id].Raw)
			if err != nil {
				continue // it was parsed when it came
			}
			for i, out := range tx.TxOut {
				if string(out.PkScript) == string(script) {
					maps.Copy(ids, g.spends[settle.Outpoint{TxID: id, Index: uint32(i)}])
				}
			}
		}
	}
	if since != 0 {
		for _, id := range g.log[since-g.first:] {
			ids[id] = true
		}
	}
	for id := range ids {
		if s := g.txs[id]; s != nil {
			c.Txs = append(c.Txs, *s)
		} else {
			c.Txs = append(c.Txs, settle.TxState{TxID: id, Gone: true})
		}
	}
	return c
}
