package node

import (
	"context"
	"slices"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

const (
	// A provider's word on services is as good as new for freshStanding, and is
	// repeated for staleStanding while the provider says nothing.
	freshStanding = 2 * time.Second
	staleStanding = time.Minute
	// standingDeadline bounds how long who looks at a lease waits for that word.
	standingDeadline = 1500 * time.Millisecond
)

// standings remembers how the services of rented leases stood when their
// providers were last asked.
type standings struct {
	mu sync.Mutex // guards all below
	of map[pktcloud.ID]stood
}

type stood struct {
	list []service.Standing
	at   time.Time
}

// remember keeps what a provider said. How a run ended is not said while the next
// one goes on: it is taken over.
func (s *standings) remember(id pktcloud.ID, list []service.Standing) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[pktcloud.ID]stood{}
	}
	for other, v := range s.of {
		if now.Sub(v.at) > staleStanding {
			delete(s.of, other)
		}
	}
	list = slices.Clone(list)
	for i, v := range list {
		at := slices.IndexFunc(s.of[id].list, func(o service.Standing) bool { return o.Name == v.Name })
		if v.Looping && v.Text == "" && at >= 0 {
			list[i].Text = s.of[id].list[at].Text
		}
	}
	s.of[id] = stood{list, now}
}

func (s *standings) recent(id pktcloud.ID, most time.Duration) ([]service.Standing, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.of[id]
	return v.list, ok && time.Since(v.at) <= most
}

// withServices adds to a rented lease what is wrong with its services. With ask
// the provider is asked, else what it said last counts.
func (n *Node) withServices(ctx context.Context, v peer.View, l service.Lease, ask bool) service.Lease {
	if l.Problem != "" || v.Role != lease.RoleTenant || v.Phase != lease.Active {
		return l
	}
	if _, fresh := n.stands.recent(v.ID, freshStanding); ask && !fresh {
		ctx, cancel := context.WithTimeout(ctx, standingDeadline)
		defer cancel()
		if _, err := n.standing(ctx, v); err != nil {
			n.cfg.Log.Debug("the services of a lease", "lease", v.ID, "error", err)
		}
	}
	if list, ok := n.stands.recent(v.ID, staleStanding); ok {
		l.Problem = service.Problems(list)
	}
	return l
}
