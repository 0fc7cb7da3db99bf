//go:build system

package systemtest

import (
	"bytes"
	"crypto/ed25519"
	"database/sql"
	bits "encoding/binary"
	"io"
	mathrand "math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	libpeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/node/keystore"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// maxHostileBytes is what a provider may hold in memory after all attacks.
const maxHostileBytes = 256 << 20

// hostile is a provider under attack, with the lease of an honest tenant.
type hostile struct {
	*world
	target libpeer.AddrInfo
	lease  service.Lease
	commit []byte // the honest tenant's, as it was sent
	paid   []byte // a voucher of the honest lease

	turncoatID pktcloud.ID
}

// TestHostilePeers attacks a provider by hand-made frames over the real
// protocols. The honest lease beside it goes on being paid, the provider's
// memory stays bounded, and what can be answered is refused by its code.
func TestHostilePeers(t *testing.T) {
	w := newWorld(t, worldConfig{blockInterval: 500 * time.Millisecond})
	h := &hostile{world: w, lease: w.rent()}
	w.paidIntervals(h.lease.ID, 2)
	target, err := libpeer.AddrInfoFromString(w.provider.info.Addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	h.target = *target
	h.commit = h.record(t, "commit")
	h.paid = h.record(t, "voucher/00000000000000000002")
	before := residentBytes(t, w.provider.cmd.Process.Pid)
	for _, attack := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"frames", h.frames},
		{"order", h.order},
		{"replay", h.replay},
		{"sessions", h.sessions},
		{"a tenant turns hostile", h.turncoat},
		{"streams", h.streams},
		{"offers", h.offers},
		{"connections", h.connections},
	} {
		t.Run(attack.name, func(t *testing.T) {
			attack.run(t)
			h.goesOn(t)
			t.Logf("the provider has %.1f MiB resident", float64(residentBytes(t, w.provider.cmd.Process.Pid))/(1<<20))
		})
	}
	after := residentBytes(t, w.provider.cmd.Process.Pid)
	t.Logf("resident before %.1f MiB, after %.1f MiB", float64(before)/(1<<20), float64(after)/(1<<20))
	if after > maxHostileBytes {
		t.Errorf("the provider has %d MiB resident, want at most %d", after>>20, maxHostileBytes>>20)
	}
	w.closeLease(h.lease.ID)
	w.cleanBut(h.turncoatID)
}

