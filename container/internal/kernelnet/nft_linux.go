package kernelnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// rules is a table that is written in one go.
type rules struct {
	conn   *nftables.Conn
	table  *nftables.Table
	queued int
}

// ackBytes is room for the kernel's answers to one batch, of which each command
// has one.
const (
	ackBytes  = 4 << 20
	batchSize = 256
)

// openRules makes a table of IPv4 that the kernel removes when this process is
// gone, in a network namespace or, where ns is 0, in that of the thread.
func openRules(ns int, name string) (*rules, error) {
	var wire *mdnetlink.Conn
	options := []nftables.ConnOption{nftables.AsLasting(), nftables.WithSockOptions(func(c *mdnetlink.Conn) error {
		wire = c
		return c.SetReadBuffer(ackBytes)
	})}
	if ns != 0 {
		options = append(options, nftables.WithNetNSFd(ns))
	}
	conn, err := nftables.New(options...)
	if err != nil {
		return nil, err
	}
	if err := own(wire, name); err != nil {
		return nil, errors.Join(fmt.Errorf("make the table %s: %w", name, err), conn.CloseLasting())
	}
	return &rules{conn: conn, table: &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}}, nil
}

// ownedTable is NFT_TABLE_F_OWNER: nobody else changes the table, and it goes with
// the socket that made it.
const ownedTable = 1 << 1

// own makes a table that belongs to a socket.
func own(wire *mdnetlink.Conn, name string) error {
	attrs, err := mdnetlink.MarshalAttributes([]mdnetlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(name), 0)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binaryutil.BigEndian.PutUint32(ownedTable)},
	})
	if err != nil {
		return err
	}
	message := func(kind, family uint8, resource uint16, flags mdnetlink.HeaderFlags, data []byte) mdnetlink.Message {
		head := binary.BigEndian.AppendUint16([]byte{family, 0}, resource)
		typ := mdnetlink.HeaderType(kind)
		if resource == 0 {
			typ |= unix.NFNL_SUBSYS_NFTABLES << 8
		}
		return mdnetlink.Message{Header: mdnetlink.Header{Type: typ, Flags: mdnetlink.Request | flags}, Data: append(head, data...)}
	}
	_, err = wire.SendMessages([]mdnetlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, 0, nil),
		message(unix.NFT_MSG_NEWTABLE, unix.NFPROTO_IPV4, 0, mdnetlink.Create|mdnetlink.Excl|mdnetlink.Acknowledge, attrs),
		message(unix.NFNL_MSG_BATCH_END, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, 0, nil),
	})
	if err != nil {
		return err
	}
	_, err = wire.Receive()
	return err
}

// chain begins a chain; a hook makes it one that packets come to.
func (r *rules) chain(name string, at ...hook) *nftables.Chain {
	c := &nftables.Chain{Name: name, Table: r.table}
	if len(at) > 0 {
		h := at[0]
		c.Type, c.Hooknum, c.Priority, c.Policy = h.kind, h.at, h.priority, &h.policy
	}
	return r.conn.AddChain(c)
}

// hook is where packets come to a chain.
type hook struct {
	kind     nftables.ChainType
	at       *nftables.ChainHook
	priority *nftables.ChainPriority
	policy   nftables.ChainPolicy
}

// add adds a rule.
func (r *rules) add(c *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: c, Exprs: all})
	r.queued++
}

// flushSome writes a long table in parts, which it may be as long as nothing leads
// to it.
func (r *rules) flushSome() error {
	if r.queued < batchSize {
		return nil
	}
	return r.flush()
}

func (r *rules) flush() error {
	r.queued = 0
	return r.conn.Flush()
}

func (r *rules) close() error { return r.conn.CloseLasting() }

// What rules are made of. Registers: reg1 for one value, word0 and the next for
// several.
const (
	reg1  = 1
	word0 = 8
)

func is(value ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: value}}
}

func isNot(value ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: value}}
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// device matches the name of an interface, in or out.
func device(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, &expr.Cmp{Op: op, Register: reg1, Data: padded}}
}

func from(name string) []expr.Any { return device(expr.MetaKeyIIFNAME, expr.CmpOpEq, name) }
func to(name string) []expr.Any   { return device(expr.MetaKeyOIFNAME, expr.CmpOpEq, name) }

// Offsets in headers.
const (
	atSource = 12
	atDest   = 16
)

func load(base expr.PayloadBase, offset, n, register uint32) []expr.Any {
	return []expr.Any{&expr.Payload{OperationType: expr.PayloadLoad, DestRegister: register, Base: base, Offset: offset, Len: n}}
}

