package tower

import (
	"encoding/binary"
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// Versions of the records that this package writes.
const (
	DepositVersion = 1
	ReceiptVersion = 1
	QueryVersion   = 1
	HelloVersion   = 1
)

// Deposit is what a client gives a tower to keep: one channel's late claims or
// refunds, which differ in nothing but the fee, lowest first [TOWER-3]. Owner
// is the signature by which the channel's key names the client. It has no
// extensions: a tower stores nothing that it does not understand.
type Deposit struct {
	Version uint64             `cbor:"v" json:"v"`
	Client  pktcloud.PublicKey `cbor:"client" json:"client"`
	Rail    string             `cbor:"rail" json:"rail"`
	Owner   []byte             `cbor:"owner" json:"owner"`
	Txs     [][]byte           `cbor:"txs" json:"txs"`
	Ext     map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// RecordType returns "tower-deposit".
func (Deposit) RecordType() string { return "tower-deposit" }

// Signer returns the client.
func (d Deposit) Signer() pktcloud.PublicKey { return d.Client }

// Validate checks the deposit's shape, not its transactions [TOWER-3]. Errors
// match [settle.ErrMalformed].
func (d Deposit) Validate() error {
	switch {
	case d.Version != DepositVersion:
		return settle.Refuse(settle.ErrMalformed, "deposit version %d, want %d", d.Version, DepositVersion)
	case len(d.Ext) > 0:
		return settle.Refuse(settle.ErrMalformed, "a deposit has no extensions")
	case len(d.Rail) == 0 || len(d.Rail) > settle.MaxRailName:
		return settle.Refuse(settle.ErrMalformed, "a rail has a name of 1 to %d bytes", settle.MaxRailName)
	case len(d.Owner) == 0 || len(d.Owner) > MaxOwnerBytes:
		return settle.Refuse(settle.ErrMalformed, "an owner's signature of %d bytes", len(d.Owner))
	case len(d.Txs) == 0 || len(d.Txs) > MaxLevels:
		return settle.Refuse(settle.ErrMalformed, "a deposit holds 1 to %d transactions", MaxLevels)
	}
	return nil
}

// ParseDeposit decodes a deposit and verifies the client's signature. Errors
// match [settle.ErrMalformed], and below it those of [pktcloud.ParseSigned].
func ParseDeposit(data []byte) (pktcloud.Signed[Deposit], error) {
	return parseSigned[Deposit](data, MaxDepositBytes, "deposit")
}

// Receipt is a tower's word that it keeps a deposit [TOWER-9].
type Receipt struct {
	Version uint64             `cbor:"v" json:"v"`
	Tower   pktcloud.PublicKey `cbor:"tower" json:"tower"`
	Client  pktcloud.PublicKey `cbor:"client" json:"client"`
	Deposit pktcloud.ID        `cbor:"deposit" json:"deposit"`
	Height  uint64             `cbor:"height" json:"height"` // the tower's best block
	Ext     map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// RecordType returns "tower-receipt".
func (Receipt) RecordType() string { return "tower-receipt" }

// Signer returns the tower.
func (r Receipt) Signer() pktcloud.PublicKey { return r.Tower }

// Validate checks the receipt's shape. Errors match [settle.ErrMalformed].
func (r Receipt) Validate() error {
	if r.Version != ReceiptVersion || r.Deposit.IsZero() || len(r.Ext) > settle.MaxExt {
		return settle.Refuse(settle.ErrMalformed, "receipt version %d, want %d and a deposit", r.Version, ReceiptVersion)
	}
	return nil
}

// ParseReceipt decodes a receipt and verifies the tower's signature. Errors
// match [settle.ErrMalformed].
func ParseReceipt(data []byte) (pktcloud.Signed[Receipt], error) {
	return parseSigned[Receipt](data, MaxSmallBytes, "receipt")
}

// Query asks a tower for the client's own deposits, those whose keys come after
// After; it is good for one connection, by the nonce of its Hello [TOWER-11].
type Query struct {
	Version uint64             `cbor:"v" json:"v"`
	Client  pktcloud.PublicKey `cbor:"client" json:"client"`
	Tower   pktcloud.PublicKey `cbor:"tower" json:"tower"`
	Nonce   []byte             `cbor:"nonce" json:"nonce"`
	After   []byte             `cbor:"after" json:"after"` // a Key, or nothing for the first page
	Ext     map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// RecordType returns "tower-query".
func (Query) RecordType() string { return "tower-query" }

// Signer returns the client.
func (q Query) Signer() pktcloud.PublicKey { return q.Client }

// Validate checks the query's shape. Errors match [settle.ErrMalformed].
func (q Query) Validate() error {
	if q.Version != QueryVersion || len(q.Nonce) != NonceBytes || len(q.After) != 0 && len(q.After) != KeyBytes || len(q.Ext) > settle.MaxExt {
		return settle.Refuse(settle.ErrMalformed, "query version %d, nonce or place of a wrong size", q.Version)
	}
	return nil
}

// ParseQuery decodes a query and verifies the client's signature. Errors match
// [settle.ErrMalformed].
func ParseQuery(data []byte) (pktcloud.Signed[Query], error) {
	return parseSigned[Query](data, MaxSmallBytes, "query")
}

func parseSigned[B pktcloud.Body](data []byte, maxBytes int, what string) (pktcloud.Signed[B], error) {
	s, err := pktcloud.ParseSigned[B](data, maxBytes)
	if err != nil {
		return s, settle.Refuse(settle.ErrMalformed, what+": %w", err)
	}
	return s, nil
}

// Key names what a deposit is for: a tower keeps one deposit for each. Its
// bytes sort as the pages of a query do.
//
//	kind (1) || txid (32) || index (4, big-endian)
type Key [KeyBytes]byte

func keyOf(e pktchain.Ending) Key {
	k := append([]byte{byte(e.Kind)}, e.Funding.TxID[:]...)
	return Key(binary.BigEndian.AppendUint32(k, e.Funding.Index))
}

// Reading is a deposit whose transactions were read and judged, as far as that
// goes without the chain.
type Reading struct {
	Record  pktcloud.Signed[Deposit]
	ID      pktcloud.ID
	Key     Key
	Endings []pktchain.Ending // lowest fee first
	Bytes   uint64            // of the encoded record
}

// kept is the reading without what only its judgement needs: a book holds many.
func (r Reading) kept() Reading {
	endings := make([]pktchain.Ending, len(r.Endings))
	for i, e := range r.Endings {
		endings[i] = e.Kept(r.Record.Body.Txs[i])
	}
	r.Endings = endings
	return r
}

// First is the ending with the lowest fee.
func (r Reading) First() pktchain.Ending { return r.Endings[0] }

// Read reads a deposit and judges all but what only the chain knows [TOWER-3]
// [TOWER-4] [TOWER-5]. Errors match [settle.ErrMalformed], [settle.ErrParams]
// or [settle.ErrProof].
func Read(n pktchain.Network, data []byte) (Reading, error) {
	record, err := ParseDeposit(data)
	if err != nil {
		return Reading{}, err
	}
	r := Reading{Record: record, Bytes: uint64(len(data))}
	if record.Body.Rail != n.Rail {
		return Reading{}, settle.Refuse(settle.ErrParams, "a deposit for rail %q, this tower watches %q", record.Body.Rail, n.Rail)
	}
	if r.ID, err = record.ID(); err != nil {
		return Reading{}, err
	}
	for i, raw := range record.Body.Txs {
		e, err := pktchain.ReadEnding(n, raw)
		if err != nil {
			return Reading{}, settle.Refuse(settle.ErrMalformed, "transaction %d: %w", i, err)
		}
		if i > 0 && !e.SameAs(r.Endings[0]) {
			return Reading{}, settle.Refuse(settle.ErrMalformed, "transaction %d differs in more than the fee", i)
		}
		r.Endings = append(r.Endings, e)
	}
	r.Key = keyOf(r.First())
	if err := r.First().VerifyClient(record.Body.Client, record.Body.Owner); err != nil {
		return Reading{}, err
	}
	return r, nil
}

// Levels verifies all transactions against the output that they spend, as the
// chain has it, and returns what they pay [TOWER-6]. Errors match
// [settle.ErrFunding], [settle.ErrProof] or [settle.ErrFee].
func (r Reading) Levels(n pktchain.Network, funding settle.Output) ([]pktchain.Level, error) {
	levels := make([]pktchain.Level, 0, len(r.Endings))
	for i, e := range r.Endings {
		l, err := e.Verify(n, funding)
		if err != nil {
			return nil, err
		}
		if i > 0 && !l.Beats(levels[i-1], n) {
			return nil, settle.Refuse(settle.ErrFee, "transaction %d would not replace the one before", i)
		}
		levels = append(levels, l)
	}
	return levels, nil
}

// level returns the number of the ending with a transaction id, or -1.
func (r Reading) level(txid [32]byte) int {
	return slices.IndexFunc(r.Endings, func(e pktchain.Ending) bool { return e.TxID == txid })
}
