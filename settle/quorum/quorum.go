// Package quorum is a settle.Ledger over several servers of one chain, for
// those without a node of their own. It asks all of them, believes what more
// than half of them say, and reports who says otherwise. What only some say is
// never taken for absence: it is an error, and nothing follows from it.
//
// Start with [New]. It cannot help when half of the servers lie together. The
// rules are those of spec/ledger.md.
package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pkt-cash/pkt-cloud/settle"
)

const (
	// DefaultPatience is how long a server may take to answer.
	DefaultPatience = 10 * time.Second
	// DefaultPollInterval is how often WaitTip asks for a new block.
	DefaultPollInterval = time.Second
	// awayFor is how long a server that did not answer in time is not asked.
	awayFor = 30 * time.Second
	// Grace is how long the others are waited for once enough servers answered,
	// so that a lie shows, and a slow server does not slow all [LEDGER-57].
	Grace = 500 * time.Millisecond
	// attempts is how often a question is asked on which the servers disagree,
	// and pause the time between: what is on its way comes to all soon.
	attempts = 4
	pause    = 150 * time.Millisecond
)

// ErrDisagree marks an answer on which too few servers agree. It comes along
// with settle.ErrLedgerUnavailable.
var ErrDisagree = errors.New("the servers of the chain disagree")

// Server is one source of the chain; pktd.Driver is one.
type Server interface {
	settle.Ledger
	settle.Watcher
	settle.CoinReader
	settle.Searcher
	// TipAt returns the block of the best chain at a height.
	TipAt(ctx context.Context, height uint64) (settle.Tip, error)
}

// Member is a server and the name by which people know it.
type Member struct {
	Name   string
	Server Server
}

// Config holds what may be left out.
type Config struct {
	// Patience is how long a server may take for an answer that needs no search
	// of the chain; zero means DefaultPatience.
	Patience time.Duration
	// PollInterval is the time between questions of WaitTip; zero means
	// DefaultPollInterval.
	PollInterval time.Duration
	// Log receives each disagreement once as it begins; nil means none.
	Log *slog.Logger
}

// Ledger asks several servers. It is safe for concurrent use.
type Ledger struct {
	cfg     Config
	members []*member
	need    int // of the members, more than half
}

var (
	_ settle.Ledger     = (*Ledger)(nil)
	_ settle.Watcher    = (*Ledger)(nil)
	_ settle.CoinReader = (*Ledger)(nil)
	_ settle.Searcher   = (*Ledger)(nil)
)

// member is a server and how it behaved.
type member struct {
	Member

	mu       sync.Mutex
	away     time.Time        // not asked before
	troubles [kinds]string    // what is wrong with it now
	offended [kinds]time.Time // when it last was
}

// The kinds of trouble with a server.
const (
	reach = iota // it does not answer
	chain        // it is behind, or on another chain
	facts        // it says otherwise of outputs or coins
	kinds
)

// rehabilitation is how long a server that said otherwise of an output is known
// for it: the next output may find it honest.
const rehabilitation = 10 * time.Minute

// New returns a ledger over two servers or more.
func New(members []Member, cfg Config) (*Ledger, error) {
	if len(members) < 2 {
		return nil, fmt.Errorf("a quorum needs two servers or more, got %d", len(members))
	}
	if cfg.Patience <= 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.PollInterval <= 0 {
		cfg.PollInterval = DefaultPollInterval
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &Ledger{cfg: cfg, need: len(members)/2 + 1}
	names := map[string]bool{}
	for _, m := range members {
		if m.Server == nil || m.Name == "" || names[m.Name] {
			return nil, fmt.Errorf("server %q: each needs a name of its own", m.Name)
		}
		names[m.Name] = true
		l.members = append(l.members, &member{Member: m})
	}
	return l, nil
}

// Trouble is a server that disagrees with the others, or does not answer.
type Trouble struct {
	Name string
	Text string
}

// Troubles returns what is wrong with servers now.
func (l *Ledger) Troubles() []Trouble {
	var list []Trouble
	for _, m := range l.members {
		m.mu.Lock()
		for _, text := range m.troubles {
			if text != "" {
				list = append(list, Trouble{m.Name, text})
			}
		}
		m.mu.Unlock()
	}
	return list
}

// tell notes what a member did, and logs it when that is new. An empty text
// means that it agrees.
func (l *Ledger) tell(m *member, kind int, text string) {
	now := time.Now()
	m.mu.Lock()
	news := text != m.troubles[kind]
	if text == "" && kind == facts && now.Sub(m.offended[kind]) < rehabilitation {
		news = false
	}
	if news {
		m.troubles[kind] = text
	}
	if text != "" {
		m.offended[kind] = now
	}
	m.mu.Unlock()
	switch {
	case news && text != "":
		l.cfg.Log.Warn("a server of the chain", "server", m.Name, "trouble", text)
	case news:
		l.cfg.Log.Info("a server of the chain agrees again", "server", m.Name)
	}
}

// answer is what a member said.
type answer[T any] struct {
	from  *member
	value T
	err   error
}

// ask asks the members at once and returns what those said that answered: it
// waits for enough of them, and a little for the rest. patience bounds it. It
// fails when too few answered.
func ask[T any](ctx context.Context, l *Ledger, patience time.Duration, question func(context.Context, Server) (T, error)) ([]answer[T], error) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answers := make(chan answer[T], len(l.members))
	waiting := map[*member]bool{}
	for _, m := range l.present() {
		waiting[m] = true
		go func() { // ends with bounded, or when the server gives up by itself
			value, err := question(bounded, m.Server)
			answers <- answer[T]{m, value, err}
		}()
	}
	var got []answer[T]
	var failed error
	var enough <-chan time.Time
	for over := false; len(waiting) > 0 && !over && len(got)+len(waiting) >= l.need; {
		select {
		case a := <-answers:
			delete(waiting, a.from)
			if !answered(bounded, a.err) {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", a.from.Name, a.err))
				if ctx.Err() == nil {
					l.missed(a.from, "cannot be reached")
				}
				continue
			}
			l.tell(a.from, reach, "")
			if got = append(got, a); len(got) == l.need {
				enough = time.After(Grace)
			}
		case <-enough:
			over = true
		case <-bounded.Done():
			over = true
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for m := range waiting {
		if len(got) < l.need && bounded.Err() == nil {
			break // the others failed: this one had no time
		}
		l.missed(m, "does not answer in time")
		failed = errors.Join(failed, fmt.Errorf("%s does not answer in time", m.Name))
	}
	if len(got) < l.need {
		return nil, fmt.Errorf("%w: %d of %d servers answer, want %d: %w", settle.ErrLedgerUnavailable, len(got), len(l.members), l.need, failed)
	}
	return got, nil
}

// answered reports whether a call ended with what the chain says: a refusal is
// an answer.
func answered(ctx context.Context, err error) bool {
	return err == nil || errors.Is(err, settle.ErrRejected) || !errors.Is(err, settle.ErrLedgerUnavailable) && ctx.Err() == nil
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
