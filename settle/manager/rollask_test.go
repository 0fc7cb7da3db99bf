package manager_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// admitAll is an owner who agrees to everything.
func admitAll(context.Context, manager.RollProposal) error { return nil }

// askRoll puts the payer's offer to the payee.
func (w *world) askRoll(id pktcloud.ID, admit func(context.Context, manager.RollProposal) error) (to pktcloud.ID, asked, served error) {
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- w.payee.m.ServeRoll(context.Background(), there, w.payer.cfg.DeviceKey.Public(), admit)
	}()
	to, asked = w.payer.m.AskRoll(w.t.Context(), here, id)
	return to, asked, <-done
}

// offered offers a roll, and returns the successor's id.
func (w *world) offered(id pktcloud.ID, r manager.RollRequest) pktcloud.ID {
	w.t.Helper()
	o, err := w.payer.m.Roll(w.t.Context(), id, r)
	if err != nil {
		w.t.Fatal(err)
	}
	to, err := o.Successor.ID()
	if err != nil {
		w.t.Fatal(err)
	}
	return to
}

// TestAskRoll: an offer is answered over a connection, also where the latest
// voucher has not come yet, where either side dies between, and as often as it is
// asked for [ROLL-30] [ROLL-32] [ROLL-33].
func TestAskRoll(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	w.pay(id, "a", 60_000)
	if _, err := w.payer.m.Pay(ctx, id, entry("a", 65_000)); err != nil { // still on its way
		t.Fatal(err)
	}
	_, err := w.payer.m.AskRoll(ctx, pipeEnd(t), id)
	code(t, "no offer", err, settle.ErrUnknown)
	want := w.offered(id, manager.RollRequest{Capacity: 2 * capacity})
	if got := w.payer.m.OfferedRolls(); len(got) != 1 || got[0] != id || len(w.payee.m.OfferedRolls()) != 0 {
		t.Errorf("got offers of %v, want one of the payer", got)
	}
	if links := w.payer.m.Successors(id); len(links) != 0 {
		t.Errorf("before the answer: got successors %v", links)
	}
	if _, err := w.payer.m.AskRoll(ctx, pipeEnd(t), id); err == nil {
		t.Error("an answer from nobody")
	}
	w.payer.crash()
	if to, asked, served := w.askRoll(id, admitAll); asked != nil || served != nil || to != want {
		t.Fatalf("got %s, %v, %v; want %s", to, asked, served, want)
	}
	w.payee.crash()
	if to, asked, _ := w.askRoll(id, nil); asked != nil || to != want { // nobody is asked again
		t.Errorf("the same again: got %s, %v", to, asked)
	}
	for _, s := range []*side{w.payer, w.payee} {
		links := s.m.Successors(id)
		if len(links) != 1 || links[0].Capacity != 2*capacity || len(s.m.OfferedRolls()) != 0 {
			t.Errorf("%s: got successors %v, want one", s.name, links)
		}
		if p, ok := s.m.Payment(want); !ok || p.To.Body.Total != 65_000 || p.From.Body.Total != 65_000 {
			t.Errorf("%s: got payments of %d and %d units, want 65000 of both", s.name, uint64(p.To.Body.Total), uint64(p.From.Body.Total))
		}
	}
	w.payRolling(want, "a", 70_000)
	w.ledger.Mine(2)
	w.both(id, settle.Rolled)
	w.both(want, settle.Open)
	if p, ok := w.payer.m.Payment(want); !ok || p.From.Body.Sequence != 0 {
		t.Error("once the roll is done: the predecessor's voucher goes along")
	}
}

