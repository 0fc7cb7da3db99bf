package manager

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/crash"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// Keys of the store.
const (
	keyIndexes  = "settle/index"
	keyTip      = "settle/tip"
	keyPayees   = "settle/payee/"   // and the public key in hexadecimal
	keyChannels = "settle/channel/" // and the channel's id in hexadecimal
	keyStates   = "settle/state/"   // likewise
	keySeen     = "settle/seen/"    // likewise
	keySearch   = "settle/search"
	keyRestored = "settle/restored/" // and the funding's outpoint
	keyRecalled = "settle/recalled/" // likewise
)

// maxStored bounds a stored record.
const maxStored = 128 << 10

// indexes are the next unused indexes of channel keys.
type indexes struct {
	Payer uint64 `cbor:"payer"`
	Payee uint64 `cbor:"payee"`
}

// tipRecord is the best block seen, and when first, in Unix seconds.
type tipRecord struct {
	Height uint64 `cbor:"height"`
	Seen   int64  `cbor:"seen"`
}

// payeeRecord is a payee key that a quote carried.
type payeeRecord struct {
	Index  uint64 `cbor:"index"`
	Script []byte `cbor:"script"`
}

// channelRecord is what never changes of a channel.
type channelRecord struct {
	Params  settle.Params `cbor:"params"`
	Role    settle.Role   `cbor:"role"`
	Index   uint64        `cbor:"index"`
	Order   uint64        `cbor:"order"`
	Funding []byte        `cbor:"funding"`
}

// state is what changes.
type state struct {
	Channel   settle.Channel  `cbor:"channel"`
	Announced bool            `cbor:"announced"`
	End       []byte          `cbor:"end"` // the transaction that this side ends the channel with
	EndTx     [32]byte        `cbor:"end_tx"`
	EndFee    pktcloud.Amount `cbor:"end_fee"`
	EndHeight uint64          `cbor:"end_height"` // height at which End was last made
	Settled   pktcloud.Amount `cbor:"settled"`

	seen seenRecord // stored by itself: a store from before it has none
}

// seenRecord is what the chain said of a channel that must be known without it.
type seenRecord struct {
	Since uint64    `cbor:"since"` // no block below holds the funding [SETTLE-37]; zero is always right
	End   endRecord `cbor:"end"`
}

// endRecord is a pktchain.End; zero while the channel has none.
type endRecord struct {
	TxID   [32]byte        `cbor:"tx"`
	Refund bool            `cbor:"refund"`
	Payee  pktcloud.Amount `cbor:"payee"`
	Payer  pktcloud.Amount `cbor:"payer"`
	Fee    pktcloud.Amount `cbor:"fee"`
}

// channel is one channel. Whoever holds its turn may change its state; anybody
// may read it.
type channel struct {
	id      pktcloud.ID
	role    settle.Role
	index   uint32
	order   uint64
	funding []byte
	chain   pktchain.Channel
	turn    chan struct{} // holds one token while nobody has the turn
	asks    chan struct{} // the same for the questions for a roll of it, which take longer
	state   atomic.Pointer[state]
	signs   *pktchain.Signer // made when first needed, by whoever has the turn
}

// signer returns the payer's signer. Call it with the channel's turn.
func (ch *channel) signer(k *pktchain.Keychain) (settle.Signer, error) {
	if ch.signs == nil {
		s, err := k.Signer(ch.chain, ch.index)
		if err != nil {
			return nil, err
		}
		ch.signs = s
	}
	return ch.signs, nil
}

func newChannel(n pktchain.Network, r channelRecord, st state) (*channel, error) {
	chain, err := pktchain.ChannelOf(n, r.Params)
	if err != nil {
		return nil, err
	}
	ch := &channel{
		id: st.Channel.ID, role: r.Role, index: uint32(r.Index), order: r.Order, funding: r.Funding, chain: chain,
		turn: make(chan struct{}, 1), asks: make(chan struct{}, 1),
	}
	ch.turn <- struct{}{}
	ch.asks <- struct{}{}
	ch.state.Store(&st)
	return ch, nil
}

