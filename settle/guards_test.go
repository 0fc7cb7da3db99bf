package settle_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// paidChannel is a settled channel of one voucher over 500 units.
func paidChannel(t testing.TB, role settle.Role) settle.Channel {
	t.Helper()
	payer, v := pay(t, settledChannel(t, settle.Payer), entry(1, 500))
	if role == settle.Payer {
		return payer
	}
	payee, err := settledChannel(t, settle.Payee).Accept(v, stubRail{})
	if err != nil {
		t.Fatal(err)
	}
	return payee
}

// endedBy is an observation of a spent funding output.
func endedBy(depth uint64, refund bool) settle.Observation {
	return settle.Observation{Height: 120, Funded: true, Depth: 13, Spent: settle.Spent{Known: true, Depth: depth, Refund: refund}}
}

// TestGuards tries every step of the wrong side and in a wrong phase: a refusal
// by its code, and the state as it was.
func TestGuards(t *testing.T) {
	payer, payee := paidChannel(t, settle.Payer), paidChannel(t, settle.Payee)
	_, next := pay(t, payer, entry(1, 600))
	fresh, freshPayee := channel(t, settle.Payer), channel(t, settle.Payee)
	abandoned, err := fresh.Abandon()
	if err != nil {
		t.Fatal(err)
	}
	abandonedPayee := payee
	abandonedPayee.Phase, abandonedPayee.Funded = settle.Abandoned, false
	late := func(c settle.Channel) settle.Channel { return c.At(2_000) }
	issue := func(c settle.Channel) (settle.Channel, error) { return c.Issue(next) }
	accept := func(c settle.Channel) (settle.Channel, error) { return c.Accept(next, stubRail{}) }
	offerClose := func(c settle.Channel) (settle.Channel, error) { return c.OfferClose(offer(c.Params, 600, 300)) }
	acceptClose := func(c settle.Channel) (settle.Channel, error) {
		return c.AcceptClose(offer(c.Params, 600, 300), stubRail{})
	}
	for _, c := range []struct {
		name  string
		state settle.Channel
		step  func(settle.Channel) (settle.Channel, error)
		want  settle.Code
	}{
		{"the payee issues", payee, issue, settle.ErrRole},
		{"the payer accepts", payer, accept, settle.ErrRole},
		{"the payee offers a close", payee, offerClose, settle.ErrRole},
		{"the payer accepts a close", payer, acceptClose, settle.ErrRole},
		{"the payer claims", payer, settle.Channel.Claim, settle.ErrRole},
		{"the payee refunds", late(payee), settle.Channel.Refund, settle.ErrRole},
		{"the payee abandons", freshPayee, settle.Channel.Abandon, settle.ErrRole},

		{"a close of an abandoned channel", abandoned, offerClose, settle.ErrClosed},
		{"a close after a spend in the mempool", payer.Observe(endedBy(0, false)), offerClose, settle.ErrClosed},
		{"a close of a closed channel", payer.Observe(endedBy(3, false)), offerClose, settle.ErrClosed},
		{"a close below the paid sum", payer, func(c settle.Channel) (settle.Channel, error) {
			return c.OfferClose(offer(c.Params, 499, 300))
		}, settle.ErrClose},
		{"a close accepted after a spend", payee.Observe(endedBy(0, false)), acceptClose, settle.ErrClosed},

		{"a claim of an abandoned channel", abandonedPayee, settle.Channel.Claim, settle.ErrClosed},
		{"a claim after the end is in a block", payee.Observe(endedBy(1, false)), settle.Channel.Claim, settle.ErrClosed},
		{"a claim of a closed channel", payee.Observe(endedBy(3, false)), settle.Channel.Claim, settle.ErrClosed},
		{"a claim without a voucher", settledChannel(t, settle.Payee), settle.Channel.Claim, settle.ErrClose},

		{"a refund of an abandoned channel", late(abandoned), settle.Channel.Refund, settle.ErrClosed},
		{"a refund after the end is in a block", late(payer.Observe(endedBy(1, true))), settle.Channel.Refund, settle.ErrClosed},
		{"a refund of a refunded channel", late(payer.Observe(endedBy(3, true))), settle.Channel.Refund, settle.ErrClosed},
		{"a refund before expiry", payer, settle.Channel.Refund, settle.ErrEarly},

		{"an abandoned funding in the mempool", fresh.Observe(settle.Observation{Height: 101, Funded: true}), settle.Channel.Abandon, settle.ErrClosed},
		{"abandoning while it closes", func() settle.Channel {
			c, err := fresh.OfferClose(offer(fresh.Params, 0, 300))
			if err != nil {
				t.Fatal(err)
			}
			return c
		}(), settle.Channel.Abandon, settle.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			after, err := c.step(c.state)
			wantCode(t, err, c.want)
			if !reflect.DeepEqual(after, c.state) {
				t.Error("a refused step changed the channel")
			}
		})
	}
	if again, err := abandoned.Abandon(); err != nil || !reflect.DeepEqual(again, abandoned) {
		t.Errorf("abandoned again: got %v, want no change", err)
	}
}

