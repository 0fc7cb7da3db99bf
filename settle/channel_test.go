package settle_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// history is a payee that accepted two vouchers, and these.
func history(t *testing.T) (payee settle.Channel, first, second pktcloud.Signed[settle.Voucher]) {
	t.Helper()
	payer := settledChannel(t, settle.Payer)
	payer, first = pay(t, payer, entry(1, 500))
	_, second = pay(t, payer, entry(2, 700))
	payee = settledChannel(t, settle.Payee)
	for _, v := range []pktcloud.Signed[settle.Voucher]{first, second} {
		var err error
		if payee, err = payee.Accept(v, stubRail{}); err != nil {
			t.Fatal(err)
		}
	}
	return payee, first, second
}

func TestAcceptRefuses(t *testing.T) {
	payee, first, second := history(t)
	// next is a good third voucher, which each case spoils once.
	next := second.Body
	next.Sequence, next.Total = 3, 1_300
	next.Entries = []settle.Entry{second.Body.Entries[0], second.Body.Entries[1]}
	next.Entries[0].Cumulative += 100
	body := func(change func(v *settle.Voucher)) settle.Voucher {
		v := next
		v.Entries = append([]settle.Entry(nil), next.Entries...)
		change(&v)
		v.Total = 0
		for _, e := range v.Entries {
			v.Total += e.Cumulative
		}
		return v
	}
	if _, err := payee.Accept(seal(t, params(), body(func(*settle.Voucher) {})), stubRail{}); err != nil {
		t.Fatalf("the unspoilt voucher: %v", err)
	}
	for _, c := range []struct {
		name   string
		want   settle.Code
		state  func(settle.Channel) settle.Channel
		change func(v *settle.Voucher)
	}{
		{"an older voucher's sequence", settle.ErrStale, nil, func(v *settle.Voucher) { v.Sequence = 1 }},
		{"the latest voucher's sequence", settle.ErrStale, nil, func(v *settle.Voucher) { v.Sequence = 2 }},
		{"another channel", settle.ErrChannel, nil, func(v *settle.Voucher) { v.Channel = lease(9) }},
		{"a lower total", settle.ErrFell, nil, func(v *settle.Voucher) { v.Entries[0].Cumulative, v.Entries[1].Cumulative = 1, 2 }},
		{"an entry falls, another rises", settle.ErrFell, nil, func(v *settle.Voucher) {
			v.Entries[0].Cumulative += 5_000
			v.Entries[1].Cumulative--
		}},
		{"an entry vanishes", settle.ErrFell, nil, func(v *settle.Voucher) {
			v.Entries = v.Entries[:1]
			v.Entries[0].Cumulative = 50_000
		}},
		{"beyond what the channel pays", settle.ErrCapacity, nil, func(v *settle.Voucher) { v.Entries[0].Cumulative = 97_706 }},
		{"funding not deep enough", settle.ErrUnconfirmed, func(c settle.Channel) settle.Channel {
			return c.Observe(settle.Observation{Height: 111, Funded: true, Depth: 2})
		}, func(*settle.Voucher) {}},
		{"funding unknown", settle.ErrUnconfirmed, func(c settle.Channel) settle.Channel {
			return c.Observe(settle.Observation{Height: 111})
		}, func(*settle.Voucher) {}},
		{"at the deadline", settle.ErrLate, func(c settle.Channel) settle.Channel { return c.At(1_000 - 288) }, func(*settle.Voucher) {}},
		{"after a signed close", settle.ErrClosed, func(c settle.Channel) settle.Channel {
			c, err := c.AcceptClose(offer(c.Params, 1_200, 300), stubRail{})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}, func(*settle.Voucher) {}},
		{"after a claim", settle.ErrClosed, func(c settle.Channel) settle.Channel {
			c, err := c.Claim()
			if err != nil {
				t.Fatal(err)
			}
			return c
		}, func(*settle.Voucher) {}},
		{"after the funding was spent", settle.ErrClosed, func(c settle.Channel) settle.Channel {
			return c.Observe(settle.Observation{Height: 111, Funded: true, Depth: 9, Spent: settle.Spent{Known: true}})
		}, func(*settle.Voucher) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := payee
			if c.state != nil {
				before = c.state(before)
			}
			after, err := before.Accept(seal(t, params(), body(c.change)), stubRail{})
			wantCode(t, err, c.want)
			if !reflect.DeepEqual(after, before) {
				t.Error("a refused voucher changed the channel")
			}
			if again, err := before.Accept(second, stubRail{}); err != nil || !reflect.DeepEqual(again, before) {
				t.Errorf("the latest voucher again: got %v, want no change and no error", err)
			}
			_, err = before.Accept(first, stubRail{})
			wantCode(t, err, settle.ErrStale)
		})
	}
}

