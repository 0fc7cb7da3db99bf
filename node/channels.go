package node

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/peer"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/manager"
)

// Channels returns the payment channels, newest first.
func (n *Node) Channels(context.Context) ([]service.ChannelView, error) {
	list := n.manager.List()
	slices.Reverse(list)
	leases, labels, names, begun := n.leasesOfChannels(), n.labels(), channelLabels(list), n.begun()
	all := make([]service.ChannelView, 0, len(list))
	for _, s := range list {
		all = append(all, n.channelView(s, names, leases[s.ID], labels, begun))
	}
	return append(all, n.restoredChannels()...), nil
}

// Channel returns one channel.
func (n *Node) Channel(_ context.Context, name string) (service.ChannelView, error) {
	if id, err := pktcloud.ParseID(name); err == nil {
		name = id.Hex()
	}
	name = strings.ToLower(name)
	var found []manager.Status
	list := n.manager.List()
	for _, s := range list {
		if name != "" && strings.HasPrefix(s.ID.Hex(), name) {
			found = append(found, s)
		}
	}
	restored := slices.DeleteFunc(n.restoredChannels(), func(v service.ChannelView) bool { return name == "" || !strings.HasPrefix(v.ID, name) })
	switch {
	case len(found)+len(restored) == 0:
		return service.ChannelView{}, service.Errorf(service.CodeNotFound, "no channel %q", name)
	case len(found)+len(restored) > 1:
		return service.ChannelView{}, service.Errorf(service.CodeAmbiguous, "%d channels begin with %q; give more digits", len(found)+len(restored), name)
	case len(restored) == 1:
		return restored[0], nil
	}
	id := found[0].ID
	return n.channelView(found[0], channelLabels(list), n.leasesOfChannels()[id], n.labels(), n.begun()), nil
}

// channelLabels gives each channel a short name.
func channelLabels(list []manager.Status) map[pktcloud.ID]string {
	ids := make([]string, 0, len(list))
	for _, s := range list {
		ids = append(ids, s.ID.Hex())
	}
	size := digitsOf(ids)
	labels := map[pktcloud.ID]string{}
	for _, s := range list {
		labels[s.ID] = s.ID.Hex()[:size]
	}
	return labels
}

// digitsOf is how many digits tell names apart, at least labelDigits. It sorts
// them.
func digitsOf(names []string) int {
	slices.Sort(names)
	size := labelDigits
	for i := 1; i < len(names); i++ {
		for size < len(names[i]) && names[i][:size] == names[i-1][:size] {
			size++
		}
	}
	return size
}

// leasesOfChannels are the leases that each channel pays.
func (n *Node) leasesOfChannels() map[pktcloud.ID][]peer.View {
	all := map[pktcloud.ID][]peer.View{}
	for _, v := range n.views() {
		all[v.Channel] = append(all[v.Channel], v)
	}
	return all
}

func (n *Node) channelView(s manager.Status, names map[pktcloud.ID]string, leases []peer.View, labels map[pktcloud.ID]string, begun map[pktcloud.ID]int64) service.ChannelView {
	v := service.ChannelView{
		ID: s.ID.String(), Label: names[s.ID], Role: s.Role.String(), Phase: s.Phase.String(), Capacity: s.Params.Capacity, Paid: s.Paid,
		Reserve: s.Params.Reserve, Left: s.Params.Spendable().SubFloor(s.Paid), Height: s.Height, Deadline: s.Params.Deadline(), Expiry: s.Params.ExpiryHeight,
		Peer: s.Params.Payee, Leases: []string{}, Restored: n.manager.CameBack(s.ID),
	}
	if !s.Into.IsZero() {
		v.Into, v.IntoLabel = s.Into.String(), cmp.Or(names[s.Into], s.Into.Hex()[:labelDigits])
	}
	if !s.From.IsZero() {
		v.From, v.FromLabel = s.From.String(), cmp.Or(names[s.From], s.From.Hex()[:labelDigits])
	}
	if s.Role == settle.Payee {
		v.Peer = s.Params.Payer
	}
	if s.From.IsZero() {
		v.Created = begun[s.ID]
	}
	rolls := len(n.manager.Successors(s.ID)) > 0 // then the successor says what is left
	if rolls || s.Phase.Final() || s.Phase == settle.Closing || !s.From.IsZero() && !s.Announced {
		v.Left = 0
	}
	for _, l := range leases {
		v.Leases = append(v.Leases, labels[l.ID])
		if s.Phase.Final() {
			continue
		}
		now, limits := l.Exposure, l.Terms.Limits
		if l.Role == lease.RoleProvider {
			v.AtRisk, v.Limit = v.AtRisk+now.Credit+now.Unconfirmed, v.Limit+limits.Credit+limits.Unconfirmed
		} else {
			v.AtRisk, v.Limit = v.AtRisk+now.Prepaid, v.Limit+limits.Prepaid
		}
	}
	w := words{Status: s, payer: s.Role == settle.Payer, blockTime: n.network.BlockTime}
	v.Now, v.Steps = w.now(), w.steps()
	return v
}

