package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

const (
	// recallAgain is how soon towers that said nothing are asked again for what
	// they keep, and recallAll how often all are: a deposit that another machine
	// made shows only there.
	recallAgain = 30 * time.Second
	recallAll   = time.Hour
	// resumeEvery is how often peers that came are asked for restored channels,
	// resumeAgain how soon one peer is asked again for one that it does not have,
	// and resumeSoon, when it did not answer, was busy, or the chain did not.
	resumeEvery = 5 * time.Second
	resumeAgain = 10 * time.Minute
	resumeSoon  = 10 * time.Second
	// resumeAtOnce bounds the questions of one round.
	resumeAtOnce = 64
)

// recallDeposits asks the towers for the channels that this phrase earned by, as
// after the loss of a directory [TOWER-32].
func (n *Node) recallDeposits(ctx context.Context) error {
	last := time.Time{}
	for ctx.Err() == nil {
		all := time.Since(last) > recallAll
		if err := n.towers.depositor.Recall(ctx, all, n.manager.Recall); err != nil && ctx.Err() == nil {
			n.cfg.Log.Info("not every tower said what it keeps for this phrase", "error", err)
		}
		if all {
			last = time.Now()
		}
		pause := recallAll
		for _, s := range n.towers.depositor.Supplies() {
			if !s.Told {
				pause = recallAgain
			}
		}
		wait(ctx, pause)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// answerResume shows channels to the other side that lost them.
func (n *Node) answerResume(ctx context.Context) error {
	n.serveStreams(ctx, manager.ResumeProtocol, func(ctx context.Context, conn net.Conn, remote pktcloud.PublicKey) {
		if err := n.manager.ServeResume(ctx, conn, remote); err != nil {
			n.cfg.Log.Debug("no channel shown", "to", remote, "error", err)
		}
	})
	return nil
}

// askResume asks the peers that are connected for the channels that came back
// without what was paid over them. The other side may have any of them.
func (n *Node) askResume(ctx context.Context) error {
	type question struct {
		peer    string
		channel settle.Outpoint
	}
	next := map[question]time.Time{}
	for ctx.Err() == nil {
		now, round := time.Now(), 0
		for q, at := range next {
			if now.After(at) {
				delete(next, q)
			}
		}
		for _, channel := range n.manager.Lost() {
			for _, id := range n.host.Network().Peers() {
				q := question{string(id), channel}
				if _, done := next[q]; done || round >= resumeAtOnce {
					continue
				}
				round++
				resumed, err := n.askForOne(ctx, id, channel)
				if err == nil {
					n.cfg.Log.Info("the other side of a channel showed it", "channel", resumed, "peer", id)
					break
				}
				n.cfg.Log.Debug("a channel of the phrase was not shown", "peer", id, "error", err)
				next[q] = now.Add(resumePause(err))
			}
		}
		wait(ctx, resumeEvery)
	}
	return nil
}

// resumePause is how soon a question that ended with an error is asked again.
func resumePause(err error) time.Duration {
	if _, refused := errors.AsType[*settle.Error](err); refused && !errors.Is(err, settle.ErrBusy) {
		return resumeAgain
	}
	return resumeSoon
}

func (n *Node) askForOne(ctx context.Context, from peer.ID, channel settle.Outpoint) (pktcloud.ID, error) {
	conn, err := n.stream(ctx, from, manager.ResumeProtocol)
	if err != nil {
		return pktcloud.ID{}, err
	}
	return n.manager.AskResume(ctx, conn, channel)
}

// CloseChannel closes a channel over which nothing more is paid, so that its money
// need not wait for the expiry: one that came back by its phrase or, as payee, one
// without a lease.
func (n *Node) CloseChannel(ctx context.Context, name string) (service.ChannelView, error) {
	v, err := n.Channel(ctx, name)
	if err != nil {
		return v, err
	}
	id, err := pktcloud.ParseID(v.ID)
	i := slices.IndexFunc(n.manager.List(), func(s manager.Status) bool { return s.ID == id })
	if err == nil && i >= 0 && v.Role == settle.Payee.String() {
		return n.claimChannel(ctx, id, name)
	}
	if err != nil || i < 0 || !v.Restored || v.Role != settle.Payer.String() {
		return v, service.Errorf(service.CodeInvalid, "a channel that you paid by is closed by hand only when it came back with the phrase and its other side has shown it; others close with their lease")
	}
	to, err := session.PeerOf(v.Peer)
	if err != nil {
		return v, translate(err)
	}
	conn, err := n.stream(ctx, to, manager.ResumeProtocol)
	if err != nil {
		return v, service.Errorf(service.CodeUnreachable, "the other side is not connected: %s", bare(err))
	}
	if err := n.manager.AskClose(ctx, conn, id); err != nil {
		return v, translate(err)
	}
	return n.Channel(ctx, name)
}

// claimChannel takes what a channel paid, where no lease may pay more by it; the
// rest goes back to its payer in the same transaction.
func (n *Node) claimChannel(ctx context.Context, id pktcloud.ID, name string) (service.ChannelView, error) {
	for _, v := range n.leasesOfChannels()[id] {
		if !v.Phase.Final() {
			return service.ChannelView{}, service.Errorf(service.CodeConflict, "lease %s is paid by this channel; close the lease, and the channel closes with it", n.labels()[v.ID])
		}
	}
	if _, err := n.manager.Claim(ctx, id); err != nil {
		return service.ChannelView{}, translate(err)
	}
	return n.Channel(ctx, name)
}

// restoredChannels are the channels that the phrase brought back and that nobody
// has shown, for their owner: the soonest to come back first.
func (n *Node) restoredChannels() []service.ChannelView {
	var all []service.ChannelView
	var names []string
	list := slices.DeleteFunc(n.manager.Restored(), func(r manager.Restored) bool { return r.Adopted })
	slices.SortFunc(list, func(a, b manager.Restored) int {
		return cmp.Or(cmp.Compare(a.From, b.From), bytes.Compare(a.Funding.TxID[:], b.Funding.TxID[:]))
	})
	for _, r := range list {
		names = append(names, wallet.FormatOutpoint(r.Funding))
	}
	size := digitsOf(names)
	height, _ := n.manager.Searched()
	for _, r := range list {
		w := words{Status: manager.Status{Height: height}, payer: r.Role == settle.Payer, blockTime: n.network.BlockTime}
		id := wallet.FormatOutpoint(r.Funding)
		all = append(all, service.ChannelView{
			ID: id, Label: id[:size], Role: r.Role.String(), Phase: restoredPhase(r), Restored: true, Leases: []string{},
			Capacity: r.Capacity, Paid: r.Claim, Height: height, Deadline: r.From, Expiry: r.Expiry,
			Now: w.restored(r), Steps: w.restoredSteps(r),
		})
	}
	return all
}

func restoredPhase(r manager.Restored) string {
	switch {
	case r.ClosingTxID == [32]byte{}:
		return "restored"
	case r.ClosingDepth == 0:
		return settle.Closing.String()
	case r.Refunded:
		return settle.Refunded.String()
	}
	return settle.Closed.String()
}

// restored is one sentence on a channel that the phrase brought back.
func (w words) restored(r manager.Restored) string {
	if r.ClosingTxID != ([32]byte{}) {
		switch {
		case r.ClosingDepth == 0:
			return "Closing: the transaction that shares the money out waits for a block."
		case w.payer && r.Refunded:
			return fmt.Sprintf("Refunded: %s came back to the wallet.", r.Returned)
		case w.payer:
			return "Closed by who it paid, for what you had paid."
		case r.Refunded:
			return "Refunded: the other side took its money back."
		}
		return fmt.Sprintf("Closed: %s came to the wallet.", r.Returned)
	}
	text := w.pick(
		fmt.Sprintf("The phrase brought it back: all of it returns to the wallet by itself from %s on, less what the other side claims before.", w.until(r.From)),
		fmt.Sprintf("A tower gave it back: this node claims %s of it by itself, reserve included and less the fee, from %s on.", r.Claim, w.until(r.From)))
	if r.Other {
		return text + " Another machine with your phrase opened it; let one machine alone use a phrase."
	}
	return text + w.pick(" If the other side is met again, it may be closed sooner.", " If the other side is met again, what was paid since the last deposit comes too.")
}

func (w words) restoredSteps(r manager.Restored) []service.Step {
	begin := service.Step{
		Name: "Opening", State: "done", TxID: txid(r.Funding.TxID),
		Text: w.pick(fmt.Sprintf("You set aside %s, in block %d.", r.Capacity, r.Height), fmt.Sprintf("The other side set aside %s, in block %d.", r.Capacity, r.Height)),
	}
	back := service.Step{Name: "Restored", State: "now", Text: w.pick("Found on the chain by your phrase; what was paid over it is known to the other side alone.",
		"Given back by a tower; what was paid after your last deposit is known to the other side alone.")}
	end := service.Step{Name: "Closed", State: "ahead", Text: w.restored(r)}
	if r.ClosingTxID != ([32]byte{}) {
		back.State, end.State, end.TxID, end.Depth = "done", "now", txid(r.ClosingTxID), r.ClosingDepth
		if r.ClosingDepth > 0 {
			end.State = "done"
		}
	}
	return []service.Step{begin, back, end}
}

// restoreProblem says what of the phrase's channels is still looked for at
// towers, and what they withhold, or nothing.
func (n *Node) restoreProblem() []string {
	d := n.towers.depositor
	if d == nil {
		return nil
	}
	var silent []string
	for _, s := range d.Supplies() {
		if !s.Told {
			silent = append(silent, s.Name)
		}
	}
	if len(silent) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("Still asking for earlier channels of this phrase that towers keep; these have not said yet: %s.", strings.Join(silent, ", "))}
}