// TestEnds takes the ways out that are open.
func TestEnds(t *testing.T) {
	payee := paidChannel(t, settle.Payee)
	claimed, err := payee.Observe(endedBy(0, true)).Claim() // against a refund that no block has
	if err != nil || claimed.Phase != settle.Closing || claimed.Paid() != 500 {
		t.Errorf("claim: got %v with %d units, %v", claimed.Phase, claimed.Paid(), err)
	}
	payer := paidChannel(t, settle.Payer).At(1_000)
	refunded, err := payer.Refund()
	want := payer
	want.Phase = settle.Closing
	if err != nil || !reflect.DeepEqual(refunded, want) {
		t.Errorf("refund: got %+v, %v, want %+v", refunded, err, want)
	}
	all := offer(payee.Params, 100_000-300, 300) // to the last unit
	if closing, err := payee.AcceptClose(all, stubRail{}); err != nil || closing.Phase != settle.Closing {
		t.Errorf("a close of the whole capacity: got %v, %v", closing.Phase, err)
	}
	if closing, err := paidChannel(t, settle.Payer).OfferClose(offer(payee.Params, 500, 300)); err != nil || closing.Close.Final != 500 {
		t.Errorf("a close of what was paid: got %+v, %v", closing.Close, err)
	}
}

// TestRepeatedVoucher: only the latest voucher itself may come again.
func TestRepeatedVoucher(t *testing.T) {
	payee := paidChannel(t, settle.Payee)
	for name, change := range map[string]func(s *pktcloud.Signed[settle.Voucher]){
		"another body under its signature": func(s *pktcloud.Signed[settle.Voucher]) {
			s.Body.Total, s.Body.Entries = 9, []settle.Entry{entry(1, 9)}
		},
		"another proof under its signature": func(s *pktcloud.Signed[settle.Voucher]) { s.Body.Proof = []byte{1} },
		"another signature":                 func(s *pktcloud.Signed[settle.Voucher]) { s.Sig[0] ^= 1 },
	} {
		s := payee.Latest
		change(&s)
		after, err := payee.Accept(s, stubRail{})
		wantCode(t, err, settle.ErrStale)
		if !reflect.DeepEqual(after, payee) {
			t.Errorf("%s: the channel changed", name)
		}
	}
	fresh := settledChannel(t, settle.Payee)
	_, err := fresh.Accept(pktcloud.Signed[settle.Voucher]{}, stubRail{})
	wantCode(t, err, settle.ErrMalformed)
}

// TestForeignVoucher: a voucher of another payer's device, and one that does
// not hold its own shape.
func TestForeignVoucher(t *testing.T) {
	payee := settledChannel(t, settle.Payee)
	v, err := settledChannel(t, settle.Payer).Next(entry(1, 500))
	if err != nil {
		t.Fatal(err)
	}
	v.Proof = stubProof(params(), v.Total)
	other := v
	other.Payer = payeeKey.Public()
	s, err := pktcloud.Seal(payeeKey, other)
	if err != nil {
		t.Fatal(err)
	}
	_, err = payee.Accept(s, stubRail{})
	wantCode(t, err, settle.ErrChannel)
	bent := seal(t, params(), v)
	bent.Body.Total++
	after, err := payee.Accept(bent, stubRail{})
	wantCode(t, err, settle.ErrMalformed)
	if !reflect.DeepEqual(after, payee) {
		t.Error("a malformed voucher changed the channel")
	}
}

