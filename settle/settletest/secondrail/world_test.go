package secondrail_test

import (
	"errors"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/settletest/secondrail"
)

const money = 1 << 50 // of a new payer

// open makes a channel of 100,000 units that both sides have.
func open(t *testing.T, w *secondrail.World, p *secondrail.Payer) pktcloud.ID {
	t.Helper()
	detail, err := w.Payee().PayeeDetail(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	params, funding, err := p.Open(t.Context(), secondrail.OpenRequest{
		Payee: pktcloud.NewPrivateKey([32]byte{2}).Public(), PayeeDetail: detail, Capacity: 100_000, Unconfirmed: 500, MinDepth: 3, LifetimeBlocks: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := w.Payee().Accept(t.Context(), params, funding)
	if err != nil {
		t.Fatal(err)
	}
	other := params
	other.Capacity++
	if _, err := w.Payee().Accept(t.Context(), other, funding); !errors.Is(err, settle.ErrFunding) {
		t.Errorf("a funding of less than the capacity: got %v", err)
	}
	return id
}

func pay(t *testing.T, w *secondrail.World, p *secondrail.Payer, id pktcloud.ID, units pktcloud.Amount) error {
	t.Helper()
	v, err := p.Pay(t.Context(), id, settle.Entry{Lease: pktcloud.IDOf([]byte("lease")), Cumulative: units})
	if err != nil {
		return err
	}
	forged := v
	forged.Body.Proof = make([]byte, 64)
	if forged, err = pktcloud.Seal(pktcloud.NewPrivateKey([32]byte{1}), forged.Body); err != nil {
		t.Fatal(err)
	}
	if err := w.Payee().Receive(t.Context(), forged); !errors.Is(err, settle.ErrProof) {
		t.Errorf("a voucher without the account's signature: got %v", err)
	}
	return w.Payee().Receive(t.Context(), v)
}

// TestRoundTrips takes each way out of a channel; the money is right to the unit.
func TestRoundTrips(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(w *secondrail.World, p *secondrail.Payer, id pktcloud.ID) error
		want pktcloud.Amount
	}{
		{"close", func(w *secondrail.World, p *secondrail.Payer, id pktcloud.ID) error {
			o, err := p.OfferClose(t.Context(), id, 7_100)
			if err != nil {
				return err
			}
			_, err = w.Payee().CompleteClose(t.Context(), id, o)
			return err
		}, 7_100},
		{"claim", func(w *secondrail.World, _ *secondrail.Payer, id pktcloud.ID) error {
			_, err := w.Payee().Claim(t.Context(), id)
			return err
		}, 7_000},
		{"refund", func(w *secondrail.World, p *secondrail.Payer, id pktcloud.ID) error {
			if err := p.Refund(t.Context(), id); !errors.Is(err, settle.ErrEarly) {
				t.Errorf("a refund before expiry: got %v", err)
			}
			w.Pass(100)
			return p.Refund(t.Context(), id)
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := secondrail.New()
			p := w.Payer(pktcloud.NewPrivateKey([32]byte{1}))
			given := open(t, w, p)
			id := open(t, w, p)
			if err := p.Announce(t.Context(), id); err != nil || w.Announced(id) {
				t.Errorf("a nonce before its turn: got %v, on the chain %v", err, w.Announced(id))
			}
			if err := p.Abandon(t.Context(), given); err != nil || !w.Announced(id) {
				t.Errorf("the nonce was used up for nothing: got %v, on the chain %v", err, w.Announced(id))
			}
			if err := pay(t, w, p, id, 501); !errors.Is(err, settle.ErrUnconfirmed) {
				t.Errorf("before the receipt is final: got %v", err)
			}
			w.Confirm(1)
			if err := pay(t, w, p, id, 7_000); err != nil {
				t.Fatal(err)
			}
			if err := c.end(w, p, id); err != nil {
				t.Fatal(err)
			}
			got, ok := w.Settled(id)
			if !ok || got != c.want || w.Balance(w.Payee().Account()) != c.want || w.Balance(p.Account()) != money-c.want {
				t.Errorf("got %d units, balances of %d and %d, want %d", got, w.Balance(w.Payee().Account()), w.Balance(p.Account()), c.want)
			}
			if st, err := p.ChannelStatus(t.Context(), id); err != nil || st.Phase != settle.Closing {
				t.Errorf("before the receipt is final: got %v, %v", st.Phase, err)
			}
			w.Confirm(1)
			if st, err := p.ChannelStatus(t.Context(), id); err != nil || !st.Phase.Final() {
				t.Errorf("after the receipt is final: got %v, %v", st.Phase, err)
			}
		})
	}
}
