package node

import (
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
)

// maxShown bounds what is remembered of the offers that somebody looked at.
const maxShown = 1024

// shownOffers are offers that somebody looked at. Offers are replaced whenever a
// lease begins or ends, but stand until they expire: who has chosen one need not
// choose again.
type shownOffers struct {
	mu sync.Mutex // guards all below
	of map[pktcloud.ID]pktcloud.Signed[market.Offer]
}

func (s *shownOffers) remember(id pktcloud.ID, o pktcloud.Signed[market.Offer]) {
	now := time.Now().Unix()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[pktcloud.ID]pktcloud.Signed[market.Offer]{}
	}
	if len(s.of) >= maxShown {
		for other, v := range s.of {
			if v.Body.Expires <= now {
				delete(s.of, other)
			}
		}
	}
	for other := range s.of { // any, when there is no room
		if len(s.of) < maxShown {
			break
		}
		delete(s.of, other)
	}
	s.of[id] = o
}

func (s *shownOffers) get(id pktcloud.ID) (pktcloud.Signed[market.Offer], bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.of[id]
	return o, ok
}
