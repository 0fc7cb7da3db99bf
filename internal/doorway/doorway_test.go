package doorway_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/pkt-cash/pkt-cloud/internal/doorway"
)

func TestOnePeerHasFewPlaces(t *testing.T) {
	d := doorway.New[string](2, 10)
	none := func() { t.Error("a stream was ended while there was room") }
	first, ok := d.Enter("a", none)
	_, ok2 := d.Enter("a", none)
	if _, ok3 := d.Enter("a", none); !ok || !ok2 || ok3 {
		t.Errorf("got %v, %v, %v, want two places for one peer", ok, ok2, ok3)
	}
	if _, ok := d.Enter("b", none); !ok {
		t.Error("another peer has no place")
	}
	first.Leave()
	first.Leave()
	if _, ok := d.Enter("a", none); !ok {
		t.Error("no place after one was left")
	}
	if _, ok := d.Enter("a", none); ok {
		t.Error("leaving twice made two places")
	}
}

func TestOldestMakesRoom(t *testing.T) {
	d := doorway.New[int](1, 3)
	var ended []int
	guests := map[int]*doorway.Guest[int]{}
	enter := func(n int) {
		g, ok := d.Enter(n, func() { ended = append(ended, n) })
		if !ok {
			t.Fatalf("no place for %d", n)
		}
		guests[n] = g
	}
	enter(1)
	enter(2)
	guests[1].Stay() // asked for something
	enter(3)
	enter(4)
	enter(5) // ends 2
	guests[3].Leave()
	enter(6) // room
	enter(7) // ends 4
	if !slices.Equal(ended, []int{2, 4}) {
		t.Errorf("got %v ended, want 2 and 4", ended)
	}
	if _, ok := d.Enter(1, nil); ok {
		t.Error("a peer that stays got a second place")
	}
	if _, ok := d.Enter(2, func() {}); ok {
		t.Error("a stream that was ended and has not left counts no more")
	}
}

func TestManyAtOnce(t *testing.T) {
	d := doorway.New[int](4, 8)
	var wg sync.WaitGroup
	for peer := range 16 {
		wg.Go(func() {
			for range 200 {
				if g, ok := d.Enter(peer, func() {}); ok {
					g.Stay()
					g.Leave()
				}
			}
		})
	}
	wg.Wait()
	for peer := range 16 {
		if _, ok := d.Enter(peer, func() {}); !ok {
			t.Errorf("peer %d has no place after all have left", peer)
		}
	}
}
