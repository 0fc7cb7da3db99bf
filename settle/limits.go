package settle

// Limits of the records of a channel [SETTLE-3]. Longer input is refused unread.
const (
	MaxParamsBytes     = 8 << 10
	MaxDetailBytes     = 2 << 10
	MaxVoucherBytes    = 16 << 10
	MaxCloseOfferBytes = 2 << 10
	MaxLateProofBytes  = 2 << 10
	MaxRollBytes       = 32 << 10 // the rail's part of a roll offer
	MaxRollOfferBytes  = 64 << 10
	MaxEntries         = 64  // leases that one voucher pays
	MaxProofBytes      = 128 // a rail's signature
	MaxRailName        = 32
	MaxMinDepth        = 1000
	MaxMarginBlocks    = 1 << 16
	MaxExt             = 16
	ReorgMargin        = 100 // blocks between a best block and a birthday taken from it
)

// MaxSearchBlocks is how many blocks one search of a ledger looks at.
const MaxSearchBlocks = 500
