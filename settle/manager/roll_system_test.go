//go:build system

package manager_test

import (
	"errors"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/nodetest"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// The scene's channels are short; their depth is more than the reorganisation.
const (
	sceneCapacity = 1_000_000
	sceneMargin   = 12
	sceneDepth    = 8
	sceneReorg    = 6
	sceneTrust    = 50_000 // unconfirmed
	sceneAlone    = 40_000 // paid over the successor alone
	sceneLife     = 130
	sceneLonger   = 190

	rollFees = 12_000 // of opening's roll, claim, refund, together
)

// Steps of a roll, each with what was paid by then.
const (
	stepOffered   = iota + 1 // the payer's offer is out, the payee has not answered
	stepAccepted             // the payee has signed, the payer has no answer
	stepCompleted            // in the mempool, and paid over both
	stepMined                // in a block, below the agreed depth
	stepDone                 // deep, and paid over the successor alone
)

// scene is a roll between two owners on a real chain.
type scene struct {
	t            *testing.T
	node         *nodetest.Node
	payer, payee *party
	id, to       pktcloud.ID
	offer        settle.RollOffer
	raw          []byte          // the payee's answer
	elsewhere    []byte          // spends the roll's coin at a higher fee
	signed, held pktcloud.Amount // the most that left the payer, that the payee acknowledged
	payerHad     pktcloud.Amount // wallet and channel, before
	payeeHad     pktcloud.Amount
}

func newScene(t *testing.T, node *nodetest.Node, payer, payee *party, trust pktcloud.Amount) *scene {
	t.Helper()
	funded(t, node, payer, 3, 4*sceneCapacity)
	s := &scene{t: t, node: node, payer: payer, payee: payee}
	detail, err := payee.m.PayeeDetail(t.Context())
	s.must(err)
	params, funding, err := payer.m.Open(t.Context(), manager.OpenRequest{
		Payee: payee.device, PayeeDetail: detail, Capacity: sceneCapacity, Unconfirmed: trust, MinDepth: sceneDepth, LifetimeBlocks: sceneLife,
	})
	s.must(err)
	s.id, err = payee.m.Accept(t.Context(), params, funding)
	s.must(err)
	s.must(payer.m.Announce(t.Context(), s.id))
	mine(t, node, sceneDepth)
	payer.until(t, s.id, "open channel", phase(settle.Open))
	payee.until(t, s.id, "open channel", phase(settle.Open))
	s.payerHad, s.payeeHad = s.balance(payer)+sceneCapacity, s.balance(payee)
	s.signed = params.Spendable() - 100_000 // what is left is less than what will be paid
	paid(t, payer, payee, s.id, s.signed)
	s.held = s.signed
	return s
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) balance(o *party) pktcloud.Amount {
	s.t.Helper()
	b, err := o.wallet.Balance(s.t.Context())
	s.must(err)
	return b.Confirmed
}

// reach goes through the steps up to one.
func (s *scene) reach(step int) {
	s.t.Helper()
	ctx := s.t.Context()
	var err error
	s.offer, err = s.payer.m.Roll(ctx, s.id, manager.RollRequest{Capacity: 3 * sceneCapacity, LifetimeBlocks: sceneLonger})
	s.must(err)
	s.to, err = s.offer.Successor.ID()
	s.must(err)
	s.prepareElsewhere()
	if step == stepOffered {
		return
	}
	s.raw, err = s.payee.m.AcceptRoll(ctx, s.offer)
	s.must(err)
	if step == stepAccepted {
		return
	}
	s.must(s.payer.m.CompleteRoll(ctx, s.id, s.raw))
	s.payRolling(100_000 + sceneAlone)
	if step == stepCompleted {
		return
	}
	mine(s.t, s.node, 1)
	s.seen(s.payer, s.payee)
	if step == stepMined {
		return
	}
	mine(s.t, s.node, sceneDepth-1)
	s.payer.until(s.t, s.to, "successor", phase(settle.Open))
	s.payee.until(s.t, s.to, "successor", phase(settle.Open))
	s.payRolling(200_000)
}

func (s *scene) payRolling(more pktcloud.Amount) {
	s.t.Helper()
	p, err := s.payer.m.PayRolling(s.t.Context(), s.to, entry("a", s.signed+more))
	s.must(err)
	s.signed += more
	s.must(s.payee.m.ReceiveRolling(s.t.Context(), p))
	s.held = s.signed
}

// prepareElsewhere makes the payment that would take the roll's coin away.
func (s *scene) prepareElsewhere() {
	s.t.Helper()
	ctx := s.t.Context()
	s.must(s.payer.wallet.Release(ctx, s.offer.Tx))
	script, err := s.payer.wallet.ReceiveScript(ctx)
	s.must(err)
	s.elsewhere, err = s.payer.wallet.Fund(ctx, []settle.Payment{{Script: script, Amount: 100_000}}, 60_000)
	s.must(err)
}

// seen waits until owners that run know the best block.
func (s *scene) seen(owners ...*party) {
	s.t.Helper()
	tip, err := s.node.Ledger.Tip(s.t.Context())
	s.must(err)
	for _, o := range owners {
		eventually(s.t, "the best block", func() bool {
			for _, st := range o.m.List() {
				if !st.Phase.Final() && st.Height != tip.Height {
					return false
				}
			}
			return true
		})
	}
}

// takeAway broadcasts the payment of the roll's coin.
func (s *scene) takeAway() { s.must(s.node.Ledger.Broadcast(s.t.Context(), s.elsewhere)) }

// finish lets the chain grow, and a side that is honest do what it does, until
// nothing is left to do for it.
func (s *scene) finish(honest *party) {
	s.t.Helper()
	rests := func() bool {
		for _, id := range []pktcloud.ID{s.id, s.to} {
			st, err := honest.m.Status(s.t.Context(), id)
			if errors.Is(err, settle.ErrUnknown) {
				continue // an offer that never came
			}
			s.must(err)
			funding, err := s.node.Ledger.Output(s.t.Context(), honest.funding(id))
			s.must(err)
			if !st.Phase.Final() || st.Phase == settle.Abandoned && funding.Known { // given up, and there after all
				return false
			}
		}
		return true
	}
	for blocks := 0; !rests(); blocks += 6 {
		if blocks > 4*sceneLonger {
			s.t.Fatal("the channels never end")
		}
		mine(s.t, s.node, 6)
		s.seen(honest)
	}
}

type rollAttack struct {
	name    string
	step    int
	byPayer bool
	loss    pktcloud.Amount
	do      func(s *scene)
}

// rollAttacks are what either side does at each step. loss is the most that the
// other side may lose of what it was promised, fees and reserve included.
var rollAttacks = []rollAttack{
	{"offered: the payer publishes early", stepOffered, true, rollFees, func(s *scene) {
		if err := s.node.Ledger.Broadcast(s.t.Context(), s.offer.Tx); !errors.Is(err, settle.ErrRejected) {
			s.t.Errorf("a roll without the payee's signature: got %v", err)
		}
	}},
	{"offered: the payer double-spends", stepOffered, true, rollFees, func(s *scene) {
		s.takeAway()
		mine(s.t, s.node, 1)
		if _, err := s.payee.m.AcceptRoll(s.t.Context(), s.offer); !errors.Is(err, settle.ErrFunding) {
			s.t.Errorf("a roll whose coin is spent: got %v", err)
		}
	}},
	{"offered: the payer stops answering", stepOffered, true, rollFees, func(s *scene) { s.payer.stop() }},
	{"accepted: the payer publishes early", stepAccepted, true, rollFees, func(s *scene) {
		s.payer.stop()
		s.must(s.node.Ledger.Broadcast(s.t.Context(), s.raw))
		mine(s.t, s.node, 1)
	}},
	{"accepted: the payer double-spends", stepAccepted, true, rollFees, func(s *scene) { s.takeAway() }},
	{"accepted: the payer stops answering", stepAccepted, true, rollFees, func(s *scene) { s.payer.stop() }},
	{"completed: the payer double-spends", stepCompleted, true, sceneAlone + rollFees, func(s *scene) { s.takeAway() }},
	{"completed: the payer pays more than is trusted, then double-spends", stepCompleted, true, sceneTrust + rollFees, (*scene).payTooMuch},
	{"completed: the payer stops answering", stepCompleted, true, rollFees, func(s *scene) { s.payer.stop() }},
	{"mined: the payer double-spends in a reorganisation of 6", stepMined, true, sceneAlone + rollFees, func(s *scene) {
		mine(s.t, s.node, sceneReorg-1)
		s.must(s.node.TakeBack(s.t.Context(), sceneReorg))
		s.takeAway()
		mine(s.t, s.node, sceneReorg+1)
	}},
	{"mined: the payer stops answering", stepMined, true, rollFees, func(s *scene) { s.payer.stop() }},
	{"done: the payer double-spends in a reorganisation of 6", stepDone, true, rollFees, func(s *scene) {
		s.must(s.node.TakeBack(s.t.Context(), sceneReorg))
		if err := s.node.Ledger.Broadcast(s.t.Context(), s.elsewhere); !errors.Is(err, settle.ErrRejected) {
			s.t.Errorf("the roll's coin after it was buried: got %v", err)
		}
		mine(s.t, s.node, sceneReorg+1)
	}},
	{"done: the payer stops answering", stepDone, true, rollFees, func(s *scene) { s.payer.stop() }},

	{"offered: the payee refuses, then publishes", stepOffered, false, reserve + rollFees, func(s *scene) {
		s.must(s.payer.m.WithdrawRoll(s.t.Context(), s.id))
		if _, err := s.payee.m.AcceptRoll(s.t.Context(), s.offer); err != nil {
			s.t.Fatal(err)
		}
		if _, err := s.payer.m.Pay(s.t.Context(), s.id, entry("a", s.signed+50_000)); err == nil {
			s.signed += 50_000 // which the payee cannot have any more
		}
		mine(s.t, s.node, 1)
	}},
	{"offered: the payee claims the predecessor", stepOffered, false, reserve + rollFees, func(s *scene) { s.claim() }},
	{"offered: the payee stops answering", stepOffered, false, rollFees, func(s *scene) { s.payee.stop() }},
	{"accepted: the payee stops answering", stepAccepted, false, rollFees, func(s *scene) { s.payee.stop() }},
	{"accepted: the payee claims the predecessor", stepAccepted, false, reserve + rollFees, func(s *scene) { s.claim() }},
	{"completed: the payee claims the predecessor", stepCompleted, false, reserve + rollFees, func(s *scene) { s.claim() }},
	{"completed: the payee stops answering", stepCompleted, false, rollFees, func(s *scene) { s.payee.stop() }},
	{"mined: the payee claims in a reorganisation of 6", stepMined, false, reserve + rollFees, func(s *scene) {
		mine(s.t, s.node, sceneReorg-1)
		s.must(s.node.TakeBack(s.t.Context(), sceneReorg))
		if _, err := s.payee.m.Claim(s.t.Context(), s.id); err != nil && !errors.Is(err, settle.ErrRejected) && !errors.Is(err, settle.ErrClosed) {
			s.t.Fatal(err)
		}
		mine(s.t, s.node, sceneReorg+1)
	}},
	{"mined: the payee stops answering", stepMined, false, rollFees, func(s *scene) { s.payee.stop() }},
	{"done: the payee stops answering in a reorganisation of 6", stepDone, false, rollFees, func(s *scene) {
		s.payee.stop()
		s.must(s.node.TakeBack(s.t.Context(), sceneReorg))
		mine(s.t, s.node, sceneReorg+1)
	}},
}

// payTooMuch pays over the successor as much as the payee takes, and then takes
// the roll's coin away.
func (s *scene) payTooMuch() {
	s.t.Helper()
	for _, more := range []pktcloud.Amount{10_000, 1_000, 500_000} {
		p, err := s.payer.m.PayRolling(s.t.Context(), s.to, entry("a", s.signed+more))
		if err == nil && s.payee.m.ReceiveRolling(s.t.Context(), p) == nil {
			s.signed += more
			s.held = s.signed
		}
	}
	s.takeAway()
}

func (s *scene) claim() {
	s.t.Helper()
	_, err := s.payee.m.Claim(s.t.Context(), s.id)
	s.must(err)
}

// TestRollAttacked lets either side attack a roll at each of its steps, on a real
// node under standard policy. Whoever is honest keeps what it was promised, but
// for the limits.
func TestRollAttacked(t *testing.T) {
	node := nodetest.New(t)
	payer, payee := sat(t, node, 1, 1), sat(t, node, 2, 2)
	for _, o := range []*party{payer, payee} {
		o.cfg.MarginBlocks = sceneMargin
		o.start()
	}
	// lost runs an attack, and returns what the honest side is short of.
	lost := func(t *testing.T, c rollAttack, trust pktcloud.Amount) pktcloud.Amount {
		t.Helper()
		s := newScene(t, node, payer, payee, trust)
		defer func() { // whoever was gone is back for the next
			for _, o := range []*party{payer, payee} {
				o.stop()
				o.start()
			}
		}()
		s.reach(c.step)
		c.do(s)
		if c.byPayer {
			s.finish(payee)
			return (s.held + reserve).SubFloor(s.balance(payee) - s.payeeHad) // a claim brings the reserve as well
		}
		s.finish(payer)
		return s.payerHad.SubFloor(s.balance(payer)).SubFloor(s.signed)
	}
	for _, c := range rollAttacks {
		t.Run(c.name, func(t *testing.T) {
			got := lost(t, c, sceneTrust)
			t.Logf("lost %d of at most %d units", uint64(got), uint64(c.loss))
			if got > c.loss {
				t.Errorf("the honest side lost %d units, want at most %d", uint64(got), uint64(c.loss))
			}
		})
	}
	t.Run("seeded: a payee that trusts without limit loses more", func(t *testing.T) {
		c := rollAttack{step: stepCompleted, byPayer: true, do: (*scene).payTooMuch}
		if got := lost(t, c, sceneCapacity); got <= sceneTrust+rollFees {
			t.Errorf("got a loss of %d units, want more than the limit: the test notices nothing", uint64(got))
		}
	})
}
