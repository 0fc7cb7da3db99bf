package settle_test

import (
	"errors"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

var rollTx = [32]byte{0xaa}

// successor is what the stub's channel rolls into.
func successor() settle.Params {
	p := params()
	p.Capacity, p.ExpiryHeight, p.Detail = 150_000, 2_000, []byte("successor")
	return p
}

// offerOf makes the payer's offer for a channel as it is.
func offerOf(t fataler, c settle.Channel, p settle.Params) settle.RollOffer {
	t.Helper()
	o := settle.RollOffer{Version: settle.RollOfferVersion, Channel: c.ID, Successor: p, Tx: []byte("roll"), Signature: []byte("payer")}
	if c.Paid() == 0 {
		return o
	}
	v := c.Latest.Body
	v.Channel, _ = p.ID()
	v.Sequence = 1
	o.First, o.Late = seal(t, p, v), []byte("late")
	return o
}

// rollingPair is a roll from both sides, with so much paid before.
func rollingPair(t testing.TB, units pktcloud.Amount) (payer, payee settle.Pair) {
	t.Helper()
	a, b := settledChannel(t, settle.Payer), settledChannel(t, settle.Payee)
	if units > 0 {
		a, b = bothPaid(t, units)
	}
	o := offerOf(t, a, successor())
	payer, err := a.Roll(o, rollTx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if payee, err = b.Roll(o, rollTx, stubRail{}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []settle.Pair{payer, payee} {
		if err := p.Check(); err != nil || p.From.Phase != settle.Rolling || p.To.Phase != settle.Opening || p.To.Paid() != units {
			t.Fatalf("got %s into %s, %d units, %v", p.From.Phase, p.To.Phase, uint64(p.To.Paid()), err)
		}
	}
	return payer, payee
}

// payPair lets a payer raise an entry on both channels; from is zero where only
// the successor pays.
func payPair(t fataler, p settle.Pair, e settle.Entry) (next settle.Pair, to, from pktcloud.Signed[settle.Voucher], err error) {
	t.Helper()
	v, w, err := p.Next(e)
	if err != nil {
		return p, to, from, err
	}
	if v.Sequence == p.To.Latest.Body.Sequence {
		return p, p.To.Latest, p.From.Latest, nil
	}
	to = seal(t, p.To.Params, v)
	if w.Sequence > 0 {
		from = seal(t, p.From.Params, w)
	}
	if next, err = p.Issue(to, from); err != nil {
		t.Fatal(err)
	}
	return next, to, next.From.Latest, nil
}

func TestRollRefuses(t *testing.T) {
	_, payee := bothPaid(t, 5_000)
	for _, c := range []struct {
		name  string
		spoil func(c *settle.Channel, o *settle.RollOffer)
		want  settle.Code
	}{
		{"another version", func(_ *settle.Channel, o *settle.RollOffer) { o.Version++ }, settle.ErrMalformed},
		{"a first voucher too long to be read again", func(_ *settle.Channel, o *settle.RollOffer) {
			o.First.Body.Ext = map[string][]byte{"x": make([]byte, settle.MaxVoucherBytes)}
		}, settle.ErrMalformed},
		{"no transaction", func(_ *settle.Channel, o *settle.RollOffer) { o.Tx = nil }, settle.ErrMalformed},
		{"a long transaction", func(_ *settle.Channel, o *settle.RollOffer) { o.Tx = make([]byte, settle.MaxRollBytes+1) }, settle.ErrMalformed},
		{"no signature", func(_ *settle.Channel, o *settle.RollOffer) { o.Signature = nil }, settle.ErrMalformed},
		{"a long signature", func(_ *settle.Channel, o *settle.RollOffer) { o.Signature = make([]byte, settle.MaxProofBytes+1) }, settle.ErrMalformed},
		{"a long late proof", func(_ *settle.Channel, o *settle.RollOffer) { o.Late = make([]byte, settle.MaxProofBytes+1) }, settle.ErrMalformed},
		{"many extensions", func(_ *settle.Channel, o *settle.RollOffer) {
			o.Ext = map[string][]byte{}
			for i := range settle.MaxExt + 1 {
				o.Ext[string(rune('a'+i))] = nil
			}
		}, settle.ErrMalformed},
		{"no successor", func(_ *settle.Channel, o *settle.RollOffer) { o.Successor.MarginBlocks = 0 }, settle.ErrParams},
		{"another channel", func(_ *settle.Channel, o *settle.RollOffer) { o.Channel = pktcloud.ID{1} }, settle.ErrChannel},
		{"a second roll", func(c *settle.Channel, _ *settle.RollOffer) { c.Phase, c.Into.Channel = settle.Rolling, pktcloud.ID{1} }, settle.ErrRolling},
		{"a shallow funding", func(c *settle.Channel, _ *settle.RollOffer) { c.Phase, c.Depth = settle.Opening, 2 }, settle.ErrUnconfirmed},
		{"after a close", func(c *settle.Channel, _ *settle.RollOffer) { c.Phase = settle.Closing }, settle.ErrClosed},
		{"too late", func(c *settle.Channel, _ *settle.RollOffer) { c.Height = c.Params.Deadline() - 3 }, settle.ErrLate},
		{"another rail", func(_ *settle.Channel, o *settle.RollOffer) { o.Successor.Rail = "other" }, settle.ErrParams},
		{"another payer", func(_ *settle.Channel, o *settle.RollOffer) {
			o.Successor.Payer = pktcloud.NewPrivateKey([32]byte{7}).Public()
		}, settle.ErrParams},
		{"another payee", func(_ *settle.Channel, o *settle.RollOffer) {
			o.Successor.Payee = pktcloud.NewPrivateKey([32]byte{7}).Public()
		}, settle.ErrParams},
		{"another reserve", func(_ *settle.Channel, o *settle.RollOffer) { o.Successor.Reserve++ }, settle.ErrParams},
		{"another least change", func(_ *settle.Channel, o *settle.RollOffer) { o.Successor.MinChange++ }, settle.ErrParams},
		{"another margin", func(_ *settle.Channel, o *settle.RollOffer) { o.Successor.MarginBlocks++ }, settle.ErrParams},
		{"less depth", func(_ *settle.Channel, o *settle.RollOffer) { o.Successor.MinDepth-- }, settle.ErrParams},
		{"more trust", func(_ *settle.Channel, o *settle.RollOffer) { o.Successor.Unconfirmed++ }, settle.ErrParams},
		{"an earlier expiry", func(_ *settle.Channel, o *settle.RollOffer) { o.Successor.ExpiryHeight = 999 }, settle.ErrParams},
		{"too little", func(_ *settle.Channel, o *settle.RollOffer) { o.Successor.Capacity = 5_000 + 2_293 }, settle.ErrCapacity},
		{"no first voucher", func(_ *settle.Channel, o *settle.RollOffer) { o.First = pktcloud.Signed[settle.Voucher]{} }, settle.ErrRoll},
		{"a later first voucher", func(_ *settle.Channel, o *settle.RollOffer) { o.First.Body.Sequence = 2 }, settle.ErrRoll},
		{"another total", func(_ *settle.Channel, o *settle.RollOffer) { o.First.Body.Total++ }, settle.ErrRoll},
		{"another share", func(_ *settle.Channel, o *settle.RollOffer) {
			o.First.Body.Entries = []settle.Entry{entry(2, 5_000)}
		}, settle.ErrRoll},
		{"no late proof", func(_ *settle.Channel, o *settle.RollOffer) { o.Late = nil }, settle.ErrRoll},
		{"a voucher of another channel", func(_ *settle.Channel, o *settle.RollOffer) { o.First.Body.Channel = pktcloud.ID{1} }, settle.ErrChannel},
		{"a voucher without proof", func(_ *settle.Channel, o *settle.RollOffer) { o.First.Body.Proof = []byte("x") }, settle.ErrProof},
	} {
		t.Run(c.name, func(t *testing.T) {
			ch, o := payee, offerOf(t, payee, successor())
			c.spoil(&ch, &o)
			_, err := ch.Roll(o, rollTx, stubRail{})
			wantCode(t, err, c.want)
		})
	}
	empty := settledChannel(t, settle.Payee)
	o := offerOf(t, payee, successor())
	_, err := empty.Roll(o, rollTx, stubRail{})
	wantCode(t, err, settle.ErrRoll)
	o.Late = nil
	_, err = empty.Roll(o, rollTx, stubRail{})
	wantCode(t, err, settle.ErrRoll)
	o.First, o.Late = pktcloud.Signed[settle.Voucher]{}, []byte{1}
	_, err = empty.Roll(o, rollTx, stubRail{})
	wantCode(t, err, settle.ErrRoll) // a late proof of nothing
	o = offerOf(t, payee, successor())
	o.Tx, o.Signature, o.Late = make([]byte, settle.MaxRollBytes), make([]byte, settle.MaxProofBytes), make([]byte, settle.MaxProofBytes)
	o.Ext = map[string][]byte{}
	for i := range settle.MaxExt {
		o.Ext[string(rune('a'+i))] = nil
	}
	if err := o.Validate(); err != nil {
		t.Errorf("an offer at its limits: %v", err)
	}
	rollingPair(t, 0)
	last := payee.At(payee.Params.Deadline() - 4)
	if _, err := last.Roll(offerOf(t, payee, successor()), rollTx, stubRail{}); err != nil {
		t.Errorf("one block before it is too late: %v", err)
	}
	p := successor()
	p.Capacity = 5_000 + 2_294
	if _, err := payee.Roll(offerOf(t, payee, p), rollTx, stubRail{}); err != nil {
		t.Errorf("into a successor that is used up at once: %v", err)
	}
	p = params() // the very same numbers, elsewhere
	p.Detail = []byte("again")
	if _, err := payee.Roll(offerOf(t, payee, p), rollTx, stubRail{}); err != nil {
		t.Errorf("into the same again: %v", err)
	}
}

func TestRollDeadline(t *testing.T) {
	p := params()
	if got := p.RollDeadline(5); got != p.Deadline()-5 {
		t.Errorf("got %d, want the deadline less the depth", got)
	}
	if got := p.RollDeadline(10_000); got != 0 {
		t.Errorf("got %d with more depth than height, want 0", got)
	}
}

// A channel that rolls takes nothing alone.
func TestRollingAlone(t *testing.T) {
	payer, payee := rollingPair(t, 5_000)
	_, err := payer.From.Next(entry(1, 6_000))
	wantCode(t, err, settle.ErrRolling)
	_, err = payer.From.OfferClose(offer(payer.From.Params, 5_000, 300))
	wantCode(t, err, settle.ErrRolling)
	_, err = payee.From.AcceptClose(offer(payee.From.Params, 5_000, 300), stubRail{})
	wantCode(t, err, settle.ErrRolling)
	if _, err := payer.From.Late(); err != nil {
		t.Errorf("a late proof while it rolls: %v", err)
	}
	_, _, err = payee.Next(entry(1, 6_000))
	wantCode(t, err, settle.ErrRole)
	_, err = payee.Issue(payee.To.Latest, payee.From.Latest)
	wantCode(t, err, settle.ErrRole)
	_, err = payer.Accept(payer.To.Latest, payer.From.Latest, stubRail{}, stubRail{})
	wantCode(t, err, settle.ErrRole)
	claimed, err := payee.From.Claim()
	if err != nil || claimed.Phase != settle.Closing {
		t.Errorf("a claim while it rolls: got %s, %v", claimed.Phase, err)
	}
	if d := payee.From.Decide(payee.From.Params.Deadline()); d != settle.ClaimNow {
		t.Errorf("at the deadline: got %s, want claim now", d)
	}
	if d := payer.From.Decide(payer.From.Params.ExpiryHeight); d != settle.RefundNow {
		t.Errorf("at the expiry: got %s, want refund now", d)
	}
}

// Payments are signed for both; what exceeds the predecessor is unconfirmed.
func TestRollPayments(t *testing.T) {
	payer, payee := rollingPair(t, 97_000) // of 97,706
	take := func(e settle.Entry, want settle.Code) {
		t.Helper()
		next, to, from, err := payPair(t, payer, e)
		if want != 0 {
			wantCode(t, err, want)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := payee.Accept(to, from, stubRail{}, stubRail{})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := accepted.Accept(to, from, stubRail{}, stubRail{}); err != nil || again.To.Paid() != accepted.To.Paid() {
			t.Errorf("the same payment again: %v", err)
		}
		for _, p := range []settle.Pair{next, accepted} {
			if err := p.Check(); err != nil {
				t.Error(err)
			}
		}
		payer, payee = next, accepted
	}
	if got := payer.Room(); got != 706+1_000 {
		t.Errorf("got room for %d units, want 1706", uint64(got))
	}
	take(entry(1, 97_500), 0)
	if payer.From.Paid() != 97_500 || payee.From.Paid() != 97_500 || payee.Unsecured() != 0 {
		t.Errorf("got %d and %d units over the predecessor, want 97500", uint64(payer.From.Paid()), uint64(payee.From.Paid()))
	}
	take(entry(2, 500), 0)
	if payee.From.Paid() != 97_706 || payee.To.Paid() != 98_000 || payee.Unsecured() != 294 || payee.To.From.Secured != 97_706 {
		t.Errorf("got %d and %d units, %d secured", uint64(payee.From.Paid()), uint64(payee.To.Paid()), uint64(payee.To.From.Secured))
	}
	if e, ok := payee.From.Latest.Body.Entry(lease(2)); !ok || e.Cumulative != 206 {
		t.Errorf("got %d units of the second lease over the predecessor, want 206", uint64(e.Cumulative))
	}
	if got, alone := payer.Room(), payer.To.Room(); got != 706 || alone != 706 {
		t.Errorf("got room for %d and %d units, want 706", uint64(got), uint64(alone))
	}
	take(entry(2, 1_206), 0)
	take(entry(2, 1_207), settle.ErrUnconfirmed)
	take(entry(1, 1), settle.ErrFell)
	deep := settle.Observation{Height: 120, Funded: true, Depth: 3}
	spent := settle.Observation{Height: 120, Funded: true, Depth: 13, Spent: settle.Spent{Known: true, TxID: rollTx, Depth: 3}}
	payer, payee = settle.Pair{From: payer.From.Observe(spent), To: payer.To.Observe(deep)}, settle.Pair{From: payee.From.Observe(spent), To: payee.To.Observe(deep)}
	if !payer.Done() || !payee.Done() {
		t.Fatalf("got %s and %s, want the roll done", payer.From.Phase, payer.To.Phase)
	}
	take(entry(2, 50_000), 0)
	if payee.From.Paid() != 97_706 {
		t.Errorf("after the roll: got %d units over the predecessor", uint64(payee.From.Paid()))
	}
}

// A payee takes no pair in which the predecessor's voucher says more.
func TestRollUncovered(t *testing.T) {
	payer, payee := rollingPair(t, 5_000)
	high, _, _, err := payPair(t, payer, entry(1, 9_000))
	if err != nil {
		t.Fatal(err)
	}
	low, to, _, err := payPair(t, payer, entry(1, 6_000))
	if err != nil {
		t.Fatal(err)
	}
	_, err = payee.Accept(to, high.From.Latest, stubRail{}, stubRail{})
	wantCode(t, err, settle.ErrRolling)
	other, _, _, err := payPair(t, payer, entry(2, 500)) // less in all, but of another lease
	if err != nil {
		t.Fatal(err)
	}
	_, err = payee.Accept(low.To.Latest, other.From.Latest, stubRail{}, stubRail{})
	wantCode(t, err, settle.ErrRolling)
	bad := to
	bad.Body.Proof = []byte("x")
	_, err = payee.Accept(bad, low.From.Latest, stubRail{}, stubRail{})
	wantCode(t, err, settle.ErrProof)
	bad = low.From.Latest
	bad.Body.Proof = []byte("x")
	_, err = payee.Accept(to, bad, stubRail{}, stubRail{})
	wantCode(t, err, settle.ErrProof)
	late := payee
	late.From = late.From.At(late.From.Params.Deadline())
	_, err = late.Accept(to, low.From.Latest, stubRail{}, stubRail{})
	wantCode(t, err, settle.ErrLate)
	late.From.Phase, late.From.Spent = settle.Rolled, settle.Spent{Known: true, TxID: rollTx, Depth: 9}
	late.To = late.To.Observe(settle.Observation{Height: late.From.Height, Funded: true, Depth: 9})
	if _, err := late.Accept(to, low.From.Latest, stubRail{}, stubRail{}); err != nil {
		t.Errorf("after the predecessor's deadline, the roll done: %v", err)
	}
}

// observed is a look at a predecessor.
func observed(p settle.Pair, height uint64, s settle.Spent) settle.Pair {
	p.From = p.From.Observe(settle.Observation{Height: height, Funded: true, Depth: 50, Spent: s})
	return p
}

func TestRollObserved(t *testing.T) {
	_, p := rollingPair(t, 5_000)
	phase := func(what string, want settle.Phase) {
		t.Helper()
		if p.From.Phase != want {
			t.Errorf("%s: got %s, want %s", what, p.From.Phase, want)
		}
		if err := p.From.Check(); err != nil {
			t.Error(err)
		}
	}
	roll := func(depth uint64) settle.Spent { return settle.Spent{Known: true, TxID: rollTx, Depth: depth} }
	p = observed(p, 120, settle.Spent{})
	phase("unspent", settle.Rolling)
	p = observed(p, 121, roll(0))
	phase("in the mempool", settle.Rolling)
	p = observed(p, 122, roll(2))
	phase("shallow", settle.Rolling)
	if d := p.From.Decide(p.From.Params.Deadline()); d != settle.Wait {
		t.Errorf("mined at the deadline: got %s, want wait", d)
	}
	p = observed(p, 123, roll(3))
	phase("deep", settle.Rolled)
	if !p.From.Phase.Final() {
		t.Error("a rolled channel is not at rest")
	}
	p = observed(p, 124, roll(2))
	phase("reorganised", settle.Rolling)
	p = observed(p, 125, roll(4))
	p = observed(p, 126, settle.Spent{})
	phase("taken back", settle.Rolling)
	if _, err := p.From.Claim(); err != nil {
		t.Errorf("a claim after the roll was taken back: %v", err)
	}
	claimed := p
	claimed.From, _ = p.From.Claim()
	claimed = observed(claimed, 127, roll(1))
	if claimed.From.Phase != settle.Closing {
		t.Errorf("the roll was mined before this side's claim: got %s, want closing", claimed.From.Phase)
	}
	if claimed = observed(claimed, 129, roll(3)); claimed.From.Phase != settle.Rolled {
		t.Errorf("the roll won over this side's claim: got %s, want rolled", claimed.From.Phase)
	}
	other := settle.Spent{Known: true, TxID: [32]byte{1}, Depth: 1}
	p = observed(p, 128, other)
	phase("spent otherwise", settle.Closing)
	if p.Fail().To.Phase == settle.Abandoned {
		t.Error("the successor was given up before the other end was deep")
	}
	other.Depth = 3
	p = observed(p, 130, other)
	phase("spent otherwise, deep", settle.Closed)
	failed := p.Fail()
	if failed.To.Phase != settle.Abandoned {
		t.Errorf("after another end: got %s, want the successor abandoned", failed.To.Phase)
	}
	p.To.Funded = true
	if p.Fail().To.Phase == settle.Abandoned {
		t.Error("a successor that the chain knows was given up")
	}
	_, _, err := failed.Next(entry(1, 6_000))
	wantCode(t, err, settle.ErrClosed)
	p.From.Phase = settle.Refunded
	p.To.Funded = false
	if p.Fail().To.Phase != settle.Abandoned {
		t.Error("after a refund the successor was not given up")
	}
	p.From.Phase = settle.Abandoned // itself the successor of a roll that failed
	if p.Fail().To.Phase != settle.Abandoned {
		t.Error("the successor of what was given up was not given up")
	}
}

// A first voucher may be as long as any other.
func TestRollLongFirst(t *testing.T) {
	payer, _ := bothPaid(t, 5_000)
	o := offerOf(t, payer, successor())
	o.First.Body.Ext = map[string][]byte{"x": {}}
	b, err := o.First.Encode()
	if err != nil {
		t.Fatal(err)
	}
	room := settle.MaxVoucherBytes - len(b)
	for _, c := range []struct {
		more int
		want settle.Code
	}{{room - 2, 0}, {room - 1, settle.ErrMalformed}} { // the length takes two bytes more than none
		o.First.Body.Ext["x"] = make([]byte, c.more)
		if b, err = o.First.Encode(); err != nil {
			t.Fatal(err)
		}
		if err := o.Validate(); c.want == 0 && err != nil || c.want != 0 && !errors.Is(err, c.want) {
			t.Errorf("%d bytes of at most %d: got %v, want %s", len(b), settle.MaxVoucherBytes, err, c.want)
		}
	}
}

// With a depth of zero a roll is done with its first block.
func TestRollWithoutDepth(t *testing.T) {
	c := settledChannel(t, settle.Payee)
	c.Phase, c.Into = settle.Rolling, settle.Into{Channel: pktcloud.ID{1}, TxID: rollTx}
	spent := settle.Spent{Known: true, TxID: rollTx}
	if got := c.Observe(settle.Observation{Height: 120, Funded: true, Depth: 5, Spent: spent}).Phase; got != settle.Rolling {
		t.Errorf("in the mempool: got %s", got)
	}
	spent.Depth = 1
	if got := c.Observe(settle.Observation{Height: 121, Funded: true, Depth: 6, Spent: spent}).Phase; got != settle.Rolled {
		t.Errorf("in a block: got %s", got)
	}
}

func TestRollWithdraw(t *testing.T) {
	payer, payee := rollingPair(t, 5_000)
	_, err := payee.Withdraw()
	wantCode(t, err, settle.ErrRole)
	paid, _, _, err := payPair(t, payer, entry(1, 97_900))
	if err != nil {
		t.Fatal(err)
	}
	_, err = paid.Withdraw()
	wantCode(t, err, settle.ErrClosed)
	seen := observed(payer, 120, settle.Spent{Known: true, TxID: rollTx})
	_, err = seen.Withdraw()
	wantCode(t, err, settle.ErrClosed)
	funded := payer
	funded.To.Funded = true
	_, err = funded.Withdraw()
	wantCode(t, err, settle.ErrClosed)
	back, err := payer.Withdraw()
	if err != nil || back.From.Phase != settle.Open || back.To.Phase != settle.Abandoned || !back.From.Into.Channel.IsZero() {
		t.Fatalf("got %s and %s, %v", back.From.Phase, back.To.Phase, err)
	}
	_, err = back.Withdraw()
	wantCode(t, err, settle.ErrClosed)
	if _, v := pay(t, back.From, entry(1, 6_000)); v.Body.Total != 6_000 {
		t.Error("the channel does not pay on")
	}
	if err := back.From.Check(); err != nil {
		t.Error(err)
	}
	shallow := payer
	shallow.From.Depth = 1
	if back, err := shallow.Withdraw(); err != nil || back.From.Phase != settle.Opening {
		t.Errorf("with a funding that lost its depth: got %s, %v", back.From.Phase, err)
	}
}

func TestRollCheck(t *testing.T) {
	payer, _ := rollingPair(t, 5_000)
	for name, spoil := range map[string]func(p *settle.Pair){
		"another successor":    func(p *settle.Pair) { p.From.Into.Channel = pktcloud.ID{1} },
		"another predecessor":  func(p *settle.Pair) { p.To.From.Channel = pktcloud.ID{1} },
		"two sides":            func(p *settle.Pair) { p.To.Role = settle.Payee },
		"another secured sum":  func(p *settle.Pair) { p.To.From.Secured-- },
		"another lease paid":   func(p *settle.Pair) { p.To.Latest.Body.Entries = []settle.Entry{entry(2, 5_000)} },
		"an uncovered payment": func(p *settle.Pair) { p.To.Latest = pktcloud.Signed[settle.Voucher]{} },
		"a broken predecessor": func(p *settle.Pair) { p.From.ID[0]++; p.To.From.Channel = p.From.ID },
		"a broken successor":   func(p *settle.Pair) { p.To.Phase = 9 },
		"rolling into nothing": func(p *settle.Pair) { p.From.Into = settle.Into{}; p.To.ID = pktcloud.ID{} },
	} {
		bad := payer
		spoil(&bad)
		if bad.Check() == nil {
			t.Errorf("%s: got no fault", name)
		}
	}
	c := payer.From
	for name, spoil := range map[string]func(c *settle.Channel){
		"rolled into nothing":    func(c *settle.Channel) { c.Phase, c.Into = settle.Rolled, settle.Into{} },
		"rolled without a block": func(c *settle.Channel) { c.Phase, c.Spent = settle.Rolled, settle.Spent{Known: true, TxID: rollTx} },
		"rolled by another":      func(c *settle.Channel) { c.Phase, c.Spent = settle.Rolled, settle.Spent{Known: true, Depth: 3} },
		"more secured than paid": func(c *settle.Channel) { c.From.Secured = c.Paid() + 1 },
		"a signed close":         func(c *settle.Channel) { c.Close = offer(c.Params, 5_000, 300) },
	} {
		bad := c
		spoil(&bad)
		if bad.Check() == nil {
			t.Errorf("%s: got no fault", name)
		}
	}
}
