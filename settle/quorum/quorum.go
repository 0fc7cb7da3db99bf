// Package quorum is a settle.Ledger over several servers of one chain, for
// those without a node of their own. It asks all of them, believes what more
// than half of them say, and reports who says otherwise. What neither enough of
// them say nor enough deny is an error, and nothing follows from it.
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
	settle.TxFollower
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
	follow  followed
}

var (
	_ settle.Ledger     = (*Ledger)(nil)
	_ settle.Watcher    = (*Ledger)(nil)
	_ settle.CoinReader = (*Ledger)(nil)
	_ settle.Searcher   = (*Ledger)(nil)
	_ settle.TxFollower = (*Ledger)(nil)
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
	facts        // it says otherwise of outputs, coins or transactions
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
	l := &Ledger{cfg: cfg, need: len(members)/2 + 1, follow: newFollowed()}
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
