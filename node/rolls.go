package node

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// askRollsEvery is how often an offer of a roll is repeated that was not answered.
const askRollsEvery = 5 * time.Second

// RollChannel adds money or time to a channel that this node pays by: it offers
// its provider a successor. An offer that is not answered at once is repeated until
// it is.
func (n *Node) RollChannel(ctx context.Context, name string, r service.RollRequest) (service.Roll, error) {
	v, err := n.Channel(ctx, name)
	if err != nil {
		return service.Roll{}, err
	}
	id, err := pktcloud.ParseID(v.ID)
	if err != nil || v.Restored || v.Role != settle.Payer.String() {
		return service.Roll{}, service.Errorf(service.CodeInvalid, "only a channel that you pay by takes money or time, and none that came back with the phrase")
	}
	st, err := n.manager.Status(ctx, id)
	if err != nil {
		return service.Roll{}, translate(err)
	}
	if st.Phase == settle.Rolling {
		return service.Roll{}, n.rollingAlready(ctx, st)
	}
	ask, err := n.rollRequest(st, r)
	if err != nil {
		return service.Roll{}, err
	}
	p, fee, err := n.manager.PlanRoll(ctx, id, ask)
	if err != nil {
		return service.Roll{}, n.rollError(ctx, err)
	}
	roll := service.Roll{
		Channel: v.ID, Capacity: p.Capacity, Expiry: p.ExpiryHeight, Depth: p.MinDepth, Added: p.Capacity.SubFloor(st.Params.Capacity), Fee: fee,
		Height: st.Height, Seconds: n.untilHeight(st.Height, p.ExpiryHeight),
	}
	if b, err := n.WalletBalance(ctx); err == nil {
		roll.Left = b.Spendable.SubFloor(roll.Added + fee)
	}
	if r.Plan {
		return roll, nil
	}
	conn, err := n.payee(ctx, st)
	if err != nil { // before anything is signed
		return service.Roll{}, service.Errorf(service.CodeUnreachable, "the provider is not connected, and nothing was changed; try again while its lease runs: %s", bare(err))
	}
	if _, err := n.manager.RollWithin(ctx, id, ask, r.MaxFee); err != nil {
		return service.Roll{}, errors.Join(n.rollError(ctx, err), conn.Close())
	}
	to, err := n.manager.AskRoll(ctx, conn, id)
	switch {
	case err == nil:
		roll.Into = to.String()
	case errors.Is(err, settle.ErrBusy):
		return service.Roll{}, service.Errorf(service.CodeUnreachable, "the provider cannot judge this now, and nothing was changed; try again in a minute: %s", bare(err))
	case n.withdrawn(ctx, id):
		return service.Roll{}, &service.Error{Code: service.CodeRefused, Err: &told{"the provider refuses: " + plain(err).Error(), err}}
	default:
		n.cfg.Log.Info("the offer of a roll is not answered yet", "channel", id, "error", err)
	}
	return roll, nil
}

// rollRequest is what was asked for, within what the provider takes.
func (n *Node) rollRequest(st manager.Status, r service.RollRequest) (manager.RollRequest, error) {
	var none manager.RollRequest
	if r.Add == 0 && r.ExtendSeconds == 0 {
		return none, service.Errorf(service.CodeInvalid, "say what to add: money, time or both")
	}
	if r.ExtendSeconds > service.MaxExtendDays*24*3600 {
		return none, service.Errorf(service.CodeInvalid, "a roll adds at most %d days", service.MaxExtendDays)
	}
	if need := st.Params.MinDepth; st.Phase == settle.Opening && st.Depth < need {
		return none, service.Errorf(service.CodeConflict, "the channel is too new: the transaction that funds it %s, and %d are wanted before a roll; try again after the next %s",
			confirmations(st.Depth), need, blocks(need-st.Depth))
	}
	rail, ok := n.tenant.RollRail(st.ID)
	if !ok {
		return none, service.Errorf(service.CodeConflict, "no lease runs on this channel; the next lease opens one with what it needs")
	}
	capacity, err := st.Params.Capacity.Add(r.Add)
	if err != nil || capacity > rail.MaxCapacity {
		return none, service.Errorf(service.CodeInvalid, "the provider takes channels of up to %s; add at most %s", rail.MaxCapacity, rail.MaxCapacity.SubFloor(st.Params.Capacity))
	}
	ask := manager.RollRequest{Capacity: capacity, MinDepth: settle.Depths{Least: rail.MinDepth, Step: rail.DepthStep}.For(capacity)}
	if r.ExtendSeconds > 0 { // as many blocks as may come in that time, and no fewer
		ask.ExtendBlocks = r.ExtendSeconds/settle.SecondsPerBlock + 1
	}
	return ask, nil
}

