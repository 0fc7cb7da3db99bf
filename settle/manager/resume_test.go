package manager_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// resumed runs the question of a side that lost its store against the other.
func (s *side) resumed(other *side, at settle.Outpoint) (id pktcloud.ID, asked, served error) {
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- other.m.ServeResume(context.Background(), there, s.cfg.DeviceKey.Public())
	}()
	id, asked = s.m.AskResume(s.t.Context(), here, at)
	return id, asked, <-done
}

// TestResumePayer: a restored payer that meets the honest payee again has its
// channel back with the latest voucher, and closes it without waiting for the
// expiry.
func TestResumePayer(t *testing.T) {
	w := newWorld(t)
	id, unpaid := w.settled(), w.settled()
	w.pay(id, "a", 70_000)
	w.payer.stop()
	n := w.anew(w.payer)
	n.found(t, 2)
	at := mustChain(t, w, id).Detail.Funding
	if got := len(n.m.Lost()); got != 2 {
		t.Errorf("lost: got %d, want 2", got)
	}
	got, err, served := n.resumed(w.payee, at)
	if err != nil || served != nil || got != id {
		t.Fatalf("got %v, %v, %v", got, err, served)
	}
	_, err, _ = n.resumed(w.payee, mustChain(t, w, unpaid).Detail.Funding)
	code(t, "a channel that was never paid", err, settle.ErrClose)
	n.crash()
	if v, ok := n.m.Latest(id); !ok || v.Body.Total != 70_000 || len(n.m.Lost()) != 1 {
		t.Errorf("resumed: %d units, %v; want 70000", uint64(v.Body.Total), ok)
	}
	w.pay2(t, n, id)
	for range 2 { // the same again is harmless
		here, there := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- w.payee.m.ServeResume(context.Background(), there, n.cfg.DeviceKey.Public()) }()
		if err := errors.Join(n.m.AskClose(t.Context(), here, id), <-done); err != nil {
			t.Fatal(err)
		}
	}
	w.ledger.Mine(2)
	st := n.until(id, "close", func(s manager.Status) bool { return s.Phase == settle.Closed })
	if st.Settled != 70_000 || st.End.Payer < capacity-70_000-1_000 {
		t.Errorf("closed: got %d for the payee, %d back", uint64(st.Settled), uint64(st.End.Payer))
	}
	w.payee.until(id, "close", func(s manager.Status) bool { return s.Phase == settle.Closed })
	_, err, _ = n.resumed(w.payee, at)
	code(t, "a channel that has ended", err, settle.ErrClosed)
}

// pay2 shows that a resumed payer pays no more.
func (w *world) pay2(t *testing.T, n *side, id pktcloud.ID) {
	t.Helper()
	_, err := n.m.Pay(t.Context(), id, entry("a", 80_000))
	code(t, "pay over a resumed channel", err, settle.ErrClosed)
}

// TestResumePayee: a restored payee that meets the honest payer again loses
// nothing: it claims the latest voucher by the deadline, takes further ones, and
// its deposits stay what they were.
func TestResumePayee(t *testing.T) {
	w := depositing(t, 1)
	id := w.settled()
	w.deposited(id, 100_000)
	p := w.deposited(id, 200_000)
	w.pay(id, "a", 640_000) // never deposited
	params := mustParams(t, w, id)
	at := mustChain(t, w, id).Detail.Funding
	w.payee.stop()
	n := w.anew(w.payee)
	_, err := n.m.AskResume(t.Context(), pipeEnd(t), at)
	code(t, "a channel that no tower gave back", err, settle.ErrUnknown)
	n.recall(t, p)
	got, err, served := n.resumed(w.payer, at)
	if err != nil || served != nil || got != id {
		t.Fatalf("got %v, %v, %v", got, err, served)
	}
	if got, err, _ := n.resumed(w.payer, at); err != nil || got != id {
		t.Errorf("the same again: got %v, %v", got, err)
	}
	n.crash()
	n.until(id, "open", func(s manager.Status) bool { return s.Phase == settle.Open && s.Paid == 640_000 })
	if !sameParcel(n.parcel(), p) {
		t.Error("its deposit is another one")
	}
	v, err := w.payer.m.Pay(t.Context(), id, entry("a", 650_000))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.m.Receive(t.Context(), v); err != nil {
		t.Fatalf("a further voucher: %v", err)
	}
	w.payer.stop()
	w.mineTo(params.Deadline())
	eventually(t, "claim", func() bool { return len(w.ledger.Pool()) == 1 })
	w.ledger.Mine(2)
	st := n.until(id, "end", func(s manager.Status) bool { return s.Phase == settle.Closed })
	if st.Settled < 650_000 {
		t.Errorf("got %d units, want all that was paid", uint64(st.Settled))
	}
}

