package tower_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

const (
	capacity = 5_000_000
	reserve  = 20_000
	expiry   = 600
	margin   = 144
	lock     = expiry - margin // of late claims
)

func network(t testing.TB) pktchain.Network {
	t.Helper()
	n, ok := pktchain.NetworkOf("pkt-devnet")
	if !ok {
		t.Fatal("no devnet")
	}
	return n
}

func keychain(t testing.TB, name string) *pktchain.Keychain {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	k, err := pktchain.NewKeychain(network(t), append(seed[:], seed[:]...))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func towerKey(t testing.TB, k *pktchain.Keychain) pktcloud.PrivateKey {
	t.Helper()
	key, err := k.TowerKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// channel is a funded channel with the keys of both sides.
type channel struct {
	t            testing.TB
	index        uint32
	payer, payee *pktchain.Keychain
	chain        pktchain.Channel
	signer       *pktchain.Signer
	funding      []byte
}

// open funds a channel on a ledger, in a block, with keys of an index.
func open(t testing.TB, l *settletest.Ledger, index uint32) channel {
	t.Helper()
	return openUntil(t, l, index, expiry, margin)
}

// openUntil is open with another expiry and margin.
func openUntil(t testing.TB, l *settletest.Ledger, index uint32, expiry, margin uint64) channel {
	t.Helper()
	w := settletest.NewWallet(network(t), l, "funder")
	coin, err := w.ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.Mint(coin, capacity+1_000_000)
	c := channel{t: t, index: index, payer: keychain(t, "payer"), payee: keychain(t, "payee")}
	key, err := c.payee.PayeeKey(index)
	if err != nil {
		t.Fatal(err)
	}
	plan := pktchain.Plan{
		Index: index, Expiry: expiry, Capacity: capacity, PayerScript: scriptOf(t, l, "payer"),
		Payee: pktchain.PayeeDetail{Version: pktchain.PayeeDetailVersion, Key: key, Script: scriptOf(t, l, "payee")},
	}
	outputs, err := c.payer.FundingOutputs(plan)
	if err != nil {
		t.Fatal(err)
	}
	if c.funding, err = w.Fund(t.Context(), outputs, 10_000); err != nil {
		t.Fatal(err)
	}
	detail, err := c.payer.DetailOf(plan, c.funding)
	if err != nil {
		t.Fatal(err)
	}
	p := settle.Params{
		Version: settle.ParamsVersion, Rail: network(t).Rail, Payer: pktcloud.NewPrivateKey([32]byte{1}).Public(), Payee: pktcloud.NewPrivateKey([32]byte{2}).Public(),
		Capacity: capacity, Reserve: reserve, MinChange: 294, ExpiryHeight: expiry, MarginBlocks: margin, MinDepth: 1,
	}
	if p.Detail, err = detail.Encode(); err != nil {
		t.Fatal(err)
	}
	if c.chain, err = pktchain.ChannelOf(network(t), p); err != nil {
		t.Fatal(err)
	}
	if c.signer, err = c.payer.Signer(c.chain, index); err != nil {
		t.Fatal(err)
	}
	broadcast(t, l, c.funding)
	l.Mine(1)
	return c
}

func scriptOf(t testing.TB, l *settletest.Ledger, name string) []byte {
	t.Helper()
	s, err := settletest.NewWallet(network(t), l, name).ReceiveScript(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func broadcast(t testing.TB, l settle.Ledger, raw []byte) {
	t.Helper()
	if err := l.Broadcast(context.Background(), raw); err != nil {
		t.Fatal(err)
	}
}

// late is a parcel of late claims of a total.
func (c channel) late(total pktcloud.Amount, fees ...pktcloud.Amount) tower.Parcel {
	c.t.Helper()
	sig, err := c.signer.SignLate(total)
	if err != nil {
		c.t.Fatal(err)
	}
	txs, err := c.payee.LateClaims(c.chain, c.index, settle.LateProof{Total: total, Signature: sig}, fees)
	if err != nil {
		c.t.Fatal(err)
	}
	return tower.Parcel{Txs: txs, Owner: c.owner(c.payee, pktchain.EndLate)}
}

// refund is a parcel of refunds.
func (c channel) refund(fees ...pktcloud.Amount) tower.Parcel {
	c.t.Helper()
	txs, err := c.payer.RefundLadder(c.chain, c.index, fees)
	if err != nil {
		c.t.Fatal(err)
	}
	return tower.Parcel{Txs: txs, Owner: c.owner(c.payer, pktchain.EndRefund)}
}

func (c channel) owner(k *pktchain.Keychain, kind pktchain.EndKind) []byte {
	c.t.Helper()
	owner, err := k.SignClient(c.chain, kind, c.index, towerKey(c.t, k).Public())
	if err != nil {
		c.t.Fatal(err)
	}
	return owner
}

// deposit is the encoding of a parcel's deposit.
func (c channel) deposit(k *pktchain.Keychain, p tower.Parcel) []byte {
	c.t.Helper()
	return sealed(c.t, towerKey(c.t, k), tower.Deposit{
		Version: tower.DepositVersion, Client: towerKey(c.t, k).Public(), Rail: network(c.t).Rail, Owner: p.Owner, Txs: p.Txs,
	})
}

func (c channel) lateDeposit(total pktcloud.Amount, fees ...pktcloud.Amount) []byte {
	c.t.Helper()
	return c.deposit(c.payee, c.late(total, fees...))
}

// by is a deposit of the payee's late claims under a client key of its own.
func (c channel) by(client pktcloud.PrivateKey, total pktcloud.Amount, fees ...pktcloud.Amount) []byte {
	c.t.Helper()
	owner, err := c.payee.SignClient(c.chain, pktchain.EndLate, c.index, client.Public())
	if err != nil {
		c.t.Fatal(err)
	}
	d, err := tower.Seal(client, network(c.t), owner, c.late(total, fees...).Txs)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := d.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// sealed is the encoding of a record signed by a key, valid or not.
func sealed[B pktcloud.Body](t testing.TB, key pktcloud.PrivateKey, body B) []byte {
	t.Helper()
	b, err := pktcloud.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	s, err := pktcloud.Marshal(pktcloud.Signed[B]{Body: body, Sig: pktcloud.Sign(key, body.RecordType(), b)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// watch is a tower that runs over a ledger.
type watch struct {
	t     testing.TB
	cfg   tower.Config
	store *settletest.Store
	*tower.Tower
	stop func()
}

func newWatch(t testing.TB, l settle.Ledger, change func(*tower.Config)) *watch {
	t.Helper()
	w := &watch{t: t, store: settletest.NewStore()}
	w.cfg = tower.Config{Network: network(t), Ledger: l, Store: w.store, Key: pktcloud.NewPrivateKey([32]byte{9})}
	if change != nil {
		change(&w.cfg)
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *watch) start() {
	w.t.Helper()
	var err error
	if w.Tower, err = tower.New(context.Background(), w.cfg); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := w.Run(ctx); err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.stop = sync.OnceFunc(func() { cancel(); wait.Wait() })
}

// crash ends the tower and starts it from what its store holds.
func (w *watch) crash() {
	w.t.Helper()
	w.stop()
	w.store = w.store.Clone()
	w.cfg.Store = w.store
	w.start()
}

func (w *watch) take(data []byte) pktcloud.Signed[tower.Receipt] {
	w.t.Helper()
	r, err := w.Accept(w.t.Context(), data)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func wantCode(t testing.TB, what string, err error, want settle.Code) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// until polls for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within two minutes", what)
		}
	}
}

// pooled waits until exactly this transaction is in the mempool.
func pooled(t testing.TB, l *settletest.Ledger, what string, raw []byte) {
	t.Helper()
	until(t, what, func() bool { p := l.Pool(); return len(p) == 1 && bytes.Equal(p[0], raw) })
}

// mineTo adds blocks up to a height.
func mineTo(t testing.TB, l *settletest.Ledger, height uint64) {
	t.Helper()
	tip, err := l.Tip(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if height > tip.Height {
		l.Mine(int(height - tip.Height))
	}
}

// spent is what ended a channel, as the chain has it.
func spent(t testing.TB, l *settletest.Ledger, c channel) *settle.Spend {
	t.Helper()
	o, err := l.Output(context.Background(), c.chain.Detail.Funding)
	if err != nil {
		t.Fatal(err)
	}
	return o.Spend
}

func decode(t testing.TB, raw []byte) *wire.MsgTx {
	t.Helper()
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	return tx
}

func encode(tx *wire.MsgTx) []byte {
	var b bytes.Buffer
	_ = tx.Serialize(&b)
	return b.Bytes()
}

// served is a connection to a tower, served in the background.
func (w *watch) served() net.Conn {
	here, there := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { w.ServeConn(ctx, there) })
	w.t.Cleanup(func() { cancel(); wait.Wait() })
	return here
}

func (w *watch) client(key pktcloud.PrivateKey) *tower.Client {
	w.t.Helper()
	c, err := tower.Dial(w.t.Context(), w.served(), network(w.t), key, w.Key())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func reversed[T any](list []T) []T {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}
