package settle

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/store"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

const (
	capacity = 1 << 40
	lifetime = 100_000
)

// side is one party of the benchmarks.
type side struct {
	m   *manager.Manager
	cfg manager.Config
}

func devnet(b *testing.B) pktchain.Network {
	b.Helper()
	n, ok := pktchain.NetworkOf("pkt-devnet")
	if !ok {
		b.Fatal("no devnet")
	}
	return n
}

// newSide opens a party over a store.
func newSide(b *testing.B, ledger *rich, st manager.Store, name string) *side {
	b.Helper()
	n := devnet(b)
	seed := sha256.Sum256([]byte(name))
	keys, err := pktchain.NewKeychain(n, append(seed[:], seed[:]...))
	if err != nil {
		b.Fatal(err)
	}
	s := &side{}
	s.cfg = manager.Config{
		Network: n, Ledger: ledger, Store: st, Wallet: ledger.walletOf(name), Keychain: keys,
		DeviceKey: pktcloud.NewPrivateKey(seed), Reserve: 20_000,
	}
	if s.m, err = manager.New(b.Context(), s.cfg); err != nil {
		b.Fatal(err)
	}
	return s
}

// sqlite opens the node's store in a fresh directory.
func sqlite(b *testing.B) *store.Store {
	b.Helper()
	s, err := store.Open(filepath.Join(b.TempDir(), "node.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// open makes a channel that pays before its funding is mined.
func open(b *testing.B, payer, payee *side) pktcloud.ID {
	b.Helper()
	ctx := b.Context()
	detail, err := payee.m.PayeeDetail(ctx)
	if err != nil {
		b.Fatal(err)
	}
	params, funding, err := payer.m.Open(ctx, manager.OpenRequest{
		Payee: payee.cfg.DeviceKey.Public(), PayeeDetail: detail, Capacity: capacity, Unconfirmed: capacity, MinDepth: 1, LifetimeBlocks: lifetime,
	})
	if err != nil {
		b.Fatal(err)
	}
	id, err := payee.m.Accept(ctx, params, funding)
	if err != nil {
		b.Fatal(err)
	}
	return id
}

// bare is the least that any payment can cost: one ECDSA signature, its
// verification, and one sync of as many bytes as the store writes.
type bare struct {
	key  *btcec.PrivateKey
	own  ed25519.PrivateKey
	grow *os.File // appended to, as a plain journal is
	ring *os.File // overwritten in place, as SQLite's log is
	page []byte
	at   int64
}

// walBytes is how far SQLite's log grows before it begins anew; a store that has
// run for a while overwrites these bytes, which costs a disk less than new ones.
const walBytes = 1000 * 4096

// settled is how many vouchers make that log reach its length.
const settled = 1200

func newBare(b *testing.B) *bare {
	b.Helper()
	key, _ := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{7}, 32))
	x := &bare{key: key, own: ed25519.NewKeyFromSeed(make([]byte, 32)), page: make([]byte, 4096)}
	dir := b.TempDir()
	for name, f := range map[string]**os.File{"grow": &x.grow, "ring": &x.ring} {
		var err error
		if *f, err = os.Create(filepath.Join(dir, name)); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := (*f).Close(); err != nil {
				b.Error(err)
			}
		})
	}
	if _, err := x.ring.Write(make([]byte, walBytes)); err != nil {
		b.Fatal(err)
	}
	if err := x.ring.Sync(); err != nil {
		b.Fatal(err)
	}
	return x
}

func (x *bare) crypto(b *testing.B, i uint64) {
	digest := sha256.Sum256(binary.BigEndian.AppendUint64(nil, i))
	if !ecdsa.Sign(x.key, digest[:]).Verify(digest[:], x.key.PubKey()) {
		b.Fatal("does not verify")
	}
}

// device is the device's signature, which a voucher bears besides, and its
// verification.
func (x *bare) device(b *testing.B, i uint64) {
	message := binary.BigEndian.AppendUint64(nil, i)
	if !ed25519.Verify(x.own.Public().(ed25519.PublicKey), message, ed25519.Sign(x.own, message)) {
		b.Fatal("does not verify")
	}
}

// add writes a page at the end of a file and syncs it.
func (x *bare) add(b *testing.B) {
	if _, err := x.grow.Write(x.page); err != nil {
		b.Fatal(err)
	}
	if err := x.grow.Sync(); err != nil {
		b.Fatal(err)
	}
}

