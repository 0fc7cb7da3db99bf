// Package doorway bounds what strangers hold open: the streams of peers that
// have not yet said what they want, or may not have it.
//
// A stream takes a place with [Doorway.Enter] and leaves it once its peer has
// shown a right to more, or has ended. One peer has few places. When all are
// taken the oldest stream is ended to make room: who means it speaks at once,
// and who only holds streams open loses them.
package doorway

import (
	"slices"
	"sync"
)

// Doorway has places for streams of peers K. Its methods may be called from
// several goroutines at once.
type Doorway[K comparable] struct {
	perPeer, total int

	mu     sync.Mutex // guards all below
	counts map[K]int
	queue  []*Guest[K] // oldest first
}

// Guest is a stream that has a place.
type Guest[K comparable] struct {
	door *Doorway[K]
	peer K
	end  func()
	gone bool
}

// New returns a doorway of so many places, and so many for one peer.
func New[K comparable](perPeer, total int) *Doorway[K] {
	return &Doorway[K]{perPeer: perPeer, total: total, counts: map[K]int{}}
}

// Enter gives a stream a place, unless its peer has as many as it may. end is
// called, at most once and from another goroutine's Enter, when the place is
// needed for a newer stream; it must not block.
func (d *Doorway[K]) Enter(peer K, end func()) (*Guest[K], bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts[peer] >= d.perPeer {
		return nil, false
	}
	if len(d.queue) >= d.total {
		oldest := d.queue[0]
		d.queue = d.queue[1:]
		oldest.end()
	}
	g := &Guest[K]{door: d, peer: peer, end: end}
	d.counts[peer]++
	d.queue = append(d.queue, g)
	return g, true
}

// Stay keeps the place from being given to a newer stream: the peer has asked
// for something, and the answer is awaited. It still counts as its peer's.
func (g *Guest[K]) Stay() {
	g.door.mu.Lock()
	defer g.door.mu.Unlock()
	g.door.dequeue(g)
}

// Leave gives the place up. It is idempotent.
func (g *Guest[K]) Leave() {
	d := g.door
	d.mu.Lock()
	defer d.mu.Unlock()
	if g.gone {
		return
	}
	g.gone = true
	d.dequeue(g)
	if d.counts[g.peer]--; d.counts[g.peer] == 0 {
		delete(d.counts, g.peer)
	}
}

func (d *Doorway[K]) dequeue(g *Guest[K]) {
	if i := slices.Index(d.queue, g); i >= 0 {
		d.queue = slices.Delete(d.queue, i, i+1)
	}
}
