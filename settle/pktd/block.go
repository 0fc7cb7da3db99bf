package pktd

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

const (
	headerBytes = 80
	// maxBlockTxs bounds the count that a block may claim: no transaction is
	// shorter than 60 bytes, and no block longer than four million.
	maxBlockTxs = 4_000_000 / 60
)

// block is a raw block of either kind:
//
//	80 bytes  header
//	proof     only where the work is PacketCrypt: items of varint type, varint
//	          length and that many bytes, the last of type 0 and length 0
//	varint    count of transactions
//	          the transactions
//
// Nothing in the header tells the kinds apart; the merkle root does [LEDGER-42].
type block struct {
	header wire.BlockHeader
	proof  []byte // skipped, not verified: the node did
	txs    []*wire.MsgTx
}

// parseBlock reads raw completely and checks that the transactions are those
// that the header commits to.
func parseBlock(raw []byte) (*block, error) {
	if len(raw) < headerBytes {
		return nil, errors.New("block shorter than its header")
	}
	var b block
	if err := b.header.Deserialize(bytes.NewReader(raw[:headerBytes])); err != nil {
		return nil, fmt.Errorf("block header: %w", err)
	}
	body := raw[headerBytes:]
	txs, plain := parseTxs(body)
	if plain == nil && merkleRoot(txs) == b.header.MerkleRoot {
		b.txs = txs
		return &b, nil
	}
	n, err := proofLength(body)
	if err != nil {
		return nil, errors.Join(errors.New("block: neither plain nor PacketCrypt"), plain, err)
	}
	b.proof = body[:n]
	if b.txs, err = parseTxs(body[n:]); err != nil {
		return nil, err
	}
	if merkleRoot(b.txs) != b.header.MerkleRoot {
		return nil, errors.New("block: transactions do not match the header")
	}
	return &b, nil
}

// proofLength measures the PacketCrypt items at the head of body.
func proofLength(body []byte) (int, error) {
	r := bytes.NewReader(body)
	for {
		kind, err := wire.ReadVarInt(r, 0)
		if err != nil {
			return 0, fmt.Errorf("proof item: %w", err)
		}
		size, err := wire.ReadVarInt(r, 0)
		if err != nil {
			return 0, fmt.Errorf("proof item: %w", err)
		}
		if size > uint64(r.Len()) {
			return 0, errors.New("proof item longer than the block")
		}
		if _, err := r.Seek(int64(size), io.SeekCurrent); err != nil {
			return 0, err
		}
		if kind == 0 {
			if size != 0 {
				return 0, errors.New("last proof item is not empty")
			}
			return len(body) - r.Len(), nil
		}
	}
}

func parseTxs(body []byte) ([]*wire.MsgTx, error) {
	r := bytes.NewReader(body)
	n, err := wire.ReadVarInt(r, 0)
	if err != nil {
		return nil, fmt.Errorf("transaction count: %w", err)
	}
	if n == 0 || n > maxBlockTxs || n > uint64(r.Len()) {
		return nil, fmt.Errorf("block claims %d transactions", n)
	}
	var txs []*wire.MsgTx // grown as they come: the count is only claimed
	for i := range n {
		tx := new(wire.MsgTx)
		if err := tx.Deserialize(r); err != nil {
			return nil, fmt.Errorf("transaction %d: %w", i, err)
		}
		txs = append(txs, tx)
	}
	if r.Len() != 0 {
		return nil, fmt.Errorf("%d bytes after the last transaction", r.Len())
	}
	return txs, nil
}

// parseTx reads raw completely.
func parseTx(raw []byte) (*wire.MsgTx, error) {
	tx := new(wire.MsgTx)
	r := bytes.NewReader(raw)
	if err := tx.Deserialize(r); err != nil {
		return nil, err
	}
	if r.Len() != 0 {
		return nil, fmt.Errorf("%d bytes after the transaction", r.Len())
	}
	return tx, nil
}

// merkleRoot is Bitcoin's tree over transaction ids: an odd last hash pairs
// with itself.
func merkleRoot(txs []*wire.MsgTx) chainhash.Hash {
	level := make([]chainhash.Hash, 0, len(txs))
	for _, tx := range txs {
		level = append(level, tx.TxHash())
	}
	for len(level) > 1 {
		if len(level)%2 == 1 {
			level = append(level, level[len(level)-1])
		}
		for i := range len(level) / 2 {
			level[i] = chainhash.DoubleHashH(append(level[2*i].CloneBytes(), level[2*i+1][:]...))
		}
		level = level[:len(level)/2]
	}
	if len(level) == 0 {
		return chainhash.Hash{}
	}
	return level[0]
}