func TestNextRaises(t *testing.T) {
	c := paidChannel(t, settle.Payer)
	same := entry(1, 500)
	same.Statement = pktcloud.IDOf([]byte("a later statement of the same due"))
	if v, err := c.Next(same); err != nil || v.Sequence != 2 || v.Total != 500 || v.Entries[0] != same {
		t.Errorf("another statement, the same sum: got %+v, %v", v, err)
	}
	_, err := c.Next(entry(1, 0))
	wantCode(t, err, settle.ErrFell)
	_, err = c.Next(settle.Entry{})
	wantCode(t, err, settle.ErrMalformed)
	if _, ok := c.Latest.Body.Entry(lease(9)); ok {
		t.Error("got an entry of a lease that has none")
	}
}

// TestObserveDepths: what counts as settled and as buried when no depth was
// agreed, and what a look at an ended channel may still change.
func TestObserveDepths(t *testing.T) {
	p := params()
	p.MinDepth = 0
	c, err := settle.NewChannel(p, settle.Payee, 100)
	if err != nil {
		t.Fatal(err)
	}
	if c.Height != 100 || c.Settled() || c.Room() != p.Unconfirmed {
		t.Errorf("unfunded: got height %d, settled %v, room %d", c.Height, c.Settled(), c.Room())
	}
	see := func(depth uint64, spent settle.Spent) settle.Channel {
		return c.Observe(settle.Observation{Height: 110, Funded: true, Depth: depth, Spent: spent})
	}
	if got := see(0, settle.Spent{}).Phase; got != settle.Open {
		t.Errorf("in the mempool, no depth agreed: got %v", got)
	}
	if got := see(1, settle.Spent{Known: true}).Phase; got != settle.Closing {
		t.Errorf("an end in the mempool: got %v, want closing", got)
	}
	closed := see(2, settle.Spent{Known: true, Depth: 1})
	if closed.Phase != settle.Closed {
		t.Errorf("an end in a block: got %v, want closed", closed.Phase)
	}
	for depth, want := range map[uint64]uint64{7: 7, 0: 1} {
		if got := closed.Observe(settle.Observation{Height: 130, Spent: settle.Spent{Known: true, Depth: depth}}); got.Spent.Depth != want || got.Height != 130 {
			t.Errorf("seen at depth %d: got %d at height %d, want %d", depth, got.Spent.Depth, got.Height, want)
		}
	}
	open := settledChannel(t, settle.Payee)
	if got := open.Observe(settle.Observation{Height: 111}); got.Phase != settle.Opening || got.Settled() {
		t.Errorf("the funding vanished: got %v, want opening", got.Phase)
	}
}

