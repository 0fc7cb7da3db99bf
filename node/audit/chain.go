package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// maxBlockBytes bounds one block record of a chain directory.
const maxBlockBytes = 8 << 20

// chain is what the raw blocks of a directory say: the branch with the most
// work, and the transactions of it.
type chain struct {
	height uint64
	txs    map[chainhash.Hash]*chainTx
	spends map[wire.OutPoint]*chainTx
}

// chainTx is a transaction of the best branch.
type chainTx struct {
	tx     *wire.MsgTx
	height uint64
}

// storedBlock is one block record, checked by itself.
type storedBlock struct {
	name   string // "block 12 of 000000000.fdb", for findings
	hash   chainhash.Hash
	block  *wire.MsgBlock
	parent *storedBlock
	height uint64
	work   *big.Int
}

// readChain reads every block file below dir and reports what does not hold.
// A file of blocks is a row of records [LEDGER-20]:
//
//	network (4, little-endian) | length n (4, little-endian) | block (n) | CRC-32C of all before (4, big-endian)
func readChain(dir string, report *Report) (*chain, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".fdb" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the chain directory: %w", err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no block files (*.fdb): give the data directory of the devnet", dir)
	}
	slices.Sort(files)
	blocks := map[chainhash.Hash]*storedBlock{}
	var order []*storedBlock
	for i, path := range files {
		found, err := readBlockFile(path, i == len(files)-1, report)
		if err != nil {
			return nil, err
		}
		for _, b := range found {
			if blocks[b.hash] == nil {
				blocks[b.hash] = b
				order = append(order, b)
			}
		}
	}
	return bestBranch(order, blocks, report)
}

// readBlockFile reads one file. A record cut short at the end of the last
// file is what a crash leaves, not a finding.
func readBlockFile(path string, last bool, report *Report) ([]*storedBlock, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the chain: %w", err)
	}
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	var blocks []*storedBlock
	for n := 0; len(data) > 0; n++ {
		name := fmt.Sprintf("block record %d of %s", n, filepath.Base(path))
		if len(data) < 12 {
			if !last {
				report.add(name, "is cut short")
			}
			break
		}
		size := binary.LittleEndian.Uint32(data[4:])
		if size > maxBlockBytes {
			report.add(name, "claims %d bytes", size)
			break
		}
		if uint64(len(data)) < uint64(size)+12 {
			if !last {
				report.add(name, "is cut short")
			}
			break
		}
		report.Checked.Blocks++
		record, sum := data[:8+size], data[8+size:12+size]
		data = data[12+size:]
		if crc32.Checksum(record, castagnoli) != binary.BigEndian.Uint32(sum) {
			report.add(name, "does not match its checksum")
		}
		b, err := checkBlock(record[8:])
		if err != nil {
			report.add(name, "%v", err)
			continue
		}
		b.name = name
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// checkBlock decodes a block and checks what it says of itself: the work of
// its header, the Merkle root of its transactions and the witness commitment.
func checkBlock(raw []byte) (*storedBlock, error) {
	block := new(wire.MsgBlock)
	r := bytes.NewReader(raw)
	if err := block.Deserialize(r); err != nil {
		return nil, fmt.Errorf("does not decode: %w", err)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has bytes after its transactions")
	}
	b := &storedBlock{block: block, hash: block.BlockHash()}
	target := compactTarget(block.Header.Bits)
	hash := b.hash
	slices.Reverse(hash[:])
	if target.Sign() <= 0 || new(big.Int).SetBytes(hash[:]).Cmp(target) > 0 {
		return nil, errors.New("has a header whose hash misses its target")
	}
	b.work = new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), 256), target.Add(target, big.NewInt(1)))
	if len(block.Transactions) == 0 {
		return nil, errors.New("has no transactions")
	}
	if merkleRoot(block.Transactions, (*wire.MsgTx).TxHash) != block.Header.MerkleRoot {
		return nil, errors.New("has transactions that differ from the Merkle root of its header")
	}
	return b, checkWitness(block)
}

