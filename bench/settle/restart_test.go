package settle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"golang.org/x/sys/unix"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/store"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
)

// rich is a chain on which one key owns every output: funding costs no search
// for coins, and is good all the same.
type rich struct {
	settle.Ledger
	key    *btcec.PrivateKey
	script []byte
	spent  uint64
}

func newRich(n pktchain.Network) *rich {
	key, pub := btcec.PrivKeyFromBytes(bytes.Repeat([]byte{9}, 32))
	return &rich{Ledger: settletest.NewLedger(n), key: key, script: scriptOf(pub)}
}

func scriptOf(pub *btcec.PublicKey) []byte {
	return append([]byte{0, 20}, address.Hash160(pub.SerializeCompressed())...)
}

// Output implements settle.Ledger.
func (r *rich) Output(context.Context, settle.Outpoint) (settle.Output, error) {
	return settle.Output{Known: true, Amount: 2 * capacity, Script: r.script, Depth: 10}, nil
}

// purse is a wallet that spends the chain's outputs and receives on a script
// of its own.
type purse struct {
	chain *rich
	own   []byte
}

func (r *rich) walletOf(name string) purse {
	seed := sha256.Sum256([]byte("wallet of " + name))
	_, pub := btcec.PrivKeyFromBytes(seed[:])
	return purse{r, scriptOf(pub)}
}

// Fund implements manager.Wallet.
func (p purse) Fund(_ context.Context, outputs []settle.Payment, rate pktcloud.Amount) ([]byte, error) {
	r := p.chain
	r.spent++
	tx := wire.NewMsgTx(2)
	at := wire.OutPoint{Hash: chainhash.DoubleHashH(binary.BigEndian.AppendUint64(nil, r.spent))}
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: at, Sequence: wire.MaxTxInSequenceNum - 1})
	rest := int64(2 * capacity)
	for _, o := range outputs {
		tx.AddTxOut(wire.NewTxOut(int64(o.Amount), o.Script))
		rest -= int64(o.Amount)
	}
	tx.AddTxOut(wire.NewTxOut(rest-int64(rate), p.own))
	fetch := txscript.NewCannedPrevOutputFetcher(r.script, 2*capacity)
	witness, err := txscript.WitnessSignature(tx, txscript.NewTxSigHashes(tx, fetch), 0, 2*capacity, r.script, txscript.SigHashAll, r.key, true)
	if err != nil {
		return nil, err
	}
	tx.TxIn[0].Witness = witness
	var b bytes.Buffer
	err = tx.Serialize(&b)
	return b.Bytes(), err
}

// Reserve, Release and ReceiveScript implement manager.Wallet.
func (purse) Reserve(context.Context, []byte) error           { return nil }
func (purse) Release(context.Context, []byte) error           { return nil }
func (p purse) ReceiveScript(context.Context) ([]byte, error) { return p.own, nil }

// BenchmarkSettleRestart opens a manager over the node's store with 10,000
// channels, half of them paid from and half of them paid to, each with a
// voucher.
func BenchmarkSettleRestart(b *testing.B) {
	const channels = 10_000
	ledger := newRich(devnet(b))
	memory := settletest.NewStore()
	one, other := newSide(b, ledger, memory, "one"), newSide(b, ledger, settletest.NewStore(), "other")
	for i := range channels {
		payer, payee := one, other
		if i%2 == 1 {
			payer, payee = other, one
		}
		v, err := payer.m.Pay(b.Context(), open(b, payer, payee), settle.Entry{Lease: pktcloud.ID{1}, Cumulative: 1})
		if err == nil {
			err = payee.m.Receive(b.Context(), v)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	disk := sqlite(b)
	fill(b, disk, memory)
	one.cfg.Store = disk
	var restart clock
	began := cpu(b)
	for b.Loop() {
		restart.time(func() {
			m, err := manager.New(b.Context(), one.cfg)
			if err != nil {
				b.Fatal(err)
			}
			if got := len(m.List()); got != channels {
				b.Fatalf("got %d channels, want %d", got, channels)
			}
		})
	}
	b.ReportMetric((cpu(b)-began).Seconds()/float64(len(restart)), "s-processor")
	b.ReportMetric(restart.median()/1e6, "s-restart")
}

// cpu is how much processor time this program has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fill copies what a store in memory holds.
func fill(b *testing.B, to *store.Store, from *settletest.Store) {
	b.Helper()
	var puts []store.Put
	err := from.Load(b.Context(), "", func(key string, value []byte) error {
		puts = append(puts, store.Put{Key: key, Value: bytes.Clone(value)})
		return nil
	})
	if err == nil {
		err = to.Apply(b.Context(), puts)
	}
	if err != nil {
		b.Fatal(err)
	}
}
