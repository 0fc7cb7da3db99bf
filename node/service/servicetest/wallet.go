package servicetest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// Password opens the twin's wallet.
const Password = "correct horse"

// twinFee is what every payment of the twin costs.
const twinFee = 141

// money is the twin's wallet.
type money struct {
	payments []service.PaymentRequest
	accounts []string // names of those after the first
	swept    []service.SweepRequest
	rolled   []service.RollRequest
	frozen   bool // its one coin
	locked   bool
	closed   bool   // the channel that came back with the phrase
	label    string // of the address
}

// address is where the twin always receives.
const (
	address = "dpk1qw508d6qejxtdg4y5r3zarvary0c5xw7k0k0u0v"
	sweepID = "efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef"

	sweptUnits = 5_000_000 // under every key
)

// WalletBalance returns an amount.
func (t *Twin) WalletBalance(context.Context) (service.Balance, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := service.Balance{Spendable: 12_345_678_901, Unconfirmed: 70_000_000, Reserved: 30_000_000, Height: 4711, Network: "pkt-devnet", Locked: t.money.locked}
	for _, p := range t.money.payments {
		b.Spendable -= p.Amount + twinFee
	}
	return b, nil
}

// WalletAddress returns always the same one.
func (t *Twin) WalletAddress(_ context.Context, r service.AddressRequest) (service.Address, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.money.label = r.Label
	return service.Address{Address: address}, nil
}

// WalletHistory returns the payments made, and two movements.
func (t *Twin) WalletHistory(_ context.Context, q service.HistoryQuery) ([]service.Movement, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.Now().Unix()
	var moves []service.Movement
	for i, p := range t.money.payments {
		moves = append(moves, service.Movement{
			TxID: fmt.Sprintf("%064x", i+1), Kind: service.KindSent, Sent: p.Amount, Fee: twinFee, Label: p.Label, Addresses: []string{p.Address},
			Note: "Paid.", Replaceable: true,
		})
	}
	slices.Reverse(moves)
	for range t.money.swept {
		moves = append(moves, service.Movement{TxID: sweepID, Kind: service.KindReceived, Received: sweptUnits, Addresses: []string{address}, Note: "Swept."})
	}
	moves = append(moves,
		service.Movement{
			TxID: strings.Repeat("ab", 32), Kind: service.KindChannelOpened, Sent: 30_000_000, Fee: 4_100, Height: 4711, Depth: 1, Time: now,
			Addresses: []string{}, Note: "Set aside in a channel for a lease.", Channel: pktcloud.IDOf([]byte("channel")).String(),
		},
		service.Movement{
			TxID: strings.Repeat("cd", 32), Kind: service.KindReceived, Received: 12_375_683_001, Height: 4700, Depth: 12, Time: now - 720,
			Addresses: []string{address}, Label: `=1+1 & <b>"x"</b>`, Note: "Received.",
		},
	)
	if q.TxID != "" {
		return slices.DeleteFunc(moves, func(m service.Movement) bool { return m.TxID != q.TxID }), nil
	}
	moves = moves[min(q.Skip, len(moves)):]
	if q.Limit > 0 {
		moves = moves[:min(q.Limit, len(moves))]
	}
	return moves, nil
}

// WalletPlan plans from one coin.
func (t *Twin) WalletPlan(ctx context.Context, r service.PaymentRequest) (service.Plan, error) {
	if !strings.HasPrefix(r.Address, "dpk1") {
		return service.Plan{}, service.Errorf(service.CodeInvalid, "%q is an address of Bitcoin; this wallet pays on pkt-devnet only", r.Address)
	}
	b, err := t.WalletBalance(ctx)
	if err != nil {
		return service.Plan{}, err
	}
	if r.All {
		r.Amount = b.Spendable - twinFee
	}
	if r.Amount+twinFee > b.Spendable {
		return service.Plan{}, service.Errorf(service.CodeMoney, "not enough money in the wallet: %s needed with the fee", r.Amount+twinFee)
	}
	left := b.Spendable - r.Amount - twinFee
	return service.Plan{Address: r.Address, Amount: r.Amount, Fee: twinFee, Change: left, Left: left + b.Unconfirmed, Coins: []string{t.coin()}, VBytes: 141}, nil
}

func (t *Twin) coin() string { return strings.Repeat("cd", 32) + ":0" }

