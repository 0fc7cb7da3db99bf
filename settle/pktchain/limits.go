package pktchain

// Limits of what a peer may send [SETTLE-41].
const (
	MaxPayeeDetailBytes = 512
	MaxDetailBytes      = 2 << 10
	MaxRefundKeys       = 7
	MaxFundingBytes     = 32 << 10
	MaxFundingInputs    = 100
	MaxScriptBytes      = 34 // of a script to pay to
	MaxRun              = 16 // channels of one funding transaction
)

// FundingFeeFactor is how many times the relay floor a funding transaction
// pays at least, since nothing can raise its fee afterwards [SETTLE-52].
const FundingFeeFactor = 10

// lockTimeThreshold parts heights from times in a lock time.
const lockTimeThreshold = 500_000_000
