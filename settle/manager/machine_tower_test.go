package manager_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/btcsuite/btcd/wire/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
	"pgregory.net/rapid"
)

// The towers of a life, and owners that go away and rely on them.

// machineEvery is after how many units the payee deposits.
const machineEvery = 30_000

// keeper is a tower, run by hand, and what outlives it.
type keeper struct {
	cfg   tower.Config
	store *settletest.Store
	t     *tower.Tower
}

// leak is a late claim that the hostile tower was given.
type leak struct {
	of    *account
	total pktcloud.Amount
	raw   []byte
}

// towers are an honest tower and a hostile one, which has little room besides.
type towers struct {
	honest, hostile *keeper
	leaks           []leak
	byTx            map[[32]byte]leak
	refunds         map[settle.Outpoint]bool // that the honest tower holds
	attacked        bool                     // the hostile one was heard since the honest one looked
	away            map[*actor]bool          // who does not look at the chain
}

func (m *life) keeper(key byte, q tower.Quota) *keeper {
	k := &keeper{store: settletest.NewStore()}
	k.cfg = tower.Config{Network: m.payer.cfg.Network, Ledger: m.ledger, Store: k.store, Key: pktcloud.NewPrivateKey([32]byte{key}), Quota: q}
	m.restartTower(k)
	return k
}

// restartTower begins again from what the store holds.
func (m *life) restartTower(k *keeper) {
	k.store = k.store.Clone()
	k.cfg.Store = k.store
	var err error
	k.t, err = tower.New(context.Background(), k.cfg)
	m.must(err)
}

// dial reaches a tower as it is now. What serves the connection ends with it.
func (k *keeper) dial(wait *sync.WaitGroup) tower.Target {
	return tower.Target{Name: k.t.Key().String(), Key: k.t.Key(), Dial: func(context.Context) (net.Conn, error) {
		here, there := net.Pipe()
		wait.Go(func() { k.t.ServeConn(context.Background(), there) })
		return here, nil
	}}
}

// lookTower lets the honest tower look at the chain.
func (m *life) lookTower() {
	if m.down == 0 {
		m.towers.attacked = false
	}
	for _, err := range flatten(m.towers.honest.t.Look(context.Background())) {
		m.saw(err)
	}
}

// lookAll lets everybody who is there look at the chain, in some order; the
// hostile tower may be first.
func (m *life) lookAll() {
	if m.chance(8, "the hostile tower is first") {
		m.attack()
	}
	looks := []func(){m.lookTower}
	for _, a := range []*actor{m.payee, m.payer} {
		if !m.towers.away[a] {
			looks = append(looks, func() { m.look(a) })
		}
	}
	for _, i := range rapid.Permutation([]int{0, 1, 2}[:len(looks)]).Draw(m.t, "order") {
		looks[i]()
	}
	if m.towers.away[m.payee] {
		m.missed()
	}
}

// missed notes what a payee that is away should have claimed.
func (m *life) missed() {
	m.ledger.SetDown(false)
	defer m.ledger.SetDown(m.down > 0)
	for _, c := range m.channels {
		if c.absent || m.height < c.params.Deadline() {
			continue
		}
		out, err := m.ledger.Output(context.Background(), c.outpoint)
		m.must(err)
		c.absent = out.Spend == nil || out.Spend.Depth < machineDepth
	}
}

// actDeposit lets the payee ask for late proofs, mostly after a payment that is
// worth one, and a side bring the towers up to date.
func (m *life) actDeposit() {
	if !m.payAndDeposit() {
		m.t.Skip("no channel is open")
	}
}

// anyOpen is a channel that both see open, made if there is none.
func (m *life) anyOpen() *account {
	open := func() []*account {
		return slices.DeleteFunc(slices.Clone(m.channels), func(c *account) bool {
			st, err := m.payee.m.Status(context.Background(), c.id)
			return err != nil || st.Phase != settle.Open || st.Height >= c.params.Deadline()
		})
	}
	if len(open()) == 0 && m.down == 0 && m.live() < 4 {
		if c := m.open(); c != nil {
			m.saw(m.payer.m.Announce(context.Background(), c.id))
			m.mined(machineDepth, 0)
		}
	}
	if list := open(); len(list) > 0 {
		return rapid.SampledFrom(list).Draw(m.t, "open channel")
	}
	return nil
}

func (m *life) payAndDeposit() bool {
	c := m.anyOpen()
	if c == nil {
		return false
	}
	if !m.chance(6, "nothing new") {
		e := entry("1", 0)
		latest, _ := m.payer.m.Latest(c.id)
		old, _ := latest.Body.Entry(e.Lease)
		e.Cumulative = old.Cumulative + pktcloud.Amount(rapid.IntRange(machineEvery, 3*machineEvery).Draw(m.t, "more"))
		sent := len(m.net)
		m.pay(c, e)
		for _, msg := range m.net[sent:] {
			m.deliver(msg)
		}
	}
	m.deposit()
	return true
}

