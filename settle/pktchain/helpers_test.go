package pktchain_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

const (
	capacity = 5_000_000
	reserve  = 5_000
	expiry   = 2_000
	change   = 20_000 // of the funding transaction
)

var (
	payerDevice = pktcloud.NewPrivateKey([32]byte{1})
	payeeDevice = pktcloud.NewPrivateKey([32]byte{2})
)

// seedOf is a 64-byte seed.
func seedOf(name string) []byte {
	a, b := sha256.Sum256([]byte(name)), sha256.Sum256([]byte(name+"'"))
	return append(a[:], b[:]...)
}

func keychain(t testing.TB, name string) *pktchain.Keychain {
	t.Helper()
	k, err := pktchain.NewKeychain(network(t), seedOf(name))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func network(t testing.TB) pktchain.Network {
	t.Helper()
	n, ok := pktchain.NetworkOf("pkt-devnet")
	if !ok {
		t.Fatal("no network")
	}
	return n
}

// coin is a key with a P2WPKH script that other tests' transactions spend.
func coin(name string) (*btcec.PrivateKey, []byte) {
	secret := sha256.Sum256([]byte(name))
	key, pub := btcec.PrivKeyFromBytes(secret[:])
	return key, append([]byte{0, 20}, address.Hash160(pub.SerializeCompressed())...)
}

func script(name string) []byte {
	_, s := coin(name)
	return s
}

// fixture is a funded channel with both sides' keys.
type fixture struct {
	payer, payee *pktchain.Keychain
	plan         pktchain.Plan
	funding      *wire.MsgTx
	prev         *wire.TxOut // what the funding spends
	params       settle.Params
	channel      pktchain.Channel
	signer       *pktchain.Signer
}

// fund makes a fixture; change may alter the funding before it is signed.
func fund(t testing.TB, refund pktchain.RefundKeys, alter func(tx *wire.MsgTx, p *settle.Params)) fixture {
	t.Helper()
	f := fixture{payer: keychain(t, "payer"), payee: keychain(t, "payee")}
	key, err := f.payee.PayeeKey(4)
	if err != nil {
		t.Fatal(err)
	}
	f.plan = pktchain.Plan{
		Index: 7, Expiry: expiry, Capacity: capacity, Refund: refund, PayerScript: script("payer out"),
		Payee: pktchain.PayeeDetail{Version: pktchain.PayeeDetailVersion, Key: key, Script: script("payee out")},
	}
	outputs, err := f.payer.FundingOutputs(f.plan)
	if err != nil {
		t.Fatal(err)
	}
	coinKey, coinScript := coin("coin")
	f.prev = wire.NewTxOut(capacity+change+2_400, coinScript)
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: sha256.Sum256([]byte("before"))}, Sequence: 0xfffffffe})
	for _, o := range outputs {
		tx.AddTxOut(wire.NewTxOut(int64(o.Amount), o.Script))
	}
	tx.AddTxOut(wire.NewTxOut(change, script("payer change")))
	f.params = settle.Params{
		Version: settle.ParamsVersion, Rail: network(t).Rail, Payer: payerDevice.Public(), Payee: payeeDevice.Public(),
		Capacity: capacity, Reserve: reserve, MinChange: 294, ExpiryHeight: expiry, MarginBlocks: 144, MinDepth: 3, Unconfirmed: 90_000,
	}
	if alter != nil {
		alter(tx, &f.params)
	}
	fetch := txscript.NewCannedPrevOutputFetcher(f.prev.PkScript, f.prev.Value)
	witness, err := txscript.WitnessSignature(tx, txscript.NewTxSigHashes(tx, fetch), 0, f.prev.Value, coinScript, txscript.SigHashAll, coinKey, true)
	if err != nil {
		t.Fatal(err)
	}
	tx.TxIn[0].Witness = witness
	f.funding = tx
	d, err := f.payer.DetailOf(pktchain.Plan{
		Index: f.plan.Index, Expiry: f.plan.Expiry, Payee: f.plan.Payee, Refund: refund, PayerScript: f.plan.PayerScript,
		Capacity: pktcloud.Amount(tx.TxOut[0].Value),
	}, encode(tx))
	if err != nil {
		t.Fatal(err)
	}
	if f.params.Detail, err = d.Encode(); err != nil {
		t.Fatal(err)
	}
	if f.channel, err = pktchain.ChannelOf(network(t), f.params); err != nil {
		t.Fatal(err)
	}
	if f.signer, err = f.payer.Signer(f.channel, f.plan.Index); err != nil {
		t.Fatal(err)
	}
	return f
}

// output answers as a ledger does that has seen the funding's input confirmed.
func (f fixture) output(at settle.Outpoint) (settle.Output, error) {
	if at.TxID != sha256.Sum256([]byte("before")) || at.Index != 0 {
		return settle.Output{}, nil
	}
	return settle.Output{Known: true, Depth: 1, Amount: pktcloud.Amount(f.prev.Value), Script: f.prev.PkScript}, nil
}

// voucher is a voucher body of one lease, with its proof.
func (f fixture) voucher(t testing.TB, total pktcloud.Amount) settle.Voucher {
	t.Helper()
	id, err := f.params.ID()
	if err != nil {
		t.Fatal(err)
	}
	proof, err := f.signer.SignVoucher(total)
	if err != nil {
		t.Fatal(err)
	}
	return settle.Voucher{
		Version: settle.VoucherVersion, Channel: id, Payer: payerDevice.Public(), Sequence: 1, Total: total, Proof: proof,
		Entries: []settle.Entry{{Lease: pktcloud.IDOf([]byte("lease")), Cumulative: total, Statement: pktcloud.IDOf([]byte("statement"))}},
	}
}

func (f fixture) offer(t testing.TB, final, fee pktcloud.Amount) settle.CloseOffer {
	t.Helper()
	id, err := f.params.ID()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := f.signer.SignClose(final, fee)
	if err != nil {
		t.Fatal(err)
	}
	return settle.CloseOffer{Version: settle.CloseOfferVersion, Channel: id, Final: final, Fee: fee, Signature: sig}
}

func encode(tx *wire.MsgTx) []byte {
	var b bytes.Buffer
	_ = tx.Serialize(&b)
	return b.Bytes()
}

func decode(t testing.TB, raw []byte) *wire.MsgTx {
	t.Helper()
	tx := new(wire.MsgTx)
	if err := tx.Deserialize(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	return tx
}

// standard runs the scripts of a transaction that spends the channel's funding
// output, as a node with standard policy does.
func (f fixture) standard(tx *wire.MsgTx) error {
	out := f.funding.TxOut[0]
	fetch := txscript.NewCannedPrevOutputFetcher(out.PkScript, out.Value)
	vm, err := txscript.NewEngine(out.PkScript, tx, 0, txscript.StandardVerifyFlags, nil, txscript.NewTxSigHashes(tx, fetch), out.Value, fetch)
	if err != nil {
		return err
	}
	return vm.Execute()
}

func wantCode(t testing.TB, err error, want settle.Code) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func vsize(tx *wire.MsgTx) int {
	return (3*tx.SerializeSizeStripped() + tx.SerializeSize() + 3) / 4
}