// WalletSend pays, once for each word.
func (t *Twin) WalletSend(ctx context.Context, r service.PaymentRequest) (service.Payment, error) {
	t.mu.Lock()
	for i, p := range t.money.payments {
		if p.Once == r.Once && r.Once != "" {
			t.mu.Unlock()
			return service.Payment{TxID: fmt.Sprintf("%064x", i+1)}, nil
		}
	}
	locked := t.money.locked
	t.mu.Unlock()
	p, err := t.WalletPlan(ctx, r)
	switch {
	case err != nil:
		return service.Payment{}, err
	case locked:
		return service.Payment{}, service.Errorf(service.CodeLocked, "the wallet is locked; unlock it with its password first")
	case p.Fee > r.MaxFee:
		return service.Payment{}, service.Errorf(service.CodeMoney, "the fee is above the limit: it would be %s, the limit is %s", p.Fee, r.MaxFee)
	}
	r.Amount = p.Amount
	t.mu.Lock()
	defer t.mu.Unlock()
	t.money.payments = append(t.money.payments, r)
	return service.Payment{TxID: fmt.Sprintf("%064x", len(t.money.payments))}, nil
}

// WalletReplace accepts every payment that was made.
func (t *Twin) WalletReplace(_ context.Context, r service.ReplaceRequest) (service.Payment, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.money.payments {
		if r.TxID == fmt.Sprintf("%064x", i+1) {
			return service.Payment{TxID: r.TxID}, nil
		}
	}
	return service.Payment{}, service.Errorf(service.CodeConflict, "the payment cannot be replaced: no payment of this wallet with that id waits for a block")
}

// WalletCoins returns one.
func (t *Twin) WalletCoins(_ context.Context, q service.CoinQuery) ([]service.Coin, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := service.Coin{Coin: t.coin(), Amount: 12_345_678_901, Address: address, Label: t.money.label, Depth: 12, State: "free"}
	if t.money.frozen {
		c.State = "frozen"
	}
	if q.Skip > 0 {
		return []service.Coin{}, nil
	}
	return []service.Coin{c}, nil
}

// WalletFreeze knows one coin.
func (t *Twin) WalletFreeze(_ context.Context, r service.FreezeRequest) (service.FreezeRequest, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.Coin != t.coin() {
		return r, service.Errorf(service.CodeConflict, "the coin cannot be spent: the wallet has none such")
	}
	t.money.frozen = r.Frozen
	return r, nil
}

// WalletLabel remembers the last one.
func (t *Twin) WalletLabel(_ context.Context, r service.LabelRequest) (service.LabelRequest, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.money.label = r.Label
	return r, nil
}

// WalletAccounts returns the first one, which has all the money, and those that
// were made.
func (t *Twin) WalletAccounts(ctx context.Context) ([]service.WalletAccount, error) {
	b, err := t.WalletBalance(ctx)
	list := []service.WalletAccount{{Spendable: b.Spendable, Unconfirmed: b.Unconfirmed, Reserved: b.Reserved}}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, name := range t.money.accounts {
		list = append(list, service.WalletAccount{Number: uint32(i) + 1, Name: name})
	}
	return list, err
}

// WalletAddAccount makes the next one; each name once.
func (t *Twin) WalletAddAccount(_ context.Context, r service.AccountRequest) (service.WalletAccount, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Contains(t.money.accounts, r.Name) {
		return service.WalletAccount{}, service.Errorf(service.CodeConflict, "there is an account %q", r.Name)
	}
	t.money.accounts = append(t.money.accounts, r.Name)
	return service.WalletAccount{Number: uint32(len(t.money.accounts)), Name: r.Name}, nil
}

// WalletSweep finds a coin under every key.
func (t *Twin) WalletSweep(_ context.Context, r service.SweepRequest) (service.Sweep, error) {
	s := service.Sweep{Coins: 1, Amount: sweptUnits, Fee: twinFee}
	if !r.Plan {
		t.mu.Lock()
		defer t.mu.Unlock()
		s.TxID, t.money.swept = sweepID, append(t.money.swept, r)
	}
	return s, nil
}

// Payments returns those that were made.
func (t *Twin) Payments() []service.PaymentRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.money.payments)
}

// Swept returns what was asked to be swept.
func (t *Twin) Swept() []service.SweepRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.money.swept)
}

// WalletLock locks.
func (t *Twin) WalletLock(context.Context) (service.LockState, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.money.locked = true
	return service.LockState{Locked: true}, nil
}

// WalletUnlock takes Password.
func (t *Twin) WalletUnlock(_ context.Context, r service.UnlockRequest) (service.LockState, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.Password != Password {
		return service.LockState{}, service.Errorf(service.CodeForbidden, "the password is wrong")
	}
	t.money.locked = false
	return service.LockState{}, nil
}

// WalletPassword takes Password.
func (*Twin) WalletPassword(_ context.Context, r service.PasswordRequest) (service.LockState, error) {
	if r.Old != Password {
		return service.LockState{}, service.Errorf(service.CodeForbidden, "the password is wrong")
	}
	return service.LockState{}, nil
}