func network(offset, n uint32) []expr.Any {
	return load(expr.PayloadBaseNetworkHeader, offset, n, reg1)
}

func transport(offset, n uint32) []expr.Any {
	return load(expr.PayloadBaseTransportHeader, offset, n, reg1)
}

func mask(m ...byte) []expr.Any {
	return []expr.Any{&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: uint32(len(m)), Mask: m, Xor: make([]byte, len(m))}}
}

// within matches packets whose address at an offset is of a network.
func within(offset uint32, p netip.Prefix) []expr.Any {
	a := p.Masked().Addr().As4()
	m := make([]byte, 4)
	binary.BigEndian.PutUint32(m, uint32(uint64(1)<<32-uint64(1)<<(32-p.Bits())))
	return join(network(offset, 4), mask(m...), is(a[:]...))
}

func addressIs(offset uint32, a netip.Addr) []expr.Any {
	b := a.As4()
	return join(network(offset, 4), is(b[:]...))
}

func addressIsNot(offset uint32, a netip.Addr) []expr.Any {
	b := a.As4()
	return join(network(offset, 4), isNot(b[:]...))
}

func protocol(p byte) []expr.Any {
	return join([]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}}, is(p))
}

func port(offset uint32, p uint16) []expr.Any {
	return join(transport(offset, 2), is(byte(p>>8), byte(p)))
}

func destPort(p uint16) []expr.Any   { return port(2, p) }
func sourcePort(p uint16) []expr.Any { return port(0, p) }

// hasOptions matches packets whose IP header is longer than the shortest.
func hasOptions() []expr.Any { return join(network(0, 1), mask(0x0f), isNot(5)) }

// tcpHeader matches segments whose header has so many words.
func tcpHeader(words byte) []expr.Any {
	return join(protocol(unix.IPPROTO_TCP), transport(12, 1), mask(0xf0), is(words<<4))
}

// state matches packets in one of the states of connection tracking.
func state(s uint32) []expr.Any {
	return join([]expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: reg1}}, mask(native(s)...), isNot(native(0)...))
}

const (
	stateInvalid     = 1 << 0
	stateEstablished = 1 << 1
	stateRelated     = 1 << 2
	stateNew         = 1 << 3
)

// chosen is the mark of connections on the fast path, and of their packets.
const chosen = 1

func connectionChosen() []expr.Any {
	return join([]expr.Any{&expr.Ct{Key: expr.CtKeyMARK, Register: reg1}}, is(native(chosen)...))
}

func packetChosen() []expr.Any {
	return join([]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1}}, is(native(chosen)...))
}

func choosePacket() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg1, Data: native(chosen)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1},
	}
}

// choose puts a connection on the fast path, and its first packet.
func choose() []expr.Any {
	return join([]expr.Any{
		&expr.Immediate{Register: reg1, Data: native(chosen)},
		&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: reg1},
	}, choosePacket(), accept)
}

// more matches the packets of connections beyond n at a time that come to it.
func more(n int) []expr.Any {
	return []expr.Any{&expr.Connlimit{Count: uint32(n), Flags: expr.NFT_CONNLIMIT_F_INV}}
}

// faster matches packets beyond n a second.
func faster(n int) []expr.Any {
	return []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(n), Over: true, Unit: expr.LimitTimeSecond, Burst: uint32(n)}}
}

func verdict(k expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: k, Chain: chain}}
}

var (
	accept = verdict(expr.VerdictAccept, "")
	drop   = verdict(expr.VerdictDrop, "")
	back   = verdict(expr.VerdictReturn, "")
)

func jump(chain string) []expr.Any { return verdict(expr.VerdictJump, chain) }
func leap(chain string) []expr.Any { return verdict(expr.VerdictGoto, chain) }

// count adds to a counter.
func count(name string) []expr.Any {
	return []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name}}
}

// byAddress goes on in the chain that a map has for the address at an offset.
func byAddress(offset uint32, s *nftables.Set) []expr.Any {
	return join(network(offset, 4), []expr.Any{&expr.Lookup{SourceRegister: reg1, DestRegister: 0, IsDestRegSet: true, SetName: s.Name, SetID: s.ID}})
}

// holds matches packets whose destination is in a set, with its port where that
// has ports.
func holds(s *nftables.Set, ports bool) []expr.Any {
	out := load(expr.PayloadBaseNetworkHeader, atDest, 4, word0)
	if ports {
		out = append(out, load(expr.PayloadBaseTransportHeader, 2, 2, word0+1)...)
	}
	return append(out, &expr.Lookup{SourceRegister: word0, SetName: s.Name, SetID: s.ID})
}
