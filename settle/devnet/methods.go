package devnet

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/internal/chainview"
)

// Codes of replies, those of a pktd.
const (
	codeParse      = -32700
	codeNoMethod   = -32601
	codeBadParams  = -32602
	codeInternal   = -32603
	codeNotFound   = -5 // unknown block or transaction
	codeOutOfRange = -1
)

// methods are the calls that the server answers [LEDGER-31]. The last group is
// for development and exists on no pktd.
func (c *Chain) methods() map[string]method {
	return map[string]method{
		"getinfo":            c.rpcInfo,
		"getcurrentnet":      func(context.Context, arguments) (any, error) { return uint32(Magic), nil },
		"getblockcount":      c.rpcBlockCount,
		"getbestblockhash":   c.rpcBestHash,
		"getblockhash":       c.rpcBlockHash,
		"getblock":           c.rpcBlock,
		"getblockheader":     c.rpcHeader,
		"getrawmempool":      c.rpcMempool,
		"getrawtransaction":  c.rpcTransaction,
		"gettxout":           c.rpcTxOut,
		"sendrawtransaction": c.rpcSend,
		"generate":           c.rpcGenerate,

		"invalidateblock": c.rpcInvalidate, // as in btcd
		"devnetfaucet":    c.rpcFaucet,
	}
}

// arguments are the positional parameters of a call.
type arguments []json.RawMessage

// read decodes parameter i into v. A missing one is an error unless optional.
func (a arguments) read(i int, v any, optional bool) error {
	if i >= len(a) || string(a[i]) == "null" {
		if optional {
			return nil
		}
		return &rpcError{codeBadParams, fmt.Sprintf("Invalid parameters: parameter #%d is missing", i+1)}
	}
	if err := json.Unmarshal(a[i], v); err != nil {
		return &rpcError{codeBadParams, fmt.Sprintf("Invalid parameters: parameter #%d: %v", i+1, err)}
	}
	return nil
}

// hash reads the first parameter.
func (a arguments) hash() (chainhash.Hash, error) {
	var s string
	if err := a.read(0, &s, false); err != nil {
		return chainhash.Hash{}, err
	}
	h, err := chainhash.NewHashFromStr(s)
	if err != nil || len(s) != 2*chainhash.HashSize {
		return chainhash.Hash{}, &rpcError{codeBadParams, fmt.Sprintf("Invalid parameters: %q is no hash", s)}
	}
	return *h, nil
}

// hex reads the first parameter.
func (a arguments) hex() ([]byte, error) {
	var s string
	if err := a.read(0, &s, false); err != nil {
		return nil, err
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, &rpcError{codeDeserialization, "Argument must be hexadecimal string (not \"" + s[:min(len(s), 64)] + "\")"}
	}
	return b, nil
}

// flag reads a verbosity that may be a number or a truth value.
func (a arguments) flag(i int, unset bool) (bool, error) {
	var v any
	if err := a.read(i, &v, true); err != nil {
		return false, err
	}
	switch v := v.(type) {
	case nil:
		return unset, nil
	case bool:
		return v, nil
	case float64:
		return v != 0, nil
	}
	return false, &rpcError{codeBadParams, fmt.Sprintf("Invalid parameters: parameter #%d", i+1)}
}

func (c *Chain) rpcInfo(ctx context.Context, _ arguments) (any, error) {
	tip, err := c.Tip(ctx)
	return map[string]any{
		"version": 0, "protocolversion": 70002, "blocks": tip.Height, "timeoffset": 0, "connections": 0,
		"difficulty": 1, "testnet": false, "relayfee": coins(settle.RelayFloor), "errors": "",
	}, err
}

func (c *Chain) rpcBlockCount(ctx context.Context, _ arguments) (any, error) {
	tip, err := c.Tip(ctx)
	return tip.Height, err
}

func (c *Chain) rpcBestHash(ctx context.Context, _ arguments) (any, error) {
	tip, err := c.Tip(ctx)
	return chainhash.Hash(tip.Hash).String(), err
}

func (c *Chain) rpcBlockHash(_ context.Context, a arguments) (any, error) {
	var height int32
	if err := a.read(0, &height, false); err != nil {
		return nil, err
	}
	hash, err := c.chain.BlockHashByHeight(height)
	if err != nil {
		return nil, &rpcError{codeOutOfRange, "Block number out of range"}
	}
	return hash.String(), nil
}

// block looks up a block of the best chain or of a side branch.
func (c *Chain) block(a arguments) (*btcutil.Block, error) {
	hash, err := a.hash()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed()
	}
	block, err := c.chain.BlockByHash(&hash)
	if err != nil {
		return nil, &rpcError{codeNotFound, "Block not found"}
	}
	return block, nil
}

func (c *Chain) rpcBlock(_ context.Context, a arguments) (any, error) {
	block, err := c.block(a)
	if err != nil {
		return nil, err
	}
	verbose, err := a.flag(1, true)
	if err != nil {
		return nil, err
	}
	if verbose {
		out := c.headerJSON(block)
		ids := make([]string, 0, len(block.Transactions()))
		for _, tx := range block.Transactions() {
			ids = append(ids, tx.Hash().String())
		}
		out["tx"] = ids
		return out, nil
	}
	raw, err := block.Bytes()
	return hex.EncodeToString(raw), err
}

func (c *Chain) rpcHeader(_ context.Context, a arguments) (any, error) {
	block, err := c.block(a)
	if err != nil {
		return nil, err
	}
	verbose, err := a.flag(1, true)
	if err != nil {
		return nil, err
	}
	if verbose {
		return c.headerJSON(block), nil
	}
	var b bytes.Buffer
	err = block.MsgBlock().Header.Serialize(&b)
	return hex.EncodeToString(b.Bytes()), err
}