// deposit is a round of late proofs, of which some are lost on their way, and
// of visits at the towers.
func (m *life) deposit() {
	for _, id := range m.payee.m.WantLate() {
		l, err := m.payer.m.LateProof(context.Background(), id)
		if m.saw(err); err == nil && !m.chance(6, "lost") {
			m.saw(m.payee.m.TakeLate(context.Background(), l))
		}
	}
	m.supply(m.payee)
	if m.chance(4, "the payer's") {
		m.supply(m.payer)
	}
}

// supply gives what a side deposits to the towers, of which the honest one may
// be out of reach, and notes what it gave a receipt for.
func (m *life) supply(a *actor) {
	parcels, err := a.m.Parcels(context.Background())
	if m.saw(err); err != nil {
		return
	}
	key, err := a.cfg.Keychain.TowerKey()
	m.must(err)
	var wait sync.WaitGroup
	targets := []tower.Target{m.towers.hostile.dial(&wait)}
	if !m.chance(5, "unreachable") {
		targets = append(targets, m.towers.honest.dial(&wait))
	}
	d, err := tower.NewDepositor(context.Background(), tower.DepositorConfig{
		Network: a.cfg.Network, Key: key, Store: a.store, Towers: targets,
		Parcels: func(context.Context) ([]tower.Parcel, error) { return parcels, nil },
	})
	m.must(err)
	for _, err := range flatten(d.Supply(context.Background())) {
		m.saw(err)
	}
	wait.Wait()
	for _, p := range parcels {
		m.leak(p)
	}
	m.kept(d, a)
}

// GoString is short, for rapid prints it.
func (l leak) GoString() string { return fmt.Sprintf("deposit of %d units of %#v", l.total, l.of) }

// leak notes what the hostile tower has got.
func (m *life) leak(p tower.Parcel) {
	for _, raw := range p.Txs {
		tx := new(wire.MsgTx)
		m.must(tx.Deserialize(bytes.NewReader(raw)))
		if _, known := m.towers.byTx[tx.TxHash()]; known {
			continue
		}
		from := tx.TxIn[0].PreviousOutPoint
		c := m.accountAt(settle.Outpoint{TxID: from.Hash, Index: from.Index})
		if c == nil {
			m.t.Fatalf("a deposit for %v, which is no channel", from)
		}
		end, err := c.chain.EndOf(raw)
		m.must(err)
		l := leak{of: c, raw: raw}
		if !end.Refund {
			l.total = end.Payee + end.Fee - c.params.Reserve
			if l.total > m.total(m.payee, c) || end.Payer != c.params.Capacity-l.total-c.params.Reserve {
				m.t.Fatalf("a deposit of %+v, the payee holds %d units", end, m.total(m.payee, c))
			}
		}
		m.towers.byTx[tx.TxHash()] = l
		m.towers.leaks = append(m.towers.leaks, l)
	}
}

// kept notes what the honest tower gave a receipt for: what a Depositor that
// asks nobody again has stored.
func (m *life) kept(d *tower.Depositor, a *actor) {
	for _, s := range d.Supplies() {
		if s.Name != m.towers.honest.t.Key().String() || s.Missing > 0 {
			continue
		}
		for _, s := range m.towers.honest.t.List() {
			l, ok := m.towers.byTx[s.TxID]
			switch {
			case s.Watch.Ended > 0:
			case !ok:
				m.t.Fatalf("the tower keeps a deposit that nobody made: %+v", s)
			case s.Kind == pktchain.EndRefund:
				m.towers.refunds[s.Funding] = true
			case a == m.payee:
				l.of.kept = max(l.of.kept, l.total)
			}
		}
	}
}

// towerRemembers: a receipt outlives the tower's crash.
func (m *life) towerRemembers() {
	late, refund := map[settle.Outpoint]pktcloud.Amount{}, map[settle.Outpoint]bool{}
	for _, s := range m.towers.honest.t.List() {
		switch {
		case s.Kind == pktchain.EndRefund:
			refund[s.Funding] = true
		case s.Watch.Ended > 0:
			late[s.Funding] = pktcloud.MaxAmount // what it was does not count any more
		default:
			late[s.Funding] = m.towers.byTx[s.TxID].total
		}
	}
	for _, c := range m.channels {
		if c.kept > late[c.outpoint] || m.towers.refunds[c.outpoint] && !refund[c.outpoint] {
			m.t.Fatalf("the tower gave a receipt for %d units (and a refund: %v), and has %d (%v)",
				c.kept, m.towers.refunds[c.outpoint], late[c.outpoint], refund[c.outpoint])
		}
	}
}