// A payer that lost its store takes a voucher of its own that it is shown, if
// that one is newer and proves itself [SETTLE-64].
func TestAdopt(t *testing.T) {
	before := settledChannel(t, settle.Payer)
	c, first := pay(t, before, entry(1, 500))
	c, second := pay(t, c, entry(1, 700))
	adopted, err := before.Adopt(second, stubRail{})
	if err != nil || !reflect.DeepEqual(adopted, c) {
		t.Fatalf("got %+v, %v, want the state that was lost", adopted, err)
	}
	_, twin := pay(t, adoptedUpTo(t, before, first), entry(1, 900)) // as a second machine with the phrase might sign
	for name, old := range map[string]pktcloud.Signed[settle.Voucher]{"older": first, "the same": second, "of the same sequence": twin} {
		if got, err := c.Adopt(old, stubRail{}); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: got %+v, %v, want no change", name, got, err)
		}
	}
	forged := second
	forged.Sig[0] ^= 1
	got, err := before.Adopt(forged, stubRail{})
	wantCode(t, err, settle.ErrProof)
	if !reflect.DeepEqual(got, before) {
		t.Errorf("a forged voucher left %+v", got)
	}
	foreign := first.Body
	foreign.Channel = lease(9)
	got, err = c.Adopt(seal(t, params(), foreign), stubRail{})
	wantCode(t, err, settle.ErrChannel) // also one that would be old here
	if !reflect.DeepEqual(got, c) {
		t.Errorf("a foreign voucher left %+v", got)
	}
	payee := settledChannel(t, settle.Payee)
	got, err = payee.Adopt(second, stubRail{})
	wantCode(t, err, settle.ErrRole)
	if !reflect.DeepEqual(got, payee) {
		t.Errorf("at the payee: got %+v", got)
	}
}

