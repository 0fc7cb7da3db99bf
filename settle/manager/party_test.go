package manager_test

import (
	"context"
	"sync"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/wallet"
)

// seat is where a party with a real wallet sits.
type seat struct {
	network  pktchain.Network
	ledger   settle.Ledger
	store    *settletest.Store
	secret   []byte // the wallet's
	machine  byte   // device; one phrase may be on several
	birthday uint64 // a height before the wallet was made
	fresh    bool   // it is made now
}

// party is one side with a real wallet on a chain. It can go away and come back.
type party struct {
	t      *testing.T
	cfg    manager.Config
	wallet *wallet.Wallet
	keys   *pktchain.Keychain
	store  *settletest.Store
	device pktcloud.PublicKey
	m      *manager.Manager
	stop   func()
}

// party sits down, and does nothing yet: cfg may be changed before make or start.
func (s seat) party(t *testing.T) *party {
	t.Helper()
	w, err := wallet.Open(t.Context(), s.secret, wallet.Config{
		Network: s.network, Ledger: s.ledger, Store: s.store, Birthday: s.birthday, New: s.fresh,
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := pktchain.NewKeychain(s.network, s.secret)
	if err != nil {
		t.Fatal(err)
	}
	device := pktcloud.NewPrivateKey([32]byte{s.machine})
	p := &party{t: t, wallet: w, keys: keys, store: s.store, device: device.Public(), stop: func() {}}
	p.cfg = manager.Config{
		Network: s.network, Ledger: s.ledger, Store: s.store, Wallet: w, Keychain: keys, DeviceKey: device, Reserve: reserve,
		Birthday: s.birthday,
	}
	t.Cleanup(func() { p.stop() })
	return p
}

// make builds the manager from the store.
func (p *party) make() {
	p.t.Helper()
	var err error
	if p.m, err = manager.New(context.Background(), p.cfg); err != nil {
		p.t.Fatal(err)
	}
}

// start builds the manager from the store, and runs it until stop.
func (p *party) start() {
	p.t.Helper()
	p.make()
	p.stop = run(p.t, "manager", p.m.Run)
}

// run runs what blocks until stop. A second stop does nothing.
func run(t testing.TB, name string, blocks func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := blocks(ctx); err != nil {
			t.Errorf("%s: Run: %v", name, err)
		}
	})
	return sync.OnceFunc(func() { cancel(); wait.Wait() })
}

// until waits for a channel's status.
func (p *party) until(t *testing.T, id pktcloud.ID, what string, ok func(manager.Status) bool) manager.Status {
	t.Helper()
	var st manager.Status
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if st, err = p.m.Status(t.Context(), id); err == nil && ok(st) {
			return st
		}
	}
	t.Fatalf("no %s within two minutes: %s at height %d, depth %d (%v)", what, st.Phase, st.Height, st.Depth, err)
	return st
}

func phase(want settle.Phase) func(manager.Status) bool {
	return func(s manager.Status) bool { return s.Phase == want }
}

func paid(t *testing.T, payer, payee *party, id pktcloud.ID, units pktcloud.Amount) {
	t.Helper()
	v, err := payer.m.Pay(t.Context(), id, entry("a", units))
	if err != nil {
		t.Fatal(err)
	}
	if err := payee.m.Receive(t.Context(), v); err != nil {
		t.Fatal(err)
	}
}
