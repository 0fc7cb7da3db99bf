package quorum

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// searchPatience is how many times longer than a plain question one may take
// for which a server searches its chain.
const searchPatience = 12

// Tip implements settle.Ledger: the highest block that enough servers have on
// their best chains [LEDGER-50].
func (l *Ledger) Tip(ctx context.Context) (settle.Tip, error) {
	var tip settle.Tip
	err := l.settled(ctx, func(w whom) error {
		tips, err := everybody(l, w, l.cfg.Patience, func(ctx context.Context, m *member) (settle.Tip, error) {
			return m.Server.Tip(ctx)
		}).ask(ctx, l)
		if err == nil {
			tip, err = l.agreeTip(ctx, tips)
		}
		return err
	})
	return tip, err
}

// agreeTip finds the highest of the blocks named that enough members have. Who
// is further on is asked what it has below.
func (l *Ledger) agreeTip(ctx context.Context, tips []answer[settle.Tip]) (settle.Tip, error) {
	heights := make([]uint64, 0, len(tips))
	for _, t := range tips {
		heights = append(heights, t.value.Height)
	}
	top := nth(heights, l.need)
	slices.Sort(heights)
	heights = slices.Compact(heights)
	for _, height := range slices.Backward(heights) {
		if height > top {
			continue
		}
		at, err := l.blocksAt(ctx, tips, height)
		if err != nil {
			return settle.Tip{}, err
		}
		votes := map[settle.Tip]int{}
		for _, t := range at {
			votes[t]++
		}
		if best, n := most(votes); n >= l.need {
			l.judgeTips(tips, at, best)
			return best, nil
		}
	}
	for _, t := range tips { // whoever is right
		l.tell(t.from, chain, "is on another chain than the others")
	}
	return settle.Tip{}, disagree("no block that %d of them have", l.need)
}

// blocksAt returns the block that each member has at a height which it reached.
func (l *Ledger) blocksAt(ctx context.Context, tips []answer[settle.Tip], height uint64) (map[*member]settle.Tip, error) {
	at := map[*member]settle.Tip{}
	votes := map[settle.Tip]int{}
	own := map[*member]settle.Tip{}
	var above []*member
	for _, t := range tips {
		switch {
		case t.value.Height == height:
			at[t.from] = t.value
			votes[t.value]++
		case t.value.Height > height:
			above = append(above, t.from)
			own[t.from] = t.value
		}
	}
	if len(above) == 0 {
		return at, nil
	}
	_, n := most(votes)
	below, err := round[settle.Tip]{
		whom: whom{of: above}, need: max(0, l.need-n), patience: l.cfg.Patience,
		question: func(ctx context.Context, m *member) (settle.Tip, error) {
			t, err := m.Server.TipAt(ctx, height)
			if err != nil {
				return t, err
			}
			if best, err := m.Server.TipAt(ctx, own[m].Height); err != nil || best != own[m] {
				return settle.Tip{}, err // it has left that chain meanwhile
			}
			return t, nil
		},
	}.ask(ctx, l)
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	for _, b := range below { // none if too few answer
		if b.value != (settle.Tip{}) {
			at[b.from] = b.value
		}
	}
	return at, nil
}

// judgeTips notes who lags and who is on another chain.
func (l *Ledger) judgeTips(tips []answer[settle.Tip], at map[*member]settle.Tip, best settle.Tip) {
	for _, t := range tips {
		has, ok := at[t.from]
		switch {
		case ok && has != best:
			l.tell(t.from, chain, fmt.Sprintf("is on another chain at height %d", best.Height))
		case t.value.Height+lagging < best.Height:
			l.tell(t.from, chain, fmt.Sprintf("is at height %d, the others at %d", t.value.Height, best.Height))
		case ok || t.value.Height < best.Height:
			l.tell(t.from, chain, "")
		}
	}
}

// lagging is how many blocks a server may be behind before that is trouble.
const lagging = 3

// nth returns the largest value that need of all reach; zero when there are
// fewer.
func nth(all []uint64, need int) uint64 {
	all = slices.Sorted(slices.Values(all))
	if len(all) < need {
		return 0
	}
	return all[len(all)-need]
}

// most returns the key with the most votes.
func most[K comparable](votes map[K]int) (best K, n int) {
	for k, v := range votes {
		if v > n {
			best, n = k, v
		}
	}
	return best, n
}

// WaitTip implements settle.Ledger. It asks every PollInterval, and as soon as a
// server tells of a block.
func (l *Ledger) WaitTip(ctx context.Context, last settle.Tip) (settle.Tip, error) {
	for {
		announced, stop := l.announced(ctx)
		tip, err := l.Tip(ctx)
		if err != nil || tip != last {
			stop()
			return tip, err
		}
		timer := time.NewTimer(l.cfg.PollInterval)
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-timer.C:
		case <-announced:
		}
		timer.Stop()
		stop()
		if err != nil {
			return settle.Tip{}, err
		}
	}
}