// blocks is a number of them.
func blocks(n uint64) string {
	if n == 1 {
		return "block"
	}
	return strconv.FormatUint(n, 10) + " blocks"
}

// rollingAlready says what has to come before a channel takes more.
func (n *Node) rollingAlready(ctx context.Context, st manager.Status) error {
	to, err := n.manager.Status(ctx, st.Into)
	if err != nil {
		return translate(err)
	}
	added := to.Params.Capacity.SubFloor(st.Params.Capacity)
	if len(n.manager.Successors(st.ID)) == 0 {
		return service.Errorf(service.CodeConflict, "%s are being added already, and the provider has not answered; nothing was added to that", added)
	}
	return service.Errorf(service.CodeConflict, "%s are being added already, with %d of %d confirmations; nothing was added to that: add to channel %s once it is open", added, to.Depth, to.Params.MinDepth, st.Into)
}

// untilHeight is about how many seconds pass until a block comes.
func (n *Node) untilHeight(now, height uint64) uint64 {
	return uint64(float64(height-min(now, height)) * n.network.BlockTime.Seconds()) // for the eye only
}

// withdrawn reports whether a channel's offer was taken back.
func (n *Node) withdrawn(ctx context.Context, id pktcloud.ID) bool {
	st, err := n.manager.Status(ctx, id)
	return err == nil && st.Phase != settle.Rolling && st.Phase != settle.Rolled
}

// rollError is why no roll was offered.
func (n *Node) rollError(ctx context.Context, err error) error {
	switch translated := translate(err); {
	case service.CodeOf(translated) == service.CodeMoney && !errors.Is(err, settle.ErrUnconfirmed) && !errors.Is(err, settle.ErrCapacity):
		return n.tooLittle(ctx, err)
	case errors.Is(err, settle.ErrFee):
		return &service.Error{Code: service.CodeMoney, Err: plain(err)}
	case errors.Is(err, settle.ErrUnconfirmed), errors.Is(err, settle.ErrClosed), errors.Is(err, settle.ErrLate), errors.Is(err, settle.ErrRolling):
		return &service.Error{Code: service.CodeConflict, Err: plain(err)}
	default:
		return translated
	}
}

// payee is a stream to the payee of a channel, if it is connected.
func (n *Node) payee(ctx context.Context, st manager.Status) (net.Conn, error) {
	to, err := session.PeerOf(st.Params.Payee)
	if err != nil {
		return nil, err
	}
	return n.stream(ctx, to, manager.RollProtocol)
}

// askRolls repeats the offers of rolls that are not answered [ROLL-33]. A payee
// that takes its time keeps no other waiting.
func (n *Node) askRolls(ctx context.Context) error {
	var asks sync.WaitGroup
	defer asks.Wait()
	for ctx.Err() == nil {
		for _, id := range n.manager.OfferedRolls() {
			asks.Go(func() {
				err := n.askRoll(ctx, id)
				n.cfg.Log.Info("the offer of a roll was repeated", "channel", id, "error", err)
			})
		}
		wait(ctx, askRollsEvery)
	}
	return nil
}

func (n *Node) askRoll(ctx context.Context, id pktcloud.ID) error {
	st, err := n.manager.Status(ctx, id)
	if err != nil {
		return err
	}
	conn, err := n.payee(ctx, st)
	if err != nil {
		return err
	}
	_, err = n.manager.AskRoll(ctx, conn, id)
	return err
}

// answerRolls signs, as provider, rolls that the leases of a channel allow.
func (n *Node) answerRolls(ctx context.Context) error {
	n.serveStreams(ctx, manager.RollProtocol, func(ctx context.Context, conn net.Conn, remote pktcloud.PublicKey) {
		err := n.manager.ServeRoll(ctx, conn, remote, func(_ context.Context, p manager.RollProposal) error {
			return n.provider.AdmitRoll(p.Channel, p.Successor, p.Latest)
		})
		if err != nil {
			n.cfg.Log.Info("a roll was not signed", "for", remote, "error", err)
		}
	})
	return nil
}
