//go:build system

package systemtest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	bits "encoding/binary"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	libpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
)

// attacker is a libp2p host without limits of its own.
type attacker struct {
	t      *testing.T
	host   host.Host
	target libpeer.AddrInfo
}

func (h *hostile) attacker(t *testing.T, key ed25519.PrivateKey) *attacker {
	t.Helper()
	private, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	self, err := libp2p.New(libp2p.Identity(private), libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.DisableRelay(),
		libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { self.Close() })
	return &attacker{t: t, host: self, target: h.target}
}

// stranger is an attacker whom nobody knows, connected.
func (h *hostile) stranger(t *testing.T) *attacker {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := h.attacker(t, key)
	eventually(t, "a stranger gets in", func() (bool, error) {
		err := a.connect()
		return err == nil, err
	})
	return a
}

func (a *attacker) connect() error {
	ctx, cancel := context.WithTimeout(a.t.Context(), 10*time.Second)
	defer cancel()
	if s, ok := a.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(a.target.ID)
	}
	return a.host.Connect(ctx, a.target)
}

func (a *attacker) stream(p protocol.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(a.t.Context(), 5*time.Second)
	defer cancel()
	return a.host.NewStream(ctx, a.target.ID, p)
}

// opened is a stream that may have to wait for its place.
func (a *attacker) opened(p protocol.ID) (s network.Stream) {
	a.t.Helper()
	eventually(a.t, "a stream is opened", func() (_ bool, err error) {
		s, err = a.stream(p)
		return err == nil, err
	})
	return s
}

// say sends bytes and returns the frames that come back until the stream ends,
// or falls silent for a second.
func (a *attacker) say(p protocol.ID, parts ...[]byte) [][]byte {
	a.t.Helper()
	return a.sayUntil(func([]byte) bool { return false }, time.Second, p, parts...)
}

// sayUntil is say that ends after an answer that is the last one wanted, and
// bears so much silence after the first.
func (a *attacker) sayUntil(last func(answer []byte) bool, silence time.Duration, p protocol.ID, parts ...[]byte) [][]byte {
	a.t.Helper()
	s := a.opened(p)
	defer s.Reset()
	go func() {
		for _, part := range parts {
			if _, err := s.Write(part); err != nil {
				return
			}
		}
	}()
	var answers [][]byte
	wait := patience // for the first one
	for {
		s.SetReadDeadline(time.Now().Add(wait))
		b, err := wire.ReadFrame(s, 1<<20)
		if err != nil {
			return answers
		}
		answers = append(answers, b)
		if last(b) {
			return answers
		}
		wait = silence
	}
}

func isRefusal(answer []byte) bool {
	m, err := lease.ParseMessage(answer)
	_, ok := m.(lease.Refuse)
	return err == nil && ok
}

func framed(payload []byte) []byte {
	return append(bits.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

func message(t *testing.T, m lease.Message) []byte {
	t.Helper()
	b, err := lease.AppendMessage(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return framed(b)
}

// refused wants one refusal with a code, and nothing else.
func (a *attacker) refused(want lease.Code, parts ...[]byte) {
	a.t.Helper()
	answers := a.say(peer.ProtocolID, parts...)
	if len(answers) != 1 {
		a.t.Errorf("got %d answers, want a refusal with code %s", len(answers), want)
		return
	}
	m, err := lease.ParseMessage(answers[0])
	if r, ok := m.(lease.Refuse); err != nil || !ok || r.Code != want || r.Text == "" {
		a.t.Errorf("got %+v (%v), want a refusal with code %s and a reason", m, err, want)
	}
}