// checkWitness compares the witnesses of a block with the commitment in its
// coinbase (BIP 141).
func checkWitness(block *wire.MsgBlock) error {
	magic := []byte{0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed}
	coinbase := block.Transactions[0]
	var committed []byte
	for _, out := range coinbase.TxOut {
		if bytes.HasPrefix(out.PkScript, magic) && len(out.PkScript) >= 38 {
			committed = out.PkScript[6:38]
		}
	}
	if committed == nil {
		if slices.ContainsFunc(block.Transactions, (*wire.MsgTx).HasWitness) {
			return errors.New("has witnesses without a commitment to them")
		}
		return nil
	}
	if len(coinbase.TxIn) != 1 || len(coinbase.TxIn[0].Witness) != 1 {
		return errors.New("has a coinbase without the witness nonce")
	}
	root := merkleRoot(block.Transactions, func(tx *wire.MsgTx) chainhash.Hash {
		if tx == coinbase {
			return chainhash.Hash{}
		}
		return tx.WitnessHash()
	})
	if sum := doubleHash(root[:], coinbase.TxIn[0].Witness[0]); !bytes.Equal(sum[:], committed) {
		return errors.New("has witnesses that differ from its commitment")
	}
	return nil
}

// bestBranch links the blocks and returns the branch with the most work. A
// block whose parent is missing is a finding, unless it opens the chain.
func bestBranch(order []*storedBlock, blocks map[chainhash.Hash]*storedBlock, report *Report) (*chain, error) {
	var tip *storedBlock
	roots := 0
	for _, b := range order {
		b.parent = blocks[b.block.Header.PrevBlock]
		switch {
		case b.parent != nil:
			b.height = b.parent.height + 1
			b.work.Add(b.work, b.parent.work)
		case roots == 0:
			roots++
		default:
			report.add(b.name, "does not continue any block that is there")
			continue
		}
		if tip == nil || b.work.Cmp(tip.work) > 0 {
			tip = b
		}
	}
	if tip == nil {
		return nil, errors.New("the chain directory holds no readable block")
	}
	c := &chain{height: tip.height, txs: map[chainhash.Hash]*chainTx{}, spends: map[wire.OutPoint]*chainTx{}}
	for b := tip; b != nil; b = b.parent {
		for i, tx := range b.block.Transactions {
			entry := &chainTx{tx: tx, height: b.height}
			c.txs[tx.TxHash()] = entry
			if i == 0 {
				continue
			}
			for _, in := range tx.TxIn {
				if c.spends[in.PreviousOutPoint] != nil {
					report.add(b.name, "spends %v a second time", in.PreviousOutPoint)
				}
				c.spends[in.PreviousOutPoint] = entry
			}
		}
	}
	return c, nil
}

// merkleRoot is the root over the given hash of each transaction; an odd row
// repeats its last member.
func merkleRoot(txs []*wire.MsgTx, hash func(*wire.MsgTx) chainhash.Hash) chainhash.Hash {
	row := make([]chainhash.Hash, len(txs))
	for i, tx := range txs {
		row[i] = hash(tx)
	}
	for len(row) > 1 {
		if len(row)%2 == 1 {
			row = append(row, row[len(row)-1])
		}
		for i := range len(row) / 2 {
			row[i] = doubleHash(row[2*i][:], row[2*i+1][:])
		}
		row = row[:len(row)/2]
	}
	return row[0]
}

func doubleHash(parts ...[]byte) chainhash.Hash {
	first := sha256.Sum256(bytes.Join(parts, nil))
	return sha256.Sum256(first[:])
}

// compactTarget expands the target of a header's bits field.
func compactTarget(bits uint32) *big.Int {
	mantissa := big.NewInt(int64(bits & 0x7fffff))
	if bits&0x800000 != 0 {
		return new(big.Int)
	}
	exponent := uint(bits >> 24)
	if exponent <= 3 {
		return mantissa.Rsh(mantissa, 8*(3-exponent))
	}
	return mantissa.Lsh(mantissa, 8*(exponent-3))
}