// TestPlanRoll: a plan says what a roll would be and changes nothing; a roll above
// its limit is not made, and its coins are free.
func TestPlanRoll(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	before := w.balance(w.payer)
	r := manager.RollRequest{Capacity: 2 * capacity, ExtendBlocks: 70}
	p, fee, err := w.payer.m.PlanRoll(ctx, id, r)
	if err != nil || p.ExpiryHeight != mustParams(t, w, id).ExpiryHeight+70 || p.Capacity != 2*capacity || fee == 0 || fee > 20_000 {
		t.Fatalf("got %d units and a fee of %d, %v", uint64(p.Capacity), uint64(fee), err)
	}
	_, err = w.payer.m.RollWithin(ctx, id, r, fee-1)
	code(t, "a fee above the limit", err, settle.ErrFee)
	if got := w.balance(w.payer); got != before || len(w.payer.m.OfferedRolls()) != 0 {
		t.Errorf("after a plan: got %d units to spend, want %d", uint64(got), uint64(before))
	}
	_, _, err = w.payee.m.PlanRoll(ctx, id, r)
	code(t, "the payee plans", err, settle.ErrRole)
	o, err := w.payer.m.RollWithin(ctx, id, r, fee)
	if err != nil || o.Successor.ExpiryHeight != p.ExpiryHeight || o.Successor.Capacity != p.Capacity {
		t.Fatalf("got %d units, %v, want what was planned", uint64(o.Successor.Capacity), err)
	}
	_, _, err = w.payer.m.PlanRoll(ctx, id, r)
	code(t, "a plan while it rolls", err, settle.ErrRolling)
	if _, err := w.payer.m.RollWithin(ctx, id, r, 0); err != nil {
		t.Errorf("the same again: got %v, want the same offer", err)
	}
	if _, asked, served := w.askRoll(id, admitAll); asked != nil || served != nil {
		t.Fatal(asked, served)
	}
	w.ledger.Mine(2)
	w.both(id, settle.Rolled)
	if spent := before - w.balance(w.payer); spent != capacity+fee {
		t.Errorf("the wallet gave %d units, want what was added and the fee of %d", uint64(spent), uint64(fee))
	}
}

// TestAskRollLost: the payee accepted, and its answer was lost.
func TestAskRollLost(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", 60_000)
	want := w.offered(id, manager.RollRequest{Capacity: 2 * capacity})
	here, there := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gone, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- w.payee.m.ServeRoll(context.Background(), there, w.payer.cfg.DeviceKey.Public(), func(context.Context, manager.RollProposal) error {
			cancel()
			<-gone // the question alone arrives
			return nil
		})
	}()
	_, err := w.payer.m.AskRoll(ctx, here, id)
	close(gone)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the asking", err)
	}
	if err := <-done; err == nil {
		t.Error("the answer was not lost")
	}
	w.payer.crash()
	w.payee.crash()
	if to, asked, _ := w.askRoll(id, nil); asked != nil || to != want {
		t.Errorf("got %s, %v, want the answer of the first time", to, asked)
	}
}

// TestAskRollRefused: a refusal takes the offer back, and the channel pays on, also
// one that says "not now"; what is no refusal does not [ROLL-33].
func TestAskRollRefused(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	id := w.settled()
	w.pay(id, "a", 60_000)
	w.offered(id, manager.RollRequest{Capacity: 2 * capacity})
	for name, answer := range map[string][]byte{"neither": {7}, "no refusal": {1, 0xa0}, "nothing": {}, "no roll": {0, 0xa0}} {
		here, there := net.Pipe()
		go func() {
			_, _ = wire.ReadFrame(there, manager.MaxRollAskBytes)
			_ = wire.WriteFrame(there, answer)
		}()
		_, err := w.payer.m.AskRoll(ctx, here, id)
		if code(t, name, err, settle.ErrMalformed); len(w.payer.m.OfferedRolls()) != 1 {
			t.Errorf("%s: the offer is gone", name)
		}
	}
	_, err, _ := w.askRoll(id, func(context.Context, manager.RollProposal) error {
		return settle.Refuse(settle.ErrParams, "at most 15000000 units")
	})
	code(t, "refused", err, settle.ErrParams)
	if !strings.Contains(err.Error(), "at most 15000000 units") {
		t.Errorf("got %q, want the payee's words", err)
	}
	taken := func(paid pktcloud.Amount) {
		t.Helper()
		if len(w.payer.m.OfferedRolls()) != 0 || len(w.payer.m.Successors(id)) != 0 {
			t.Error("a refused offer stands")
		}
		w.payer.crash()
		w.pay(id, "a", paid)
	}
	taken(70_000)
	for i, refuse := range []error{settle.Refuse(settle.ErrBusy, "not now"), errors.New("the disk is full")} {
		w.offered(id, manager.RollRequest{Capacity: 2 * capacity})
		_, err, _ := w.askRoll(id, func(context.Context, manager.RollProposal) error { return refuse })
		code(t, refuse.Error(), err, settle.ErrBusy)
		taken(71_000 + 1_000*pktcloud.Amount(i))
	}
	to := w.offered(id, manager.RollRequest{Capacity: capacity + 1_000_000})
	if got, asked, _ := w.askRoll(id, admitAll); asked != nil || got != to {
		t.Errorf("another offer: got %s, %v", got, asked)
	}
}