// effect says what is to become of a state that a change made.
type effect int

const (
	unchanged effect = iota // forget it
	remember                // show it; a restart finds it out again by itself
	persist                 // make it durable, then show it
)

// change lets fn make the channel's next state, and makes it durable before it
// shows it. The state that fn gets knows the height of now. An error leaves
// everything as it was.
func (m *Manager) change(ctx context.Context, ch *channel, fn func(st state) (state, effect, error)) (state, error) {
	select {
	case <-ctx.Done():
		return state{}, ctx.Err()
	case <-ch.turn:
	}
	defer func() { ch.turn <- struct{}{} }()
	old := *ch.state.Load()
	st := old
	st.Channel = st.Channel.At(m.height())
	next, what, err := fn(st)
	if err != nil || what == unchanged {
		return old, err
	}
	if err := next.Channel.Check(); err != nil {
		return old, err
	}
	if what == persist {
		puts := []put{{keyStates + ch.id.Hex(), next}}
		if next.seen != old.seen {
			puts = append(puts, put{keySeen + ch.id.Hex(), next.seen})
		}
		if err := m.apply(ctx, puts...); err != nil {
			return old, err
		}
	}
	ch.state.Store(&next)
	return next, nil
}

// put is a record to be stored under a key; a nil value deletes it.
type put struct {
	key   string
	value any
}

// apply makes records durable.
func (m *Manager) apply(ctx context.Context, puts ...put) error {
	encoded := make([]Put, len(puts))
	for i, p := range puts {
		if p.value == nil {
			encoded[i] = Put{Key: p.key}
			continue
		}
		value, err := pktcloud.Marshal(p.value)
		if err != nil {
			return err
		}
		encoded[i] = Put{Key: p.key, Value: value}
	}
	crash.Point("settle store")
	if err := m.cfg.Store.Apply(ctx, encoded); err != nil {
		return fmt.Errorf("settle: store: %w", err)
	}
	crash.Point("settle store")
	return nil
}

// errStored marks a store whose records do not fit together.
var errStored = errors.New("settle: the store is damaged; restore it from the recovery phrase")

