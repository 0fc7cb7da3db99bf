package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// WalletBalance returns what the wallet holds.
func (n *Node) WalletBalance(ctx context.Context) (service.Balance, error) {
	b, err := n.wallet.Balance(ctx)
	if err != nil {
		return service.Balance{}, walletError(err)
	}
	tip, err := n.ledger.Tip(ctx)
	if err != nil {
		return service.Balance{}, walletError(err)
	}
	out := service.Balance{
		Spendable: b.Confirmed, Unconfirmed: b.Unconfirmed, Reserved: b.Reserved, Frozen: b.Frozen,
		Height: tip.Height, Network: n.network.Rail, Locked: n.wallet.Locked(),
	}
	for _, s := range n.manager.List() {
		rolls := len(n.manager.Successors(s.ID)) > 0 // then the successor holds it
		if s.Role == settle.Payer && s.Announced && !rolls && !s.Phase.Final() && s.ClosingTxID == ([32]byte{}) {
			out.Reserved += s.Params.Capacity
		}
	}
	for _, r := range n.manager.Restored() {
		if r.Role == settle.Payer && !r.Adopted && r.ClosingTxID == ([32]byte{}) {
			out.Reserved += r.Capacity
		}
	}
	return out, nil
}

// WalletAddress returns a fresh receiving address.
func (n *Node) WalletAddress(ctx context.Context, r service.AddressRequest) (service.Address, error) {
	a, err := n.wallet.NewAddressOf(ctx, r.Account)
	if err == nil && r.Label != "" {
		err = n.wallet.LabelAddress(ctx, a, r.Label)
	}
	return service.Address{Address: a}, walletError(err)
}

// WalletHistory returns what moved, newest first.
func (n *Node) WalletHistory(ctx context.Context, q service.HistoryQuery) ([]service.Movement, error) {
	if q.Skip < 0 || q.Limit < 0 {
		return nil, service.Errorf(service.CodeInvalid, "skip and limit are numbers from 0 on")
	}
	entries, err := n.entries(ctx, q)
	if err != nil {
		return nil, walletError(err)
	}
	opened, ended := map[[32]byte]manager.Status{}, map[[32]byte]manager.Status{}
	for _, s := range n.manager.List() {
		opened[s.FundingTxID], ended[s.ClosingTxID] = s, s
	}
	delete(ended, [32]byte{})
	restored := n.restoredNotes()
	leases, labels := n.leasesOfChannels(), n.labels()
	moves := make([]service.Movement, 0, len(entries))
	for _, e := range entries {
		m := n.movement(e)
		if s, ok := opened[e.TxID]; ok && s.Role == settle.Payer {
			m.Kind, m.Note, m.Addresses = service.KindChannelOpened, "Set aside in a channel for a lease.", []string{}
			m.Channel, m.Lease = s.ID.String(), sortedLabels(leases[s.ID], labels)
		}
		if s, ok := ended[e.TxID]; ok && opened[e.TxID].From == s.ID {
			m.Note = "Money or time added to the channel of a lease." // one transaction ended it and opened the next
			if s.Role == settle.Payer {                               // what left the wallet is what was added, and the fee
				added := opened[e.TxID].Params.Capacity.SubFloor(s.Params.Capacity)
				m.Sent, m.Fee = min(added, e.Sent), e.Sent.SubFloor(added)
			}
		} else if ok {
			m.Kind, m.Note = service.KindChannelEnded, "Came back from the channel of a lease."
			if s.Role == settle.Payee {
				m.Note = "Earned by a lease."
			}
			m.Channel, m.Lease = s.ID.String(), sortedLabels(leases[s.ID], labels)
		}
		if r, ok := restored[e.TxID]; ok {
			m.Kind, m.Note = r.kind, r.note
		}
		moves = append(moves, m)
	}
	return moves, nil
}

// restoredNote says what a transaction is to a channel that the phrase alone
// brought back.
type restoredNote struct {
	kind string
	note string
}

func (n *Node) restoredNotes() map[[32]byte]restoredNote {
	notes := map[[32]byte]restoredNote{}
	for _, r := range n.manager.Restored() {
		if r.Adopted {
			continue
		}
		if r.Role == settle.Payee {
			notes[r.ClosingTxID] = restoredNote{service.KindChannelEnded, "Earned by a channel that a tower gave back."}
			continue
		}
		begin := restoredNote{service.KindChannelOpened, "Set aside in a channel that the phrase brought back."}
		end := restoredNote{service.KindChannelEnded, "Came back from a channel of the phrase."}
		switch {
		case r.ClosingTxID == [32]byte{}:
			begin.note = fmt.Sprintf("In a channel that the phrase brought back; it returns from block %d on.", r.Expiry)
		case !r.Refunded:
			end.note = "A channel of the phrase was closed by the one it paid."
		}
		notes[r.Funding.TxID], notes[r.ClosingTxID] = begin, end
	}
	delete(notes, [32]byte{})
	return notes
}

