package tower

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// Usage is what a client, or all of them, have at a tower.
type Usage struct {
	Deposits uint64
	Bytes    uint64
}

// Book holds a tower's deposits within its quotas. It decides and counts, and
// knows neither clock nor chain. It is not safe for concurrent use.
type Book struct {
	network  pktchain.Network
	quota    Quota
	minValue pktcloud.Amount
	entries  map[Key]Entry
	clients  map[pktcloud.PublicKey]Usage
	keys     map[pktcloud.PublicKey]map[Key]bool // of each client
	total    Usage
}

// NewBook returns an empty book. minValue is the least capacity of a channel
// that it takes deposits for.
func NewBook(n pktchain.Network, q Quota, minValue pktcloud.Amount) *Book {
	return &Book{
		network: n, quota: q.withDefaults(), minValue: minValue,
		entries: map[Key]Entry{}, clients: map[pktcloud.PublicKey]Usage{}, keys: map[pktcloud.PublicKey]map[Key]bool{},
	}
}

// Judge says whether the book takes a deposit at a height, as far as that goes
// without the chain: nobody waits for an answer of the chain in vain. False
// means that the book has this very deposit already. Errors match
// [settle.ErrLate], [settle.ErrParams], [settle.ErrRole], [settle.ErrFell] or
// [settle.ErrQuota].
func (b *Book) Judge(r Reading, height uint64) (fresh bool, err error) {
	old, held := b.entries[r.Key]
	lock := r.First().LockHeight
	switch {
	case held && old.ID == r.ID: // [TOWER-10]
		return false, nil
	case lock <= height:
		return false, settle.Refuse(settle.ErrLate, "the lock time %d has come at height %d: broadcast it yourself", lock, height)
	case lock-height > MaxAheadBlocks:
		return false, settle.Refuse(settle.ErrParams, "the lock time lies %d blocks ahead, at most %d", lock-height, MaxAheadBlocks)
	case held && old.Record.Body.Client != r.Record.Body.Client:
		return false, settle.Refuse(settle.ErrRole, "another client keeps this channel here")
	case held && r.First().Kind == pktchain.EndLate && r.First().ToPayer > old.First().ToPayer: // [TOWER-7]
		return false, settle.Refuse(settle.ErrFell, "a deposit that claims less than the one before")
	}
	return true, b.room(r, old, held)
}

// room checks the quotas [TOWER-8].
func (b *Book) room(r Reading, old Entry, held bool) error {
	all, own := b.total, b.clients[r.Record.Body.Client]
	for _, u := range []struct {
		usage           Usage
		deposits, bytes uint64
		whose           string
	}{
		{own, b.quota.ClientDeposits, b.quota.ClientBytes, "this client"},
		{all, b.quota.Deposits, b.quota.Bytes, "all clients"},
	} {
		after := Usage{u.usage.Deposits + 1, u.usage.Bytes + r.Bytes}
		if held {
			after = Usage{u.usage.Deposits, after.Bytes - old.Bytes}
			if r.Bytes <= old.Bytes { // also where the owner lowered the quotas
				continue
			}
		}
		if after.Deposits > u.deposits || after.Bytes > u.bytes {
			return settle.Refuse(settle.ErrQuota, "no room: %d deposits with %d bytes of %s, at most %d with %d",
				u.usage.Deposits, u.usage.Bytes, u.whose, u.deposits, u.bytes)
		}
	}
	return nil
}

// Weigh is Judge with what the chain knows of the output that the deposit
// spends. It returns the entry to be kept. Errors are those of Judge, and match
// [settle.ErrFunding], [settle.ErrProof], [settle.ErrFee] or [settle.ErrStale].
func (b *Book) Weigh(r Reading, height uint64, funding settle.Output) (e Entry, fresh bool, err error) {
	if fresh, err = b.Judge(r, height); err != nil || !fresh {
		return b.entries[r.Key], false, err
	}
	switch {
	case !funding.Known || funding.Depth == 0:
		return Entry{}, false, settle.Refuse(settle.ErrFunding, "the channel is not funded in a block, or has ended")
	case funding.Spend != nil && funding.Spend.Depth > 0:
		return Entry{}, false, settle.Refuse(settle.ErrFunding, "the channel has ended")
	case funding.Amount < b.minValue:
		return Entry{}, false, settle.Refuse(settle.ErrFunding, "a channel of %d units, this tower watches those of %d", uint64(funding.Amount), uint64(b.minValue))
	}
	levels, err := r.Levels(b.network, funding)
	if err != nil {
		return Entry{}, false, err
	}
	if old, held := b.entries[r.Key]; held && !levels[len(levels)-1].Beats(old.Levels[len(old.Levels)-1], b.network) { // [TOWER-7]
		return Entry{}, false, settle.Refuse(settle.ErrStale, "its highest fee does not replace that of the deposit before")
	}
	since := settle.Birthday(height - min(height, funding.Depth-1))
	return Entry{Reading: r, Funding: funding.Amount, Levels: levels, Since: since}, true, nil
}

