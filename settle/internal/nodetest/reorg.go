package nodetest

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// Codes of a node that has no such method.
const (
	codeUnimplemented = -1
	codeNoMethod      = -32601
)

// retarget is how many blocks have one difficulty.
const retarget = 2016

// TakeBack takes the best blocks from the chain; what they held waits in the
// mempool again. A btcd forgets them. A pktd cannot: there, empty blocks of
// another branch overtake them, so that the chain is one block higher afterwards.
func (n *Node) TakeBack(ctx context.Context, blocks int) error {
	tip, err := n.Ledger.Tip(ctx)
	if err != nil {
		return err
	}
	hash, err := n.hashAt(ctx, tip.Height-uint64(blocks)+1)
	if err != nil {
		return err
	}
	err = n.call(ctx, nil, "invalidateblock", hash)
	if refused(err, codeUnimplemented, codeNoMethod) {
		return n.overtake(ctx, tip.Height, blocks)
	}
	return err
}

func (n *Node) hashAt(ctx context.Context, height uint64) (hash string, err error) {
	err = n.call(ctx, &hash, "getblockhash", height)
	return hash, err
}

// headerAt returns the header of the best chain's block at a height.
func (n *Node) headerAt(ctx context.Context, height uint64) (h wire.BlockHeader, err error) {
	hash, err := n.hashAt(ctx, height)
	if err != nil {
		return h, err
	}
	var text string
	if err := n.call(ctx, &text, "getblock", hash, 0); err != nil {
		return h, err
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return h, err
	}
	return h, h.Deserialize(bytes.NewReader(raw))
}

// overtake makes a branch of empty blocks, one longer than those that it leaves
// behind.
func (n *Node) overtake(ctx context.Context, height uint64, blocks int) error {
	if (height+1)%retarget == 0 { // the work of the block after is not known here
		if err := n.Mine(ctx, 1); err != nil {
			return err
		}
		height, blocks = height+1, blocks+1
	}
	from := height - uint64(blocks)
	parent, err := n.headerAt(ctx, from)
	if err != nil {
		return err
	}
	for i := range uint64(blocks) + 1 {
		like, err := n.headerAt(ctx, min(from+1+i, height)) // with the work that is asked for
		if err != nil {
			return err
		}
		b, err := emptyBlock(parent, like, from+1+i)
		if err != nil {
			return err
		}
		if err := n.submit(ctx, b); err != nil {
			return fmt.Errorf("block %d of another branch: %w", from+1+i, err)
		}
		parent = b.Header
	}
	return nil
}

func emptyBlock(parent, like wire.BlockHeader, height uint64) (*wire.MsgBlock, error) {
	script, err := txscript.NewScriptBuilder().AddInt64(int64(height)).AddData([]byte("another branch")).Script()
	if err != nil {
		return nil, err
	}
	reward := wire.NewMsgTx(1)
	reward.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: wire.MaxPrevOutIndex}, script, nil))
	reward.AddTxOut(wire.NewTxOut(0, []byte{txscript.OP_TRUE}))
	b := wire.NewMsgBlock(&wire.BlockHeader{
		Version: like.Version, PrevBlock: parent.BlockHash(), MerkleRoot: reward.TxHash(),
		Timestamp: parent.Timestamp.Add(time.Second), Bits: like.Bits,
	})
	if err := b.AddTransaction(reward); err != nil {
		return nil, err
	}
	for target := blockchain.CompactToBig(like.Bits); ; b.Header.Nonce++ {
		hash := b.Header.BlockHash()
		if blockchain.HashToBig(&hash).Cmp(target) <= 0 {
			return b, nil
		}
	}
}

func (n *Node) submit(ctx context.Context, b *wire.MsgBlock) error {
	var raw bytes.Buffer
	if err := b.Serialize(&raw); err != nil {
		return err
	}
	var why *string
	if err := n.call(ctx, &why, "submitblock", hex.EncodeToString(raw.Bytes())); err != nil {
		return err
	}
	if why != nil {
		return fmt.Errorf("the node answers %q", *why)
	}
	return nil
}