// entries are those of the wallet's history that a query chooses.
func (n *Node) entries(ctx context.Context, q service.HistoryQuery) ([]wallet.Entry, error) {
	if q.TxID == "" {
		return n.wallet.HistoryPart(ctx, q.Skip, q.Limit)
	}
	id, err := parseTxID(q.TxID)
	if err != nil {
		return nil, err
	}
	e, ok, err := n.wallet.EntryOf(ctx, id)
	if err != nil || !ok {
		return nil, err
	}
	return []wallet.Entry{e}, nil
}

// movement is an entry of the wallet's history, for its owner.
func (n *Node) movement(e wallet.Entry) service.Movement {
	m := service.Movement{
		TxID: txid(e.TxID), Kind: service.KindReceived, Received: e.Received, Sent: e.Sent, Fee: e.Fee, Height: e.Height, Depth: e.Depth,
		Time: e.Time, Label: e.Label, Addresses: []string{}, Note: "Received.", Replaceable: e.Replaceable,
	}
	switch {
	case e.Sent > 0:
		m.Kind, m.Note = service.KindSent, "Paid."
	case e.Received == 0:
		m.Kind, m.Note = service.KindMoved, "Moved within the wallet."
	}
	for _, o := range e.Outputs {
		if a, err := n.network.Address(o.Script); err == nil && !slices.Contains(m.Addresses, a) {
			m.Addresses = append(m.Addresses, a)
		}
	}
	return m
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

// payment reads a request.
func (n *Node) payment(r service.PaymentRequest) (wallet.SendRequest, error) {
	script, err := n.wallet.ParseAddress(r.Address)
	if err != nil {
		return wallet.SendRequest{}, walletError(err)
	}
	if (r.Amount == 0) != r.All {
		return wallet.SendRequest{}, service.Errorf(service.CodeInvalid, "say how much to pay, or that it is all")
	}
	out := wallet.SendRequest{
		To: settle.Payment{Script: script, Amount: r.Amount}, All: r.All, FeeRate: r.FeeRate, MaxFee: r.MaxFee,
		Account: r.Account, Label: r.Label, Once: r.Once,
	}
	for _, c := range r.Coins {
		at, err := wallet.ParseOutpoint(c)
		if err != nil {
			return wallet.SendRequest{}, walletError(err)
		}
		out.From = append(out.From, at)
	}
	return out, nil
}

// WalletPlan says what a payment would cost.
func (n *Node) WalletPlan(ctx context.Context, r service.PaymentRequest) (service.Plan, error) {
	request, err := n.payment(r)
	if err != nil {
		return service.Plan{}, err
	}
	p, err := n.wallet.Plan(ctx, request)
	if err != nil {
		return service.Plan{}, n.payError(ctx, err)
	}
	out := service.Plan{Address: r.Address, Amount: p.Amount, Fee: p.Fee, Change: p.Change, Left: p.Left, VBytes: p.VBytes, Coins: []string{}}
	for _, at := range p.Inputs {
		out.Coins = append(out.Coins, wallet.FormatOutpoint(at))
	}
	return out, nil
}

// WalletSend makes a payment.
func (n *Node) WalletSend(ctx context.Context, r service.PaymentRequest) (service.Payment, error) {
	request, err := n.payment(r)
	if err != nil {
		return service.Payment{}, err
	}
	id, err := n.wallet.Send(ctx, request)
	return n.paid(ctx, id, err)
}

// WalletReplace raises the fee of a payment that waits for a block.
func (n *Node) WalletReplace(ctx context.Context, r service.ReplaceRequest) (service.Payment, error) {
	id, err := parseTxID(r.TxID)
	if err != nil {
		return service.Payment{}, err
	}
	id, err = n.wallet.Replace(ctx, id, r.FeeRate, r.MaxFee)
	return n.paid(ctx, id, err)
}

// paid answers for a payment: one that is stored was made, even if the chain
// has not heard of it.
func (n *Node) paid(ctx context.Context, id [32]byte, err error) (service.Payment, error) {
	stored := errors.Is(err, settle.ErrLedgerUnavailable) && id != ([32]byte{})
	if err != nil && !stored {
		return service.Payment{}, n.payError(ctx, err)
	}
	if stored {
		select {
		case n.vault.stored <- struct{}{}:
		default:
		}
	}
	n.vault.touch()
	n.hub.tell("wallet", "", "payment "+txid(id))
	return service.Payment{TxID: txid(id), Stored: stored}, nil
}

// payError says what to do about a payment that was not made.
func (n *Node) payError(ctx context.Context, err error) error {
	if errors.Is(err, wallet.ErrFunds) {
		return n.tooLittle(ctx, err)
	}
	return walletError(err)
}

// walletError is translate for what the owner asked of the wallet: what settle
// refuses there is the request's fault, not another side's.
func walletError(err error) error {
	if a, ok := errors.AsType[*wallet.AddressError](err); ok && a.Found != "" {
		return &service.Error{Code: service.CodeInvalid, Err: a}
	}
	for _, c := range []struct {
		err  error
		code service.Code
	}{
		{settle.ErrMalformed, service.CodeInvalid},
		{settle.ErrDust, service.CodeInvalid},
		{settle.ErrFee, service.CodeInvalid},
		{settle.ErrRejected, service.CodeRefused},
	} {
		if errors.Is(err, c.err) {
			return &service.Error{Code: c.code, Err: plain(err)}
		}
	}
	return translate(err)
}

// parseTxID reads a transaction's id as people write it.
func parseTxID(s string) (id [32]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, service.Errorf(service.CodeInvalid, "a transaction's id has 64 hexadecimal digits")
	}
	slices.Reverse(b)
	return [32]byte(b), nil
}

