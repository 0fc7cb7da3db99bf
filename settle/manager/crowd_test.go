package manager_test

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// What the crowd's transactions weigh: a small one less than any claim or
// refund, so that a block without room for it has none for those.
const (
	crowdBlock  = 16_000 // weight of a full block
	crowdFrame  = 1_300  // header and reward, at most
	crowdSmall  = 440    // one input, one output
	crowdOutput = 4 * 31 // a further one
	crowdSmalls = 9      // no block has room for so many beside a bulky one
	crowdDust   = 330
)

// crowd is everybody else on a chain: it keeps each block full of transactions
// at a rate, so that what pays less waits.
type crowd struct {
	t      *testing.T
	ledger settle.Ledger
	rate   pktcloud.Amount // in units per 1000 virtual bytes
	key    *btcec.PrivateKey
	script []byte
	bulk   settle.Coin
	small  []settle.Coin
	mined  []bool // whether the small coin is in a block
}

func newCrowd(t *testing.T, ledger settle.Ledger, rate pktcloud.Amount, secret []byte) *crowd {
	t.Helper()
	seed := sha256.Sum256(append([]byte("crowd"), secret...))
	key, pub := btcec.PrivKeyFromBytes(seed[:])
	return &crowd{t: t, ledger: ledger, rate: rate, key: key, script: append([]byte{txscript.OP_0, 20}, address.Hash160(pub.SerializeCompressed())...)}
}

// split parts the one coin that the crowd was given. A block must follow.
func (c *crowd) split(amount, each pktcloud.Amount) {
	c.t.Helper()
	coins, err := c.ledger.Coins(c.t.Context(), c.script)
	if err != nil || len(coins) != 1 || coins[0].Amount != amount {
		c.t.Fatalf("the crowd has %d coins (%v), want one of %d units", len(coins), err, uint64(amount))
	}
	outputs := make([]pktcloud.Amount, crowdSmalls)
	for i := range outputs {
		outputs[i] = each
	}
	tx := c.spend(coins[0], 0, outputs...)
	c.bulk = c.coinOf(tx, 0)
	for i := range outputs {
		c.small, c.mined = append(c.small, c.coinOf(tx, i+1)), append(c.mined, true)
	}
}

func (c *crowd) coinOf(tx *wire.MsgTx, i int) settle.Coin {
	return settle.Coin{At: settle.Outpoint{TxID: tx.TxHash(), Index: uint32(i)}, Amount: pktcloud.Amount(tx.TxOut[i].Value), Script: c.script}
}

// spend broadcasts a transaction from a coin: what is left comes first, then
// further outputs, all to the crowd. Its fee is above the rate by a part of a
// hundred.
func (c *crowd) spend(coin settle.Coin, percent pktcloud.Amount, further ...pktcloud.Amount) *wire.MsgTx {
	c.t.Helper()
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: coin.At.TxID, Index: coin.At.Index}, nil, nil))
	tx.AddTxOut(wire.NewTxOut(0, c.script))
	left := coin.Amount - c.rate*(100+percent)/100*pktcloud.Amount(crowdSmall+crowdOutput*len(further))/4000
	for _, amount := range further {
		tx.AddTxOut(wire.NewTxOut(int64(amount), c.script))
		left -= amount
	}
	tx.TxOut[0].Value = int64(left)
	fetch := txscript.NewCannedPrevOutputFetcher(c.script, int64(coin.Amount))
	witness, err := txscript.WitnessSignature(tx, txscript.NewTxSigHashes(tx, fetch), 0, int64(coin.Amount), c.script, txscript.SigHashAll, c.key, true)
	if err != nil {
		c.t.Fatal(err)
	}
	tx.TxIn[0].Witness = witness
	var b bytes.Buffer
	if err := tx.Serialize(&b); err != nil {
		c.t.Fatal(err)
	}
	if err := c.ledger.Broadcast(c.t.Context(), b.Bytes()); err != nil {
		c.t.Fatalf("the crowd's transaction: %v", err)
	}
	return tx
}

// fill makes the next block full: one bulky transaction, and more small ones
// than there is room for beside it.
func (c *crowd) fill() {
	c.t.Helper()
	outputs := make([]pktcloud.Amount, (crowdBlock-crowdFrame-(crowdSmalls-3)*crowdSmall)/crowdOutput)
	for i := range outputs {
		outputs[i] = crowdDust
	}
	c.bulk = c.coinOf(c.spend(c.bulk, 10, outputs...), 0)
	for i, coin := range c.small {
		if c.mined[i] {
			c.small[i], c.mined[i] = c.coinOf(c.spend(coin, 0), 0), false
		}
	}
}

