package market

import "fmt"

// Network is what leases may have of a provider's network: in an offer what it
// grants, in a request or a query what is needed at least [MARKET-25]. The zero
// value is nothing: services of one lease reach each other, and nobody else.
type Network struct {
	// Egress lets services connect to the public internet.
	Egress bool `cbor:"egress" json:"egress" doc:"services may connect to the public internet"`
	// Ports is how many ports are free to lead from an address of the provider to
	// services.
	Ports uint64 `cbor:"ports" json:"ports" doc:"ports of the provider that are free to lead to services"`
	// BytesPerSecond bounds what a lease sends to the world outside, and what it
	// receives from there; zero: no bound. In a request it is the most that one
	// service sets itself.
	BytesPerSecond uint64 `cbor:"bandwidth" json:"bandwidth" doc:"bytes a second that a lease may send, and receive; 0: no bound"`
}

// IsZero reports whether nothing is granted, or needed.
func (n Network) IsZero() bool { return n == Network{} }

// Within reports whether what n needs is granted by room [MARKET-27].
func (n Network) Within(room Network) bool {
	return (room.Egress || !n.Egress) && n.Ports <= room.Ports && (room.BytesPerSecond == 0 || n.BytesPerSecond <= room.BytesPerSecond)
}

// Lacks says what an offer's network is short of for what is needed, in a
// sentence; "" when it is Within.
func (n Network) Lacks(need Network) string {
	switch {
	case need.Egress && !n.Egress:
		return "the provider lets services connect to nothing outside their lease"
	case need.Ports > n.Ports && n.Ports == 0:
		return "the provider publishes no ports"
	case need.Ports > n.Ports:
		return fmt.Sprintf("the provider has %d ports to publish, fewer than %d", n.Ports, need.Ports)
	case !need.Within(n):
		return fmt.Sprintf("the provider carries %d bytes a second for a lease, fewer than %d", n.BytesPerSecond, need.BytesPerSecond)
	}
	return ""
}

// Validate checks the bounds [MARKET-26]. Errors match [CodeMalformed].
func (n Network) Validate() error {
	if n.Ports > MaxPorts || n.BytesPerSecond > MaxBandwidth || n.BytesPerSecond != 0 && n.BytesPerSecond < MinBandwidth {
		return refuse(CodeMalformed, "a network of %d ports, at most %d, and %d bytes a second, %d to %d", n.Ports, MaxPorts, n.BytesPerSecond, MinBandwidth, MaxBandwidth)
	}
	if n.BytesPerSecond != 0 && !n.Egress && n.Ports == 0 {
		return refuse(CodeMalformed, "a bandwidth without egress and without ports bounds nothing")
	}
	return nil
}
