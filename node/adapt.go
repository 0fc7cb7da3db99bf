package node

import (
	"context"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// channels is the manager as lease/peer asks for it, on both sides.
type channels struct{ *manager.Manager }

var (
	_ peer.Payer        = channels{}
	_ peer.OpenChannels = channels{}
	_ peer.Payee        = channels{}
	_ peer.RollingPayer = channels{}
	_ peer.RollingPayee = channels{}
)

// Open implements peer.Payer.
func (c channels) Open(ctx context.Context, r peer.OpenRequest) (params settle.Params, funding []byte, err error) {
	return c.Manager.Open(ctx, manager.OpenRequest(r))
}

// ChannelStatus implements peer.Payer and peer.Payee.
func (c channels) ChannelStatus(ctx context.Context, channel pktcloud.ID) (peer.ChannelStatus, error) {
	s, err := c.Status(ctx, channel)
	if err != nil {
		return peer.ChannelStatus{}, err
	}
	return peer.ChannelStatus{
		Params: s.Params, Phase: s.Phase, Funded: s.Funded, Depth: s.Depth, Height: s.Height, OutOfSight: s.OutOfSight, Paid: s.Paid, ClosingTx: s.ClosingTxID,
	}, nil
}

// Payment implements peer.Rolls.
func (c channels) Payment(channel pktcloud.ID) (peer.Payment, bool) {
	p, ok := c.Manager.Payment(channel)
	return peer.Payment(p), ok
}

// PayRolling implements peer.RollingPayer.
func (c channels) PayRolling(ctx context.Context, successor pktcloud.ID, e settle.Entry) (peer.Payment, error) {
	p, err := c.Manager.PayRolling(ctx, successor, e)
	return peer.Payment(p), err
}

// ReceiveRolling implements peer.RollingPayee.
func (c channels) ReceiveRolling(ctx context.Context, p peer.Payment) error {
	return c.Manager.ReceiveRolling(ctx, manager.RollPayment(p))
}