// filled demands that the last block was full: it took the bulky transaction
// and had no room for all of the small ones.
func (c *crowd) filled() {
	c.t.Helper()
	if depth := c.depth(c.bulk); depth != 1 {
		c.t.Fatalf("the crowd's bulky transaction: got depth %d, want it in the last block", depth)
	}
	if c.waiting() == 0 {
		c.t.Fatal("the last block was not full")
	}
}

// waiting returns how many small transactions found no room yet.
func (c *crowd) waiting() (n int) {
	c.t.Helper()
	for i, coin := range c.small {
		if c.mined[i] = c.depth(coin) > 0; !c.mined[i] {
			n++
		}
	}
	return n
}

func (c *crowd) depth(coin settle.Coin) uint64 {
	c.t.Helper()
	output := c.ledger.Output
	if coins, ok := c.ledger.(settle.CoinReader); ok { // without a search
		output = coins.Unspent
	}
	out, err := output(c.t.Context(), coin.At)
	if err != nil {
		c.t.Fatal(err)
	}
	return out.Depth
}

// rush is a channel whose claim must be mined while blocks are full.
type rush struct {
	crowd *crowd
	chain pktchain.Channel
	paid  pktcloud.Amount
	// mine makes a block, and returns when both sides have done what it asks of
	// them.
	mine func() settle.Tip
}

// run fills every block from the payee's deadline on, until one has the
// channel's end, and judges that.
func (r rush) run(t *testing.T) {
	t.Helper()
	p := r.chain.Params
	tip, err := r.crowd.ledger.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for tip.Height < p.Deadline() {
		tip = r.mine()
	}
	var fees []uint64 // of the claims, each above the one before
	var waited uint64
	for {
		out, err := r.crowd.ledger.Output(t.Context(), r.chain.Detail.Funding)
		if err != nil {
			t.Fatal(err)
		}
		if out.Spend == nil {
			t.Fatalf("height %d, deadline %d: nothing ends the channel", tip.Height, p.Deadline())
		}
		end, err := r.chain.EndOf(out.Spend.Raw)
		if err != nil {
			t.Fatal(err)
		}
		if fee := uint64(end.Fee); !end.Refund && (len(fees) == 0 || fees[len(fees)-1] != fee) {
			fees = append(fees, fee)
		}
		if out.Spend.Depth > 0 {
			r.judge(t, end, tip.Height+1-out.Spend.Depth, fees, waited)
			return
		}
		if tip.Height > p.ExpiryHeight+200 {
			t.Fatalf("height %d, expiry %d: nothing has ended the channel", tip.Height, p.ExpiryHeight)
		}
		r.crowd.fill()
		tip = r.mine()
		r.crowd.filled()
		waited++
	}
}

// judge demands that the payee was paid, in time, by a fee of its own raising.
func (r rush) judge(t *testing.T, end pktchain.End, height uint64, fees []uint64, blocks uint64) {
	t.Helper()
	p := r.chain.Params
	t.Logf("deadline %d, expiry %d: mined at %d after %d full blocks; refund %v, fees of the claims %v", p.Deadline(), p.ExpiryHeight, height, blocks, end.Refund, fees)
	if end.Refund {
		t.Fatalf("the refund won at height %d, expiry %d: the payee lost %d units; fees of its claims: %v", height, p.ExpiryHeight, uint64(r.paid), fees)
	}
	if height >= p.ExpiryHeight {
		t.Errorf("the claim was mined at height %d, expiry %d", height, p.ExpiryHeight)
	}
	if end.Payee+end.Fee != r.paid+p.Reserve || end.Payer != p.Capacity-r.paid-p.Reserve {
		t.Errorf("the claim paid %+v, want %d to the payee but for the fee", end, uint64(r.paid+p.Reserve))
	}
	if size := r.chain.ClaimFee(1000); end.Fee*1000 < r.crowd.rate*(size-1) { // a signature may be a byte shorter
		t.Errorf("a fee of %d for %d bytes was mined, the crowd paid %d per 1000", uint64(end.Fee), uint64(size), uint64(r.crowd.rate))
	}
	for i := range fees {
		if i > 0 && fees[i] <= fees[i-1] {
			t.Errorf("the claims' fees %v, want each above the one before", fees)
		}
	}
	if len(fees) < 3 || blocks < settle.RaiseBlocks*uint64(len(fees)-1) {
		t.Errorf("claims with fees of %v within %d blocks, want the first to wait, and rises every %d blocks", fees, blocks, settle.RaiseBlocks)
	}
}
