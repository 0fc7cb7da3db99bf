package netstack

import (
	"net/netip"
	"time"
)

// The private network of a group. All groups have the same one, as none of
// them reaches another.
var (
	Subnet  = netip.MustParsePrefix("10.213.0.0/24")
	Gateway = netip.MustParseAddr("10.213.0.1")
)

// MTU is that of the group's links: the fewer packets, the faster.
const MTU = 65520

// Limits of a group.
const (
	DefaultConnections = 1024 // open at once, datagram flows included
	maxPending         = 256  // being opened
	maxQueries         = 64   // names being looked up
	maxQueryBytes      = 1232 // of a question
	maxRecords         = 64   // of an answer
	maxLearned         = 1024 // addresses of allowed names, for each container
)

const (
	dialTimeout  = 10 * time.Second
	queryTimeout = 3 * time.Second
	udpIdle      = 60 * time.Second
	// NameHold is how long at least an address that an allowed name had may be
	// connected to: programs keep what they have looked up.
	NameHold = 10 * time.Minute
)