// Channels returns one that is open, and one that came back with the phrase.
func (t *Twin) Channels(context.Context) ([]service.ChannelView, error) {
	id, back := pktcloud.IDOf([]byte("channel")), pktcloud.IDOf([]byte("restored"))
	t.mu.Lock()
	phase := "open"
	if t.money.closed {
		phase = "closing"
	}
	t.mu.Unlock()
	return []service.ChannelView{{
		ID: id.String(), Label: id.Hex()[:8], Role: "payer", Peer: Key(1).Public(), Leases: []string{}, Phase: "open",
		Now: "In use: payments pass between the two sides alone, without the chain.",
		Steps: []service.Step{
			{Name: "Opening", State: "done", Text: "You set aside 0.027939677 PKT. 0.000009313 PKT of it is a reserve that pays the closing's fee and nothing else.", TxID: strings.Repeat("ab", 32), Depth: 3},
			{Name: "In use", State: "now", Text: "0.000279397 PKT paid so far. Nothing more is paid from block 5712, in about 16 hours."},
			{Name: "Closing", State: "ahead", Text: "Both sides sign, or the other side claims by itself what you have paid."},
			{Name: "Closed", State: "ahead", Text: "What was not paid comes back. If the other side does nothing, all of it does, at block 6000, in about 21 hours."},
		},
		Capacity: 30_000_000, Paid: 300_000, Reserve: 10_000, Left: 29_689_670, AtRisk: 3_000, Limit: 7_215,
		Height: 4711, Deadline: 5712, Expiry: 6000, Created: t.Now().Unix() - 300,
	}, {
		ID: back.String(), Label: back.Hex()[:8], Role: "payer", Peer: Key(2).Public(), Leases: []string{}, Phase: phase, Restored: true,
		Now: "It came back with the phrase, and its other side has shown it.", Steps: []service.Step{{Name: "Opening", State: "done", Text: "You set aside 0.027939677 PKT."}},
		Capacity: 30_000_000, Paid: 300_000, Height: 4711, Deadline: 5712, Expiry: 6000,
	}}, nil
}

// Channel returns one of them.
func (t *Twin) Channel(ctx context.Context, name string) (service.ChannelView, error) {
	all, err := t.Channels(ctx)
	for _, c := range all {
		if name != "" && (c.ID == name || strings.HasPrefix(c.Label, name)) {
			return c, err
		}
	}
	return service.ChannelView{}, service.Errorf(service.CodeNotFound, "no channel %q", name)
}

// CloseChannel closes the channel that came back with the phrase.
func (t *Twin) CloseChannel(ctx context.Context, name string) (service.ChannelView, error) {
	c, err := t.Channel(ctx, name)
	if err != nil {
		return c, err
	}
	if c.Restored {
		t.mu.Lock()
		t.money.closed = true
		t.mu.Unlock()
		return t.Channel(ctx, name)
	}
	return service.ChannelView{}, service.Errorf(service.CodeInvalid, "only a channel that came back with the phrase is closed by hand")
}

// RollChannel adds to the channel that is open.
func (t *Twin) RollChannel(ctx context.Context, name string, r service.RollRequest) (service.Roll, error) {
	c, err := t.Channel(ctx, name)
	if err != nil {
		return service.Roll{}, err
	}
	const fee, most = 4_000, 1 << 30
	switch {
	case c.Restored:
		return service.Roll{}, service.Errorf(service.CodeInvalid, "only a channel that you pay by takes money or time, and none that came back with the phrase")
	case r.Add == 0 && r.ExtendSeconds == 0:
		return service.Roll{}, service.Errorf(service.CodeInvalid, "say what to add: money, time or both")
	case r.Add > most:
		return service.Roll{}, service.Errorf(service.CodeInvalid, "the provider takes channels of up to %s; add at most %s", most+c.Capacity, pktcloud.Amount(most))
	}
	roll := service.Roll{
		Channel: c.ID, Capacity: c.Capacity + r.Add, Added: r.Add, Fee: fee, Left: 1 << 32, Expiry: c.Expiry + r.ExtendSeconds/45, Depth: 3,
	}
	if r.Plan {
		return roll, nil
	}
	if r.MaxFee < fee {
		return service.Roll{}, service.Errorf(service.CodeMoney, "the fee is above the limit: it would be %s, the limit is %s", pktcloud.Amount(fee), r.MaxFee)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.money.rolled = append(t.money.rolled, r)
	roll.Into = pktcloud.IDOf([]byte("successor")).String()
	return roll, nil
}

// Rolled returns what was added to channels.
func (t *Twin) Rolled() []service.RollRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.money.rolled)
}