// pipeEnd is a connection to nobody.
func pipeEnd(t *testing.T) net.Conn {
	t.Helper()
	here, there := net.Pipe()
	there.Close()
	return here
}

// TestServeResumeRefuses: whoever is no side of a channel learns nothing; a
// machine with the same phrase is noticed; nothing changes.
func TestServeResumeRefuses(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", 70_000)
	at := mustChain(t, w, id).Detail.Funding
	n := w.anew(w.payer)
	device := n.cfg.DeviceKey.Public()
	sign := func(s *side, role settle.Role, device pktcloud.PublicKey, at settle.Outpoint) []byte {
		t.Helper()
		b, err := s.cfg.Keychain.SignResume(role, 0, device, at)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	proof := sign(n, settle.Payer, device, at)
	good := manager.ResumeAsk{Version: 1, Funding: at, Proof: proof}
	with := func(change func(a *manager.ResumeAsk)) []byte {
		t.Helper()
		a := good
		change(&a)
		b, err := pktcloud.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ask := func(remote pktcloud.PublicKey, data []byte) ([]byte, error) {
		t.Helper()
		here, there := net.Pipe()
		defer here.Close()
		done := make(chan error, 1)
		go func() { done <- w.payee.m.ServeResume(context.Background(), there, remote) }()
		if err := wire.WriteFrame(here, data); err != nil {
			t.Fatal(err)
		}
		answer, err := wire.ReadFrame(here, manager.MaxShownBytes+1)
		if err != nil {
			t.Fatal(err)
		}
		return answer, <-done
	}
	for _, c := range []struct {
		name   string
		remote pktcloud.PublicKey
		data   []byte
		want   settle.Code
	}{
		{"no question", device, []byte{0xa0}, settle.ErrMalformed},
		{"another version", device, with(func(a *manager.ResumeAsk) { a.Version = 2 }), settle.ErrMalformed},
		{"no proof", device, with(func(a *manager.ResumeAsk) { a.Proof = nil }), settle.ErrMalformed},
		{"a long proof", device, with(func(a *manager.ResumeAsk) { a.Proof = make([]byte, manager.MaxResumeProof+1) }), settle.ErrMalformed},
		{"another output", device, with(func(a *manager.ResumeAsk) { a.Funding.Index++ }), settle.ErrUnknown},
		{"the proof of another device", pktcloud.NewPrivateKey([32]byte{5}).Public(), with(func(*manager.ResumeAsk) {}), settle.ErrUnknown},
		{"the payer's refund key", device, with(func(a *manager.ResumeAsk) { a.Proof = sign(w.side("stranger"), settle.Payer, device, at) }), settle.ErrUnknown},
		{"half a close", device, with(func(a *manager.ResumeAsk) { a.Close = []byte{0xa1} }), settle.ErrMalformed},
		{"the payee's own phrase", device, with(func(a *manager.ResumeAsk) { a.Proof = sign(w.payee, settle.Payee, device, at) }), settle.ErrRole},
	} {
		answer, err := ask(c.remote, c.data)
		if code(t, c.name, err, c.want); len(answer) == 0 || answer[0] != 1 {
			t.Errorf("%s: got %x, want a refusal", c.name, answer)
		}
	}
	if !w.payee.m.OtherMachine() {
		t.Error("a machine with the same phrase was not noticed")
	}
	if answer, err := ask(device, with(func(*manager.ResumeAsk) {})); err != nil || answer[0] != 0 {
		t.Errorf("an honest question after all: got %x, %v", answer[:1], err)
	}
	low, err := w.payer.m.OfferClose(t.Context(), id, 70_000)
	if err != nil {
		t.Fatal(err)
	}
	low.Final--
	b, err := low.Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, err = ask(device, with(func(a *manager.ResumeAsk) { a.Close = b }))
	code(t, "a close below what was paid", err, settle.ErrClose)
	if st := w.payee.until(id, "status", func(manager.Status) bool { return true }); st.Phase != settle.Open {
		t.Errorf("refused questions left the channel %s", st.Phase)
	}
}

// TestResumeRefuses: what a hostile payer shows to a restored payee changes
// nothing, and the late claim stands.
func TestResumeRefuses(t *testing.T) {
	w := depositing(t, 1)
	id, other := w.settled(), w.settled()
	low := w.pay(id, "a", 90_000)
	p := w.deposited(id, 100_000)
	high := w.pay(id, "a", 640_000)
	foreign := w.pay(other, "a", 700_000)
	st := w.payee.until(id, "status", func(manager.Status) bool { return true })
	at := mustChain(t, w, id).Detail.Funding
	funding := w.fundingOf(id)
	w.payee.stop()
	n := w.anew(w.payee)
	n.recall(t, p)
	params := func(change func(p *settle.Params, d *pktchain.Detail)) settle.Params {
		t.Helper()
		p := st.Params
		d, err := pktchain.ParseDetail(p.Detail)
		if err != nil {
			t.Fatal(err)
		}
		change(&p, &d)
		if p.Detail, err = d.Encode(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	mine := append([]byte{0, 20}, make([]byte, 20)...)
	whole := params(func(*settle.Params, *pktchain.Detail) {})
	for _, c := range []struct {
		name    string
		params  settle.Params
		voucher pktcloud.Signed[settle.Voucher]
		funding []byte
		want    settle.Code
	}{
		{"another script for the payee's part", params(func(_ *settle.Params, d *pktchain.Detail) { d.PayeeScript = mine }), high, funding, settle.ErrParams},
		{"another script for the payer's part", params(func(_ *settle.Params, d *pktchain.Detail) { d.PayerScript = mine }), high, funding, settle.ErrParams},
		{"another output", params(func(_ *settle.Params, d *pktchain.Detail) { d.Funding.Index++ }), high, funding, settle.ErrParams},
		{"another margin", params(func(p *settle.Params, _ *pktchain.Detail) { p.MarginBlocks-- }), high, funding, settle.ErrParams},
		{"another expiry", params(func(p *settle.Params, _ *pktchain.Detail) { p.ExpiryHeight++ }), high, funding, settle.ErrParams},
		{"another capacity", params(func(p *settle.Params, _ *pktchain.Detail) { p.Capacity++ }), high, funding, settle.ErrParams},
		{"a reserve that leaves nothing", params(func(p *settle.Params, _ *pktchain.Detail) { p.Reserve = 100_000 + reserve }), high, funding, settle.ErrParams},
		{"another reserve, so another channel", params(func(p *settle.Params, _ *pktchain.Detail) { p.Reserve-- }), high, funding, settle.ErrChannel},
		{"another funding transaction", whole, high, w.fundingOf(other), settle.ErrFunding},
		{"no funding transaction", whole, high, nil, settle.ErrMalformed},
		{"a voucher of another channel", whole, foreign, funding, settle.ErrChannel},
		{"an older voucher than the deposit", whole, low, funding, settle.ErrFell},
	} {
		s := manager.Shown{Version: 1, Funding: c.funding}
		var err error
		if s.Params, err = c.params.Encode(); err != nil {
			t.Fatal(err)
		}
		if s.Voucher, err = c.voucher.Encode(); err != nil {
			t.Fatal(err)
		}
		_, err = n.m.Resume(t.Context(), at, s)
		code(t, c.name, err, c.want)
	}
	if got := len(n.m.List()); got != 0 || n.one(t).Adopted {
		t.Errorf("refused answers left %d channels", got)
	}
	_, err := n.m.Resume(t.Context(), at, manager.Shown{Version: 1})
	code(t, "nothing", err, settle.ErrMalformed)
	for _, answer := range [][]byte{nil, {7}, {1, 0xa2}, {0, 0xa2}} {
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			if _, err := wire.ReadFrame(there, manager.MaxResumeAskBytes); err == nil {
				_ = wire.WriteFrame(there, answer)
			}
		}()
		_, err := n.m.AskResume(t.Context(), here, at)
		code(t, "an answer that is none", err, settle.ErrMalformed)
	}
}

// fundingOf is a channel's funding transaction.
func (w *world) fundingOf(id pktcloud.ID) []byte {
	w.t.Helper()
	st, err := w.payer.m.Status(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	found, _, err := w.ledger.Search(w.t.Context(), settle.Tip{}, w.payer.cfg.Keychain.IsNote)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range found {
		if txOf(w.t.(*testing.T), f.Raw).TxHash() == st.FundingTxID {
			return f.Raw
		}
	}
	w.t.Fatal("no funding transaction")
	return nil
}

func FuzzParseResumeAsk(f *testing.F) {
	b, err := pktcloud.Marshal(manager.ResumeAsk{Version: 1, Proof: []byte{1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := manager.ParseResumeAsk(data)
		if err != nil {
			return
		}
		if again, err := pktcloud.Marshal(a); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want the input back", again, err)
		}
	})
}

func FuzzParseShown(f *testing.F) {
	b, err := pktcloud.Marshal(manager.Shown{Version: 1, Params: []byte{1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := manager.ParseShown(data)
		if err != nil {
			return
		}
		if again, err := pktcloud.Marshal(s); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want the input back", again, err)
		}
	})
}
