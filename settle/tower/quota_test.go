package tower_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

// A tower whose owner lowers the quotas keeps what it gave receipts for, and
// takes what replaces it, but nothing more.
func TestLowerQuotas(t *testing.T) {
	for _, quota := range []tower.Quota{{Deposits: 1}, {ClientDeposits: 1}, {Bytes: 1}, {ClientBytes: 1}} {
		l := settletest.NewLedger(network(t))
		first, second, third := open(t, l, 0), open(t, l, 1), open(t, l, 2)
		w := newWatch(t, l, nil)
		w.take(first.lateDeposit(1_000_000, 400, 1600))
		w.take(second.lateDeposit(1_000_000, 400, 1600))
		w.cfg.Quota = quota
		w.crash()
		w.take(first.lateDeposit(1_200_000, 6400))
		_, err := w.Accept(t.Context(), third.lateDeposit(1_000_000, 400))
		wantCode(t, "a deposit above a lowered quota", err, settle.ErrQuota)
		w.crash()
		if n := len(w.List()); n != 2 {
			t.Errorf("%+v: got %d deposits, want 2", quota, n)
		}
	}
}

// A deposit that the store lost half of does not leave the others unwatched.
func TestDamagedDeposit(t *testing.T) {
	l := settletest.NewLedger(network(t))
	first, second := open(t, l, 0), open(t, l, 1)
	w := newWatch(t, l, nil)
	w.take(first.lateDeposit(1_000_000, 400, 1600))
	p := second.late(1_000_000, 400)
	w.take(second.deposit(second.payee, p))
	w.stop()
	var puts []tower.Put
	err := w.store.Load(t.Context(), "tower/held/", func(key string, value []byte) error {
		d := first.chain.Detail.Funding.TxID
		if strings.Contains(key, hex.EncodeToString(d[:])) {
			puts = append(puts, tower.Put{Key: key, Value: bytes.Clone(value[:len(value)/2])})
		}
		return nil
	})
	if err != nil || len(puts) != 1 {
		t.Fatal(err, len(puts))
	}
	if err := w.store.Apply(t.Context(), puts); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	w.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	w.crash()
	if n := len(w.List()); n != 1 || !strings.Contains(log.String(), "cannot be read") {
		t.Errorf("got %d deposits, want 1 and a word of the other: %s", n, log.String())
	}
	mineTo(t, l, lock)
	pooled(t, l, "the other's claim", p.Txs[0])
}

// What a book holds in memory follows from its quotas.
func TestBookIsSmall(t *testing.T) {
	l := settletest.NewLedger(network(t))
	data := open(t, l, 0).lateDeposit(1_000_000, 400, 800, 1200, 1600, 2000, 2400, 2800, 3200)
	b := tower.NewBook(network(t), tower.Quota{}, 0)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 200 {
		r, err := tower.Read(network(t), data)
		if err != nil {
			t.Fatal(err)
		}
		binary.BigEndian.PutUint32(r.Key[1:], uint32(i))
		b.Put(tower.Entry{Reading: r})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown, held := after.HeapAlloc-before.HeapAlloc, b.Total().Bytes; grown > 3*held {
		t.Errorf("%d bytes in memory for %d bytes of deposits", grown, held)
	}
	runtime.KeepAlive(b)
}