func adoptedUpTo(t *testing.T, c settle.Channel, v pktcloud.Signed[settle.Voucher]) settle.Channel {
	t.Helper()
	c, err := c.Adopt(v, stubRail{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAcceptProves(t *testing.T) {
	payee := settledChannel(t, settle.Payee)
	payer := settledChannel(t, settle.Payer)
	v, err := payer.Next(entry(1, 500))
	if err != nil {
		t.Fatal(err)
	}
	wrong := v
	wrong.Proof = stubProof(params(), 499)
	s, err := pktcloud.Seal(payerKey, wrong)
	if err != nil {
		t.Fatal(err)
	}
	_, err = payee.Accept(s, stubRail{})
	wantCode(t, err, settle.ErrProof)
	s = seal(t, params(), v)
	s.Sig[0] ^= 1
	_, err = payee.Accept(s, stubRail{})
	wantCode(t, err, settle.ErrProof)
	if !errors.Is(err, pktcloud.ErrSignature) {
		t.Errorf("got %v, want it to match pktcloud.ErrSignature too", err)
	}
	other := settledChannel(t, settle.Payee)
	other.Params.Rail = "another"
	_, err = other.Accept(seal(t, params(), v), stubRail{})
	wantCode(t, err, settle.ErrParams)
	_, err = payer.Accept(seal(t, params(), v), stubRail{})
	wantCode(t, err, settle.ErrRole)
}

func TestNext(t *testing.T) {
	c := settledChannel(t, settle.Payer)
	c, first := pay(t, c, entry(3, 100))
	c, _ = pay(t, c, entry(1, 50))
	c, third := pay(t, c, entry(2, 70))
	if third.Body.Sequence != 3 || third.Body.Total != 220 || len(third.Body.Entries) != 3 {
		t.Errorf("got %+v", third.Body)
	}
	if len(first.Body.Entries) != 1 || first.Body.Entries[0] != entry(3, 100) {
		t.Error("a later voucher changed an earlier one")
	}
	again, err := c.Next(entry(2, 70))
	if err != nil || again.Sequence != 3 || len(again.Proof) == 0 {
		t.Errorf("the same entry again: got %+v, %v; want the latest voucher", again, err)
	}
	for _, tc := range []struct {
		name string
		e    settle.Entry
		want settle.Code
	}{
		{"falls", entry(2, 69), settle.ErrFell},
		{"nothing", entry(4, 0), settle.ErrMalformed},
		{"beyond the capacity", entry(2, 97_557), settle.ErrCapacity},
		{"overflow", entry(2, 1<<63), settle.ErrCapacity},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := c.Next(tc.e)
			wantCode(t, err, tc.want)
		})
	}
	if c.Room() != 97_706-220 {
		t.Errorf("got room for %d units, want %d", uint64(c.Room()), 97_706-220)
	}
	if got := channel(t, settle.Payer).Room(); got != 1_000 {
		t.Errorf("unconfirmed: got room for %d units, want 1000", uint64(got))
	}
	for n := byte(10); len(c.Latest.Body.Entries) < settle.MaxEntries; n++ {
		c, _ = pay(t, c, entry(n, 1))
	}
	_, err = c.Next(entry(200, 1))
	wantCode(t, err, settle.ErrCapacity)
	_, err = settledChannel(t, settle.Payee).Next(entry(1, 1))
	wantCode(t, err, settle.ErrRole)
}

func TestDecide(t *testing.T) {
	payee, _, _ := history(t)
	payer := settledChannel(t, settle.Payer)
	const deadline, expiry = 1_000 - 288, 1_000
	mined := settle.Observation{Height: 750, Funded: true, Depth: 600, Spent: settle.Spent{Known: true, Depth: 1}}
	for _, c := range []struct {
		name    string
		channel settle.Channel
		height  uint64
		want    settle.Decision
	}{
		{"payee before the deadline", payee, deadline - 1, settle.Wait},
		{"payee at the deadline", payee, deadline, settle.ClaimNow},
		{"payee without a voucher", settledChannel(t, settle.Payee), deadline, settle.StopServing},
		{"payee past expiry", payee, expiry + 5, settle.ClaimNow},
		{"payee, claim mined", payee.Observe(mined), expiry, settle.Wait},
		{"payer before the deadline", payer, deadline - 1, settle.Wait},
		{"payer at the deadline", payer, deadline, settle.StopServing},
		{"payer before expiry", payer, expiry - 1, settle.StopServing},
		{"payer at expiry", payer, expiry, settle.RefundNow},
		{"payer without funding", channel(t, settle.Payer), expiry, settle.StopServing},
		{"payer, claim mined", payer.Observe(mined), expiry, settle.Wait},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.channel.Decide(c.height); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	_, err := payer.At(expiry - 1).Refund()
	wantCode(t, err, settle.ErrEarly)
	if _, err := payer.At(expiry).Refund(); err != nil {
		t.Errorf("refund at expiry: %v", err)
	}
}

func TestObserve(t *testing.T) {
	see := func(depth uint64, spent settle.Spent) settle.Observation {
		return settle.Observation{Height: 200, Funded: true, Depth: depth, Spent: spent}
	}
	claim := func(depth uint64) settle.Spent { return settle.Spent{Known: true, Depth: depth} }
	refund := func(depth uint64) settle.Spent { return settle.Spent{Known: true, Depth: depth, Refund: true} }
	for _, c := range []struct {
		name string
		seen []settle.Observation
		want settle.Phase
	}{
		{"in the mempool", []settle.Observation{see(0, settle.Spent{})}, settle.Opening},
		{"one short", []settle.Observation{see(2, settle.Spent{})}, settle.Opening},
		{"deep enough", []settle.Observation{see(3, settle.Spent{})}, settle.Open},
		{"reorganised", []settle.Observation{see(3, settle.Spent{}), see(1, settle.Spent{})}, settle.Opening},
		{"end in the mempool", []settle.Observation{see(5, claim(0))}, settle.Closing},
		{"end one short", []settle.Observation{see(5, claim(2))}, settle.Closing},
		{"end vanished", []settle.Observation{see(5, claim(2)), see(3, settle.Spent{})}, settle.Closing},
		{"end buried", []settle.Observation{see(5, claim(3))}, settle.Closed},
		{"refund buried", []settle.Observation{see(5, refund(3))}, settle.Refunded},
		{"buried stays", []settle.Observation{see(5, refund(3)), see(1, settle.Spent{})}, settle.Refunded},
	} {
		t.Run(c.name, func(t *testing.T) {
			ch := channel(t, settle.Payer)
			for _, o := range c.seen {
				ch = ch.Observe(o)
				if err := ch.Check(); err != nil {
					t.Fatal(err)
				}
			}
			if ch.Phase != c.want {
				t.Errorf("got %v, want %v", ch.Phase, c.want)
			}
		})
	}
	gone, err := channel(t, settle.Payer).Abandon()
	if err != nil {
		t.Fatal(err)
	}
	if got := gone.Observe(settle.Observation{Height: 150}).Phase; got != settle.Abandoned {
		t.Errorf("abandoned, nothing seen: got %v", got)
	}
	if got := gone.Observe(see(0, settle.Spent{})).Phase; got != settle.Opening {
		t.Errorf("abandoned, then funded: got %v, want opening", got)
	}
	_, err = settledChannel(t, settle.Payer).Abandon()
	wantCode(t, err, settle.ErrClosed)
}

func TestClose(t *testing.T) {
	payee, _, _ := history(t) // paid 1200
	good := offer(payee.Params, 1_300, 300)
	for _, c := range []struct {
		name   string
		want   settle.Code
		change func(o *settle.CloseOffer)
	}{
		{"below the paid sum", settle.ErrClose, func(o *settle.CloseOffer) { o.Final = 1_199 }},
		{"beyond the capacity", settle.ErrClose, func(o *settle.CloseOffer) { o.Final = 100_000 }},
		{"overflow", settle.ErrClose, func(o *settle.CloseOffer) { o.Final, o.Fee = pktcloud.MaxAmount, pktcloud.MaxAmount }},
		{"another channel", settle.ErrChannel, func(o *settle.CloseOffer) { o.Channel = lease(1) }},
		{"a bad signature", settle.ErrProof, func(o *settle.CloseOffer) { o.Fee++ }},
		{"no signature", settle.ErrMalformed, func(o *settle.CloseOffer) { o.Signature = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := good
			c.change(&o)
			after, err := payee.AcceptClose(o, stubRail{})
			wantCode(t, err, c.want)
			if !reflect.DeepEqual(after, payee) {
				t.Error("a refused close changed the channel")
			}
		})
	}
	closing, err := payee.AcceptClose(good, stubRail{})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := closing.AcceptClose(good, stubRail{}); err != nil || !reflect.DeepEqual(again, closing) {
		t.Errorf("the same offer again: got %v", err)
	}
	_, err = closing.AcceptClose(offer(payee.Params, 1_400, 300), stubRail{})
	wantCode(t, err, settle.ErrClosed)

	payer, _ := pay(t, settledChannel(t, settle.Payer), entry(1, 500))
	payer, err = payer.OfferClose(offer(payer.Params, 600, 300))
	if err != nil {
		t.Fatal(err)
	}
	_, err = payer.Next(entry(1, 501))
	wantCode(t, err, settle.ErrClosed)
	_, err = payer.OfferClose(offer(payer.Params, 499, 300))
	wantCode(t, err, settle.ErrClose)
}

func TestParamsValidate(t *testing.T) {
	if err := params().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(p *settle.Params){
		"version":          func(p *settle.Params) { p.Version = 2 },
		"no rail":          func(p *settle.Params) { p.Rail = "" },
		"long rail":        func(p *settle.Params) { p.Rail = fmt.Sprintf("%33d", 1) },
		"one key":          func(p *settle.Params) { p.Payee = p.Payer },
		"weak key":         func(p *settle.Params) { p.Payee = pktcloud.PublicKey{1} },
		"long detail":      func(p *settle.Params) { p.Detail = make([]byte, settle.MaxDetailBytes+1) },
		"capacity":         func(p *settle.Params) { p.Capacity = pktcloud.MaxAmount + 1 },
		"nothing to spend": func(p *settle.Params) { p.Capacity = p.Reserve + p.MinChange },
		"unconfirmed":      func(p *settle.Params) { p.Unconfirmed = p.Capacity + 1 },
		"no margin":        func(p *settle.Params) { p.MarginBlocks = 0 },
		"wide margin":      func(p *settle.Params) { p.MarginBlocks = settle.MaxMarginBlocks + 1 },
		"depth":            func(p *settle.Params) { p.MinDepth = settle.MaxMinDepth + 1 },
		"early expiry":     func(p *settle.Params) { p.ExpiryHeight = 288 },
		"far expiry":       func(p *settle.Params) { p.ExpiryHeight = 1 << 32 },
	} {
		t.Run(name, func(t *testing.T) {
			p := params()
			change(&p)
			wantCode(t, p.Validate(), settle.ErrParams)
		})
	}
	_, err := settle.NewChannel(params(), settle.Payer, 1_000-288)
	wantCode(t, err, settle.ErrLate)
	_, err = settle.NewChannel(params(), 3, 1)
	wantCode(t, err, settle.ErrRole)
}

func TestVoucherValidate(t *testing.T) {
	_, good := pay(t, settledChannel(t, settle.Payer), entry(1, 500))
	for name, change := range map[string]func(v *settle.Voucher){
		"version":     func(v *settle.Voucher) { v.Version = 0 },
		"sequence":    func(v *settle.Voucher) { v.Sequence = 0 },
		"no entries":  func(v *settle.Voucher) { v.Entries, v.Total = nil, 0 },
		"sum":         func(v *settle.Voucher) { v.Total++ },
		"zero entry":  func(v *settle.Voucher) { v.Entries, v.Total = []settle.Entry{{}}, 0 },
		"twice":       func(v *settle.Voucher) { v.Entries, v.Total = append(v.Entries, v.Entries[0]), 1_000 },
		"unsorted":    func(v *settle.Voucher) { v.Entries, v.Total = unsorted(), 3 },
		"no proof":    func(v *settle.Voucher) { v.Proof = nil },
		"long proof":  func(v *settle.Voucher) { v.Proof = make([]byte, settle.MaxProofBytes+1) },
		"overflow":    func(v *settle.Voucher) { v.Entries[0].Cumulative = 1 << 63 },
		"many leases": func(v *settle.Voucher) { v.Entries = make([]settle.Entry, settle.MaxEntries+1) },
	} {
		t.Run(name, func(t *testing.T) {
			v := good.Body
			v.Entries = append([]settle.Entry(nil), v.Entries...)
			change(&v)
			wantCode(t, v.Validate(), settle.ErrMalformed)
		})
	}
}

// unsorted returns two entries in descending order of lease.
func unsorted() []settle.Entry {
	a, b := entry(1, 1), entry(2, 2)
	if a.Lease.Hex() < b.Lease.Hex() {
		a, b = b, a
	}
	return []settle.Entry{a, b}
}

func TestSizes(t *testing.T) {
	for name, parse := range map[string]func(n int) error{
		"params":      func(n int) error { _, err := settle.ParseParams(make([]byte, n)); return err },
		"voucher":     func(n int) error { _, err := settle.ParseVoucher(make([]byte, n)); return err },
		"close offer": func(n int) error { _, err := settle.ParseCloseOffer(make([]byte, n)); return err },
	} {
		limit := map[string]int{"params": settle.MaxParamsBytes, "voucher": settle.MaxVoucherBytes, "close offer": settle.MaxCloseOfferBytes}[name]
		if err := parse(limit); errors.Is(err, pktcloud.ErrTooLarge) || !errors.Is(err, settle.ErrMalformed) {
			t.Errorf("%s at the limit: got %v", name, err)
		}
		if err := parse(limit + 1); !errors.Is(err, pktcloud.ErrTooLarge) || !errors.Is(err, settle.ErrMalformed) {
			t.Errorf("%s above the limit: got %v", name, err)
		}
	}
	// The largest voucher that the rules allow fits.
	v := settle.Voucher{
		Version: 1, Channel: lease(1), Payer: payerKey.Public(), Sequence: 1<<64 - 1,
		Total: settle.MaxEntries << 40, Proof: make([]byte, settle.MaxProofBytes),
	}
	for i := range settle.MaxEntries {
		v.Entries = append(v.Entries, settle.Entry{Lease: pktcloud.ID{byte(i)}, Cumulative: 1 << 40})
	}
	s, err := pktcloud.Seal(payerKey, v)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := settle.ParseVoucher(b); err != nil {
		t.Errorf("a voucher of %d bytes: %v", len(b), err)
	}
}
