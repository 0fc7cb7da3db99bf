package manager_test

import (
	"bytes"
	"context"
	"net"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// asked runs a payee's question against a payer, who sees remote at the other
// end.
func (w *world) asked(id pktcloud.ID, remote pktcloud.PublicKey) (payee, payer error) {
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- w.payer.m.ServeLate(context.Background(), there, remote) }()
	payee = w.payee.m.AskLate(w.t.Context(), here, id)
	return payee, <-done
}

// Question, answer and what becomes of it, over a connection.
func TestAskLate(t *testing.T) {
	w := depositing(t, 100_000)
	id := w.settled()
	payee := w.payee.cfg.DeviceKey.Public()
	err, _ := w.asked(id, payee)
	code(t, "without a voucher", err, settle.ErrClose)
	w.pay(id, "a", 300_000)
	err, _ = w.asked(id, pktcloud.NewPrivateKey([32]byte{77}).Public())
	code(t, "a stranger", err, settle.ErrUnknown)
	err, _ = w.asked(pktcloud.IDOf([]byte("x")), payee)
	code(t, "an unknown channel", err, settle.ErrUnknown)
	if err, served := w.asked(id, payee); err != nil || served != nil {
		t.Fatalf("got %v, %v", err, served)
	}
	if p := w.payee.parcel(); len(p.Txs) == 0 || len(w.payee.m.WantLate()) != 0 {
		t.Error("nothing to deposit after a late proof")
	}
}

// A hostile payer's answer is refused and changes nothing.
func TestHostileAnswer(t *testing.T) {
	w := depositing(t, 100_000)
	id := w.settled()
	w.pay(id, "a", 299_999)
	earlier, err := w.payer.m.LateProof(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	w.pay(id, "a", 300_000)
	good, err := w.payer.m.LateProof(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	proof := func(change func(l *settle.LateProof)) []byte {
		l := good
		l.Signature = bytes.Clone(l.Signature)
		change(&l)
		b, err := pktcloud.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte{0}, b...)
	}
	for _, tt := range []struct {
		name   string
		answer []byte
		want   settle.Code
	}{
		{"nothing", nil, settle.ErrMalformed},
		{"an unknown kind", []byte{7}, settle.ErrMalformed},
		{"half a refusal", []byte{1, 0xa2}, settle.ErrMalformed},
		{"half a proof", []byte{0, 0xa2}, settle.ErrMalformed},
		{"another channel", proof(func(l *settle.LateProof) { l.Channel = pktcloud.IDOf([]byte("x")) }), settle.ErrChannel},
		{"more than was paid", proof(func(l *settle.LateProof) { l.Total++ }), settle.ErrCapacity},
		{"less than was paid", proof(func(l *settle.LateProof) { *l = earlier }), settle.ErrFell},
		{"a changed signature", proof(func(l *settle.LateProof) { l.Signature[8] ^= 1 }), settle.ErrProof},
	} {
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			if _, err := wire.ReadFrame(there, 1<<10); err == nil {
				_ = wire.WriteFrame(there, tt.answer)
			}
		}()
		code(t, tt.name, w.payee.m.AskLate(t.Context(), here, id), tt.want)
	}
	if list, err := w.payee.m.Parcels(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("got %d parcels of refused proofs, %v", len(list), err)
	}
	here, there := net.Pipe()
	go func() { _, _ = here.Write([]byte{0x7f, 0xff, 0xff, 0xff}); _, _ = wire.ReadFrame(here, 1<<10) }()
	code(t, "a question too long", w.payer.m.ServeLate(t.Context(), there, w.payee.cfg.DeviceKey.Public()), settle.ErrMalformed)
}

func FuzzParseLateAsk(f *testing.F) {
	b, err := pktcloud.Marshal(manager.LateAsk{Version: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := manager.ParseLateAsk(data)
		if err != nil {
			return
		}
		if again, err := pktcloud.Marshal(a); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want the input back", again, err)
		}
	})
}
