package market

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Sizes of a book and of its answers.
const (
	DefaultBookOffers = 1 << 16
	DefaultQueryLimit = 50
	MaxQueryLimit     = 500
)

// Book keeps the live offers that a node knows, the newest of each slot
// [MARKET-6]. It is safe for use by several goroutines at once.
type Book struct {
	max int

	mu    sync.RWMutex // guards all below
	slots map[Key]entry
	byID  map[pktcloud.ID]Key
	next  int64 // Unix seconds, before which nothing expires or is forgotten
}

// entry is a slot's newest offer. After the offer is gone its sequence stays,
// with live false, for as long as an older offer of that slot could come back.
type entry struct {
	live  bool
	id    pktcloud.ID
	offer pktcloud.Signed[Offer]

	sequence uint64
	forget   int64 // Unix seconds
}

// Listing is an offer in an answer, with the rate for what was asked.
type Listing struct {
	ID    pktcloud.ID
	Offer pktcloud.Signed[Offer]
	Rate  pktcloud.Rate
}

// Query filters a book. The zero value finds everything.
type Query struct {
	For       Resources     // the least free capacity; zero: any, priced as [Reference]
	MaxRate   pktcloud.Rate // for For; zero: any price, for a query spends nothing
	Region    string        // "DE" also finds "DE-BE"
	Rail      string
	Isolation string
	Network   Network // the least; zero: any
	Volumes   bool    // only offers that have volumes
	Limit     int     // zero: DefaultQueryLimit; at most MaxQueryLimit
	Cursor    string  // Page.Next of the page before
}

// Page is part of an answer. Next is empty on the last one.
type Page struct {
	Listings []Listing
	Next     string
}

// NewBook returns an empty book of at most maxOffers, or [DefaultBookOffers]
// when that is zero.
func NewBook(maxOffers int) *Book {
	if maxOffers <= 0 {
		maxOffers = DefaultBookOffers
	}
	return &Book{max: maxOffers, slots: map[Key]entry{}, byID: map[pktcloud.ID]Key{}}
}

// Put stores an offer that [ParseOffer] or [pktcloud.Seal] returned; it does
// not verify it again. It reports whether the book changed: an offer that it
// holds already is no error. Errors match [CodeEarly], [CodeExpired],
// [CodeStale], [CodeEquivocal] or [CodeFull].
func (b *Book) Put(offer pktcloud.Signed[Offer], now time.Time) (bool, error) {
	if err := Admit(offer.Body, now); err != nil {
		return false, err
	}
	id, err := offer.ID()
	if err != nil {
		return false, err
	}
	key := offer.Body.Key()

	b.mu.Lock()
	defer b.mu.Unlock()
	old, known := b.slots[key]
	switch {
	case known && old.live && old.id == id:
		return false, nil
	case known && offer.Body.Sequence < old.sequence:
		return false, refuse(CodeStale, "sequence %d of slot %d, %d is known", offer.Body.Sequence, key.Slot, old.sequence)
	case known && offer.Body.Sequence == old.sequence && old.id != id:
		return false, refuse(CodeEquivocal, "a second offer with sequence %d of slot %d", old.sequence, key.Slot)
	case !known && len(b.slots) >= b.max && !b.makeRoom(now):
		return false, refuse(CodeFull, "the book holds %d offers", b.max)
	}
	if old.live {
		delete(b.byID, old.id)
	}
	b.slots[key] = entry{
		live: true, id: id, offer: offer, sequence: offer.Body.Sequence,
		forget: max(old.forget, offer.Body.Issued+MaxOfferLifetimeSeconds),
	}
	b.byID[id] = key
	b.next = min(b.next, offer.Body.Expires)
	return true, nil
}

// makeRoom drops what has expired and, if that freed nothing, one remembered
// sequence.
func (b *Book) makeRoom(now time.Time) bool {
	b.expire(now)
	if len(b.slots) < b.max {
		return true
	}
	if len(b.slots) == len(b.byID) { // nothing but live offers
		return false
	}
	for key, e := range b.slots {
		if !e.live {
			delete(b.slots, key)
			return true
		}
	}
	return false
}

// RemoveExpired drops the offers that ended by now and returns how many.
func (b *Book) RemoveExpired(now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.expire(now)
}

func (b *Book) expire(now time.Time) int {
	if now.Unix() < b.next {
		return 0
	}
	gone := 0
	b.next = math.MaxInt64
	for key, e := range b.slots {
		if e.live && e.offer.Body.Expires <= now.Unix() {
			gone++
			delete(b.byID, e.id)
			e.live, e.offer = false, pktcloud.Signed[Offer]{}
			b.slots[key] = e
		}
		switch {
		case e.live:
			b.next = min(b.next, e.offer.Body.Expires)
		case e.forget <= now.Unix():
			delete(b.slots, key)
		default:
			b.next = min(b.next, e.forget)
		}
	}
	return gone
}

// Offer returns a held offer by its id, expired or not.
func (b *Book) Offer(id pktcloud.ID) (pktcloud.Signed[Offer], bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	key, ok := b.byID[id]
	return b.slots[key].offer, ok
}

// Latest returns the offer that a slot holds.
func (b *Book) Latest(key Key) (pktcloud.Signed[Offer], bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	e := b.slots[key]
	return e.offer, e.live
}

