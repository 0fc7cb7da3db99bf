package quorum

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// answer is what a member said.
type answer[T any] struct {
	from  *member
	value T
}

// whom says which members are asked, and whether all of them are waited for
// rather than enough.
type whom struct {
	of  []*member
	all bool
}

// round is one question to several members at once.
type round[T any] struct {
	whom
	need     int // answers
	patience time.Duration
	question func(context.Context, *member) (T, error)
}

// everybody is a round that needs enough of all members.
func everybody[T any](l *Ledger, w whom, patience time.Duration, question func(context.Context, *member) (T, error)) round[T] {
	return round[T]{whom: w, need: l.need, patience: patience, question: question}
}

// ask returns what those said that answered: it waits for enough of them, and a
// little for the rest. It fails when too few answered. An error of a member is
// no answer: it cannot spoil those of the others.
func (r round[T]) ask(ctx context.Context, l *Ledger) ([]answer[T], error) {
	bounded, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	type said struct {
		answer[T]
		err error
	}
	answers := make(chan said, len(r.of))
	waiting := map[*member]bool{}
	for _, m := range r.of {
		waiting[m] = true
		go func() { // ends with bounded, or when the server gives up by itself
			value, err := r.question(bounded, m)
			answers <- said{answer[T]{m, value}, err}
		}()
	}
	var got []answer[T]
	var failed error
	var enough, late <-chan time.Time
	ended := bounded.Done()
	for over := false; len(waiting) > 0 && !over && len(got)+len(waiting) >= r.need; {
		if len(got) >= r.need && !r.all && enough == nil {
			enough = time.After(Grace)
		}
		select {
		case a := <-answers:
			delete(waiting, a.from)
			if a.err == nil {
				l.tell(a.from, reach, "")
				got = append(got, a.answer)
				continue
			}
			failed = errors.Join(failed, fmt.Errorf("%s: %w", a.from.Name, a.err))
			if ctx.Err() == nil {
				l.missed(a.from, reason(a.err))
			}
		case <-enough:
			over = true
		case <-ended: // a moment for those that say why they came to no end
			ended, late = nil, time.After(Grace)
			over = ctx.Err() != nil
		case <-late:
			over = true
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for m := range waiting {
		if len(got) < r.need && bounded.Err() == nil {
			break // the others failed: this one had no time
		}
		l.missed(m, "does not answer in time")
		failed = errors.Join(failed, fmt.Errorf("%s does not answer in time", m.Name))
	}
	if len(got) < r.need {
		return nil, fmt.Errorf("%w: %d of %d servers answer, want %d: %w", settle.ErrLedgerUnavailable, len(got), len(l.members), r.need, failed)
	}
	return got, nil
}

func reason(err error) string {
	if _, ok := errors.AsType[*settle.Searching](err); ok {
		return "still searches its chain"
	}
	return "cannot be reached"
}

// settled repeats a question on which the servers disagree, since a new block or
// transaction does not come to all in one moment. From the second time on it is
// put to all, also to those that did not answer lately, and at that time all are
// waited for: a liar and a slow server together must not outweigh the rest.
func (l *Ledger) settled(ctx context.Context, question func(w whom) error) error {
	for try := 1; ; try++ {
		w := whom{of: l.members, all: try == 2}
		if try == 1 {
			w.of = l.present()
		}
		err := question(w)
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

func disagree(format string, args ...any) error {
	return fmt.Errorf("%w: %w: %s", settle.ErrLedgerUnavailable, ErrDisagree, fmt.Sprintf(format, args...))
}

// present returns the members to ask: all but those that did not answer lately,
// as long as the rest are enough.
func (l *Ledger) present() []*member {
	var list []*member
	now := time.Now()
	for _, m := range l.members {
		m.mu.Lock()
		if !now.Before(m.away) {
			list = append(list, m)
		}
		m.mu.Unlock()
	}
	if len(list) < l.need {
		return l.members
	}
	return list
}

// missed notes a member that did not answer.
func (l *Ledger) missed(m *member, text string) {
	m.mu.Lock()
	m.away = time.Now().Add(awayFor)
	m.mu.Unlock()
	l.tell(m, reach, text)
}
