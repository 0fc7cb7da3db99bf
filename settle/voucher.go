package settle

import pktcloud "github.com/pkt-cash/pkt-cloud"

// VoucherVersion is the version of Voucher that this package writes.
const VoucherVersion = 1

// Voucher is a cumulative payment: the payee may take Total from the channel.
// Entries say which lease it pays, in ascending order of lease id; they sum to
// Total [SETTLE-10]. Proof is the rail's own signature for Total; the payer's
// device signs the whole body, so that neither half can be exchanged.
type Voucher struct {
	Version  uint64             `cbor:"v" json:"v"`
	Channel  pktcloud.ID        `cbor:"channel" json:"channel"`
	Payer    pktcloud.PublicKey `cbor:"payer" json:"payer"`
	Sequence uint64             `cbor:"sequence" json:"sequence"` // 1 for the first
	Total    pktcloud.Amount    `cbor:"total" json:"total"`
	Entries  []Entry            `cbor:"entries" json:"entries"`
	Proof    []byte             `cbor:"proof" json:"proof"`
	Ext      map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// Entry is one lease's cumulative share of a voucher and the statement that it
// answers.
type Entry struct {
	Lease      pktcloud.ID     `cbor:"lease" json:"lease"`
	Cumulative pktcloud.Amount `cbor:"cumulative" json:"cumulative"`
	Statement  pktcloud.ID     `cbor:"statement" json:"statement"`
}

// RecordType returns "voucher".
func (Voucher) RecordType() string { return "voucher" }

// Signer returns the payer's device.
func (v Voucher) Signer() pktcloud.PublicKey { return v.Payer }
