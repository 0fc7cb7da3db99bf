package tower_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unicode"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

// exchange sends one frame after the tower's hello and returns the answer.
func exchange(t *testing.T, conn net.Conn, frame []byte) (hello, answer []byte) {
	t.Helper()
	hello, err := wire.ReadFrame(conn, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(frame); err != nil {
		t.Fatal(err)
	}
	if answer, err = wire.ReadFrame(conn, 1<<20); err != nil {
		t.Fatal(err)
	}
	return hello, answer
}

func frame(kind byte, body []byte) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(1+len(body))), kind), body...)
}

func TestDepositOverAConnection(t *testing.T) {
	l := settletest.NewLedger(network(t))
	w := newWatch(t, l, nil)
	c := open(t, l, 0)
	key := towerKey(t, c.payee)
	client := w.client(key)
	if h := client.Hello(); h.Tower != w.Key() || h.Rail != network(t).Rail || h.Deposits != tower.DefaultClientDeposits {
		t.Errorf("got hello %+v", h)
	}
	p := c.late(1_000_000, 400, 1_600)
	d, err := tower.Seal(key, network(t), p.Owner, p.Txs)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is there already
		r, err := client.Deposit(t.Context(), d)
		if err != nil || r.Body.Client != key.Public() {
			t.Fatalf("got %+v, %v", r, err)
		}
	}
	bad, err := tower.Seal(key, network(t), p.Owner, reversed(p.Txs))
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Deposit(t.Context(), bad)
	wantCode(t, "falling fees", err, settle.ErrFee)
	var refusal *settle.Error
	if !errors.As(err, &refusal) || refusal.Text == "" {
		t.Errorf("got %v without a sentence", err)
	}
	// a client that has nothing but its phrase
	list, damaged, err := w.client(towerKey(t, keychain(t, "payee"))).Deposits(t.Context())
	if err != nil || damaged != 0 || len(list) != 1 || !bytes.Equal(list[0].Endings[1].Raw(), p.Txs[1]) {
		t.Errorf("got %d deposits, %d damaged, %v", len(list), damaged, err)
	}
	if list, _, err := w.client(towerKey(t, c.payer)).Deposits(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("another client: got %d deposits, %v, want none", len(list), err)
	}
}

func TestPages(t *testing.T) {
	l := settletest.NewLedger(network(t))
	w := newWatch(t, l, nil)
	var c channel
	for i := range uint32(tower.MaxPageDeposits + 3) {
		c = open(t, l, i)
		w.take(c.lateDeposit(1_000_000, 400))
	}
	list, bad, err := w.client(towerKey(t, c.payee)).Deposits(t.Context())
	if err != nil || bad != 0 || len(list) != tower.MaxPageDeposits+3 {
		t.Fatalf("got %d deposits, %d damaged, %v", len(list), bad, err)
	}
	for i := range list[1:] {
		if bytes.Compare(list[i].Key[:], list[i+1].Key[:]) >= 0 {
			t.Error("the deposits do not ascend")
		}
	}
}

