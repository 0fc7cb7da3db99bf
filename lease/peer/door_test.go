package peer_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	libpeer "github.com/libp2p/go-libp2p/core/peer"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
)

// stranger is a device that the provider has not heard of.
func (w *world) stranger() host.Host {
	w.t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.DisableRelay())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { h.Close() })
	if err := h.Connect(w.t.Context(), libpeer.AddrInfo{ID: w.hosts[1].ID(), Addrs: w.hosts[1].Addrs()}); err != nil {
		w.t.Fatal(err)
	}
	return h
}

// stream opens a stream to the provider and begins a message on it.
func (w *world) stream(h host.Host, say ...byte) network.Stream {
	w.t.Helper()
	s, err := h.NewStream(w.t.Context(), w.hosts[1].ID(), peer.ProtocolID)
	if err == nil {
		err = s.SetDeadline(time.Now().Add(patience))
	}
	if err == nil && len(say) > 0 {
		_, err = s.Write(say)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// TestStrangersWaitAtTheDoor shows [LEASE-25]: one device cannot take the
// places of all, and many cannot keep a tenant out.
func TestStrangersWaitAtTheDoor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.raw()
	h := w.hosts[0]
	streams := []raw{first}
	for len(streams) < peer.MaxWaitingOfOne {
		streams = append(streams, raw{t, w.stream(h)})
	}
	for i, r := range streams {
		r.send(w.propose(byte(i)))
		r.await(lease.TypeQuote)
	}
	more := raw{t, w.stream(h)}
	more.send(w.propose(100))
	if m, ok := more.await(lease.TypeQuote, lease.TypeRefuse).(lease.Refuse); !ok || m.Code != lease.CodeBusy {
		t.Errorf("got %+v on one stream more than a device may have, want busy", m)
	}
	for _, r := range streams {
		r.stream.Reset()
	}

	began := time.Now()
	gone := make(chan struct{}, 2*peer.MaxWaiting)
	for range peer.MaxWaiting/peer.MaxWaitingOfOne + 1 {
		h := w.stranger()
		for range peer.MaxWaitingOfOne {
			s := w.stream(h, 0)
			go func() {
				s.Read(make([]byte, 1))
				gone <- struct{}{}
			}()
		}
	}
	w.until("a tenant finds its way in", func() bool {
		r := raw{t, w.stream(h)}
		r.send(w.propose(101))
		_, quoted := r.await(lease.TypeQuote, lease.TypeRefuse).(lease.Quote)
		return quoted
	})
	const tires = 15 * time.Second // of those that say nothing, by itself
	left := tires*4/5 - time.Since(began)
	if left < tires/5 {
		t.Log("too slow to tell those that were ended from those that tired")
		return
	}
	select {
	case <-gone:
	case <-time.After(left):
		if len(gone) == 0 && time.Since(began) < tires {
			t.Error("no stream was ended to make room")
		}
	}
}
