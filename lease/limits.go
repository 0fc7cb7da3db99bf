package lease

import "github.com/pkt-cash/pkt-cloud/market"

// Sizes of messages and of their parts [LEASE-2].
const (
	MaxMessageBytes   = 256 << 10 // any message, its type tag included
	MaxManifestBytes  = 64 << 10
	MaxTermsBytes     = 8 << 10
	MaxStatementBytes = 2 << 10
	MaxDisputeBytes   = 2 << 10
	MaxCloseBytes     = 8 << 10
	MaxAmendmentBytes = 2 << 10   // an amendment, or an acceptance
	MaxSmallBytes     = 2 << 10   // ack, refuse, suspend, resume, close-request, closed, attach
	MaxFundingBytes   = 128 << 10 // a raw funding transaction
	MaxStateBytes     = 64 << 10  // a journaled state
	MaxText           = 256       // bytes of a reason for people
	MaxExtEntries     = 8
	MaxExtKey         = 32
	MaxExtValue       = 1 << 10
)

// Amendments of a lease.
const (
	MaxRevisions      = 256  // that stand
	MaxAttempts       = 4096 // refused ones included
	MinAmendedSeconds = 60   // that an amended term leaves
)

// Credentials of registries [LEASE-41].
const (
	MaxCredentials      = 4
	MaxRegistry         = 255 // bytes of a registry's name
	MaxRegistryUser     = 256
	MaxRegistryPassword = 4 << 10
	MaxCredentialBytes  = 20 << 10 // all of them, encoded
)

// Parts of a manifest [LEASE-3].
const (
	MaxServices    = 16
	MaxServiceName = 32
	MaxPorts       = 16   // of one service
	MaxEgress      = 64   // places that one service connects to
	MaxPublish     = 16   // ports that one service publishes
	MaxPath        = 1024 // bytes of a working directory
	MaxUser        = 64
	MaxStop        = 300  // seconds that a program has to end by itself
	MaxCheck       = 3600 // seconds of a health check's times
	MaxRetries     = 100
	MaxRestarts    = 1000 // in a row
	MaxImage       = 512
	MaxArgs        = 256
	MaxEnv         = 256
	MaxArg         = 16 << 10 // bytes of one argument or one environment entry
	MaxProbePath   = 256
	MaxProbe       = 60 // seconds that a probe may take
	MaxVolumes     = 16
	MaxMounts      = 16        // of one service
	MinVolumeBytes = 300 << 20 // the least that its file system takes
	MaxVolumeBytes = 16 << 40
	VolumeStep     = 1 << 20 // sizes are multiples of it
	MinMilliCPU    = 10      // of one service
	MinMemoryBytes = 16 << 20
	MinDiskBytes   = 4 << 20 // or none stated, which gets as much
)

// Times in seconds [LEASE-4] [LEASE-12].
const (
	DefaultIntervalSeconds = 5
	DefaultCreditSeconds   = 10      // of price
	DefaultUnconfirmed     = 15 * 60 // of price
	DefaultGraceSeconds    = 300
	MaxIntervalSeconds     = market.MaxIntervalSeconds
	MaxTermSeconds         = market.MaxTermSeconds
	MaxGraceSeconds        = 3600 // a frozen workload keeps its memory, and nothing pays for that
	MaxNoticeSeconds       = 30 * 24 * 3600
	AnswerSeconds          = 30 * 24 * 3600 // for so long a provider gives the same answer to a commit
)