func (c *Chain) headerJSON(b *btcutil.Block) map[string]any {
	h := b.MsgBlock().Header
	out := map[string]any{
		"hash": b.Hash().String(), "confirmations": -1, "version": h.Version, "versionHex": fmt.Sprintf("%08x", h.Version),
		"merkleroot": h.MerkleRoot.String(), "time": h.Timestamp.Unix(), "nonce": h.Nonce, "bits": fmt.Sprintf("%08x", h.Bits),
		"difficulty": 1, "previousblockhash": h.PrevBlock.String(),
	}
	if height, err := c.chain.BlockHeightByHash(b.Hash()); err == nil { // of the best chain only
		out["height"], out["confirmations"] = height, c.chain.BestSnapshot().Height-height+1
	}
	return out
}

func (c *Chain) rpcMempool(context.Context, arguments) (any, error) {
	ids := []string{}
	for _, hash := range c.pool.TxHashes() {
		ids = append(ids, hash.String())
	}
	slices.Sort(ids)
	return ids, nil
}

func (c *Chain) rpcTransaction(_ context.Context, a arguments) (any, error) {
	txid, err := a.hash()
	if err != nil {
		return nil, err
	}
	if verbose, err := a.flag(1, false); err != nil || verbose {
		return nil, errors.Join(err, &rpcError{codeBadParams, "Invalid parameters: the devnet gives raw transactions only"})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed()
	}
	if tx, err := c.pool.FetchTransaction(&txid); err == nil {
		raw, err := chainview.Raw(tx.MsgTx())
		return hex.EncodeToString(raw), err
	}
	out, err := c.view.Output(settle.Outpoint{TxID: txid})
	if err != nil {
		return nil, err
	}
	if !out.Known {
		return nil, &rpcError{codeNotFound, "No information available about transaction " + txid.String()}
	}
	block, err := c.chain.BlockByHeight(int32(c.view.Tip().Height - out.Depth + 1))
	if err != nil {
		return nil, err
	}
	for _, tx := range block.Transactions() {
		if *tx.Hash() == txid {
			raw, err := chainview.Raw(tx.MsgTx())
			return hex.EncodeToString(raw), err
		}
	}
	return nil, &rpcError{codeNotFound, "No information available about transaction " + txid.String()}
}

// rpcTxOut answers as real nodes do: an output that only the mempool spends is
// still there.
func (c *Chain) rpcTxOut(_ context.Context, a arguments) (any, error) {
	txid, err := a.hash()
	if err != nil {
		return nil, err
	}
	var index uint32
	if err := a.read(1, &index, false); err != nil {
		return nil, err
	}
	withPool, err := a.flag(2, true)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out, err := c.view.Output(settle.Outpoint{TxID: txid, Index: index})
	if err != nil {
		return nil, err
	}
	if !out.Known || out.Depth == 0 && !withPool || out.Spend != nil && out.Spend.Depth > 0 {
		return nil, nil
	}
	coinbase := slices.ContainsFunc(c.view.Coins(out.Script), func(coin settle.Coin) bool {
		return coin.At.TxID == txid && coin.Coinbase
	})
	return map[string]any{
		"bestblock": chainhash.Hash(c.view.Tip().Hash).String(), "confirmations": out.Depth,
		"value": coins(out.Amount), "svalue": fmt.Sprint(uint64(out.Amount)), "coinbase": coinbase,
	}, nil
}

func (c *Chain) rpcSend(_ context.Context, a arguments) (any, error) {
	raw, err := a.hex()
	if err != nil {
		return nil, err
	}
	tx, err := parseTx(raw)
	if err != nil {
		return nil, &rpcError{codeDeserialization, "TX decode failed: " + err.Error()}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed()
	}
	err = c.accept(tx)
	if refused, ok := errors.AsType[*settle.Rejection](err); ok {
		return nil, &rpcError{refused.Code, "TX rejected: " + refused.Reason}
	}
	return tx.Hash().String(), err
}

func (c *Chain) rpcGenerate(_ context.Context, a arguments) (any, error) {
	var n int
	if err := a.read(0, &n, false); err != nil {
		return nil, err
	}
	hashes, err := c.Mine(n, nil)
	return texts(hashes), err
}

func (c *Chain) rpcInvalidate(_ context.Context, a arguments) (any, error) {
	hash, err := a.hash()
	if err != nil {
		return nil, err
	}
	height, err := c.chain.BlockHeightByHash(&hash)
	if err != nil {
		return nil, &rpcError{codeNotFound, "Block not found in the best chain"}
	}
	return nil, c.Invalidate(int(c.chain.BestSnapshot().Height - height + 1))
}

// rpcFaucet pays: parameters are a script in hexadecimal and a whole number of
// base units; the result is the transaction's id. A block is mined over it.
func (c *Chain) rpcFaucet(ctx context.Context, a arguments) (any, error) {
	script, err := a.hex()
	if err != nil {
		return nil, err
	}
	var units uint64
	if err := a.read(1, &units, false); err != nil {
		return nil, err
	}
	txid, err := c.Faucet(ctx, script, pktcloud.Amount(units))
	return txid.String(), err
}

func texts(hashes []chainhash.Hash) []string {
	out := make([]string, 0, len(hashes))
	for _, h := range hashes {
		out = append(out, h.String())
	}
	return out
}

// coins writes an amount as an exact JSON number of whole coins.
func coins(a pktcloud.Amount) json.RawMessage {
	r := new(big.Rat).SetFrac(new(big.Int).SetUint64(uint64(a)), big.NewInt(pktcloud.UnitsPerPKT))
	return json.RawMessage(strings.TrimSuffix(strings.TrimRight(r.FloatString(30), "0"), "."))
}