// begun is when channels were agreed, each with its first lease. Nothing says
// when one began that another went on as: its leases are older than it, or
// younger.
func (n *Node) begun() map[pktcloud.ID]int64 {
	at := map[pktcloud.ID]int64{}
	for _, l := range n.views() {
		if id := l.Terms.Channel; at[id] == 0 || l.Agreed < at[id] {
			at[id] = l.Agreed
		}
	}
	return at
}

// words tells a channel's life.
type words struct {
	manager.Status
	payer     bool
	blockTime time.Duration
}

// pick chooses between the two sides' words.
func (w words) pick(payer, payee string) string {
	if w.payer {
		return payer
	}
	return payee
}

// until says when a height comes, as far as that is known.
func (w words) until(height uint64) string {
	text := fmt.Sprintf("block %d", height)
	if height <= w.Height {
		return text
	}
	blocks := height - w.Height
	if w.blockTime <= 0 {
		return fmt.Sprintf("%s, %d blocks from now", text, blocks)
	}
	d := time.Duration(blocks) * w.blockTime
	switch {
	case d < 2*time.Hour:
		return fmt.Sprintf("%s, in about %d minutes", text, int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%s, in about %d hours", text, int(d.Hours()))
	}
	return fmt.Sprintf("%s, in about %d days", text, int(d.Hours()/24))
}

func confirmations(depth uint64) string {
	switch depth {
	case 0:
		return "waits for a block"
	case 1:
		return "has 1 confirmation"
	}
	return fmt.Sprintf("has %d confirmations", depth)
}

// now is one sentence on what happens.
func (w words) now() string {
	switch w.Phase {
	case settle.Opening:
		switch {
		case !w.From.IsZero() && w.payer && !w.Announced:
			return fmt.Sprintf("Waits for the provider's answer: channel %s is to go on as this one.", w.From.Hex()[:labelDigits])
		case !w.From.IsZero():
			return fmt.Sprintf("In use: channel %s goes on as this one. The transaction %s, %d are asked for; until then payments are signed for both.",
				w.From.Hex()[:labelDigits], confirmations(w.Depth), w.Params.MinDepth)
		case w.payer && !w.Announced:
			return "The other side has not agreed yet; nothing of this is on the chain."
		case !w.Funded:
			return "The funding has not been seen on the chain yet."
		}
		return fmt.Sprintf("Opening: the funding %s, the provider asks for %d; until then at most %s can be paid.",
			confirmations(w.Depth), w.Params.MinDepth, min(w.Params.Unconfirmed, w.Params.Spendable()))
	case settle.Open:
		if w.Height >= w.Params.Deadline() {
			return w.pick("In use no longer: it is too close to its end, and the other side claims what is paid.",
				"In use no longer: it is too close to its end, so this node claims what is paid.")
		}
		return "In use: payments pass between the two sides alone, without the chain."
	case settle.Closing:
		return fmt.Sprintf("Closing: the transaction that shares the money out %s.", confirmations(w.ClosingDepth))
	case settle.Closed:
		return w.pick(
			fmt.Sprintf("Closed: %s was paid, %s came back to the wallet.", w.End.Payee, w.End.Payer),
			fmt.Sprintf("Closed: %s came to the wallet.", w.End.Payee))
	case settle.Refunded:
		return w.pick(fmt.Sprintf("Refunded: %s came back to the wallet.", w.End.Payer),
			"Refunded: the other side took its money back after the end of the channel.")
	case settle.Abandoned:
		return w.pick("Given up: the other side did not agree, and nothing went to the chain.",
			"Given up: the funding never came.")
	case settle.Rolling:
		return fmt.Sprintf("In use: it goes on as channel %s once one transaction is deep enough; until then payments are signed for both.", w.Into.Hex()[:labelDigits])
	case settle.Rolled:
		return fmt.Sprintf("Went on as channel %s, with all that it held.", w.Into.Hex()[:labelDigits])
	}
	return ""
}

// steps are the parts of the life.
func (w words) steps() []service.Step {
	reserve := ""
	if w.Params.Reserve > 0 {
		reserve = fmt.Sprintf(" %s of it is a reserve that pays the closing's fee and nothing else.", w.Params.Reserve)
	}
	opening := service.Step{
		Name: "Opening", TxID: txid(w.FundingTxID), Depth: w.Depth,
		Text: w.pick(fmt.Sprintf("You set aside %s.", w.Params.Capacity), fmt.Sprintf("The other side set aside %s.", w.Params.Capacity)) + reserve,
	}
	if !w.From.IsZero() {
		opening.Text = fmt.Sprintf("Channel %s went on as this one, of %s, in which what was paid before is paid already.", w.From.Hex()[:labelDigits], w.Params.Capacity) + reserve
	}
	use := service.Step{Name: "In use", Text: fmt.Sprintf("%s paid so far. Nothing more is paid from %s.", w.Paid, w.until(w.Params.Deadline()))}
	closing := service.Step{
		Name: "Closing", TxID: txid(w.ClosingTxID), Depth: w.ClosingDepth,
		Text: w.pick("Both sides sign, or the other side claims by itself what you have paid.",
			fmt.Sprintf("Both sides sign; if the other side is gone, this node claims by itself what was paid, from %s at the latest.", w.until(w.Params.Deadline()))),
	}
	if w.Phase == settle.Closing || w.Phase.Final() {
		use.Text = fmt.Sprintf("%s was paid.", w.Paid)
		switch {
		case w.Phase == settle.Rolled:
			closing.Text = "Both sides signed one transaction that ended this channel and funded the next."
		case w.Final > 0:
			closing.Text = fmt.Sprintf("Both sides signed: %s to the payee.", w.Final)
		case w.End.Refund:
			closing.Text = w.pick("You took back what the other side had not claimed.", "The other side took back what was not claimed.")
		case w.End.Payee > 0:
			closing.Text = w.pick("The other side claimed by itself what you had paid.", "This node claimed by itself what was paid.")
		}
	}
	end := service.Step{Name: "Closed", Text: w.pick(
		fmt.Sprintf("What was not paid comes back. If the other side does nothing, all of it does, at %s.", w.until(w.Params.ExpiryHeight)),
		fmt.Sprintf("What was paid is yours. What you have not claimed at %s goes back to the other side.", w.until(w.Params.ExpiryHeight)))}
	if w.Phase == settle.Rolling {
		use.Text = fmt.Sprintf("%s paid so far. Payments are signed for this channel and for the next one, until that one is deep enough.", w.Paid)
		end.Name, end.Text = "Goes on", fmt.Sprintf("It goes on as channel %s.", w.Into.Hex()[:labelDigits])
	}
	if w.Phase.Final() {
		end.Text = w.now()
		if w.End.Fee > 0 {
			end.Text += fmt.Sprintf(" The closing's fee was %s.", w.End.Fee)
		}
		if w.Phase == settle.Refunded {
			end.Name = "Refunded"
		}
		if w.Phase == settle.Rolled {
			end.Name = "Went on"
		}
	}
	all := []service.Step{opening, use, closing, end}
	at := map[settle.Phase]int{settle.Opening: 0, settle.Open: 1, settle.Rolling: 1, settle.Closing: 2}
	current, running := at[w.Phase]
	if w.Phase == settle.Abandoned {
		all = []service.Step{opening, {Name: "Given up", Text: w.now()}}
	}
	for i := range all {
		switch {
		case !running || i < current:
			all[i].State = "done"
		case i == current:
			all[i].State = "now"
		default:
			all[i].State = "ahead"
		}
	}
	return all
}

// sortedLabels are the labels of leases, for a line of text.
func sortedLabels(views []peer.View, labels map[pktcloud.ID]string) string {
	views = slices.SortedFunc(slices.Values(views), func(a, b peer.View) int {
		return cmp.Or(cmp.Compare(a.Agreed, b.Agreed), bytes.Compare(a.ID[:], b.ID[:]))
	})
	var names []string
	for _, v := range views {
		names = append(names, labels[v.ID])
	}
	return strings.Join(names, " ")
}