// WalletCoins returns the coins, the largest of each account first.
func (n *Node) WalletCoins(ctx context.Context, q service.CoinQuery) ([]service.Coin, error) {
	if q.Skip < 0 || q.Limit < 0 {
		return nil, service.Errorf(service.CodeInvalid, "skip and limit are numbers from 0 on")
	}
	coins, err := n.wallet.CoinsPart(ctx, q.Skip, q.Limit)
	if err != nil {
		return nil, walletError(err)
	}
	out := make([]service.Coin, 0, len(coins))
	for _, c := range coins {
		state := "free"
		switch {
		case c.Reserved:
			state = "reserved"
		case c.Frozen:
			state = "frozen"
		case !c.Mature:
			state = "waiting"
		}
		out = append(out, service.Coin{
			Coin: wallet.FormatOutpoint(c.At), Amount: c.Amount, Address: c.Address, Label: c.Label, Account: c.Account,
			Depth: c.Depth, State: state, IsChange: c.Change,
		})
	}
	return out, nil
}

// WalletFreeze sets a coin aside, or back.
func (n *Node) WalletFreeze(ctx context.Context, r service.FreezeRequest) (service.FreezeRequest, error) {
	at, err := wallet.ParseOutpoint(r.Coin)
	if err == nil {
		err = n.wallet.Freeze(ctx, at, r.Frozen)
	}
	return r, walletError(err)
}

// WalletLabel names an address or a transaction.
func (n *Node) WalletLabel(ctx context.Context, r service.LabelRequest) (service.LabelRequest, error) {
	switch {
	case (r.Address == "") == (r.TxID == ""):
		return r, service.Errorf(service.CodeInvalid, "name either an address or a transaction")
	case r.Address != "":
		return r, walletError(n.wallet.LabelAddress(ctx, r.Address, r.Label))
	}
	id, err := parseTxID(r.TxID)
	if err != nil {
		return r, err
	}
	return r, walletError(n.wallet.LabelTx(ctx, id, r.Label))
}

// WalletAccounts returns the accounts.
func (n *Node) WalletAccounts(ctx context.Context) ([]service.WalletAccount, error) {
	accounts, err := n.wallet.Accounts(ctx)
	if err != nil {
		return nil, walletError(err)
	}
	out := make([]service.WalletAccount, 0, len(accounts))
	for _, a := range accounts {
		b := a.Balance
		out = append(out, service.WalletAccount{
			Number: a.Number, Name: a.Name, Spendable: b.Confirmed, Unconfirmed: b.Unconfirmed, Reserved: b.Reserved, Frozen: b.Frozen,
		})
	}
	return out, nil
}

// WalletAddAccount makes the next account.
func (n *Node) WalletAddAccount(ctx context.Context, r service.AccountRequest) (service.WalletAccount, error) {
	number, err := n.wallet.AddAccount(ctx, r.Name)
	return service.WalletAccount{Number: number, Name: r.Name}, walletError(err)
}

// WalletSweep takes what a private key from elsewhere holds.
func (n *Node) WalletSweep(ctx context.Context, r service.SweepRequest) (service.Sweep, error) {
	key, err := wallet.ParseKey(n.network, r.Key)
	if err != nil {
		return service.Sweep{}, walletError(err)
	}
	var s wallet.Sweep
	if r.Plan {
		s, err = n.wallet.PlanSweep(ctx, key, r.FeeRate)
	} else {
		s, err = n.wallet.Sweep(ctx, key, r.FeeRate, r.MaxFee)
	}
	stored := errors.Is(err, settle.ErrLedgerUnavailable) && s.TxID != ([32]byte{})
	if err != nil && !stored {
		if errors.Is(err, wallet.ErrFunds) { // the key's, not the wallet's
			return service.Sweep{}, &service.Error{Code: service.CodeMoney, Err: fmt.Errorf("nothing to sweep: %w", err)}
		}
		return service.Sweep{}, walletError(err)
	}
	return service.Sweep{TxID: txid(s.TxID), Coins: s.Coins, More: s.More, Amount: s.Amount, Fee: s.Fee, Stored: stored}, nil
}
