package kernelnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container/netstack"
)

// Interfaces of a router.
const (
	stackName = "out" // to the stack
	upName    = "up"  // to the machine
)

// headers are the lengths that a TCP header can have, in words, the usual ones
// first. The counters know what of a packet was its header.
var headers = []byte{8, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15}

const (
	ipHeader  = 20
	udpHeader = 8
)

// table is the router's: it chooses what goes by the fast path, and drops what is
// on it without having been chosen.
type table struct {
	*rules

	judges, senders, receivers, over *nftables.Set // chains by the container's address
	own                              *nftables.Set
	members                          map[netip.Addr]*member
}

// member is a container that has been here; its chains stay until the router goes.
type member struct {
	plan            Plan
	live            bool
	judge           *nftables.Chain
	named, anywhere *nftables.Set
}

// last is the name that things of an address have.
func last(a netip.Addr) string { return strconv.Itoa(int(a.As4()[3])) }

// newTable writes what is the same for all containers. Nothing leads here yet.
func newTable(ns int, never []netip.Prefix, deny []uint16, connections int) (*table, error) {
	r, err := openRules(ns, "pktcloud")
	if err != nil {
		return nil, err
	}
	t := &table{rules: r, members: map[netip.Addr]*member{}}
	if err := t.write(never, deny, connections); err != nil {
		return nil, errors.Join(fmt.Errorf("write the rules of the router: %w", err), r.close())
	}
	return t, nil
}

func (t *table) write(never []netip.Prefix, deny []uint16, connections int) error {
	for name, to := range map[string]**nftables.Set{"judges": &t.judges, "senders": &t.senders, "receivers": &t.receivers, "over": &t.over} {
		*to = &nftables.Set{Table: t.table, Name: name, IsMap: true, KeyType: nftables.TypeIPAddr, DataType: nftables.TypeVerdict}
		if err := t.conn.AddSet(*to, nil); err != nil {
			return err
		}
	}
	t.own = &nftables.Set{Table: t.table, Name: "own", KeyType: nftables.TypeIPAddr}
	if err := t.conn.AddSet(t.own, nil); err != nil {
		return err
	}
	t.writeGuard(never, deny)
	t.writeChoice()
	t.writeForward(connections)
	t.writeEnds()
	return t.flush()
}

// writeGuard writes what no container's plan changes.
func (t *table) writeGuard(never []netip.Prefix, deny []uint16) {
	guard := t.chain("guard")
	t.add(guard, hasOptions(), back)
	for _, p := range never {
		t.add(guard, within(atDest, p), back)
	}
	t.add(guard, holds(t.own, false), back)
	for _, p := range deny {
		t.add(guard, destPort(p), back)
	}
	for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		t.add(guard, protocol(p), byAddress(atSource, t.judges))
	}
}

// writeChoice judges the first packet of each connection; the others follow it.
func (t *table) writeChoice() {
	raw := t.chain("raw", hook{nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, nftables.ChainPolicyAccept})
	// What is within the group needs no tracking, nor do names.
	untracked := []expr.Any{&expr.Notrack{}}
	t.add(raw, within(atSource, netstack.Subnet), addressIsNot(atSource, netstack.Gateway),
		within(atDest, netstack.Subnet), addressIsNot(atDest, netstack.Gateway), untracked)
	t.add(raw, addressIs(atDest, netstack.Gateway), destPort(53), untracked)
	t.add(raw, addressIs(atSource, netstack.Gateway), sourcePort(53), untracked)
	choice := t.chain("choice", hook{nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle, nftables.ChainPolicyAccept})
	t.add(choice, from(upName), accept)
	t.add(choice, from(stackName), accept)
	t.add(choice, state(stateInvalid), drop)
	t.add(choice, state(stateNew), jump("guard"))
	t.add(choice, connectionChosen(), choosePacket())
}