// load reads everything from the store.
func (m *Manager) load(ctx context.Context) error {
	states, sights := map[string][]byte{}, map[string]seenRecord{}
	err := m.cfg.Store.Load(ctx, "settle/", func(key string, value []byte) error {
		var err error
		switch {
		case key == keyIndexes:
			err = pktcloud.Unmarshal(value, &m.next, maxStored)
		case key == keyTip:
			var r tipRecord
			err = pktcloud.Unmarshal(value, &r, maxStored)
			m.sight = settle.Sight{Tip: settle.Tip{Height: r.Height}, First: r.Seen, Last: r.Seen, Lost: true}
		case key == keySearch:
			err = pktcloud.Unmarshal(value, &m.search, maxStored)
			m.searchStored = m.search.Height
		case strings.HasPrefix(key, keyRestored):
			var r restoredRecord
			if err = pktcloud.Unmarshal(value, &r, maxStored); err == nil {
				err = m.loadRestored(key, r)
			}
		case strings.HasPrefix(key, keyRecalled):
			var r recalledRecord
			if err = pktcloud.Unmarshal(value, &r, maxStored); err == nil {
				err = m.loadRecalled(r)
			}
		case strings.HasPrefix(key, keyPayees):
			var r payeeRecord
			err = pktcloud.Unmarshal(value, &r, maxStored)
			m.payees[strings.TrimPrefix(key, keyPayees)] = r
		case strings.HasPrefix(key, keyStates):
			states[strings.TrimPrefix(key, keyStates)] = bytes.Clone(value)
		case strings.HasPrefix(key, keySeen):
			var r seenRecord
			err = pktcloud.Unmarshal(value, &r, maxStored)
			sights[strings.TrimPrefix(key, keySeen)] = r
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errStored, key, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.loadChannels(ctx, states, sights)
}

// loadChannels takes the stored channels back, on all processors: reading keys
// and scripts of thousands takes longer than reading the store.
func (m *Manager) loadChannels(ctx context.Context, states map[string][]byte, sights map[string]seenRecord) error {
	type stored struct {
		key   string
		value []byte
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	records := make(chan stored)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for r := range records {
				name := strings.TrimPrefix(r.key, keyChannels)
				if err := m.loadChannel(ctx, r.key, r.value, states[name], sights[name]); err != nil {
					cancel(err)
				}
			}
		})
	}
	err := m.cfg.Store.Load(ctx, keyChannels, func(key string, value []byte) error {
		select {
		case records <- stored{key, bytes.Clone(value)}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(records)
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (m *Manager) loadChannel(ctx context.Context, key string, value, changes []byte, seen seenRecord) error {
	var r channelRecord
	if err := pktcloud.Unmarshal(value, &r, maxStored); err != nil {
		return fmt.Errorf("%w: %s: %w", errStored, key, err)
	}
	if changes == nil {
		return fmt.Errorf("%w: %s has no state", errStored, key)
	}
	st := state{}
	if err := pktcloud.Unmarshal(changes, &st, maxStored); err != nil {
		return fmt.Errorf("%w: %s: %w", errStored, key, err)
	}
	st.seen = seen
	return m.restore(ctx, r, st)
}

// restore takes a stored channel back.
func (m *Manager) restore(ctx context.Context, r channelRecord, st state) error {
	if err := st.Channel.Check(); err != nil {
		return fmt.Errorf("%w: %w", errStored, err)
	}
	ch, err := newChannel(m.cfg.Network, r, st)
	if err != nil {
		return fmt.Errorf("%w: %w", errStored, err)
	}
	m.add(ch)
	if r.Role == settle.Payer && !st.Channel.Phase.Final() && st.Channel.Depth == 0 {
		if err := m.cfg.Wallet.Reserve(ctx, r.Funding); err != nil {
			return fmt.Errorf("settle: reserve the coins of channel %s: %w", ch.id, err)
		}
	}
	return nil
}

// add takes a channel in, and names its funding to the ledger.
func (m *Manager) add(ch *channel) {
	st := ch.state.Load()
	if w, ok := m.cfg.Ledger.(settle.Watcher); ok && followed(st.Channel) {
		w.Watch(settle.Watch{At: ch.chain.Detail.Funding, From: st.seen.Since})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.channels[ch.id] = ch
	m.funded[ch.chain.Detail.Funding] = ch.id
	m.order = max(m.order, ch.order+1)
}

// takeIndex hands out an index after the store knows that it is used.
func (m *Manager) takeIndex(ctx context.Context, role settle.Role, more func(index uint32) ([]put, error)) (uint32, error) {
	return m.takeIndexes(ctx, role, 1, more)
}

// takeIndexes hands out n indexes that follow each other, and returns the first.
func (m *Manager) takeIndexes(ctx context.Context, role settle.Role, n uint64, more func(index uint32) ([]put, error)) (uint32, error) {
	m.beginning.Lock()
	defer m.beginning.Unlock()
	m.mu.Lock()
	next := m.next
	m.mu.Unlock()
	index := next.Payer
	if role == settle.Payee {
		index = next.Payee
		next.Payee += n
	} else {
		next.Payer += n
	}
	if index+n-1 > pktchain.MaxIndex {
		return 0, settle.Refuse(settle.ErrParams, "this phrase has no channel keys left")
	}
	var puts []put
	if more != nil {
		var err error
		if puts, err = more(uint32(index)); err != nil {
			return 0, err
		}
	}
	if err := m.apply(ctx, append(puts, put{keyIndexes, next})...); err != nil {
		return 0, err
	}
	m.mu.Lock()
	m.next = next
	m.mu.Unlock()
	return uint32(index), nil
}

func keyText(key []byte) string { return hex.EncodeToString(key) }
