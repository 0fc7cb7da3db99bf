package market_test

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/market/markettest"
)

// naive is a book as a list of all that was ever accepted.
type naive struct {
	accepted []known
}

type known struct {
	pktcloud.Signed[market.Offer]
	id pktcloud.ID
}

func idOf(o pktcloud.Signed[market.Offer]) pktcloud.ID {
	id, err := o.ID()
	if err != nil {
		panic(err)
	}
	return id
}

// put says what a book of unbounded size and memory would answer.
func (n *naive) put(o pktcloud.Signed[market.Offer], now time.Time) string {
	switch {
	case o.Body.Issued > now.Unix()+market.MaxClockSkewSeconds:
		return "early"
	case o.Body.Expires <= now.Unix():
		return "expired"
	}
	next := known{o, idOf(o)}
	for _, old := range n.accepted {
		if old.Body.Key() == o.Body.Key() && old.Body.Sequence > o.Body.Sequence {
			return "stale"
		}
	}
	for _, old := range n.accepted {
		switch {
		case old.id == next.id:
			return "ok"
		case old.Body.Key() == o.Body.Key() && old.Body.Sequence == o.Body.Sequence:
			return "equivocal"
		}
	}
	n.accepted = append(n.accepted, next)
	return "ok"
}

func (n *naive) live(now time.Time) []known {
	var live []known
	for _, o := range n.accepted {
		newer := slices.ContainsFunc(n.accepted, func(x known) bool {
			return x.Body.Key() == o.Body.Key() && x.Body.Sequence > o.Body.Sequence
		})
		if !newer && o.Body.Expires > now.Unix() {
			live = append(live, o)
		}
	}
	return live
}

func (n *naive) query(q market.Query, now time.Time) []pktcloud.ID {
	type hit struct {
		rate pktcloud.Rate
		id   pktcloud.ID
	}
	var hits []hit
	priced := q.For
	if priced.IsZero() {
		priced = market.Reference
	}
	for _, o := range n.live(now) {
		rate, err := o.Body.Rate(priced)
		region := o.Body.Region
		if err != nil || q.MaxRate != 0 && rate > q.MaxRate || !o.Body.Fits(q.For) ||
			q.Region != "" && region != q.Region && !strings.HasPrefix(region, q.Region+"-") {
			continue
		}
		if _, ok := o.Body.Rail(q.Rail); !ok && q.Rail != "" {
			continue
		}
		hits = append(hits, hit{rate, o.id})
	}
	slices.SortFunc(hits, func(a, b hit) int { return cmp.Or(cmp.Compare(a.rate, b.rate), bytes.Compare(a.id[:], b.id[:])) })
	ids := make([]pktcloud.ID, len(hits))
	for i, h := range hits {
		ids[i] = h.id
	}
	return ids
}

// offerGen draws offers of few slots and sequences, so that they collide.
func offerGen(now int64) *rapid.Generator[pktcloud.Signed[market.Offer]] {
	return rapid.Custom(func(t *rapid.T) pktcloud.Signed[market.Offer] {
		p := markettest.NewProvider(rapid.ByteRange(0, 3).Draw(t, "provider"))
		return p.Sealed(func(o *market.Offer) {
			o.Slot = rapid.Uint64Range(0, 2).Draw(t, "slot")
			o.Sequence = rapid.Uint64Range(1, 5).Draw(t, "sequence")
			// Times follow the sequence, as an honest provider's do.
			o.Issued = now - 400 + int64(o.Sequence)*100 + rapid.Int64Range(0, 2).Draw(t, "issued")*100
			o.Expires = o.Issued + rapid.SampledFrom([]int64{10, 200, 400, 3600, 86400}).Draw(t, "life")
			o.Region = rapid.SampledFrom([]string{"", "DE", "DE-BE", "AT"}).Draw(t, "region")
			o.Prices.CPUPerCoreHour = pktcloud.Rate(rapid.Uint64Range(0, 3).Draw(t, "price") * 1000)
			o.Capacity.MilliCPU = rapid.SampledFrom([]uint64{500, 1000, 4000}).Draw(t, "cpu")
			o.Rails[0].Name = rapid.SampledFrom([]string{"pkt", "pkt-devnet"}).Draw(t, "rail")
		})
	})
}

func TestBookModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(markettest.Issued, 0)
		book, model := market.NewBook(0), &naive{}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				o := offerGen(now.Unix()).Draw(t, "offer")
				before := book.Len()
				changed, err := book.Put(o, now)
				want := model.put(o, now)
				if got := outcome(err); got != want {
					t.Fatalf("got %s (%v), want %s", got, err, want)
				}
				if err != nil && (changed || book.Len() != before) {
					t.Fatalf("a refused offer changed the book")
				}
			},
			"expire": func(*rapid.T) { book.RemoveExpired(now) },
			"wait": func(t *rapid.T) {
				if now.Unix() > markettest.Issued+70_000 {
					t.Skip("after a day the book may forget what the list keeps")
				}
				now = now.Add(time.Duration(rapid.SampledFrom([]int{1, 50, 300, 5000}).Draw(t, "seconds")) * time.Second)
			},
			"query": func(t *rapid.T) {
				q := market.Query{
					MaxRate: pktcloud.Rate(rapid.SampledFrom([]uint64{0, 1, 1_261_000, 1_262_000}).Draw(t, "max rate")),
					Region:  rapid.SampledFrom([]string{"", "DE", "DE-BE", "D"}).Draw(t, "region"),
					Rail:    rapid.SampledFrom([]string{"", "pkt", "none"}).Draw(t, "rail"),
					Limit:   rapid.IntRange(1, 4).Draw(t, "limit"),
				}
				q.For.MilliCPU = rapid.SampledFrom([]uint64{0, 1000}).Draw(t, "cpu")
				want := model.query(q, now)
				var got []pktcloud.ID
				for {
					page, err := book.Query(q, now)
					if err != nil {
						t.Fatal(err)
					}
					for _, l := range page.Listings {
						got = append(got, l.ID)
					}
					if q.Cursor = page.Next; q.Cursor == "" {
						break
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%+v: got %v, want %v", q, got, want)
				}
			},
			"": func(t *rapid.T) {
				if err := book.Check(); err != nil {
					t.Fatal(err)
				}
				live := model.live(now)
				if got := book.Live(now); len(got) != len(live) {
					t.Fatalf("got %d live offers, want %d", len(got), len(live))
				}
				for _, o := range live {
					if got, ok := book.Offer(o.id); !ok || got.Sig != o.Sig {
						t.Fatalf("offer %s is not found", o.id)
					}
					if got, ok := book.Latest(o.Body.Key()); !ok || got.Sig != o.Sig {
						t.Fatalf("slot %d of %s holds another offer", o.Body.Slot, o.Body.Provider)
					}
				}
			},
		})
	})
}

// TestOldOfferDoesNotComeBack: a withdrawal by a short-lived offer holds after
// that has expired.
func TestOldOfferDoesNotComeBack(t *testing.T) {
	now := time.Unix(markettest.Issued, 0)
	book := market.NewBook(0)
	old := provider.Sealed(func(o *market.Offer) { o.Expires = o.Issued + 86400 })
	withdrawal := provider.Sealed(func(o *market.Offer) { o.Sequence, o.Expires = 2, o.Issued+60 })
	for _, o := range []pktcloud.Signed[market.Offer]{old, withdrawal} {
		if _, err := book.Put(o, now); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(time.Hour)
	if n := book.RemoveExpired(now); n != 1 || book.Len() != 0 {
		t.Errorf("got %d removed and %d left, want 1 and 0", n, book.Len())
	}
	if _, err := book.Put(old, now); !errors.Is(err, market.CodeStale) {
		t.Errorf("got %v, want CodeStale", err)
	}
	if got := book.Sequence(old.Body.Key()); got != 2 { // what a provider that lost its own records goes on from
		t.Errorf("got sequence %d, want that of the withdrawal", got)
	}
	// A day after the withdrawal nothing older can be live: it is forgotten.
	book.RemoveExpired(now.Add(24 * time.Hour))
	if _, err := book.Put(provider.Sealed(func(o *market.Offer) { o.Issued += 90000; o.Expires += 90000 }), now.Add(24*time.Hour)); err != nil {
		t.Errorf("got %v, want the slot to be free", err)
	}
}

func TestBookIsBounded(t *testing.T) {
	now := time.Unix(markettest.Issued, 0)
	book := market.NewBook(4)
	put := func(n byte, slot uint64, life int64) error {
		_, err := book.Put(markettest.NewProvider(n).Sealed(func(o *market.Offer) { o.Slot, o.Expires = slot, o.Issued+life }), now)
		if check := book.Check(); check != nil {
			t.Error(check)
		}
		return err
	}
	for slot := range uint64(4) {
		if err := put(1, slot, 60+int64(slot)); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(2, 0, 60); !errors.Is(err, market.CodeFull) {
		t.Errorf("got %v, want CodeFull", err)
	}
	now = now.Add(61 * time.Second)
	if err := put(2, 0, 600); err != nil {
		t.Errorf("got %v, want the expired one's place", err)
	}
	for n := byte(3); n < 20; n++ { // remembered sequences give way to offers
		now = now.Add(time.Minute)
		if err := put(n, 0, 3600); err != nil && !errors.Is(err, market.CodeFull) {
			t.Fatal(err)
		}
	}
	if book.Len() != 4 {
		t.Errorf("got %d offers, want 4", book.Len())
	}
}

func TestQueryRefusals(t *testing.T) {
	book := market.NewBook(0)
	for name, q := range map[string]market.Query{
		"negative limit": {Limit: -1},
		"large limit":    {Limit: market.MaxQueryLimit + 1},
		"cursor":         {Cursor: "x"},
		"cursor, no id":  {Cursor: "5."},
		"cursor, spaced": {Cursor: " 5." + (pktcloud.ID{}).String()},
		"resources":      {For: market.Resources{MilliCPU: market.MaxMilliCPU + 1}},
	} {
		if _, err := book.Query(q, time.Unix(0, 0)); !errors.Is(err, market.CodeMalformed) {
			t.Errorf("%s: got %v, want CodeMalformed", name, err)
		}
	}
}