// TestAskRollTwice: one question at a time for a channel, so that a refusal of the
// second does not take back what the first was granted [ROLL-38].
func TestAskRollTwice(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", 60_000)
	to := w.offered(id, manager.RollRequest{Capacity: 2 * capacity})
	ask := func(admit func(context.Context, manager.RollProposal) error) (answered func() byte) {
		o, err := w.payer.m.Roll(t.Context(), id, manager.RollRequest{})
		if err != nil {
			t.Fatal(err)
		}
		offer, err := o.Encode()
		if err != nil {
			t.Fatal(err)
		}
		b, err := pktcloud.Marshal(manager.RollAsk{Version: 1, Offer: offer})
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		go func() { _ = w.payee.m.ServeRoll(context.Background(), there, w.payer.cfg.DeviceKey.Public(), admit) }()
		if err := wire.WriteFrame(here, b); err != nil {
			t.Fatal(err)
		}
		return func() byte {
			answer, err := wire.ReadFrame(here, 1+manager.MaxRollAnswerBytes)
			if err != nil || len(answer) == 0 {
				t.Fatal("no answer", err)
			}
			return answer[0]
		}
	}
	admitting, admit := make(chan struct{}), make(chan struct{})
	first := ask(func(context.Context, manager.RollProposal) error { close(admitting); <-admit; return nil })
	<-admitting
	second := ask(func(context.Context, manager.RollProposal) error { return settle.Refuse(settle.ErrBusy, "not now") })
	refused := make(chan byte, 1)
	go func() { refused <- second() }()
	select {
	case <-refused:
		t.Error("a second question was answered before the first")
	case <-time.After(50 * time.Millisecond):
	}
	close(admit)
	if a, b := first(), <-refused; a != 0 || b != 0 {
		t.Errorf("got answers %d and %d, want the roll twice", a, b)
	}

	here, there := net.Pipe()
	go func() { _, _ = w.payer.m.AskRoll(t.Context(), here, id) }()
	if _, err := wire.ReadFrame(there, manager.MaxRollAskBytes); err != nil {
		t.Fatal(err)
	}
	if ids := w.payer.m.OfferedRolls(); len(ids) != 0 {
		t.Errorf("%v is to be asked for while it is", ids)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	other, _ := net.Pipe()
	if _, err := w.payer.m.AskRoll(ctx, other, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second question: got %v, want it to wait for the first", err)
	}
	there.Close()
	eventually(t, "the end of the question", func() bool { return len(w.payer.m.OfferedRolls()) == 1 })
	if got, asked, _ := w.askRoll(id, nil); asked != nil || got != to {
		t.Errorf("got %s, %v, want the answer of the first time", got, asked)
	}
}

// leaving is a store whose caller goes away as it begins to write a roll.
type leaving struct {
	*settletest.Store
	leave context.CancelFunc
}

func (s leaving) Apply(ctx context.Context, puts []struct {
	Key   string
	Value []byte
},
) error {
	for _, p := range puts {
		if strings.HasPrefix(p.Key, "settle/roll/") {
			s.leave()
		}
	}
	return s.Store.Apply(ctx, puts)
}

// TestRollOutlivesItsCaller: a roll is written whole though whoever asked for it is
// gone, or this side would hold less than its store [ROLL-5].
func TestRollOutlivesItsCaller(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	o, err := w.payer.m.Roll(t.Context(), id, manager.RollRequest{Capacity: 2 * capacity})
	if err != nil {
		t.Fatal(err)
	}
	w.payee.stop()
	ctx, cancel := context.WithCancel(t.Context())
	w.payee.cfg.Store = leaving{w.payee.store, cancel}
	w.payee.start()
	raw, err := w.payee.m.AcceptRoll(ctx, o)
	if err != nil || ctx.Err() == nil {
		t.Fatalf("got %v, and the caller's end is %v", err, ctx.Err())
	}
	if err := w.payer.m.CompleteRoll(t.Context(), id, raw); err != nil {
		t.Error(err)
	}
}

// TestServeRollRefuses: strangers learn nothing and change nothing, and what breaks
// its bounds is refused [ROLL-30] [ROLL-31].
func TestServeRollRefuses(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.pay(id, "a", 60_000)
	o, err := w.payer.m.Roll(t.Context(), id, manager.RollRequest{Capacity: 2 * capacity})
	if err != nil {
		t.Fatal(err)
	}
	offer, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	other := w.open(nil)
	v, err := w.payer.m.Pay(t.Context(), other, entry("a", 1_000))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	payer := w.payer.cfg.DeviceKey.Public()
	asked := 0
	for _, c := range []struct {
		name   string
		remote pktcloud.PublicKey
		ask    any
		want   settle.Code
	}{
		{"no question", payer, map[string]uint64{}, settle.ErrMalformed},
		{"no offer", payer, manager.RollAsk{Version: 1}, settle.ErrMalformed},
		{"half an offer", payer, manager.RollAsk{Version: 1, Offer: offer[:len(offer)-1]}, settle.ErrMalformed},
		{"another device", w.payee.cfg.DeviceKey.Public(), manager.RollAsk{Version: 1, Offer: offer}, settle.ErrUnknown},
		{"half a voucher", payer, manager.RollAsk{Version: 1, Offer: offer, Latest: []byte{0xa0}}, settle.ErrMalformed},
		{"a voucher of another channel", payer, manager.RollAsk{Version: 1, Offer: offer, Latest: foreign}, settle.ErrChannel},
		{"too long", payer, manager.RollAsk{Version: 1, Offer: make([]byte, manager.MaxRollAskBytes)}, settle.ErrMalformed},
	} {
		b, err := pktcloud.Marshal(c.ask)
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- w.payee.m.ServeRoll(context.Background(), there, c.remote, func(context.Context, manager.RollProposal) error { asked++; return nil })
		}()
		go func() { _ = wire.WriteFrame(here, b) }()
		answer, err := wire.ReadFrame(here, manager.MaxRollAnswerBytes+1)
		if err != nil {
			t.Fatal(err)
		}
		if code(t, c.name, <-done, c.want); answer[0] != 1 {
			t.Errorf("%s: got %x, want a refusal", c.name, answer[:1])
		}
		here.Close()
	}
	if asked != 0 || len(w.payee.m.Successors(id)) != 0 {
		t.Errorf("the owner was asked %d times, or a roll accepted", asked)
	}
}

