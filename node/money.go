package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// rebroadcastEvery is how often the wallet offers its payments again.
const rebroadcastEvery = 10 * time.Minute

// WalletBalance returns what the wallet holds.
func (n *Node) WalletBalance(ctx context.Context) (service.Balance, error) {
	b, err := n.wallet.Balance(ctx)
	if err != nil {
		return service.Balance{}, translate(err)
	}
	tip, err := n.ledger.Tip(ctx)
	if err != nil {
		return service.Balance{}, translate(err)
	}
	out := service.Balance{
		Spendable: b.Confirmed, Unconfirmed: b.Unconfirmed, Reserved: b.Reserved, Height: tip.Height, Network: n.network.Rail,
	}
	for _, s := range n.manager.List() {
		if s.Role == settle.Payer && s.Announced && !s.Phase.Final() && s.ClosingTxID == ([32]byte{}) {
			out.Reserved += s.Params.Capacity
		}
	}
	for _, r := range n.manager.Restored() {
		if !r.Adopted && r.ClosingTxID == ([32]byte{}) {
			out.Reserved += r.Capacity
		}
	}
	return out, nil
}

// WalletAddress returns a fresh receiving address.
func (n *Node) WalletAddress(ctx context.Context) (service.Address, error) {
	a, err := n.wallet.NewAddress(ctx)
	return service.Address{Address: a}, translate(err)
}

// WalletHistory returns what the channels moved, newest first.
func (n *Node) WalletHistory(ctx context.Context) ([]service.Movement, error) {
	began := map[pktcloud.ID]int64{}
	for _, v := range n.views() {
		began[v.Terms.Channel] = v.Agreed
	}
	moves := []service.Movement{}
	for _, s := range n.manager.List() {
		at := began[s.ID]
		if s.Role == settle.Payer && s.Announced {
			moves = append(moves, service.Movement{TxID: txid(s.FundingTxID), Sent: s.Params.Capacity, Depth: s.Depth, Time: at, Note: "reserved for a lease"})
		}
		if s.ClosingTxID == ([32]byte{}) {
			continue
		}
		end, ok := n.endOf(ctx, s)
		if !ok {
			continue
		}
		m := service.Movement{TxID: txid(s.ClosingTxID), Depth: s.ClosingDepth, Time: at}
		if s.Role == settle.Payer {
			m.Received, m.Fee, m.Note = end.Payer, end.Fee, "came back from a lease"
		} else {
			m.Received, m.Note = end.Payee, "earned by a lease"
		}
		moves = append(moves, m)
	}
	moves = append(moves, n.restoredMoves()...)
	slices.SortStableFunc(moves, func(a, b service.Movement) int { return cmp.Compare(b.Time, a.Time) })
	return moves, nil
}

// restoredMoves are the channels that the phrase alone brought back.
func (n *Node) restoredMoves() []service.Movement {
	var moves []service.Movement
	for _, r := range n.manager.Restored() {
		m := service.Movement{TxID: txid(r.Funding.TxID), Sent: r.Capacity}
		switch {
		case r.Adopted:
			continue
		case r.ClosingTxID == [32]byte{}:
			m.Note = fmt.Sprintf("in a channel that the phrase brought back; returns from block %d on", r.Expiry)
		case r.Refunded:
			m.TxID, m.Sent, m.Received, m.Depth = txid(r.ClosingTxID), 0, r.Returned, r.ClosingDepth
			m.Note = "came back from a channel of the phrase"
		default:
			m.TxID, m.Sent, m.Depth = txid(r.ClosingTxID), 0, r.ClosingDepth
			m.Note = "a channel of the phrase was closed by who it paid"
		}
		moves = append(moves, m)
	}
	return moves
}

// endOf says what the transaction that closed a channel paid. Of one that closed
// before the manager kept that, the chain is asked.
func (n *Node) endOf(ctx context.Context, s manager.Status) (pktchain.End, bool) {
	if s.End.TxID != ([32]byte{}) {
		return s.End, true
	}
	c, err := pktchain.ChannelOf(n.network, s.Params)
	if err != nil {
		return pktchain.End{}, false
	}
	out, err := n.ledger.Output(ctx, c.Detail.Funding)
	if err != nil || out.Spend == nil {
		return pktchain.End{}, false
	}
	end, err := c.EndOf(out.Spend.Raw)
	return end, err == nil
}

// keepWallet finds what the seed owns already, then offers its payments again
// from time to time.
func (n *Node) keepWallet(ctx context.Context) error {
	restored := false
	wait := time.Second
	for {
		var err error
		if !restored {
			err = n.wallet.Restore(ctx)
			restored = err == nil
			if restored {
				err = n.keepBirthday()
			}
		} else {
			err = n.wallet.Rebroadcast(ctx)
		}
		if err != nil && ctx.Err() == nil {
			n.cfg.Log.Debug("the wallet asks the chain", "error", err)
		}
		pause := rebroadcastEvery
		if !restored {
			pause, wait = wait, min(2*wait, time.Minute)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}
