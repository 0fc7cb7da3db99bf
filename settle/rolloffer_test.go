package settle_test

import (
	"bytes"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/settle"
)

func FuzzParseRollOffer(f *testing.F) {
	cases, err := vector.Load("../spec/vectors/roll", "offer-")
	if err != nil || len(cases) == 0 {
		f.Fatalf("no vectors: %v", err)
	}
	for _, c := range cases {
		f.Add(c.Bytes("bytes"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := settle.ParseRollOffer(data)
		if err != nil {
			return
		}
		if again, err := o.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want the input back", again, err)
		}
	})
}

// A channel that never rolls is stored as it was before rolls were known.
func TestRollIsNotStored(t *testing.T) {
	plain, err := pktcloud.Marshal(channel(t, settle.Payer))
	if err != nil {
		t.Fatal(err)
	}
	payer, _ := rollingPair(t, 5_000)
	for name, c := range map[string]settle.Channel{"predecessor": payer.From, "successor": payer.To} {
		b, err := pktcloud.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var again settle.Channel
		if err := pktcloud.Unmarshal(b, &again, 1<<20); err != nil || again.Into != c.Into || again.From != c.From {
			t.Errorf("%s: got %+v, %v", name, again, err)
		}
	}
	for _, word := range []string{"into", "from"} {
		if bytes.Contains(plain, append([]byte{0x64}, word...)) {
			t.Errorf("a channel that does not roll is stored with %q", word)
		}
	}
}

// A refusal changes nothing, whichever rule it comes from.
func TestRollRefusalsChangeNothing(t *testing.T) {
	payer, payee := rollingPair(t, 5_000)
	_, to, from, err := payPair(t, payer, entry(1, 6_000))
	if err != nil {
		t.Fatal(err)
	}
	unproven, spoilt := to, from
	unproven.Body.Proof, spoilt.Body.Proof = []byte("x"), []byte("x")
	none := pktcloud.Signed[settle.Voucher]{}
	high, _, _, err := payPair(t, payer, entry(1, 9_000))
	if err != nil {
		t.Fatal(err)
	}
	late, ended := payee, observed(payee, 130, settle.Spent{Known: true, TxID: [32]byte{1}, Depth: 5})
	late.From = late.From.At(late.From.Params.Deadline())
	if ended.From.Phase != settle.Closed {
		t.Fatalf("spent otherwise, deep at once: got %s", ended.From.Phase)
	}
	for name, c := range map[string]struct {
		do   func(p settle.Pair) (settle.Pair, error)
		on   settle.Pair
		want settle.Code
	}{
		"accept by the payer":   {func(p settle.Pair) (settle.Pair, error) { return p.Accept(to, from, stubRail{}, stubRail{}) }, payer, settle.ErrRole},
		"issue by the payee":    {func(p settle.Pair) (settle.Pair, error) { return p.Issue(to, from) }, payee, settle.ErrRole},
		"withdraw by the payee": {settle.Pair.Withdraw, payee, settle.ErrRole},
		"withdraw what ended":   {settle.Pair.Withdraw, func() settle.Pair { p := payer; p.From.Phase = settle.Closing; return p }(), settle.ErrClosed},
		"without the predecessor, late": {
			func(p settle.Pair) (settle.Pair, error) { return p.Accept(to, none, stubRail{}, stubRail{}) }, late, settle.ErrLate,
		},
		"after another end": {func(p settle.Pair) (settle.Pair, error) { return p.Accept(to, none, stubRail{}, stubRail{}) }, ended, settle.ErrClosed},
		"a bad half":        {func(p settle.Pair) (settle.Pair, error) { return p.Accept(to, spoilt, stubRail{}, stubRail{}) }, payee, settle.ErrProof},
		"the other half":    {func(p settle.Pair) (settle.Pair, error) { return p.Accept(unproven, from, stubRail{}, stubRail{}) }, payee, settle.ErrProof},
		"uncovered": {
			func(p settle.Pair) (settle.Pair, error) {
				return p.Accept(to, high.From.Latest, stubRail{}, stubRail{})
			}, payee, settle.ErrRolling,
		},
	} {
		got, err := c.do(c.on)
		wantCode(t, err, c.want)
		if got.From.ID != c.on.From.ID || got.To.ID != c.on.To.ID || got.From.Phase != c.on.From.Phase || got.To.Paid() != c.on.To.Paid() || got.From.Paid() != c.on.From.Paid() {
			t.Errorf("%s: the state changed", name)
		}
	}
	late.From.Height--
	if _, err := late.Accept(to, none, stubRail{}, stubRail{}); err != nil {
		t.Errorf("one block before the predecessor's deadline: %v", err)
	}
}

// The successor is alone only when both agree that the roll is done.
func TestRollDone(t *testing.T) {
	p, _ := rollingPair(t, 5_000)
	spent := settle.Spent{Known: true, TxID: rollTx, Depth: 3}
	deep := settle.Observation{Height: 120, Funded: true, Depth: 3}
	from, to := p, p
	from.From = p.From.Observe(settle.Observation{Height: 120, Funded: true, Depth: 20, Spent: spent})
	to.To = p.To.Observe(deep)
	if p.Done() || from.Done() || to.Done() {
		t.Error("a roll is done before both see it")
	}
	from.To = to.To
	if !from.Done() {
		t.Error("a roll that both see is not done")
	}
	v, w, err := from.Next(entry(1, 6_000)) // the predecessor has room, and is not asked
	if err != nil || v.Total != 6_000 || w.Sequence != 0 {
		t.Errorf("got vouchers of %d and %d units, %v", uint64(v.Total), uint64(w.Total), err)
	}
}