// TestRollDepthOfThePayee: the payee holds a successor to its own rule [SETTLE-38].
func TestRollDepthOfThePayee(t *testing.T) {
	w := newWorld(t)
	id := w.settled()
	w.payee.cfg.Depth = settle.Depths{Least: 2, Step: capacity}
	w.payee.crash()
	w.offered(id, manager.RollRequest{Capacity: 3 * capacity})
	_, err, _ := w.askRoll(id, admitAll)
	code(t, "a depth of 2 for three times as much", err, settle.ErrParams)
	w.offered(id, manager.RollRequest{Capacity: 3 * capacity, MinDepth: 5})
	if _, err, _ := w.askRoll(id, admitAll); err != nil {
		t.Errorf("got %v, want its own depth taken", err)
	}
}

// TestRollsInARow: a successor that is done rolls again, and again, through
// restarts and a reorganisation, and all that was paid counts at the end [ROLL-34].
func TestRollsInARow(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	first := w.settled()
	w.pay(first, "a", 60_000)
	at, total := first, pktcloud.Amount(60_000)
	for n := range 3 {
		to := w.offered(at, manager.RollRequest{Capacity: capacity + pktcloud.Amount(n+1)*1_000_000, LifetimeBlocks: lifetime + 100})
		if got, asked, served := w.askRoll(at, admitAll); asked != nil || served != nil || got != to {
			t.Fatalf("roll %d: got %s, %v, %v", n, got, asked, served)
		}
		_, err := w.payer.m.Roll(ctx, to, manager.RollRequest{Capacity: 2 * capacity})
		code(t, "a roll of what is not done", err, settle.ErrUnconfirmed)
		total += 10_000
		w.payRolling(to, "a", total)
		w.ledger.Mine(2)
		w.both(at, settle.Rolled)
		w.both(to, settle.Open)
		w.payer.crash()
		w.payee.crash()
		if n == 1 { // two rolls at once are taken back
			w.ledger.Reorg(5)
			w.payer.until(to, "shallow", func(s manager.Status) bool { return s.Phase != settle.Open })
			w.payee.until(to, "shallow", func(s manager.Status) bool { return s.Phase != settle.Open })
			w.payRolling(to, "a", total+1_000)
			w.ledger.Mine(6)
			w.both(at, settle.Rolled)
			w.both(to, settle.Open)
		}
		total += 10_000
		w.pay(to, "a", total)
		at = to
	}
	for _, s := range []*side{w.payer, w.payee} {
		if links := s.m.Successors(first); len(links) != 3 || links[2].Capacity != capacity+3_000_000 {
			t.Errorf("%s: got %d links, want 3", s.name, len(links))
		}
	}
	w.closed(at, total)
	if got := w.balance(w.payee); got != total {
		t.Errorf("the payee's wallet: got %d units, want %d", uint64(got), uint64(total))
	}
}