// record reads what the honest tenant keeps of its lease.
func (h *hostile) record(t *testing.T, name string) []byte {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(h.tenant.dir, "node.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var value []byte
	if err := db.QueryRow("SELECT value FROM kv WHERE key = CAST(? AS BLOB)", "lease/"+h.lease.ID.Hex()+"/"+name).Scan(&value); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

// goesOn wants the honest lease to be served and paid further.
func (h *hostile) goesOn(t *testing.T) {
	t.Helper()
	if h.provider.dead() {
		t.Fatal("the provider has died")
	}
	began := h.world.lease(h.lease)
	eventually(t, "the honest lease is paid further", func() (bool, error) {
		l, err := h.tenant.client().Lease(t.Context(), h.lease.ID.String())
		return l.Phase == "active" && l.Intervals >= began.Intervals+2 && l.Paid > began.Paid && l.Paid == l.Due, err
	})
}

// frames sends what is no message.
func (h *hostile) frames(t *testing.T) {
	a := h.stranger(t)
	head := func(n uint32) []byte { return bits.BigEndian.AppendUint32(nil, n) }
	deep := append(bytes.Repeat([]byte{0x81}, 100_000), 0)
	for name, parts := range map[string][][]byte{
		"longest length":      {head(1<<32 - 1), make([]byte, 1<<20)},
		"one beyond":          {head(lease.MaxMessageBytes + 1), make([]byte, lease.MaxMessageBytes+1)},
		"empty":               {head(0)},
		"no CBOR":             {framed([]byte("hello"))},
		"nested":              {framed(deep)},
		"array of 2^60":       {framed([]byte{0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0})},
		"text of 2^60":        {framed([]byte{0xa1, 0x64, 'b', 'o', 'd', 'y', 0x5b, 0x10, 0, 0, 0, 0, 0, 0, 0})},
		"commit and a byte":   {framed(append(bytes.Clone(h.commit), 0))},
		"commit less a byte":  {framed(h.commit[:len(h.commit)-1])},
		"commit, a bit wrong": {framed(flipped(h.commit, 2))},
	} {
		t.Run(name, func(t *testing.T) {
			(&attacker{t, a.host, a.target}).refused(lease.CodeMalformed, parts...)
		})
	}
	truncated := a.opened(peer.ProtocolID)
	truncated.Write(append(head(1000), "half"...))
	truncated.CloseWrite()
	if rest, err := io.ReadAll(truncated); len(rest) > 0 {
		t.Errorf("a truncated frame is answered with %x (%v)", rest, err)
	}
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for n := range 300 {
		junk := make([]byte, random.IntN(2000))
		for i := range junk {
			junk[i] = byte(random.Uint32())
		}
		id := []protocol.ID{peer.ProtocolID, session.ProtocolID}[n%2]
		if n%3 > 0 {
			junk = framed(junk)
		}
		s, err := a.stream(id)
		if err != nil {
			continue // too many at once
		}
		s.Write(junk)
		s.Reset()
	}
	for n := range 200 { // one bit of a real commit wrong, anywhere
		s, err := a.stream(peer.ProtocolID)
		if err != nil {
			continue
		}
		s.Write(framed(flipped(h.commit, n*len(h.commit)/200)))
		s.Reset()
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 4
	return b
}

// order sends messages that have no place at the beginning.
func (h *hostile) order(t *testing.T) {
	a := h.stranger(t)
	id := h.lease.ID
	private := pktcloud.NewPrivateKey([32]byte{7})
	for name, m := range map[string]lease.Message{
		"voucher":       lease.VoucherMessage{Version: 1, Lease: id, Voucher: h.paid},
		"ack":           lease.Ack{Version: 1, Lease: id, Signature: pktcloud.Signature{1}},
		"refuse":        lease.Refuse{Version: 1, Lease: id, Code: lease.CodeLate, Text: "go away"},
		"close request": lease.CloseRequest{Version: 1, Lease: id, Reason: lease.ReasonRequested},
		"suspend":       lease.Suspend{Version: 1, Lease: id},
		"resume":        lease.Resume{Version: 1, Lease: id},
		"close ack":     lease.CloseAck{Version: 1, Lease: id, Signature: pktcloud.Signature{1}},
		"statement":     lease.StatementMessage{Version: 1, Statement: statement(t, private, id)},
	} {
		t.Run(name, func(t *testing.T) {
			(&attacker{t, a.host, a.target}).refused(lease.CodePhase, message(t, m))
		})
	}
	a.refused(lease.CodeUnknown, message(t, lease.Attach{Version: 1, Lease: id}))
	a.refused(lease.CodeUnknown, message(t, lease.Attach{Version: 1, Lease: pktcloud.IDOf([]byte("none"))}))
}

func statement(t *testing.T, key pktcloud.PrivateKey, id pktcloud.ID) pktcloud.Signed[lease.Statement] {
	t.Helper()
	s, err := pktcloud.Seal(key, lease.Statement{Version: 1, Lease: id, Provider: key.Public(), Sequence: 100, From: 0, To: 1, Due: 1, State: lease.Running, Issued: 1})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// replay sends the honest tenant's own words over another connection.
func (h *hostile) replay(t *testing.T) {
	a := h.stranger(t)
	for range 3 {
		a.refused(lease.CodeSignature, framed(h.commit))
	}
	m, err := lease.ParseMessage(h.commit)
	if err != nil {
		t.Fatal(err)
	}
	c := m.(lease.Commit)
	a.refused(lease.CodeSignature, message(t, lease.Propose{Version: 1, Account: c.Account, Draft: c.Terms.Draft(), Manifest: c.Manifest}))
	draft := c.Terms.Draft()
	own, err := a.host.ID().ExtractPublicKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := own.Raw()
	if err != nil {
		t.Fatal(err)
	}
	draft.TenantDevice = pktcloud.PublicKey(raw) // but the account does not list it
	a.refused(lease.CodeSignature, message(t, lease.Propose{Version: 1, Account: c.Account, Draft: draft, Manifest: c.Manifest}))
}

// sessions asks for the inside of another's lease.
func (h *hostile) sessions(t *testing.T) { h.noSession(t, h.stranger(t)) }

func (h *hostile) noSession(t *testing.T, a *attacker) {
	t.Helper()
	head := func(s session.Header) []byte {
		s.Version, s.Lease = session.HeaderVersion, h.lease.ID
		b, err := pktcloud.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return framed(b)
	}
	for _, c := range []struct {
		name string
		want lease.Code
		part []byte
	}{
		{"exec", lease.CodeUnknown, head(session.Header{Command: session.CommandExec, Service: "web", Args: []string{"/bin/sh"}})},
		{"logs", lease.CodeUnknown, head(session.Header{Command: session.CommandLogs})},
		{"forward", lease.CodeUnknown, head(session.Header{Command: session.CommandForward, Service: "web", Port: 8080})},
		{"no command", lease.CodeMalformed, head(session.Header{Command: "sudo"})},
		{"too long", lease.CodeMalformed, append(bits.BigEndian.AppendUint32(nil, session.MaxHeaderBytes+1), make([]byte, session.MaxHeaderBytes+1)...)},
		{"no CBOR", lease.CodeMalformed, framed([]byte("hello"))},
	} {
		answers := (&attacker{t, a.host, a.target}).say(session.ProtocolID, c.part)
		if len(answers) != 1 {
			t.Errorf("%s: got %d answers, want one refusal", c.name, len(answers))
			continue
		}
		if r, err := session.ParseReply(answers[0]); err != nil || r.Code != c.want || r.Text == "" {
			t.Errorf("%s: got %+v (%v), want a refusal with code %s and a reason", c.name, r, err, c.want)
		}
	}
}

// turncoat is a tenant with a lease of its own, whose device then speaks as it
// likes: with vouchers of another lease, records that it invents, messages of
// the other side.
func (h *hostile) turncoat(t *testing.T) {
	mallory := h.newParty("mallory", "--bootstrap", h.provider.info.Addresses[0])
	mallory.start()
	h.fund(mallory, "10 PKT")
	offer := h.publish()
	h.known(t, mallory, offer.ID)
	own, err := mallory.client().CreateLease(t.Context(), h.request(offer.ID))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "mallory's lease runs", func() (bool, error) {
		l, err := mallory.client().Lease(t.Context(), own.ID.String())
		return l.Phase == "active" && l.Paid > 0, err
	})
	h.turncoatID = own.ID
	mallory.kill()
	device, err := keystore.OpenDevice(filepath.Join(mallory.dir, "device.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	seed := device.Seed()
	a := h.attacker(t, ed25519.NewKeyFromSeed(seed[:]))
	eventually(t, "the turncoat gets in", func() (bool, error) {
		err := a.connect()
		return err == nil, err
	})
	h.noSession(t, a)
	a.refused(lease.CodeUnknown, message(t, lease.Attach{Version: 1, Lease: h.lease.ID}))
	a.refused(lease.CodeSignature, framed(h.commit))
	attach := message(t, lease.Attach{Version: 1, Lease: own.ID})
	record := lease.CloseRecord{Version: 1, Lease: own.ID, Reason: lease.ReasonRequested, By: lease.RoleTenant}
	sig, err := lease.SignClose(device, record)
	if err != nil {
		t.Logf("an invented record cannot be signed: %v", err)
	}
	for _, c := range []struct {
		name string
		want lease.Code
		m    lease.Message
	}{
		{"voucher of another lease", lease.CodeUnknown, lease.VoucherMessage{Version: 1, Lease: h.lease.ID, Voucher: h.paid}},
		{"voucher of another channel", lease.CodePayment, lease.VoucherMessage{Version: 1, Lease: own.ID, Voucher: h.paid}},
		{"no voucher", lease.CodePayment, lease.VoucherMessage{Version: 1, Lease: own.ID, Voucher: []byte("money")}},
		{"own statement", lease.CodePhase, lease.StatementMessage{Version: 1, Statement: statement(t, device, own.ID)}},
		{"another's statement", lease.CodePhase, lease.StatementMessage{Version: 1, Statement: statement(t, device, h.lease.ID)}},
		{"ack", lease.CodePhase, lease.Ack{Version: 1, Lease: own.ID, Signature: pktcloud.Signature{1}}},
		{"suspend", lease.CodePhase, lease.Suspend{Version: 1, Lease: own.ID}},
		{"close of nothing", "", lease.Close{Version: 1, Record: record, Signature: sig}},
		{"end of another lease", "", lease.CloseRequest{Version: 1, Lease: h.lease.ID, Reason: lease.ReasonRequested}},
	} {
		if c.m.Validate() != nil {
			t.Logf("%s: not even well-formed", c.name)
			continue
		}
		var code lease.Code
		for _, answer := range a.sayUntil(isRefusal, patience, peer.ProtocolID, attach, message(t, c.m)) {
			m, err := lease.ParseMessage(answer)
			if err != nil {
				t.Errorf("%s: answered with %x", c.name, answer)
			}
			if r, ok := m.(lease.Refuse); ok {
				code = r.Code
			}
		}
		if code == "" || c.want != "" && code != c.want {
			t.Errorf("%s: got code %q, want %q", c.name, code, c.want)
		}
	}
	flood := [][]byte{attach}
	for range 20_000 {
		flood = append(flood, message(t, lease.VoucherMessage{Version: 1, Lease: own.ID, Voucher: h.paid}))
	}
	a.say(peer.ProtocolID, flood...)
	h.goesOn(t)
	mallory.start()
	m := mallory.client()
	eventually(t, "mallory's lease is over", func() (bool, error) {
		l, err := m.Lease(t.Context(), own.ID.String())
		if err == nil && !final[l.Phase] {
			m.CloseLease(t.Context(), own.ID.String())
		}
		return final[l.Phase], err
	})
	mallory.stop(t)
}