// A query is good for one connection and one tower: whoever overhears one gets
// no fully signed claims for it.
func TestQueryIsBound(t *testing.T) {
	l := settletest.NewLedger(network(t))
	w := newWatch(t, l, nil)
	c := open(t, l, 0)
	w.take(c.lateDeposit(1_000_000, 400))
	key := towerKey(t, c.payee)
	conn := w.served()
	head, err := wire.ReadFrame(conn, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	hello, err := tower.ParseHello(head[1:])
	if err != nil {
		t.Fatal(err)
	}
	query := tower.Query{Version: 1, Client: key.Public(), Tower: w.Key(), Nonce: hello.Nonce}
	if _, answer := exchange2(t, conn, frame(3, sealed(t, key, query))); answer[0] != 4 {
		t.Errorf("a query in order: got an answer of kind %d", answer[0])
	}
	for name, q := range map[string][]byte{
		"another connection's nonce": sealed(t, key, query),
		"another tower":              sealed(t, key, tower.Query{Version: 1, Client: key.Public(), Tower: key.Public(), Nonce: hello.Nonce}),
		"signed by another":          sealed(t, towerKey(t, c.payer), query),
	} {
		if _, answer := exchange(t, w.served(), frame(3, q)); answer[0] != 5 {
			t.Errorf("%s: got an answer of kind %d, want a refusal", name, answer[0])
		}
	}
}

func exchange2(t *testing.T, conn net.Conn, f []byte) (none, answer []byte) {
	t.Helper()
	if _, err := conn.Write(f); err != nil {
		t.Fatal(err)
	}
	answer, err := wire.ReadFrame(conn, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return nil, answer
}

// Whatever a client sends is answered by a refusal, or by the connection's end,
// and costs little memory.
func TestHostileClient(t *testing.T) {
	l := settletest.NewLedger(network(t))
	w := newWatch(t, l, nil)
	for name, f := range map[string][]byte{
		"an empty frame":       {0, 0, 0, 0},
		"an unknown kind":      frame(9, nil),
		"the tower's own kind": frame(2, []byte{1}),
		"no record":            frame(1, []byte("garbage")),
		"half a record":        frame(1, []byte{0xa2, 0x63}),
	} {
		conn := w.served()
		head, err := wire.ReadFrame(conn, 1<<20)
		if err != nil || head[0] != 0 {
			t.Fatal(err)
		}
		if _, err := conn.Write(f); err != nil {
			t.Fatal(err)
		}
		if answer, err := wire.ReadFrame(conn, 1<<20); err == nil && answer[0] != 5 {
			t.Errorf("%s: got an answer of kind %d, want a refusal", name, answer[0])
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 50 {
		_, answer := exchange(t, w.served(), []byte{0x7f, 0xff, 0xff, 0xff})
		if answer[0] != 5 {
			t.Fatalf("a frame too long: got an answer of kind %d", answer[0])
		}
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 8<<20 {
		t.Errorf("got %d bytes allocated for 50 frames that are too long", after.TotalAlloc-before.TotalAlloc)
	}
	conn := w.served()
	if _, err := wire.ReadFrame(conn, 1<<20); err != nil {
		t.Fatal(err)
	}
	refusals := 0
	for ; refusals < 1000; refusals++ {
		if _, err := conn.Write(frame(9, nil)); err != nil {
			break
		}
		if _, err := wire.ReadFrame(conn, 1<<20); err != nil {
			break
		}
	}
	if refusals < 10 || refusals >= 1000 {
		t.Errorf("got %d refusals on one connection, want an end to them", refusals)
	}
}

// hostileTower answers a client as a test wants.
func hostileTower(t *testing.T, hello []byte, answers ...[]byte) net.Conn {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		_, _ = there.Write(frame(0, hello))
		for _, a := range answers {
			if _, err := wire.ReadFrame(there, 1<<20); err != nil {
				return
			}
			_, _ = there.Write(a)
		}
	}()
	return here
}

func TestHostileTower(t *testing.T) {
	l := settletest.NewLedger(network(t))
	c := open(t, l, 0)
	key, self := towerKey(t, c.payee), pktcloud.NewPrivateKey([32]byte{7})
	hello := func(change func(h *tower.Hello)) []byte {
		h := tower.Hello{Version: 1, Tower: self.Public(), Rail: network(t).Rail, Nonce: make([]byte, 32)}
		if change != nil {
			change(&h)
		}
		b, err := pktcloud.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		name  string
		hello []byte
		want  settle.Code
	}{
		{"garbage", []byte{1}, settle.ErrMalformed},
		{"a short nonce", hello(func(h *tower.Hello) { h.Nonce = h.Nonce[1:] }), settle.ErrMalformed},
		{"another rail", hello(func(h *tower.Hello) { h.Rail = "pkt" }), settle.ErrParams},
		{"another tower", hello(func(h *tower.Hello) { h.Tower = key.Public() }), settle.ErrProof},
	} {
		_, err := tower.Dial(t.Context(), hostileTower(t, tt.hello), network(t), key, self.Public())
		wantCode(t, tt.name, err, tt.want)
	}
	p := c.late(1_000_000, 400)
	d, err := tower.Seal(key, network(t), p.Owner, p.Txs)
	if err != nil {
		t.Fatal(err)
	}
	id, err := d.ID()
	if err != nil {
		t.Fatal(err)
	}
	receipt := func(change func(r *tower.Receipt)) []byte {
		r := tower.Receipt{Version: 1, Tower: self.Public(), Client: key.Public(), Deposit: id, Height: 1}
		change(&r)
		return frame(2, sealed(t, self, r))
	}
	for _, tt := range []struct {
		name   string
		answer []byte
		want   settle.Code
	}{
		{"another kind", frame(4, nil), settle.ErrMalformed},
		{"no receipt", frame(2, []byte{0xa0}), settle.ErrMalformed},
		{"a receipt for another deposit", receipt(func(r *tower.Receipt) { r.Deposit = pktcloud.IDOf([]byte("x")) }), settle.ErrProof},
		{"a receipt for another client", receipt(func(r *tower.Receipt) { r.Client = self.Public() }), settle.ErrProof},
		{"another tower's receipt", receipt(func(r *tower.Receipt) { r.Tower = key.Public() }), settle.ErrMalformed},
		{"a refusal without a code", frame(5, []byte{0xa0}), settle.ErrMalformed},
	} {
		client, err := tower.Dial(t.Context(), hostileTower(t, hello(nil), tt.answer), network(t), key, self.Public())
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Deposit(t.Context(), d)
		wantCode(t, tt.name, err, tt.want)
		_ = client.Close()
	}
	told, err := pktcloud.Marshal(map[string]any{"v": 1, "code": 30, "text": "no\x1b]0;room\a\n\u0085", "ext": map[string][]byte{}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := tower.Dial(t.Context(), hostileTower(t, hello(nil), frame(5, told)), network(t), key, self.Public())
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Deposit(t.Context(), d)
	wantCode(t, "a refusal that speaks to the terminal", err, settle.ErrQuota)
	if err != nil && strings.ContainsFunc(err.Error(), unicode.IsControl) {
		t.Errorf("got %q, want no control characters", err)
	}
	endless := page(t, true, c.lateDeposit(1_000_000, 400))
	client, err = tower.Dial(t.Context(), hostileTower(t, hello(nil), endless, endless), network(t), key, self.Public())
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = client.Deposits(t.Context())
	wantCode(t, "pages without end", err, settle.ErrMalformed)
	client, err = tower.Dial(t.Context(), hostileTower(t, hello(nil), page(t, false, []byte{1}, c.deposit(c.payer, c.refund(400)), c.lateDeposit(1_000_000, 400))), network(t), key, self.Public())
	if err != nil {
		t.Fatal(err)
	}
	if list, bad, err := client.Deposits(t.Context()); err != nil || bad != 2 || len(list) != 1 {
		t.Errorf("got %d deposits, %d damaged, %v, want the one that holds", len(list), bad, err)
	}
}

func page(t *testing.T, more bool, deposits ...[]byte) []byte {
	t.Helper()
	b, err := pktcloud.Marshal(map[string]any{"v": 1, "deposits": deposits, "more": more, "ext": map[string][]byte{}})
	if err != nil {
		t.Fatal(err)
	}
	return frame(4, b)
}

// listener is a net.Listener over pipes.
type listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  atomic.Bool
}

func newListener() *listener { return &listener{conns: make(chan net.Conn), done: make(chan struct{})} }

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, io.EOF
	}
}

func (l *listener) Close() error {
	if !l.once.Swap(true) {
		close(l.done)
	}
	return nil
}
func (l *listener) Addr() net.Addr { return &net.UnixAddr{} }

func (l *listener) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestServe(t *testing.T) {
	l := settletest.NewLedger(network(t))
	w := newWatch(t, l, nil)
	in := newListener()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Serve(ctx, in) }()
	conn, err := in.dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tower.Dial(ctx, conn, network(t), pktcloud.NewPrivateKey([32]byte{5}), w.Key()); err != nil {
		t.Fatal(err)
	}
	cancel() // also ends the open connection
	if err := <-ended; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

// Each tower gets the newest deposit of each channel; one that is away holds up
// no other and gets its own later; a restart asks nobody again.
func TestDepositor(t *testing.T) {
	l := settletest.NewLedger(network(t))
	a, b := newWatch(t, l, nil), newWatch(t, l, func(c *tower.Config) { c.Key = pktcloud.NewPrivateKey([32]byte{8}) })
	c, c2 := open(t, l, 0), open(t, l, 1)
	parcels := []tower.Parcel{c.late(1_000_000, 400)}
	down, dials := true, 0
	store := settletest.NewStore()
	config := tower.DepositorConfig{
		Network: network(t), Key: towerKey(t, c.payee), Store: store,
		Parcels: func(context.Context) ([]tower.Parcel, error) { return parcels, nil },
		Towers: []tower.Target{
			{Name: "a", Key: a.Key(), Dial: func(context.Context) (net.Conn, error) { dials++; return a.served(), nil }},
			{Name: "b", Dial: func(context.Context) (net.Conn, error) {
				if down {
					return nil, io.ErrUnexpectedEOF
				}
				return b.served(), nil
			}},
		},
	}
	d, err := tower.NewDepositor(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Supply(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want the second tower's error", err)
	}
	if s := d.Supplies(); s[0].Receipts != 1 || s[0].Missing != 0 || s[0].Error != "" || s[1].Missing != 1 || s[1].Error == "" {
		t.Errorf("got %+v", s)
	}
	down = false
	parcels = []tower.Parcel{c.late(1_400_000, 9_000), c2.late(500_000, 400)}
	if err := d.Supply(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]*watch{"a": a, "b": b} {
		if list := w.List(); len(list) != 2 {
			t.Errorf("tower %s: got %d deposits, want 2", name, len(list))
		}
	}
	if s := d.Supplies(); s[0].Receipts != 2 || s[1].Receipts != 2 || s[1].Key != b.Key() {
		t.Errorf("got %+v", s)
	}
	before := dials
	config.Store = store.Clone()
	if d, err = tower.NewDepositor(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if err := d.Supply(t.Context()); err != nil || dials != before {
		t.Errorf("after a restart: got %v and %d more dials, want the receipts to count", err, dials-before)
	}
}

func TestDepositorRuns(t *testing.T) {
	l := settletest.NewLedger(network(t))
	w := newWatch(t, l, nil)
	c := open(t, l, 0)
	var parcels atomic.Pointer[[]tower.Parcel]
	parcels.Store(&[]tower.Parcel{})
	in := newListener()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- w.Serve(ctx, in) }()
	d, err := tower.NewDepositor(ctx, tower.DepositorConfig{
		Network: network(t), Key: towerKey(t, c.payee), Store: settletest.NewStore(),
		Parcels: func(context.Context) ([]tower.Parcel, error) { return *parcels.Load(), nil },
		Towers:  []tower.Target{{Name: "w", Key: w.Key(), Dial: in.dial}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	parcels.Store(&[]tower.Parcel{c.late(1_000_000, 400)})
	d.Wake()
	until(t, "deposit", func() bool { return len(w.List()) == 1 })
	cancel()
	if err := errors.Join(<-ended, <-served); err != nil {
		t.Error(err)
	}
}