// actCrashTower ends the honest tower, at a write of its own or between them.
func (m *life) actCrashTower() {
	k := m.towers.honest
	if m.chance(2, "at a write") {
		k.store.DieAt(1, m.chance(2, "after"))
		m.deposit()
		m.lookTower()
	}
	m.restartTower(k)
	m.towerRemembers()
	m.lookTower()
}

// actHostile lets the hostile tower broadcast any deposit that it ever got.
func (m *life) actHostile() {
	if !m.attack() {
		m.t.Skip("nothing to broadcast")
	}
}

// attack broadcasts one, mostly one whose time has come.
func (m *life) attack() bool {
	fit := slices.DeleteFunc(slices.Clone(m.towers.leaks), func(l leak) bool { return m.height > l.of.params.ExpiryHeight+2*machineMargin })
	due := slices.DeleteFunc(slices.Clone(fit), func(l leak) bool { return m.height < l.of.params.LateHeight() })
	if len(due) > 0 && !m.chance(4, "any") {
		fit = due
	}
	if len(fit) == 0 {
		return false
	}
	l := rapid.SampledFrom(fit).Draw(m.t, "deposit")
	err := m.ledger.Broadcast(context.Background(), l.raw)
	m.saw(err)
	lock := l.of.params.LateHeight()
	if l.total == 0 {
		lock = l.of.params.ExpiryHeight
	}
	if err == nil && m.height < lock {
		m.t.Fatalf("a deposit was broadcast at height %d, %d is its lock time", m.height, lock)
	}
	m.towers.attacked = m.towers.attacked || err == nil
	return true
}

// actAway lets an owner go away, for some blocks or past the lock times of a
// channel, while the chain goes on, and come back.
func (m *life) actAway() {
	if m.chance(2, "prepared") {
		m.payAndDeposit()
	}
	until := m.height + uint64(rapid.IntRange(1, 8).Draw(m.t, "blocks"))
	kept := slices.DeleteFunc(slices.Clone(m.channels), func(c *account) bool { return c.kept == 0 || !m.lives(c) })
	if len(kept) > 0 && m.chance(2, "for long") || len(m.channels) > 0 && m.chance(8, "without a tower") {
		if len(kept) == 0 {
			kept = m.channels
		}
		c := rapid.SampledFrom(kept).Draw(m.t, "channel")
		until = c.params.Deadline() + rapid.SampledFrom([]uint64{2*machineMargin + 8, 2*machineMargin + 1, machineMargin + 6, machineMargin, 3, 0}).Draw(m.t, "from the deadline on")
	}
	who := rapid.SampledFrom([][]*actor{{m.payee}, {m.payee}, {m.payer}, {m.payee, m.payer}}).Draw(m.t, "who")
	for _, a := range who {
		m.towers.away[a] = true
	}
	for until = min(until, m.height+100); m.height < until; {
		switch rapid.SampledFrom([]string{"block", "block", "block", "block", "block", "block", "full", "full", "fees", "reorg", "reorg", "attack", "attack", "crash", "sight"}).Draw(m.t, "meanwhile") {
		case "full":
			if !m.mayBeFull() {
				m.mined(1, 0)
				break
			}
			m.mined(1, machinePrice)
		case "fees":
			m.actFees()
		case "reorg":
			m.reorg()
		case "attack":
			m.attack()
		case "crash":
			m.restartTower(m.towers.honest)
			m.towerRemembers()
			m.lookTower()
		case "sight":
			m.actSight()
		default:
			m.mined(1, 0)
		}
	}
	clear(m.towers.away)
	m.lookAll()
}

// judgeAbsent judges the claim of a payee that was away past its deadline: it
// loses no more than what followed the last deposit that a tower gave a receipt
// for. What was mined is its own claim or a late one.
func (m *life) judgeAbsent(c *account, end pktchain.End, total pktcloud.Amount) string {
	got := end.Payee + end.Fee - c.params.Reserve
	switch {
	case got < c.kept || got > total:
		m.t.Fatalf("%#v: away, the payee was paid %d units of %d, its last deposit was of %d", c, got, total, c.kept)
	case end.Payer != c.params.Capacity-got-c.params.Reserve:
		m.t.Fatalf("the payer gets %d units, %d were claimed", end.Payer, got)
	}
	if l, ok := m.towers.byTx[end.TxID]; ok && l.of == c {
		return "late claim"
	}
	return "claim"
}
