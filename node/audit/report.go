package audit

import (
	"fmt"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Report is what an audit found. OK is true when nothing was found wrong.
type Report struct {
	OK       bool      `json:"ok"`
	Height   uint64    `json:"height"` // of the chain's best block
	Leases   []Lease   `json:"leases"`
	Findings []Finding `json:"findings"`
	// Checked counts what was verified again.
	Checked Checked `json:"checked"`
}

// Checked counts records and scripts.
type Checked struct {
	Signatures int `json:"signatures"`
	Scripts    int `json:"scripts"`
	Blocks     int `json:"blocks"`
	Statements int `json:"statements"`
	Vouchers   int `json:"vouchers"`
}

// Finding names one thing that does not hold.
type Finding struct {
	Subject string `json:"subject"` // "provider: voucher 3 of lease bafy…"
	Problem string `json:"problem"`
}

// String returns the finding as a sentence.
func (f Finding) String() string { return f.Subject + " " + f.Problem }

// Lease is what the records and the chain say of one lease. Amounts are in
// base units; in JSON they are numbers, exact as far as the reader's are.
type Lease struct {
	ID         pktcloud.ID `json:"id"`
	Intervals  uint64      `json:"intervals"` // statements that cover time
	Revisions  uint64      `json:"revisions"` // amendments that stood
	Seconds    uint64      `json:"seconds"`   // of service stated
	Due        uint64      `json:"due_units"`
	Paid       uint64      `json:"paid_units"`        // by the last voucher
	Claimed    uint64      `json:"claimed_units"`     // what the chain gave the provider for it
	Fees       uint64      `json:"fees_units"`        // of the transactions that opened, rolled and closed its channel; where it paid several leases, at the first
	MaxCredit  uint64      `json:"max_credit_units"`  // most served and not paid
	MaxPrepaid uint64      `json:"max_prepaid_units"` // most paid and not served
	Settled    bool        `json:"settled"`           // the chain has the closing transaction
	Reason     string      `json:"reason"`            // of the close record
}

func (r *Report) add(subject, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{Subject: subject, Problem: fmt.Sprintf(format, args...)})
}