// Sequence returns the highest sequence that is known of a slot, also of an offer
// that has expired; 0 when none is.
func (b *Book) Sequence(key Key) uint64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.slots[key].sequence
}

// Len returns the number of offers held, the expired ones included that
// nothing has removed yet.
func (b *Book) Len() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.byID)
}

// Live returns the offers live at now, newest first.
func (b *Book) Live(now time.Time) []pktcloud.Signed[Offer] {
	b.mu.RLock()
	live := make([]Listing, 0, len(b.byID))
	for _, e := range b.slots {
		if e.live && e.offer.Body.Expires > now.Unix() {
			live = append(live, Listing{ID: e.id, Offer: e.offer})
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(live, func(x, y Listing) int {
		return cmp.Or(cmp.Compare(y.Offer.Body.Issued, x.Offer.Body.Issued), bytes.Compare(x.ID[:], y.ID[:]))
	})
	offers := make([]pktcloud.Signed[Offer], len(live))
	for i, l := range live {
		offers[i] = l.Offer
	}
	return offers
}

// All yields the offers live at now, in no order. The loop must not call the book.
func (b *Book) All(now time.Time) iter.Seq[Offer] {
	return func(yield func(Offer) bool) {
		b.mu.RLock()
		defer b.mu.RUnlock()
		for _, e := range b.slots {
			if e.live && e.offer.Body.Expires > now.Unix() && !yield(e.offer.Body) {
				return
			}
		}
	}
}

// Query returns the offers live at now that pass the filters, cheapest first,
// then by id. It reads the whole book. Errors match [CodeMalformed] for
// resources out of bounds, a bad limit or a cursor that no page gave.
func (b *Book) Query(q Query, now time.Time) (Page, error) {
	if q.Limit == 0 {
		q.Limit = DefaultQueryLimit
	}
	if q.Limit < 0 || q.Limit > MaxQueryLimit {
		return Page{}, refuse(CodeMalformed, "a limit of %d; a page has 1 to %d offers", q.Limit, MaxQueryLimit)
	}
	if err := q.For.Validate(); err != nil {
		return Page{}, err
	}
	after, err := parseCursor(q.Cursor)
	if err != nil {
		return Page{}, err
	}
	found := b.find(q, after, now)
	slices.SortFunc(found, compareListings)
	if len(found) <= q.Limit {
		return Page{Listings: found}, nil
	}
	found = found[:q.Limit:q.Limit]
	return Page{Listings: found, Next: cursor(found[q.Limit-1])}, nil
}

func (b *Book) find(q Query, after *Listing, now time.Time) []Listing {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var found []Listing
	for _, e := range b.slots {
		if !e.live || e.offer.Body.Expires <= now.Unix() {
			continue
		}
		rate, ok := q.passes(e.offer.Body)
		l := Listing{ID: e.id, Offer: e.offer, Rate: rate}
		if ok && (after == nil || compareListings(l, *after) > 0) {
			found = append(found, l)
		}
	}
	return found
}

// priced is what the rate of an offer is of.
func (q Query) priced() Resources {
	if q.For.IsZero() {
		return Reference
	}
	return q.For
}

func (q Query) passes(o Offer) (pktcloud.Rate, bool) {
	rate, err := o.Rate(q.priced())
	if err != nil || q.MaxRate != 0 && rate > q.MaxRate || !o.Fits(q.For) || !inRegion(o.Region, q.Region) {
		return 0, false
	}
	if q.Rail != "" {
		if _, ok := o.Rail(q.Rail); !ok {
			return 0, false
		}
	}
	if q.Volumes && !o.Volumes {
		return 0, false
	}
	return rate, q.Network.Within(o.Network) && (q.Isolation == "" || slices.Contains(o.Isolation, q.Isolation))
}

func compareListings(x, y Listing) int {
	return cmp.Or(cmp.Compare(x.Rate, y.Rate), bytes.Compare(x.ID[:], y.ID[:]))
}

// cursor names the last listing of a page: its rate and its id.
func cursor(l Listing) string {
	return strconv.FormatUint(uint64(l.Rate), 10) + "." + l.ID.String()
}

func parseCursor(s string) (*Listing, error) {
	if s == "" {
		return nil, nil
	}
	rateText, idText, _ := strings.Cut(s, ".")
	var l Listing
	if err := l.Rate.UnmarshalText([]byte(rateText)); err != nil {
		return nil, &Error{Code: CodeMalformed, Detail: "a cursor that no page gave", Err: err}
	}
	if err := l.ID.UnmarshalText([]byte(idText)); err != nil {
		return nil, &Error{Code: CodeMalformed, Detail: "a cursor that no page gave", Err: err}
	}
	return &l, nil
}

// Check returns an error when the book breaks its own invariants: every live
// offer is found by id, each slot holds what belongs there, and no bound is
// exceeded.
func (b *Book) Check() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	live := 0
	for key, e := range b.slots {
		if !e.live {
			continue
		}
		live++
		if b.byID[e.id] != key || e.offer.Body.Key() != key || e.offer.Body.Sequence != e.sequence {
			return fmt.Errorf("market: slot %d of %s is misfiled", key.Slot, key.Provider)
		}
	}
	if live != len(b.byID) || len(b.slots) > b.max {
		return fmt.Errorf("market: %d live offers, %d ids, %d slots of %d", live, len(b.byID), len(b.slots), b.max)
	}
	return nil
}
