package peer_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease/leasetest"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/settletest/secondrail"
)

// railFlag chooses what the leases of these tests are paid with.
var railFlag = flag.String("rail", leasetest.RailName, "pay over this `rail`: "+leasetest.RailName+" or "+secondrail.Name)

// bank is a chain with both sides' channels.
type bank interface {
	Payer(device pktcloud.PrivateKey) peer.Payer
	Payee() peer.Payee
	Confirm(n uint64)
	Refuse(refuse bool)
	Settled(channel pktcloud.ID) (pktcloud.Amount, bool)
}

func newBank() bank {
	if *railFlag == secondrail.Name {
		return accounts{secondrail.New()}
	}
	return twin{leasetest.NewBank()}
}

// twin is leasetest's bank.
type twin struct{ *leasetest.Bank }

func (b twin) Payer(device pktcloud.PrivateKey) peer.Payer { return b.Bank.Payer(device) }
func (b twin) Payee() peer.Payee                           { return b.Bank.Payee() }

// accounts is the second rail.
type accounts struct{ *secondrail.World }

func (w accounts) Payer(device pktcloud.PrivateKey) peer.Payer {
	return accountsPayer{w.World.Payer(device)}
}
func (w accounts) Payee() peer.Payee { return accountsPayee{w.World.Payee()} }

type accountsPayer struct{ *secondrail.Payer }

func (p accountsPayer) Open(ctx context.Context, r peer.OpenRequest) (settle.Params, []byte, error) {
	return p.Payer.Open(ctx, secondrail.OpenRequest(r))
}

func (p accountsPayer) ChannelStatus(ctx context.Context, channel pktcloud.ID) (peer.ChannelStatus, error) {
	st, err := p.Payer.ChannelStatus(ctx, channel)
	return peer.ChannelStatus(st), err
}

type accountsPayee struct{ *secondrail.Payee }

func (p accountsPayee) ChannelStatus(ctx context.Context, channel pktcloud.ID) (peer.ChannelStatus, error) {
	st, err := p.Payee.ChannelStatus(ctx, channel)
	return peer.ChannelStatus(st), err
}

// TestSecondRail runs all the other tests again, over accounts and nonces,
// Ed25519 and receipts. Nothing of package lease, lease/peer or settle knows of
// that rail.
func TestSecondRail(t *testing.T) {
	if *railFlag == secondrail.Name {
		t.Skip("this is the second run")
	}
	args := []string{"-rail", secondrail.Name, "-test.skip", "^TestSecondRail$", "-test.run", "^Test", "-test.timeout", "8m", "-test.parallel", "6"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	out, err := exec.CommandContext(t.Context(), os.Args[0], args...).CombinedOutput()
	if err != nil {
		t.Fatalf("over %s: %v\n%s", secondrail.Name, err, out)
	}
}