// TestRollAskVectors makes the messages of /pktcloud/roll/1, compares them with the
// files, and answers what the files ask.
func TestRollAskVectors(t *testing.T) {
	var made []vector.Case
	add := func(name, expect, about string, v any) {
		b, err := pktcloud.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, vector.New(name, expect, about).With("bytes", b))
	}
	long := make([]byte, settle.MaxVoucherBytes+1)
	add("ask-good", "ok", "a question for a roll, its parts not judged", manager.RollAsk{Version: 1, Offer: []byte{0xa0}, Latest: []byte{0xa0}})
	add("ask-nothing-paid", "ok", "of a channel over which nothing was paid", manager.RollAsk{Version: 1, Offer: []byte{0xa0}})
	add("ask-version", "malformed", "an unknown version", manager.RollAsk{Version: 2, Offer: []byte{0xa0}})
	add("ask-no-offer", "malformed", "no offer", manager.RollAsk{Version: 1})
	add("ask-long-voucher", "malformed", "a voucher that is too long", manager.RollAsk{Version: 1, Offer: []byte{0xa0}, Latest: long})
	add("answer-good", "ok", "a roll with both signatures, not judged", manager.RollAnswer{Version: 1, Tx: []byte{2, 0, 0, 0}})
	add("answer-version", "malformed", "an unknown version", manager.RollAnswer{Version: 0, Tx: []byte{2, 0, 0, 0}})
	add("answer-nothing", "malformed", "no transaction", manager.RollAnswer{Version: 1})
	cases, err := vector.Sync("../../spec/vectors/rollask", "", made, *update)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			var err error
			if strings.HasPrefix(c.Name, "ask-") {
				_, err = manager.ParseRollAsk(c.Bytes("bytes"))
			} else {
				_, err = manager.ParseRollAnswer(c.Bytes("bytes"))
			}
			got := "ok"
			if refusal, ok := errors.AsType[*settle.Error](err); ok {
				got = refusal.Code.String()
			} else if err != nil {
				t.Fatalf("got %v, which is no refusal", err)
			}
			if want := c.Value("expect"); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// FuzzParseRollAsk: what is accepted has one encoding.
func FuzzParseRollAsk(f *testing.F) {
	seed, err := pktcloud.Marshal(manager.RollAsk{Version: 1, Offer: []byte{0xa0}, Latest: []byte{0xa0}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := manager.ParseRollAsk(data)
		if err != nil {
			return
		}
		if b, err := pktcloud.Marshal(a); err != nil || !bytes.Equal(b, data) {
			t.Errorf("got %x, %v, want the bytes that were read", b, err)
		}
	})
}

// FuzzParseRollAnswer: likewise.
func FuzzParseRollAnswer(f *testing.F) {
	seed, err := pktcloud.Marshal(manager.RollAnswer{Version: 1, Tx: []byte{2, 0, 0, 0}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := manager.ParseRollAnswer(data)
		if err != nil {
			return
		}
		if b, err := pktcloud.Marshal(a); err != nil || !bytes.Equal(b, data) {
			t.Errorf("got %x, %v, want the bytes that were read", b, err)
		}
	})
}
