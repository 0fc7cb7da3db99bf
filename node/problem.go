package node

import (
	"cmp"
	"fmt"
	"time"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
)

// quietSeconds is how long after its agreement nothing is said about what a
// lease still waits for.
const quietSeconds = 5

const unanswered = "The provider was sent the order and has not answered. This node goes on asking, and nothing is paid before it agrees. " +
	"What was set aside is free again once it refuses, or after 30 days without a word from it. If you close the lease, it ends as soon as the provider answers."

// cancelled says what becomes of an order that was to be ended and that nobody has
// answered: the provider may have taken it, and then it is a lease [LEASE-8].
func cancelled(t lease.Terms) string {
	at := func(seconds int64) string { return time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04 MST") }
	return "The order is cancelled as soon as its provider answers; it may have taken it, so this node goes on asking. If it has, the lease ends at once, with " +
		"nothing paid but what it served; if it has not, it can only refuse from " + at(t.CommitBy) + " on. Without a word from it, what was set aside is free again on " +
		at(t.CommitBy+lease.AnswerSeconds) + "."
}

// problemOf says what keeps a lease from going on and what to do about it.
func problemOf(v peer.View) string {
	port, waited := v.Manifest.Probe.Port, time.Now().Unix()-v.Agreed
	switch {
	case v.Fault.Code == lease.FaultDone:
		return ""
	case v.Reason == lease.ReasonWorkload && v.Role == lease.RoleProvider:
		return v.Text
	case v.Reason == lease.ReasonWorkload:
		return faultOf(v)
	case v.Phase == lease.Refused:
		return v.Text
	case v.Phase.Final() || v.Phase == lease.Closing:
		return ""
	case v.Phase == lease.Proposed && v.Cancelled:
		return cancelled(v.Terms)
	case v.Phase == lease.Proposed && waited > quietSeconds:
		return unanswered
	case v.Text != "" && v.Phase == lease.Suspended && v.Connected:
		return v.Text
	case v.Text != "" && v.Phase == lease.Suspended:
		return v.Text + " " + away(v)
	case !v.Connected && waited > quietSeconds:
		return away(v)
	case (v.Phase == lease.Funded || v.Phase == lease.Starting) && waited > quietSeconds && port != 0:
		return fmt.Sprintf("The service does not run yet: the provider fetches its image, or nothing answers on port %d inside the container. Nothing is paid before it does.", port)
	}
	return ""
}

// away says that the other side is not connected.
func away(v peer.View) string {
	if v.Role == lease.RoleTenant {
		return "The provider is not connected. Nothing is paid while it is away."
	}
	return "The tenant is not connected."
}

// faultOf tells the tenant why its workload did not run: this node's words for
// the code, and then the provider's own.
func faultOf(v peer.View) string {
	text := map[lease.FaultCode]string{
		lease.FaultImage:   "The image could not be fetched or used.",
		lease.FaultProgram: "The program could not be started. Check the command and its path in the image.",
		lease.FaultPort:    fmt.Sprintf("Nothing answered on port %d. Check the port, and that the service listens there.", v.Manifest.Probe.Port),
		lease.FaultExit:    "The program ended.",
		lease.FaultMachine: "The provider's machine could not run it. Choose another offer.",
	}[v.Fault.Code]
	text = cmp.Or(text, "The workload ended, and the provider does not say why.")
	if !v.Fault.IsZero() {
		text += fmt.Sprintf(" The provider says: %q.", v.Fault.Text)
	}
	if v.Paid == 0 {
		text += " Nothing was paid for it."
	}
	return text
}
