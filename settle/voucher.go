package settle

import (
	"bytes"
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

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

// Validate checks the voucher's shape: entries in strictly ascending order of
// lease, each above zero, summing to the total [SETTLE-10] [SETTLE-11]. Errors
// match [ErrMalformed].
func (v Voucher) Validate() error {
	switch {
	case v.Version != VoucherVersion:
		return Refuse(ErrMalformed, "voucher version %d, want %d", v.Version, VoucherVersion)
	case v.Sequence == 0:
		return Refuse(ErrMalformed, "voucher sequences begin at 1")
	case len(v.Entries) == 0 || len(v.Entries) > MaxEntries:
		return Refuse(ErrMalformed, "a voucher pays 1 to %d leases", MaxEntries)
	case len(v.Proof) == 0 || len(v.Proof) > MaxProofBytes || len(v.Ext) > MaxExt:
		return Refuse(ErrMalformed, "voucher proof or extensions of a wrong size")
	}
	var sum pktcloud.Amount
	for i, e := range v.Entries {
		if i > 0 && compareIDs(v.Entries[i-1].Lease, e.Lease) >= 0 {
			return Refuse(ErrMalformed, "voucher entries are not in strictly ascending order of lease")
		}
		if e.Cumulative == 0 {
			return Refuse(ErrMalformed, "a voucher entry pays nothing")
		}
		var err error
		if sum, err = sum.Add(e.Cumulative); err != nil {
			return Refuse(ErrMalformed, "voucher entries: %w", err)
		}
	}
	if sum != v.Total {
		return Refuse(ErrMalformed, "voucher entries sum to %d units, the total says %d", uint64(sum), uint64(v.Total))
	}
	return nil
}

// Entry returns the entry of a lease.
func (v Voucher) Entry(lease pktcloud.ID) (Entry, bool) {
	i, ok := slices.BinarySearchFunc(v.Entries, lease, func(e Entry, l pktcloud.ID) int { return compareIDs(e.Lease, l) })
	if !ok {
		return Entry{}, false
	}
	return v.Entries[i], true
}

// ParseVoucher decodes a voucher and verifies the payer's device signature, not
// the rail's proof. Errors match [ErrMalformed], and below it those of
// [pktcloud.ParseSigned].
func ParseVoucher(data []byte) (pktcloud.Signed[Voucher], error) {
	s, err := pktcloud.ParseSigned[Voucher](data, MaxVoucherBytes)
	if err != nil {
		return s, Refuse(ErrMalformed, "voucher: %w", err)
	}
	return s, nil
}

func compareIDs(a, b pktcloud.ID) int { return bytes.Compare(a[:], b[:]) }
