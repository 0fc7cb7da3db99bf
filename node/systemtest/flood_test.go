//go:build system

package systemtest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/market/gossip"
	"github.com/pkt-cash/pkt-cloud/market/markettest"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// maxOfOneIdentity is how many connections of one peer a host keeps.
const maxOfOneIdentity = 8

// streams opens thousands of streams and sends nothing: the tenant's node,
// started again, gets in all the same, and so does a session.
func (h *hostile) streams(t *testing.T) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var opened atomic.Int64
	for range 8 {
		a := h.stranger(t)
		wg.Go(func() {
			for n := range 600 {
				id := []protocol.ID{peer.ProtocolID, session.ProtocolID, gossip.Protocol}[n%3]
				s, err := a.stream(id)
				if err == nil {
					_, err = s.Write([]byte{0, 0, 0, 50, 1}) // the beginning of a frame
				}
				if err == nil {
					opened.Add(1)
				}
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
			}
			for { // and again, as soon as there is room
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				if s, err := a.stream(peer.ProtocolID); err == nil {
					s.Write([]byte{0, 0, 0, 50, 1})
				}
				if s, err := a.stream(session.ProtocolID); err == nil {
					s.Write([]byte{0, 0, 0, 50, 1})
				}
			}
		})
	}
	eventually(t, "a thousand streams are opened", func() (bool, error) { return opened.Load() >= 1000, nil })
	h.goesOn(t)
	h.tenant.stop(t)
	h.tenant.start()
	h.goesOn(t)
	eventually(t, "exec beside the attack", func() (bool, error) {
		var out bytes.Buffer
		code, err := h.tenant.client().Exec(t.Context(), h.lease.ID.String(), service.ExecRequest{Args: []string{"/bin/busybox", "echo", "inside"}}, service.Streams{Stdout: &out})
		if err == nil && (code != 0 || out.String() != "inside\n") {
			err = fmt.Errorf("got %q, code %d", &out, code)
		}
		return err == nil, err
	})
	close(stop)
	wg.Wait()
	t.Logf("%d streams were opened", opened.Load())
}

// offers floods the provider's book with forged offers.
func (h *hostile) offers(t *testing.T) {
	honest, err := h.provider.client().Offers(t.Context(), service.OfferQuery{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	good := markettest.NewProvider(9).Sealed(func(o *market.Offer) {
		now := time.Now().Unix()
		o.Issued, o.Expires = now, now+3600
	})
	sent := 0
	for n := range 20 {
		var flood []byte
		for i := range 500 {
			bad := good
			bad.Body.Sequence += uint64(n*500 + i + 1) // the signature is of another body
			b, err := bad.Encode()
			if err != nil {
				t.Fatal(err)
			}
			flood = append(flood, framed(b)...)
			sent++
		}
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		// It floods over its one connection: the provider would bear another one
		// of a peer that it has cut off, and only not listen to it.
		a := h.attacker(t, key)
		ended := make(chan struct{}, 16)
		a.host.SetStreamHandler(gossip.Protocol, func(s network.Stream) {
			s.Write(flood)
			io.Copy(io.Discard, s)
			ended <- struct{}{}
		})
		connectErr := a.connect() // it may be cut off meanwhile
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatalf("nobody wanted the flood, or all of it was taken (connecting: %v)", connectErr)
		}
		eventually(t, "the flooder is cut off", func() (bool, error) {
			return a.host.Network().Connectedness(h.target.ID) != network.Connected, nil
		})
	}
	page, err := h.provider.client().Offers(t.Context(), service.OfferQuery{Limit: 100})
	if err != nil || len(page.Offers) > len(honest.Offers) {
		t.Errorf("the book has %d offers (%v), had %d", len(page.Offers), err, len(honest.Offers))
	}
	t.Logf("%d forged offers by 20 peers", sent)
}

// connections opens as many as it can: of one identity, of many, and halves
// that never finish the handshake. The tenant, started again, gets in.
func (h *hostile) connections(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var same []*attacker
	for range 40 {
		a := h.attacker(t, key)
		a.connect()
		same = append(same, a)
	}
	one := 0
	eventually(t, "most connections of one identity are cut", func() (bool, error) {
		one = 0
		for _, a := range same {
			if a.host.Network().Connectedness(h.target.ID) == network.Connected {
				one++
			}
		}
		return one <= maxOfOneIdentity, nil
	})
	h.goesOn(t)
	many := 0
	var crowd []*attacker
	for range 150 {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		a := h.attacker(t, key)
		if a.connect() == nil {
			many++
		}
		crowd = append(crowd, a)
	}
	h.goesOn(t)
	_, port, err := h.tcpTarget()
	if err != nil {
		t.Fatal(err)
	}
	halves := 0
	for range 300 {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err != nil {
			continue
		}
		halves++
		t.Cleanup(func() { c.Close() })
	}
	t.Logf("connected: %d of 40 of one identity, %d of 150 of many, %d halves", one, many, halves)
	h.goesOn(t)
	h.tenant.stop(t)
	for _, a := range crowd { // whoever is not in yet takes the tenant's place
		if a.host.Network().Connectedness(h.target.ID) != network.Connected {
			a.connect()
		}
	}
	h.tenant.start()
	eventually(t, "the tenant gets in again", func() (bool, error) {
		l, err := h.tenant.client().Lease(t.Context(), h.lease.ID.String())
		return l.Phase == "active" && l.Problem == "" && l.Paid == l.Due, err
	})
}

func (h *hostile) tcpTarget() (ip, port string, err error) {
	for _, a := range h.target.Addrs {
		if _, err := fmt.Sscanf(a.String(), "/ip4/127.0.0.1/tcp/%s", &port); err == nil {
			return "127.0.0.1", port, nil
		}
	}
	return "", "", errors.New("no TCP address")
}