// TestDecideAlone: each reason by itself.
func TestDecideAlone(t *testing.T) {
	payer, payee := paidChannel(t, settle.Payer), paidChannel(t, settle.Payee)
	gone := channel(t, settle.Payer)
	gone.Phase, gone.Funded = settle.Abandoned, true
	const deadline, expiry = 1_000 - 288, 1_000
	for _, c := range []struct {
		name    string
		channel settle.Channel
		height  uint64
		want    settle.Decision
	}{
		{"the channel's own height counts", payee.At(deadline), 1, settle.ClaimNow},
		{"an abandoned channel rests", gone, expiry, settle.Wait},
		{"an end in its first block rests", payee.Observe(endedBy(1, false)), deadline, settle.Wait},
		{"an end in the mempool does not", payee.Observe(endedBy(0, true)), deadline, settle.ClaimNow},
		{"a payer with vouchers", payer, deadline, settle.StopServing},
		{"a payer with vouchers after expiry", payer, expiry, settle.RefundNow},
		{"a payee without vouchers after expiry", settledChannel(t, settle.Payee), expiry, settle.StopServing},
	} {
		if got := c.channel.Decide(c.height); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// TestCheck breaks each invariant of a channel, one at a time.
func TestCheck(t *testing.T) {
	closing, err := paidChannel(t, settle.Payee).AcceptClose(offer(params(), 600, 300), stubRail{})
	if err != nil {
		t.Fatal(err)
	}
	closed := paidChannel(t, settle.Payee).Observe(endedBy(3, false))
	for _, c := range []struct {
		name   string
		state  settle.Channel
		change func(c *settle.Channel)
	}{
		{"another id", paidChannel(t, settle.Payee), func(c *settle.Channel) { c.ID = lease(9) }},
		{"other parameters", paidChannel(t, settle.Payee), func(c *settle.Channel) { c.Params.MinDepth++ }},
		{"no role", paidChannel(t, settle.Payee), func(c *settle.Channel) { c.Role = 0 }},
		{"a third role", paidChannel(t, settle.Payee), func(c *settle.Channel) { c.Role = 3 }},
		{"no phase", paidChannel(t, settle.Payee), func(c *settle.Channel) { c.Phase = 0 }},
		{"an unknown phase", paidChannel(t, settle.Payee), func(c *settle.Channel) { c.Phase = 9 }},
		{"a total without a voucher", settledChannel(t, settle.Payer), func(c *settle.Channel) { c.Latest.Body.Total = 1 }},
		{"a voucher of another channel", paidChannel(t, settle.Payee), func(c *settle.Channel) { c.Latest.Body.Channel = lease(9) }},
		{"a voucher of another payer", paidChannel(t, settle.Payee), func(c *settle.Channel) { c.Latest.Body.Payer = payeeKey.Public() }},
		{"more than it can pay", paidChannel(t, settle.Payee), func(c *settle.Channel) {
			c.Latest.Body.Entries, c.Latest.Body.Total = []settle.Entry{entry(1, 97_707)}, 97_707
		}},
		{"open too early", paidChannel(t, settle.Payee), func(c *settle.Channel) { c.Depth = 2 }},
		{"closed without a block", closed, func(c *settle.Channel) { c.Spent.Depth = 0 }},
		{"refunded without a block", closed, func(c *settle.Channel) { c.Phase, c.Spent.Depth = settle.Refunded, 0 }},
		{"rolling into nothing", paidChannel(t, settle.Payee), func(c *settle.Channel) { c.Phase = settle.Rolling }},
		{"rolled into nothing", closed, func(c *settle.Channel) { c.Phase, c.Spent.TxID = settle.Rolled, [32]byte{} }},
		{"a signed close while open", closing, func(c *settle.Channel) { c.Phase = settle.Open }},
		{"a signed close while opening", closing, func(c *settle.Channel) { c.Phase = settle.Opening }},
		{"a close below the voucher", closing, func(c *settle.Channel) { c.Close.Final = 499 }},
		{"a malformed voucher", paidChannel(t, settle.Payee), func(c *settle.Channel) { c.Latest.Body.Total++ }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.state.Check(); err != nil {
				t.Fatalf("before: %v", err)
			}
			c.change(&c.state)
			if c.state.Check() == nil {
				t.Error("got no error")
			}
		})
	}
	full := paidChannel(t, settle.Payee)
	full.Latest.Body.Entries, full.Latest.Body.Total = []settle.Entry{entry(1, 97_706)}, 97_706
	exact := closing
	exact.Close.Final = 500
	first := closed
	first.Spent.Depth = 1
	for name, c := range map[string]settle.Channel{
		"the last unit": full, "a close of the voucher": exact, "closed in one block": first, "no voucher": channel(t, settle.Payer),
	} {
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone, err := channel(t, settle.Payer).Abandon()
	if err != nil {
		t.Fatal(err)
	}
	gone.From.Secured = 1 // the successor of a roll that was withdrawn
	if err := gone.Check(); err != nil {
		t.Errorf("abandoned: %v", err)
	}
}

// TestNames: what people and logs read.
func TestNames(t *testing.T) {
	for want, got := range map[string]fmt.Stringer{
		"opening": settle.Opening, "open": settle.Open, "closing": settle.Closing, "closed": settle.Closed,
		"refunded": settle.Refunded, "abandoned": settle.Abandoned, "rolling": settle.Rolling, "rolled": settle.Rolled, "phase 9": settle.Phase(9),
		"payer": settle.Payer, "payee": settle.Payee, "role 3": settle.Role(3),
		"wait": settle.Wait, "stop serving": settle.StopServing, "claim now": settle.ClaimNow, "refund now": settle.RefundNow,
		"decision 7": settle.Decision(7), "stale": settle.ErrStale, "code 999": settle.Code(999),
	} {
		if got.String() != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for want, got := range map[string]interface{ MarshalText() ([]byte, error) }{"open": settle.Open, "payee": settle.Payee} {
		if text, err := got.MarshalText(); err != nil || string(text) != want {
			t.Errorf("got %q, %v, want %q", text, err, want)
		}
	}
	if settle.Phase(9).Final() {
		t.Error("a phase that there is not is final")
	}
	for want, err := range map[string]error{
		"settle: stale":          settle.ErrStale,
		"settle: stale: too old": settle.Refuse(settle.ErrStale, "too old"),
		"settle: late":           &settle.Error{Code: settle.ErrLate},
		"the chain refuses the transaction (code -26): no": &settle.Rejection{Code: -26, Reason: "no"},
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
	refusal := &settle.Error{Code: settle.ErrStale}
	if refusal.Is(settle.ErrLate) || refusal.Is(settle.ErrRejected) || !refusal.Is(settle.ErrStale) {
		t.Error("a refusal matches its own code only")
	}
	rejection := &settle.Rejection{}
	if !rejection.Is(settle.ErrRejected) || rejection.Is(settle.ErrLedgerUnavailable) {
		t.Error("a rejection matches ErrRejected only")
	}
}

// TestExactLimits: what is just allowed, and one more.
func TestExactLimits(t *testing.T) {
	ext := func(n int) map[string][]byte {
		m := map[string][]byte{}
		for i := range n {
			m[fmt.Sprint(i)] = []byte{1}
		}
		return m
	}
	for _, c := range []struct {
		name      string
		good, bad func(p *settle.Params)
	}{
		{"rail", func(p *settle.Params) { p.Rail = fmt.Sprintf("%32d", 1) }, func(p *settle.Params) { p.Rail = fmt.Sprintf("%33d", 1) }},
		{"detail", func(p *settle.Params) { p.Detail = make([]byte, settle.MaxDetailBytes) }, func(p *settle.Params) { p.Detail = make([]byte, settle.MaxDetailBytes+1) }},
		{"ext", func(p *settle.Params) { p.Ext = ext(settle.MaxExt) }, func(p *settle.Params) { p.Ext = ext(settle.MaxExt + 1) }},
		{"capacity", func(p *settle.Params) { p.Capacity = pktcloud.MaxAmount }, func(p *settle.Params) { p.Capacity = pktcloud.MaxAmount + 1 }},
		{
			"reserve",
			func(p *settle.Params) {
				p.Capacity, p.Reserve, p.MinChange = pktcloud.MaxAmount, pktcloud.MaxAmount-1, 0
			},
			func(p *settle.Params) { p.Reserve = pktcloud.MaxAmount + 1 },
		},
		{
			"least change",
			func(p *settle.Params) {
				p.Capacity, p.Reserve, p.MinChange = pktcloud.MaxAmount, 0, pktcloud.MaxAmount-1
			},
			func(p *settle.Params) { p.MinChange = pktcloud.MaxAmount + 1 },
		},
		{"spendable", func(p *settle.Params) { p.Capacity, p.Unconfirmed = 2_295, 0 }, func(p *settle.Params) { p.Capacity, p.Unconfirmed = 2_294, 0 }},
		{"unconfirmed", func(p *settle.Params) { p.Unconfirmed = p.Capacity }, func(p *settle.Params) { p.Unconfirmed = p.Capacity + 1 }},
		{"least margin", func(p *settle.Params) { p.MarginBlocks = 1 }, func(p *settle.Params) { p.MarginBlocks = 0 }},
		{
			"margin",
			func(p *settle.Params) { p.MarginBlocks, p.ExpiryHeight = settle.MaxMarginBlocks, 1<<20 },
			func(p *settle.Params) { p.MarginBlocks, p.ExpiryHeight = settle.MaxMarginBlocks+1, 1<<20 },
		},
		{"depth", func(p *settle.Params) { p.MinDepth = settle.MaxMinDepth }, func(p *settle.Params) { p.MinDepth = settle.MaxMinDepth + 1 }},
		{"least expiry", func(p *settle.Params) { p.ExpiryHeight = 289 }, func(p *settle.Params) { p.ExpiryHeight = 288 }},
		{"expiry", func(p *settle.Params) { p.ExpiryHeight = 1<<32 - 1 }, func(p *settle.Params) { p.ExpiryHeight = 1 << 32 }},
	} {
		p := params()
		c.good(&p)
		if err := p.Validate(); err != nil {
			t.Errorf("%s at the limit: %v", c.name, err)
		}
		p = params()
		c.bad(&p)
		if err := p.Validate(); err == nil {
			t.Errorf("%s beyond the limit: no error", c.name)
		} else {
			wantCode(t, err, settle.ErrParams)
		}
		_, err := settle.NewChannel(p, settle.Payer, 1)
		wantCode(t, err, settle.ErrParams)
	}
	for _, c := range []struct {
		name string
		o    settle.CloseOffer
		ok   bool
	}{
		{"amounts", settle.CloseOffer{Final: pktcloud.MaxAmount, Fee: pktcloud.MaxAmount, Signature: []byte{1}}, true},
		{"final", settle.CloseOffer{Final: pktcloud.MaxAmount + 1, Signature: []byte{1}}, false},
		{"fee", settle.CloseOffer{Fee: pktcloud.MaxAmount + 1, Signature: []byte{1}}, false},
		{"signature", settle.CloseOffer{Signature: make([]byte, settle.MaxProofBytes)}, true},
		{"long signature", settle.CloseOffer{Signature: make([]byte, settle.MaxProofBytes+1)}, false},
		{"no signature", settle.CloseOffer{}, false},
		{"ext", settle.CloseOffer{Signature: []byte{1}, Ext: ext(settle.MaxExt)}, true},
		{"too much ext", settle.CloseOffer{Signature: []byte{1}, Ext: ext(settle.MaxExt + 1)}, false},
	} {
		c.o.Version = settle.CloseOfferVersion
		if err := c.o.Validate(); (err == nil) != c.ok {
			t.Errorf("close offer, %s: got %v", c.name, err)
		}
	}
	v := paidChannel(t, settle.Payer).Latest.Body
	v.Ext = ext(settle.MaxExt)
	if err := v.Validate(); err != nil {
		t.Errorf("a voucher's extensions: %v", err)
	}
	v.Ext = ext(settle.MaxExt + 1)
	wantCode(t, v.Validate(), settle.ErrMalformed)
}

// TestCloseOnce: the payee signs one close, however its phase came about.
func TestCloseOnce(t *testing.T) {
	unconfirmed := channel(t, settle.Payee)
	closing, err := unconfirmed.AcceptClose(offer(params(), 600, 300), stubRail{})
	if err != nil || closing.Phase != settle.Closing {
		t.Fatalf("a close before the funding has depth: got %v, %v", closing.Phase, err)
	}
	for name, change := range map[string]func(o *settle.CloseOffer){
		"final":     func(o *settle.CloseOffer) { o.Final++ },
		"fee":       func(o *settle.CloseOffer) { o.Fee++ },
		"signature": func(o *settle.CloseOffer) { o.Signature = append([]byte{1}, o.Signature...) },
		"both":      func(o *settle.CloseOffer) { o.Final, o.Fee = o.Final+1, o.Fee+1 },
		"but fee":   func(o *settle.CloseOffer) { o.Final, o.Signature = o.Final+1, []byte{1} },
		"but final": func(o *settle.CloseOffer) { o.Fee, o.Signature = o.Fee+1, []byte{1} },
		"all three": func(o *settle.CloseOffer) { o.Final, o.Fee, o.Signature = 601, 301, []byte{1} },
	} {
		o := closing.Close
		change(&o)
		after, err := closing.AcceptClose(o, stubRail{})
		if err == nil {
			t.Errorf("another %s: no error", name)
			continue
		}
		wantCode(t, err, settle.ErrClosed)
		if !reflect.DeepEqual(after, closing) {
			t.Errorf("another %s changed the channel", name)
		}
	}
	claimed, err := paidChannel(t, settle.Payee).Claim()
	if err != nil {
		t.Fatal(err)
	}
	_, err = claimed.AcceptClose(offer(params(), 600, 300), stubRail{})
	wantCode(t, err, settle.ErrClosed)
}

// TestSightEdges: a sight that came from a store, and blocks without a time.
func TestSightEdges(t *testing.T) {
	const now = 1_800_000_000
	stored := settle.Sight{Tip: settle.Tip{Height: 7}, First: now - 500} // its hash was not kept
	for _, c := range []struct {
		name string
		was  settle.Sight
		tip  settle.Tip
		want int64
	}{
		{"the same block", stored, settle.Tip{Height: 7, Hash: [32]byte{1}}, now - 500},
		{"a higher one", stored, settle.Tip{Height: 8, Hash: [32]byte{1}}, now},
		{"the same one, seen at no time", settle.Sight{Tip: settle.Tip{Height: 7}}, settle.Tip{Height: 7}, now},
	} {
		if got := c.was.See(c.tip, now); got.First != c.want || got.Last != now || got.Tip != c.tip {
			t.Errorf("%s: got %+v, want it first seen at %d", c.name, got, c.want)
		}
	}
	timeless := settle.Sight{Tip: settle.Tip{Height: 7}, First: now, Last: now}
	if timeless.Stale(now+30*60, time.Minute) || !timeless.Stale(now+30*60+1, time.Minute) {
		t.Error("a block without a time is as old as the sight of it")
	}
	ancient := settle.Sight{Tip: settle.Tip{Height: 7, Time: 1}, First: now, Last: now}
	if !ancient.Stale(now, time.Minute) {
		t.Error("a block of 1970 is fresh")
	}
	if got := timeless.Height(now+90, 0); got != 7 {
		t.Errorf("a chain that answers: got height %d, want 7", got)
	}
	for tip, want := range map[uint64]uint64{0: 0, settle.ReorgMargin - 1: 0, settle.ReorgMargin: 0, settle.ReorgMargin + 5: 5} {
		if got := settle.Birthday(tip); got != want {
			t.Errorf("birthday at height %d: got %d, want %d", tip, got, want)
		}
	}
}

// TestRaiseEdges: the first height, and the last fee.
func TestRaiseEdges(t *testing.T) {
	r := settle.Raise{Fee: 100, Made: 50, Market: 200, Step: 100, Part: 10_007, Last: 100, Margin: 10}
	for height, want := range map[uint64]pktcloud.Amount{52: 0, 53: 200} {
		if fee, ok := r.Next(height); fee != want || ok != (want > 0) {
			t.Errorf("at height %d: got a fee of %d, %v, want %d", height, fee, ok, want)
		}
	}
	r.Step = 101
	if fee, ok := r.Next(53); ok {
		t.Errorf("got a replacement at %d, which is no full step", fee)
	}
	for height, want := range map[uint64]pktcloud.Amount{90: 1_000, 91: 1_900, 99: 9_100, 100: 10_007} {
		if got := r.Limit(height); got != want {
			t.Errorf("limit at height %d: got %d, want %d", height, got, want)
		}
	}
}
