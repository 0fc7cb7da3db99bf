package devnet

import (
	"math/big"
	"sync"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// What tells this chain from every other [LEDGER-20].
const (
	Name = "pkt-devnet"
	HRP  = "dpk"
	// Magic begins every record of the block files; on the wire it would be
	// the bytes 64 70 6b 31, "dpk1".
	Magic = 0x316b7064
	// CoinbaseMaturity is how many confirmations a block's reward needs before
	// it can be spent.
	CoinbaseMaturity = 100
	// BlockReward is what each block creates, in base units; it never halves.
	BlockReward = 5_000_000_000
)

// genesisTime is the moment the first block claims, in Unix seconds.
const genesisTime = 1_763_769_600

// params returns the rules of the chain. They are btcd's regression test rules:
// trivial work without retargeting, segwit and relative locks from the start.
// They are not entered into btcd's table of networks, which is global.
var params = sync.OnceValue(func() *chaincfg.Params {
	p := chaincfg.RegressionNetParams
	p.Name = Name
	p.Net = wire.BitcoinNet(Magic)
	p.Bech32HRPSegwit = HRP
	p.CoinbaseMaturity = CoinbaseMaturity
	p.SubsidyReductionInterval = 0
	p.DNSSeeds, p.DefaultPort = nil, ""
	p.HDCoinType = 390
	p.GenesisBlock = genesisBlock(p.PowLimitBits)
	hash := p.GenesisBlock.BlockHash()
	p.GenesisHash = &hash
	return &p
})

// genesisBlock makes the first block. Its reward cannot be spent: no chain of
// this kind lets the first block's be.
func genesisBlock(bits uint32) *wire.MsgBlock {
	tx := wire.NewMsgTx(1)
	tx.AddTxIn(&wire.TxIn{
		PreviousOutPoint: wire.OutPoint{Index: wire.MaxPrevOutIndex},
		SignatureScript:  append([]byte{byte(len(Name))}, Name...),
		Sequence:         wire.MaxTxInSequenceNum,
	})
	tx.AddTxOut(wire.NewTxOut(BlockReward, []byte{0x51}))
	block := wire.NewMsgBlock(&wire.BlockHeader{
		Version: 1, MerkleRoot: tx.TxHash(), Timestamp: time.Unix(genesisTime, 0), Bits: bits,
	})
	block.Transactions = []*wire.MsgTx{tx}
	solve(&block.Header)
	return block
}

// solve finds a nonce. One try in two succeeds.
func solve(h *wire.BlockHeader) {
	target := blockchain.CompactToBig(h.Bits)
	for !meets(h.BlockHash(), target) {
		h.Nonce++
	}
}

func meets(hash chainhash.Hash, target *big.Int) bool {
	return blockchain.HashToBig(&hash).Cmp(target) <= 0
}