func (t *table) writeForward(connections int) {
	beyond := t.chain("beyond")
	counted := t.chain("refusals")
	t.add(counted, byAddress(atSource, t.over))
	t.add(beyond, jump("refusals"))
	t.add(beyond, protocol(unix.IPPROTO_TCP), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
	t.add(beyond, drop)
	arriving := t.chain("arriving")
	t.add(arriving, hasOptions(), drop)
	t.add(arriving, state(stateEstablished|stateRelated), connectionChosen(), byAddress(atDest, t.receivers))
	t.add(arriving, drop)
	leaving := t.chain("leaving")
	t.add(leaving, hasOptions(), drop)
	t.add(leaving, packetChosen(), connectionChosen(), byAddress(atSource, t.senders))
	t.add(leaving, drop)
	forward := t.chain("forward", hook{nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop})
	t.add(forward, state(stateNew), more(connections), leap("beyond"))
	t.add(forward, to(upName), state(stateNew), faster(maxNew), leap("beyond"))
	t.add(forward, from(upName), leap("arriving"))
	t.add(forward, to(upName), leap("leaving"))
	t.add(forward, accept)
}

// writeEnds hides the router itself and translates what leaves it.
func (t *table) writeEnds() {
	t.chain("input", hook{nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop})
	translate := t.chain("translate", hook{nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainPolicyAccept})
	t.add(translate, to(upName), []expr.Any{&expr.Masq{}})
}

// join writes a container's plan.
func (t *table) join(a netip.Addr, p Plan) error {
	m := t.members[a]
	if m == nil {
		m = &member{}
		if err := t.begin(a, m); err != nil {
			return err
		}
	} else {
		t.empty(m)
	}
	if p.All {
		t.add(m.judge, choose())
	}
	for _, place := range p.Places {
		match := within(atDest, place.Net)
		if place.Port != 0 {
			match = append(match, destPort(place.Port)...)
		}
		t.add(m.judge, match, choose())
	}
	if len(p.Named) > 0 {
		t.add(m.judge, holds(m.named, true), choose())
		t.add(m.judge, holds(m.anywhere, false), choose())
	}
	if err := t.flush(); err != nil {
		return err
	}
	m.plan, m.live, t.members[a] = p, true, m
	return nil
}

// leave takes a container's plan away.
func (t *table) leave(a netip.Addr) error {
	m := t.members[a]
	if m == nil {
		return nil
	}
	m.live, m.plan = false, Plan{}
	t.empty(m)
	return t.flush()
}

func (t *table) empty(m *member) {
	t.conn.FlushChain(m.judge)
	t.conn.FlushSet(m.named)
	t.conn.FlushSet(m.anywhere)
}

// begin writes the chains and counters of an address.
func (t *table) begin(a netip.Addr, m *member) error {
	n := last(a)
	m.judge = t.chain("judge-" + n)
	sent, received, over := t.chain("sent-"+n), t.chain("received-"+n), t.chain("over-"+n)
	m.named = &nftables.Set{
		Table: t.table, Name: "named-" + n, HasTimeout: true, Concatenation: true, Size: maxLearned,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
	}
	m.anywhere = &nftables.Set{Table: t.table, Name: "anywhere-" + n, HasTimeout: true, Size: maxLearned, KeyType: nftables.TypeIPAddr}
	for _, s := range []*nftables.Set{m.named, m.anywhere} {
		if err := t.conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	counter := func(c *nftables.Chain, name string, match []expr.Any) {
		t.conn.AddObj(&nftables.NamedObj{Table: t.table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
		t.add(c, match, count(name), accept)
	}
	for way, c := range map[string]*nftables.Chain{"s": sent, "r": received} {
		for _, h := range headers {
			counter(c, fmt.Sprintf("%s-%s-%d", way, n, ipHeader+4*int(h)), tcpHeader(h))
		}
		counter(c, fmt.Sprintf("%s-%s-%d", way, n, ipHeader+udpHeader), protocol(unix.IPPROTO_UDP))
		t.add(c, protocol(unix.IPPROTO_ICMP), accept) // of a connection, as the state says
	}
	t.conn.AddObj(&nftables.NamedObj{Table: t.table, Name: "o-" + n + "-0", Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	t.add(over, count("o-"+n+"-0"))
	for s, c := range map[*nftables.Set]*nftables.Chain{t.judges: m.judge, t.senders: sent, t.receivers: received, t.over: over} {
		key := a.As4()
		e := nftables.SetElement{Key: key[:], VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name}}
		if err := t.conn.SetAddElements(s, []nftables.SetElement{e}); err != nil {
			return err
		}
	}
	return nil
}

// learn lets a container connect to an address of a name.
func (t *table) learn(l Learned) error {
	m := t.members[l.Member]
	if m == nil || !m.live {
		return fmt.Errorf("%w: no container %s", errNotAsked, l.Member)
	}
	if err := l.check(m.plan); err != nil {
		return err
	}
	a := l.Address.As4()
	s, key := m.anywhere, a[:]
	if l.Port != 0 {
		s, key = m.named, append(key, byte(l.Port>>8), byte(l.Port), 0, 0)
	}
	if err := t.conn.SetAddElements(s, []nftables.SetElement{{Key: key, Timeout: l.hold()}}); err != nil {
		return err
	}
	return t.flush()
}

// avoid says which addresses are the machine's own.
func (t *table) avoid(own []netip.Addr) error {
	t.conn.FlushSet(t.own)
	var all []nftables.SetElement
	for _, a := range own {
		if a.Is4() {
			b := a.As4()
			all = append(all, nftables.SetElement{Key: b[:]})
		}
	}
	if len(all) > 0 {
		if err := t.conn.SetAddElements(t.own, all); err != nil {
			return err
		}
	}
	return t.flush()
}

// Counts are what one address has sent and received since the router was made,
// without headers, and what the limit on connections refused it.
type Counts struct{ In, Out, Refused uint64 }

// counts reads all counters.
func (t *table) counts() (map[byte]Counts, error) {
	objects, err := t.conn.GetNamedObjects(t.table)
	if err != nil {
		return nil, err
	}
	out := map[byte]Counts{}
	for _, o := range objects {
		named, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		c, ok := named.Obj.(*expr.Counter)
		if !ok {
			continue
		}
		parts := strings.Split(named.Name, "-")
		if len(parts) != 3 {
			continue
		}
		n, err := strconv.ParseUint(parts[1], 10, 8)
		header, err2 := strconv.ParseUint(parts[2], 10, 8)
		if errors.Join(err, err2) != nil {
			continue
		}
		all := out[byte(n)]
		bytes := c.Bytes - min(c.Bytes, c.Packets*header)
		switch parts[0] {
		case "s":
			all.Out += bytes
		case "r":
			all.In += bytes
		case "o":
			all.Refused += c.Packets
		}
		out[byte(n)] = all
	}
	return out, nil
}

func sorted(a []netip.Addr) []netip.Addr {
	out := slices.Clone(a)
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