// Put keeps an entry, in place of the one before.
func (b *Book) Put(e Entry) {
	b.Remove(e.Key)
	e.Reading = e.kept()
	b.entries[e.Key] = e
	b.count(e, 1)
	client := e.Record.Body.Client
	if b.keys[client] == nil {
		b.keys[client] = map[Key]bool{}
	}
	b.keys[client][e.Key] = true
}

// Remove forgets an entry.
func (b *Book) Remove(k Key) {
	if old, ok := b.entries[k]; ok {
		delete(b.entries, k)
		b.count(old, ^uint64(0))
		client := old.Record.Body.Client
		if delete(b.keys[client], k); len(b.keys[client]) == 0 {
			delete(b.keys, client)
		}
	}
}

// count adds an entry n times; n is 1 or -1.
func (b *Book) count(e Entry, n uint64) {
	client := e.Record.Body.Client
	own := b.clients[client]
	own.Deposits += n
	own.Bytes += n * e.Bytes
	b.total.Deposits += n
	b.total.Bytes += n * e.Bytes
	if b.clients[client] = own; own == (Usage{}) {
		delete(b.clients, client)
	}
}

// Entry returns what is kept under a key.
func (b *Book) Entry(k Key) (Entry, bool) {
	e, ok := b.entries[k]
	return e, ok
}

// Keys returns the keys of all entries, ascending.
func (b *Book) Keys() []Key {
	return slices.SortedFunc(maps.Keys(b.entries), func(a, c Key) int { return bytes.Compare(a[:], c[:]) })
}

// Total is what the book holds.
func (b *Book) Total() Usage { return b.total }

// Page returns a client's deposits whose keys come after a key, ascending, and
// whether there are more [TOWER-11].
func (b *Book) Page(client pktcloud.PublicKey, after []byte) (list []Entry, more bool) {
	for k := range b.keys[client] { // strangers ask: not all entries
		if bytes.Compare(k[:], after) > 0 {
			list = append(list, b.entries[k])
		}
	}
	slices.SortFunc(list, func(a, c Entry) int { return bytes.Compare(a.Key[:], c.Key[:]) })
	if more = len(list) > MaxPageDeposits; more {
		list = list[:MaxPageDeposits]
	}
	return list, more
}

// Check states what always holds of a book, unless its quotas were lowered
// since it was filled.
func (b *Book) Check() error {
	if err := b.checkCounts(); err != nil {
		return err
	}
	for client, u := range b.clients {
		if u.Deposits > b.quota.ClientDeposits || u.Bytes > b.quota.ClientBytes {
			return fmt.Errorf("tower: client %s has %d deposits with %d bytes", client, u.Deposits, u.Bytes)
		}
	}
	if b.total.Deposits > b.quota.Deposits || b.total.Bytes > b.quota.Bytes {
		return fmt.Errorf("tower: %d deposits with %d bytes in all", b.total.Deposits, b.total.Bytes)
	}
	return nil
}

// checkCounts is Check without the quotas.
func (b *Book) checkCounts() error {
	clients, total := map[pktcloud.PublicKey]Usage{}, Usage{}
	for k, e := range b.entries {
		u := clients[e.Record.Body.Client]
		u.Deposits, u.Bytes = u.Deposits+1, u.Bytes+e.Bytes
		clients[e.Record.Body.Client] = u
		total.Deposits, total.Bytes = total.Deposits+1, total.Bytes+e.Bytes
		switch {
		case !b.keys[e.Record.Body.Client][k]:
			return fmt.Errorf("tower: a deposit that its client is not asked for")
		case k != e.Key || len(e.Levels) != len(e.Endings) || len(e.Levels) == 0:
			return fmt.Errorf("tower: a deposit under the key of another, or without levels")
		case e.Watch.Level >= uint64(len(e.Levels)):
			return fmt.Errorf("tower: level %d of %d", e.Watch.Level, len(e.Levels))
		}
	}
	for client, keys := range b.keys {
		if uint64(len(keys)) != clients[client].Deposits {
			return fmt.Errorf("tower: %d keys of client %s, who has %d deposits", len(keys), client, clients[client].Deposits)
		}
	}
	if total != b.total || !maps.Equal(clients, b.clients) {
		return fmt.Errorf("tower: the counts are wrong: %+v, want %+v", b.total, total)
	}
	return nil
}
