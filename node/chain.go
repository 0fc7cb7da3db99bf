package node

import (
	"fmt"
	"math"
	"strings"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktd"
	"github.com/pkt-cash/pkt-cloud/settle/quorum"
)

// openChain returns the ledger of the configured nodes of the chain.
func (n *Node) openChain() (settle.Ledger, error) {
	if len(n.cfg.Chains) < 2 {
		return n.openServer(n.cfg.Chain)
	}
	var members []quorum.Member
	for _, c := range n.cfg.Chains {
		d, err := n.openServer(c)
		if err != nil {
			return nil, err
		}
		members = append(members, quorum.Member{Name: c.URL, Server: d})
	}
	return quorum.New(members, quorum.Config{PollInterval: n.cfg.Chains[0].PollInterval, Log: n.cfg.Log})
}

func (n *Node) openServer(c Chain) (*pktd.Driver, error) {
	d, err := pktd.New(pktd.Config{
		URL: c.URL, User: c.User, Password: c.Password, CookieFile: c.CookieFile, CertFile: c.CertFile,
		PollInterval: c.PollInterval, Magic: n.network.Magic,
	})
	if err == nil {
		n.servers = append(n.servers, d)
	}
	return d, err
}

// chainNames says which nodes of the chain are asked.
func (n *Node) chainNames() string {
	if len(n.cfg.Chains) < 2 {
		return n.cfg.Chain.URL
	}
	var urls []string
	for _, c := range n.cfg.Chains {
		urls = append(urls, c.URL)
	}
	return strings.Join(urls, ", ")
}

// channelBirthday is where the search for channels of a phrase begins: of one
// that is new, at the best block.
func channelBirthday(height uint64, isNew bool) uint64 {
	if isNew {
		return math.MaxUint64
	}
	return height
}

// chainProblem says what a person should know of the chain's servers and of the
// phrase on it, or nothing.
func (n *Node) chainProblem(tip settle.Tip) string {
	var told []string
	if q, ok := n.ledger.(*quorum.Ledger); ok {
		for _, t := range q.Troubles() {
			told = append(told, fmt.Sprintf("The chain's server %s %s.", t.Name, t.Text))
		}
	}
	if n.manager.OtherMachine() {
		where := ""
		for _, r := range n.manager.Restored() {
			if r.Other {
				where = fmt.Sprintf(": it opened a channel in block %d", r.Height)
				break
			}
		}
		told = append(told, "Another machine uses this phrase"+where+". Let one machine alone use a phrase; each other needs one of its own.")
	}
	if height, done := n.manager.Searched(); !done && !n.isNew && height+settle.ReorgMargin < tip.Height {
		told = append(told, fmt.Sprintf("Still looking for earlier channels of this phrase: block %d of %d.", height, tip.Height))
	}
	return strings.Join(append(told, n.restoreProblem()...), " ")
}
