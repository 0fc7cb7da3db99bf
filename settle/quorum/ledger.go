package quorum

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	err := l.settled(ctx, func() (err error) {
		tip, err = l.tip(ctx)
		return err
	})
	return tip, err
}

func (l *Ledger) tip(ctx context.Context) (settle.Tip, error) {
	tips, err := ask(ctx, l, l.cfg.Patience, func(ctx context.Context, s Server) (settle.Tip, error) { return s.Tip(ctx) })
	if err != nil {
		return settle.Tip{}, err
	}
	height := l.supported(tips, func(t settle.Tip) uint64 { return t.Height })
	votes := map[settle.Tip]int{}
	at := map[*member]settle.Tip{}
	var above []*member
	for _, t := range tips {
		switch {
		case t.value.Height == height:
			at[t.from] = t.value
			votes[t.value]++
		case t.value.Height > height:
			above = append(above, t.from)
		}
	}
	for _, m := range above {
		bounded, cancel := context.WithTimeout(ctx, l.cfg.Patience)
		t, err := m.Server.TipAt(bounded, height)
		cancel()
		if err == nil {
			at[m] = t
			votes[t]++
		}
	}
	best, n := most(votes)
	for _, t := range tips {
		has, ok := at[t.from]
		switch {
		case ok && n >= l.need && has != best:
			l.tell(t.from, chain, fmt.Sprintf("is on another chain at height %d", height))
		case !ok && t.value.Height+lagging < height:
			l.tell(t.from, chain, fmt.Sprintf("is at height %d, the others at %d", t.value.Height, height))
		case n >= l.need:
			l.tell(t.from, chain, "")
		}
	}
	if n < l.need {
		return settle.Tip{}, disagree("%d different blocks at height %d", len(votes), height)
	}
	return best, nil
}

// lagging is how many blocks a server may be behind before that is trouble.
const lagging = 3

// supported returns the highest value that enough members reach.
func (l *Ledger) supported(answers []answer[settle.Tip], of func(settle.Tip) uint64) uint64 {
	var all []uint64
	for _, a := range answers {
		all = append(all, of(a.value))
	}
	return nth(all, l.need)
}

// nth returns the largest value that need of all reach; zero when there are
// fewer.
func nth(all []uint64, need int) uint64 {
	slices.Sort(all)
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

func disagree(format string, args ...any) error {
	return fmt.Errorf("%w: %w: %s", settle.ErrLedgerUnavailable, ErrDisagree, fmt.Sprintf(format, args...))
}

// settled repeats a question on which the servers disagree: a new block or
// transaction does not come to all in one moment.
func (l *Ledger) settled(ctx context.Context, question func() error) error {
	for try := 1; ; try++ {
		err := question()
		if try == attempts || !errors.Is(err, ErrDisagree) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// WaitTip implements settle.Ledger.
func (l *Ledger) WaitTip(ctx context.Context, last settle.Tip) (settle.Tip, error) {
	for {
		tip, err := l.Tip(ctx)
		if err != nil || tip != last {
			return tip, err
		}
		timer := time.NewTimer(l.cfg.PollInterval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return settle.Tip{}, ctx.Err()
		case <-timer.C:
		}
	}
}

// Broadcast implements settle.Ledger: all servers get the transaction. It was
// refused when enough servers refuse it, or all that answer [LEDGER-53].
func (l *Ledger) Broadcast(ctx context.Context, raw []byte) error {
	type nothing struct{}
	answers, err := ask(ctx, l, l.cfg.Patience, func(ctx context.Context, s Server) (nothing, error) {
		return nothing{}, s.Broadcast(ctx, raw)
	})
	if err != nil {
		return err
	}
	var refused error
	n := 0
	for _, a := range answers {
		if a.err == nil {
			continue
		}
		if !errors.Is(a.err, settle.ErrRejected) {
			return a.err
		}
		refused = a.err
		n++
	}
	if n >= l.need || n == len(answers) {
		return refused
	}
	return nil
}

// FeeRate implements settle.Ledger with the median, so that no server alone
// can drive the fee [LEDGER-54].
func (l *Ledger) FeeRate(ctx context.Context) (pktcloud.Amount, error) {
	answers, err := ask(ctx, l, l.cfg.Patience, func(ctx context.Context, s Server) (pktcloud.Amount, error) { return s.FeeRate(ctx) })
	if err != nil {
		return 0, err
	}
	var rates []pktcloud.Amount
	for _, a := range answers {
		if a.err != nil {
			return 0, a.err
		}
		rates = append(rates, a.value)
	}
	slices.Sort(rates)
	return max(rates[len(rates)/2], settle.RelayFloor), nil
}

// Watch implements settle.Watcher.
func (l *Ledger) Watch(list ...settle.Watch) {
	for _, m := range l.members {
		m.Server.Watch(list...)
	}
}

// Search implements settle.Searcher. What any server finds is returned: only
// the caller can tell what it is worth. The end is one that enough servers
// reached [LEDGER-55].
func (l *Ledger) Search(ctx context.Context, after settle.Tip, match func(script []byte) bool) ([]settle.Found, settle.Tip, error) {
	type result struct {
		found []settle.Found
		end   settle.Tip
	}
	answers, err := ask(ctx, l, searchPatience*l.cfg.Patience, func(ctx context.Context, s Server) (result, error) {
		found, end, err := s.Search(ctx, after, match)
		return result{found, end}, err
	})
	if err != nil {
		return nil, after, err
	}
	var all []settle.Found
	seen := map[string]bool{}
	var ends []answer[settle.Tip]
	for _, a := range answers {
		if a.err != nil {
			return nil, after, a.err
		}
		ends = append(ends, answer[settle.Tip]{from: a.from, value: a.value.end})
		for _, f := range a.value.found {
			if !seen[string(f.Raw)] {
				seen[string(f.Raw)] = true
				all = append(all, f)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b settle.Found) int { return cmp.Compare(a.Height, b.Height) })
	height := l.supported(ends, func(t settle.Tip) uint64 { return t.Height })
	votes := map[settle.Tip]int{}
	for _, e := range ends {
		if e.value.Height == height {
			votes[e.value]++
		}
	}
	end, _ := most(votes) // one on another chain makes the next search begin lower
	return all, end, nil
}