// overwrite writes a page over an older one and syncs it.
func (x *bare) overwrite(b *testing.B) {
	if _, err := x.ring.WriteAt(x.page, x.at); err != nil {
		b.Fatal(err)
	}
	x.at = (x.at + int64(len(x.page))) % walBytes
	if err := x.ring.Sync(); err != nil {
		b.Fatal(err)
	}
}

// clock gathers how long the steps of one kind took.
type clock []time.Duration

func (c *clock) time(fn func()) {
	began := time.Now()
	fn()
	*c = append(*c, time.Since(began))
}

// median is in microseconds.
func (c *clock) median() float64 {
	slices.Sort(*c)
	return float64((*c)[len(*c)/2].Nanoseconds()) / 1000
}

// BenchmarkSettleVoucher makes, verifies and stores vouchers, each beside its
// bare counterpart, so that both meet the same machine. The payee's store is
// the node's; the payer's is in memory, since it is another machine's disk.
func BenchmarkSettleVoucher(b *testing.B) {
	ledger := newRich(devnet(b))
	payer, payee := newSide(b, ledger, settletest.NewStore(), "payer"), newSide(b, ledger, sqlite(b), "payee")
	id := open(b, payer, payee)
	x := newBare(b)
	var pay, receive, whole, crypto, device, add, overwrite clock
	sum := pktcloud.Amount(0)
	voucher := func() {
		sum++
		var v pktcloud.Signed[settle.Voucher]
		var err error
		pay.time(func() { v, err = payer.m.Pay(b.Context(), id, settle.Entry{Lease: pktcloud.ID{1}, Cumulative: sum}) })
		if err != nil {
			b.Fatal(err)
		}
		receive.time(func() { err = payee.m.Receive(b.Context(), v) })
		if err != nil {
			b.Fatal(err)
		}
	}
	for range settled { // a node's store has its log
		voucher()
	}
	pay, receive = nil, nil
	for b.Loop() {
		whole.time(voucher)
		crypto.time(func() { x.crypto(b, uint64(sum)) })
		device.time(func() { x.device(b, uint64(sum)) })
		add.time(func() { x.add(b) })
		overwrite.time(func() { x.overwrite(b) })
	}
	least := crypto.median() + add.median()
	strict := crypto.median() + overwrite.median()
	b.ReportMetric(whole.median()/least, "×bare")
	b.ReportMetric(whole.median()/strict, "×bare-overwriting")
	b.ReportMetric(whole.median()/(strict+device.median()), "×bare-overwriting-and-ed25519")
	b.ReportMetric(device.median(), "µs-bare-ed25519")
	b.ReportMetric(pay.median(), "µs-pay")
	b.ReportMetric(receive.median(), "µs-receive")
	b.ReportMetric(crypto.median(), "µs-bare-ecdsa")
	b.ReportMetric(add.median(), "µs-bare-add")
	b.ReportMetric(overwrite.median(), "µs-bare-overwrite")
}

// BenchmarkSettleChannels pays over 100 channels at once and counts how often
// the payee's store synced.
func BenchmarkSettleChannels(b *testing.B) {
	const channels = 100
	ledger := newRich(devnet(b))
	disk := sqlite(b)
	payer, payee := newSide(b, ledger, settletest.NewStore(), "payer"), newSide(b, ledger, disk, "payee")
	ids := make([]pktcloud.ID, channels)
	for i := range ids {
		ids[i] = open(b, payer, payee)
	}
	before, began := disk.Commits(), time.Now()
	vouchers := 0
	sum := pktcloud.Amount(0)
	for b.Loop() {
		sum++
		var wait sync.WaitGroup
		for _, id := range ids {
			wait.Go(func() {
				v, err := payer.m.Pay(context.Background(), id, settle.Entry{Lease: pktcloud.ID{1}, Cumulative: sum})
				if err == nil {
					err = payee.m.Receive(context.Background(), v)
				}
				if err != nil {
					b.Error(err)
				}
			})
		}
		wait.Wait()
		vouchers += channels
	}
	b.ReportMetric(float64(disk.Commits()-before)/float64(vouchers), "syncs/voucher")
	b.ReportMetric(float64(vouchers)/time.Since(began).Seconds(), "vouchers/s")
}