// announced returns a channel that is closed when a server tells of a block; stop
// ends the waiting for that.
func (l *Ledger) announced(ctx context.Context) (told <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	first := make(chan struct{})
	var once sync.Once
	var waiting sync.WaitGroup
	for _, m := range l.members {
		server, ok := m.Server.(interface{ Announced() <-chan struct{} })
		if !ok {
			continue
		}
		of := server.Announced()
		waiting.Go(func() {
			select {
			case <-of:
				once.Do(func() { close(first) })
			case <-ctx.Done():
			}
		})
	}
	return first, func() { cancel(); waiting.Wait() }
}

// Broadcast implements settle.Ledger: all servers get the transaction. It was
// refused when enough servers refuse it, or all that answer [LEDGER-53].
func (l *Ledger) Broadcast(ctx context.Context, raw []byte) error {
	answers, err := everybody(l, whom{of: l.present()}, l.cfg.Patience, func(ctx context.Context, m *member) (refused, err error) {
		err = m.Server.Broadcast(ctx, raw)
		if errors.Is(err, settle.ErrRejected) {
			return err, nil
		}
		return nil, err
	}).ask(ctx, l)
	if err != nil {
		return err
	}
	var refused error
	n := 0
	for _, a := range answers {
		if a.value != nil {
			refused = a.value
			n++
		}
	}
	if n >= l.need || n == len(answers) {
		return refused
	}
	return nil
}

// FeeRate implements settle.Ledger with the median, the lower one of two, so that
// no server alone can drive the fee up [LEDGER-54].
func (l *Ledger) FeeRate(ctx context.Context) (pktcloud.Amount, error) {
	answers, err := everybody(l, whom{of: l.present()}, l.cfg.Patience, func(ctx context.Context, m *member) (pktcloud.Amount, error) {
		return m.Server.FeeRate(ctx)
	}).ask(ctx, l)
	if err != nil {
		return 0, err
	}
	var rates []pktcloud.Amount
	for _, a := range answers {
		rates = append(rates, a.value)
	}
	slices.Sort(rates)
	return max(rates[(len(rates)-1)/2], settle.RelayFloor), nil
}

// Watch implements settle.Watcher.
func (l *Ledger) Watch(list ...settle.Watch) {
	for _, m := range l.members {
		m.Server.Watch(list...)
	}
}

// Search implements settle.Searcher. What any server finds is returned: only
// the caller can tell what it is worth. The end is a block that enough servers
// reached [LEDGER-55]. Match is called from one goroutine at a time, and not
// after Search has returned.
func (l *Ledger) Search(ctx context.Context, after settle.Tip, match func(script []byte) bool) ([]settle.Found, settle.Tip, error) {
	type result struct {
		found []settle.Found
		end   settle.Tip
	}
	var matching sync.Mutex
	over := false
	defer func() {
		matching.Lock()
		defer matching.Unlock()
		over = true
	}()
	guarded := func(script []byte) bool {
		matching.Lock()
		defer matching.Unlock()
		return !over && match(script)
	}
	answers, err := everybody(l, whom{of: l.present()}, searchPatience*l.cfg.Patience, func(ctx context.Context, m *member) (result, error) {
		found, end, err := m.Server.Search(ctx, after, guarded)
		return result{found, end}, err
	}).ask(ctx, l)
	if err != nil {
		return nil, after, err
	}
	var all []settle.Found
	seen := map[string]bool{}
	var ends []answer[settle.Tip]
	for _, a := range answers {
		ends = append(ends, answer[settle.Tip]{from: a.from, value: a.value.end})
		for _, f := range a.value.found {
			if !seen[string(f.Raw)] {
				seen[string(f.Raw)] = true
				all = append(all, f)
			}
		}
	}
	end, err := l.agreeEnd(ctx, after, ends)
	if err != nil {
		return nil, after, err
	}
	slices.SortStableFunc(all, func(a, b settle.Found) int { return cmp.Compare(a.Height, b.Height) })
	return all, end, nil
}

// agreeEnd finds the block up to which enough members searched; it is after when
// enough of them have nothing further.
func (l *Ledger) agreeEnd(ctx context.Context, after settle.Tip, ends []answer[settle.Tip]) (settle.Tip, error) {
	n := 0
	for _, e := range ends {
		if e.value == after {
			n++
		}
	}
	if n >= l.need {
		return after, nil
	}
	return l.agreeTip(ctx, ends)
}
