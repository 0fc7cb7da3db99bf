package kernelnet

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/pkt-cash/pkt-cloud/container"
)

// Check says why the machine, whose network is the thread's, cannot have fast
// paths, with [container.CodeMissingFeature] and what its owner has to do; it
// changes nothing. Unless forwarded, a firewall whose usual answer to what is
// forwarded is no counts as a reason.
func Check(forwarded bool) error {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil || strings.TrimSpace(string(b)) != "1" {
		return missing(err, "the kernel's network for leases needs a machine that forwards: set net.ipv4.ip_forward=1, and keep its firewall from forwarding for others")
	}
	conn, err := nftables.New()
	if err != nil {
		return missing(err, "no nftables")
	}
	all, err := conn.ListChainsOfTableFamily(nftables.TableFamilyUnspecified)
	if err != nil {
		return missing(err, "the kernel's network for leases needs nftables: load the kernel module nf_tables")
	}
	if forwarded {
		return nil
	}
	for _, c := range all {
		if drops(c) {
			return missing(nil, fmt.Sprintf("the firewall's table %s drops what is forwarded; %s", c.Table.Name, vouch))
		}
	}
	if b, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && slices.Contains(strings.Fields(string(b)), "filter") {
		return missing(nil, "rules of iptables-legacy cannot be looked into; "+vouch)
	}
	return nil
}

// vouch is what an owner with a firewall of their own can do.
const vouch = "have it accept what comes from and goes to interfaces " + NamePrefix + "*, then say so, by KernelForwarded or node --lease-network-forwarded"

// drops reports whether a chain's usual answer to what is forwarded is no.
func drops(c *nftables.Chain) bool {
	return c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop &&
		(c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyINet)
}

func missing(err error, what string) error {
	return &container.Error{Code: container.CodeMissingFeature, Detail: what, Err: err}
}
