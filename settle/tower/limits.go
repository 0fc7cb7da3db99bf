package tower

import "time"

// Protocol names the tower protocol on a transport that names protocols.
const Protocol = "/pktcloud/tower/1"

// Limits of the protocol [TOWER-2].
const (
	MaxLevels       = 8 // transactions of a deposit
	MaxDepositBytes = 9 << 10
	MaxOwnerBytes   = 72 // the owner's signature, DER
	MaxSmallBytes   = 1 << 10
	MaxPageDeposits = 64
	MaxPageBytes    = 640 << 10
	MaxRefuseText   = 200
	NonceBytes      = 32
	KeyBytes        = 1 + 32 + 4
)

// How a tower treats its clients, and what it holds.
const (
	// MaxAheadBlocks is how far in the future a lock time may lie: a year.
	MaxAheadBlocks = 530_000
	// RaiseBlocks is after how many blocks in vain the next level is sent.
	RaiseBlocks = 3
	// FinalDepth is how deep the end of a channel lies when nothing can change
	// it any more.
	FinalDepth = 100
	// RetainBlocks is how much longer a deposit is kept for its client to see.
	RetainBlocks = 10_000
	// SweepBlocks is how often deposits that wait are looked after.
	SweepBlocks = 60

	maxConns    = 128
	maxChecks   = 4 // deposits that are judged at once
	maxRefusals = 256
	maxRequests = 4096
)

const (
	idleLimit    = 60 * time.Second
	writeLimit   = 10 * time.Second
	pollInterval = 5 * time.Second
	retryPause   = 2 * time.Second
)

// Quota bounds what a tower keeps. A zero field means its default.
type Quota struct {
	ClientDeposits uint64 // for one client
	ClientBytes    uint64
	Deposits       uint64 // for all
	Bytes          uint64
}

// Defaults of a Quota.
const (
	DefaultClientDeposits = 1_000
	DefaultClientBytes    = 4 << 20
	DefaultDeposits       = 100_000
	DefaultBytes          = 256 << 20
)

func (q Quota) withDefaults() Quota {
	for _, f := range []struct {
		field *uint64
		value uint64
	}{
		{&q.ClientDeposits, DefaultClientDeposits},
		{&q.ClientBytes, DefaultClientBytes},
		{&q.Deposits, DefaultDeposits},
		{&q.Bytes, DefaultBytes},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return q
}
