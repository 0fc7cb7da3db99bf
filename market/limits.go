package market

import pktcloud "github.com/pkt-cash/pkt-cloud"

// Limits of offers, requests and quotes [MARKET-2].
const (
	MaxOfferBytes  = 8 << 10
	MaxQuoteBytes  = 4 << 10
	MaxSlots       = 16 // live offers of one provider
	MaxAddresses   = 8
	MaxAddress     = 256 // bytes of one address
	MaxRails       = 8
	MaxIsolation   = 8
	MaxName        = 32 // bytes of the name of a rail or an isolation class
	MaxSoftware    = 64
	MaxPayeeDetail = 1 << 10
)

// Times in seconds [MARKET-3] [MARKET-4].
const (
	MaxOfferLifetimeSeconds = 24 * 3600
	MaxQuoteLifetimeSeconds = 3600
	MaxClockSkewSeconds     = 120
	MaxTermSeconds          = 366 * 24 * 3600
	MaxIntervalSeconds      = 3600
	MaxCreditSeconds        = 24 * 3600
)

// Resource bounds, chosen so that a price always fits 128 bits [MARKET-5].
const (
	MaxMilliCPU    = 1 << 24
	MaxMemoryBytes = 1 << 50
	MaxDiskBytes   = 1 << 56
)

// Bounds of a [Network] [MARKET-26].
const (
	MaxPorts     = 1 << 20
	MinBandwidth = 1 << 10 // bytes a second
	MaxBandwidth = 1 << 40
)

// MaxRate is the dearest price that an offer may ask for one unit.
const MaxRate = pktcloud.MaxRate
