package netstack

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/pkt-cash/pkt-cloud/container"
)

// A pair of sockets that keep packets apart is a TUN device as far as a stack
// can tell, so these tests need neither root nor a network.

var inside = netip.MustParseAddr("10.213.0.2")

// newTestStack returns a stack with one member, and the container's end of its
// device.
func newTestStack(t *testing.T, cfg Config, e container.Egress) (*Stack, net.Conn) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pair[1]), "container")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	counters, err := OpenCounters(make([]byte, CounterBytes))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(os.NewFile(uintptr(pair[0]), "tun"), cfg, counters)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Join(Member{Address: inside, Name: "web", Egress: e}); err != nil {
		t.Fatal(err)
	}
	return s, c
}

// packet is a datagram in its packet, behind a header that says nothing.
func packet(from, to netip.AddrPort, data []byte) []byte {
	frame := make([]byte, vnetBytes+header.IPv4MinimumSize+header.UDPMinimumSize+len(data))
	b := frame[vnetBytes:]
	ip, udp := header.IPv4(b), header.UDP(b[header.IPv4MinimumSize:])
	copy(b[header.IPv4MinimumSize+header.UDPMinimumSize:], data)
	src, dst := tcpip.AddrFrom4(from.Addr().As4()), tcpip.AddrFrom4(to.Addr().As4())
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber), SrcAddr: src, DstAddr: dst})
	ip.SetChecksum(^ip.CalculateChecksum())
	udp.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: uint16(len(b) - header.IPv4MinimumSize)})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, src, dst, uint16(len(b)-header.IPv4MinimumSize))
	udp.SetChecksum(^udp.CalculateChecksum(checksum.Checksum(data, sum)))
	return frame
}

// unsummed is what the machine hands on of a packet whose sender left the
// checksum out.
func unsummed(frame []byte) []byte {
	frame, b := slices.Clone(frame), frame[vnetBytes:]
	frame[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(frame[6:], uint16(b[0]&15)*4)
	binary.NativeEndian.PutUint16(frame[8:], uint16(checksumOffset(b[9])))
	return frame
}

// mend makes the length and the checksum of a changed packet's header right.
func mend(frame []byte) {
	b := frame[vnetBytes:]
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if head := int(b[0]&15) * 4; head <= len(b) {
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], ^checksum.Checksum(b[:head], 0))
	}
}

func query(t *testing.T, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAccept shows which packets the stack looks at.
func TestAccept(t *testing.T) {
	link := &tun{known: func(a netip.Addr) bool { return a == inside }}
	from, to := netip.AddrPortFrom(inside, 1000), netip.MustParseAddrPort("8.8.8.8:53")
	good := packet(from, to, []byte("x"))
	plain := good[vnetBytes:]
	// change changes the packet, and what keeps it whole with it; spoil that alone.
	change := func(f func(b []byte)) []byte {
		b := slices.Clone(good)
		f(b[vnetBytes:])
		mend(b)
		return unsummed(b)
	}
	spoil := func(of []byte, f func(b []byte)) []byte {
		b := slices.Clone(of)
		f(b)
		return b
	}
	tcp := change(func(b []byte) { b[9] = 6 })
	tcp = append(tcp, make([]byte, 12)...)
	mend(tcp)
	for _, c := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"a datagram", good, true},
		{"one whose checksum was left out", unsummed(good), true},
		{"a segment whose checksum was left out", tcp, true},
		{"one that is known to be right", spoil(good, func(b []byte) { b[0], b[vnetBytes+26] = 2, 0xff }), true},
		{"one without a checksum", spoil(good, func(b []byte) { b[vnetBytes+26], b[vnetBytes+27] = 0, 0 }), true},
		{"a wrong checksum", spoil(good, func(b []byte) { b[vnetBytes+26]++ }), false},
		{"a segment without a checksum", spoil(tcp, func(b []byte) { clear(b[:vnetBytes]) }), false},
		{"a wrong checksum of the header", spoil(good, func(b []byte) { b[vnetBytes+10]++ }), false},
		{"a header that says more than is right", spoil(unsummed(good), func(b []byte) { b[0] |= 2 }), false},
		{"joined packets", spoil(unsummed(tcp), func(b []byte) { b[1], b[4] = 1, 100 }), false},
		{"joined packets of no kind", spoil(unsummed(tcp), func(b []byte) { b[4] = 100 }), false},
		{"a checksum in the addresses", spoil(unsummed(good), func(b []byte) { b[6] -= 4 }), false},
		{"a checksum elsewhere", spoil(unsummed(good), func(b []byte) { b[8] = 4 }), false},
		{"a checksum far away", spoil(unsummed(good), func(b []byte) { b[7], b[9] = 0xff, 0xff }), false},
		{"a checksum behind the end", unsummed(func() []byte { b := slices.Clone(good[:vnetBytes+27]); mend(b); return b }()), false},
		{"a place of a checksum with none left out", spoil(good, func(b []byte) { b[6] = 20 }), false},
		{"a part whose checksum was left out", change(func(b []byte) { b[6] = 0x20 }), false},
		{"a part", spoil(change(func(b []byte) { b[6] = 0x20 }), func(b []byte) { clear(b[:vnetBytes]) }), true},
		{"a checksum of an echo left out", change(func(b []byte) { b[9], b[20] = 1, 8; copy(b[16:], Gateway.AsSlice()) }), false},
		{"nothing", nil, false},
		{"half a header of the device", good[:7], false},
		{"half a header", good[:vnetBytes+19], false},
		{"less than it says", good[:len(good)-1], false},
		{"more than it says", append(slices.Clone(good), 0), false},
		{"a header longer than the packet", change(func(b []byte) { b[0] = 0x4f }), false},
		{"a header that is too short", change(func(b []byte) { b[0] = 0x44 }), false},
		{"IPv6", change(func(b []byte) { b[0] = 0x65 }), false},
		{"a neighbour's address", change(func(b []byte) { b[15]++ }), false},
		{"another group's address", change(func(b []byte) { b[14]++ }), false},
		{"a broadcast", change(func(b []byte) { copy(b[16:], []byte{255, 255, 255, 255}) }), false},
		{"a multicast", change(func(b []byte) { b[16] = 224 }), false},
		{"another protocol", spoil(change(func(b []byte) { b[9] = 47 }), func(b []byte) { clear(b[:vnetBytes]) }), false},
		{"an echo to somebody", message(plain, 8, to.Addr()), false},
		{"an echo to the gateway", message(plain, 8, Gateway), true},
		{"a redirect to the gateway", message(plain, 5, Gateway), false},
	} {
		if got := link.accept(c.b); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// message makes a message of a datagram.
func message(datagram []byte, kind byte, to netip.Addr) []byte {
	frame := append(make([]byte, vnetBytes), datagram...)
	b := frame[vnetBytes:]
	b[9], b[20] = unix.IPPROTO_ICMP, kind
	copy(b[16:], to.AsSlice())
	mend(frame)
	return frame
}

// FuzzAccept shows that no packet is beyond the bounds of what looks at it, and
// that the stack is handed none of which it would read more than is there.
func FuzzAccept(f *testing.F) {
	good := packet(netip.AddrPortFrom(inside, 1000), netip.MustParseAddrPort("8.8.8.8:53"), []byte("x"))
	f.Add(good)
	f.Add(unsummed(good))
	f.Add(message(good[vnetBytes:], 8, Gateway))
	link := &tun{known: func(a netip.Addr) bool { return a == inside }}
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := slices.Clone(frame)
		for _, whole := range []bool{false, true} {
			if whole && len(frame) >= vnetBytes+header.IPv4MinimumSize {
				mend(frame)
				before = slices.Clone(frame)
			}
			if !link.accept(frame) {
				continue
			}
			b := frame[vnetBytes:]
			if h := header.IPv4(b); !h.IsValid(len(b)) || int(h.TotalLength()) != len(b) || !h.IsChecksumValid() {
				t.Errorf("%x was accepted", frame)
			}
			if frame[1] != 0 || frame[4] != 0 || frame[5] != 0 {
				t.Errorf("%x was accepted as joined packets", frame)
			}
		}
		if !bytes.Equal(frame, before) {
			t.Errorf("%x became %x", before, frame)
		}
	})
}

// TestLeaveChecksum has a packet of the stack's own summed as the machine would.
func TestLeaveChecksum(t *testing.T) {
	_, c := newTestStack(t, Config{}, container.Egress{})
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 1<<16)
	ask := func(frame []byte) []byte {
		t.Helper()
		if _, err := c.Write(frame); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(buf[:n])
	}
	syn := packet(netip.AddrPortFrom(inside, 1000), netip.MustParseAddrPort("8.8.8.8:80"), make([]byte, 12))
	copy(syn[vnetBytes+20:], []byte{3, 232, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 255, 255, 0, 0, 0, 0})
	syn[vnetBytes+9] = unix.IPPROTO_TCP
	mend(syn)
	for name, frame := range map[string][]byte{
		"a refusal": ask(unsummed(syn)),
		"an answer": ask(packet(netip.AddrPortFrom(inside, 1000), netip.AddrPortFrom(Gateway, 53), query(t, "web.", dnsmessage.TypeA))),
	} {
		b := slices.Clone(frame[vnetBytes:])
		start, offset := int(binary.NativeEndian.Uint16(frame[6:])), int(binary.NativeEndian.Uint16(frame[8:]))
		if frame[0] != unix.VIRTIO_NET_HDR_F_NEEDS_CSUM || start != 20 || offset != checksumOffset(b[9]) {
			t.Errorf("%s: the header is %x, of protocol %d", name, frame[:vnetBytes], b[9])
			continue
		}
		binary.BigEndian.PutUint16(b[start+offset:], ^checksum.Checksum(b[start:], 0))
		if !checksumRight(b) {
			t.Errorf("%s: the checksum of %x is wrong", name, b)
		}
	}
	if frame := ask(func() []byte {
		b := message(syn[vnetBytes:], 8, Gateway)
		b[vnetBytes+22], b[vnetBytes+23] = 0, 0
		binary.BigEndian.PutUint16(b[vnetBytes+22:], ^checksum.Checksum(b[vnetBytes+20:], 0))
		return b
	}()); frame[0] != 0 || checksum.Checksum(frame[vnetBytes+20:], 0) != 0xffff {
		t.Errorf("an echo came back as %x", frame)
	}
}

// TestMalformed sends rubbish, and then a question that is answered.
func TestMalformed(t *testing.T) {
	_, c := newTestStack(t, Config{}, container.Egress{Public: true})
	seed := rand.New(rand.NewPCG(1, 2))
	from, to := netip.AddrPortFrom(inside, 1000), netip.AddrPortFrom(Gateway, 53)
	good := packet(from, to, query(t, "web.", dnsmessage.TypeA))
	go func() {
		for range 20_000 {
			frame := slices.Clone(good[:1+seed.IntN(len(good))])
			for range 1 + seed.IntN(8) {
				frame[seed.IntN(len(frame))] = byte(seed.Uint32())
			}
			if b := frame[min(vnetBytes, len(frame)):]; len(b) >= 20 {
				if seed.IntN(4) > 0 {
					copy(b[12:16], inside.AsSlice())
				}
				if seed.IntN(4) > 0 {
					copy(b[16:20], []byte{8, 8, 8, byte(seed.Uint32())})
					b[9] = []byte{1, 6, 17}[seed.IntN(3)]
				}
				if seed.IntN(8) > 0 {
					mend(frame)
					clear(frame[:vnetBytes])
				}
				if seed.IntN(2) > 0 {
					frame = unsummed(frame)
				}
			}
			if _, err := c.Write(frame); err != nil {
				return
			}
		}
		for range 20 {
			if _, err := c.Write(good); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 1<<16)
	for {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		var m dnsmessage.Message
		if n > 38 && buf[vnetBytes+9] == 17 && m.Unpack(buf[vnetBytes+28:n]) == nil && len(m.Answers) == 1 {
			return
		}
	}
}

// TestAnswer asks about names; the machine's name server is one that lies.
func TestAnswer(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	asked := make(chan string, 64)
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil {
				continue
			}
			asked <- m.Questions[0].Name.String()
			m.Response, m.Additionals = true, nil
			h := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 1}
			for _, a := range [][4]byte{{10, 1, 2, 3}, {127, 0, 0, 1}, {8, 8, 8, 8}, {169, 254, 169, 254}} {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a}})
			}
			b, _ := m.Pack()
			_, _ = server.WriteTo(b, from)
		}
	}()
	s, _ := newTestStack(t, Config{Resolvers: []netip.AddrPort{addrPort(server.LocalAddr())}}, container.Egress{Allow: []string{"*.example.org:443"}})
	m := s.member(inside)
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		code dnsmessage.RCode
		want string
		up   bool // the machine's name server is asked
	}{
		{"web.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "[10 213 0 2]", false},
		{"WEB.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "[10 213 0 2]", false},
		{"web.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, "", false},
		{"db.", dnsmessage.TypeA, dnsmessage.RCodeNameError, "", false},
		{"www.example.org.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "[8 8 8 8]", true},
		{"www.example.org.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, "", false},
		{"www.example.com.", dnsmessage.TypeA, dnsmessage.RCodeRefused, "", false},
		{"secret.data.example.com.", dnsmessage.TypeTXT, dnsmessage.RCodeRefused, "", false},
	} {
		var reply dnsmessage.Message
		if err := reply.Unpack(s.answer(m, query(t, c.name, c.kind), true)); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range reply.Answers {
			if a, ok := r.Body.(*dnsmessage.AResource); ok {
				got = append(got, strings.ReplaceAll(netip.AddrFrom4(a.A).String(), ".", " "))
			}
		}
		want := strings.Trim(c.want, "[]")
		if reply.RCode != c.code || strings.Join(got, ",") != want || reply.ID != 7 {
			t.Errorf("%s %s: got %s %v, want %s %q", c.name, c.kind, reply.RCode, got, c.code, want)
		}
		select {
		case name := <-asked:
			if !c.up {
				t.Errorf("%s went to the machine's name server", name)
			}
		default:
			if c.up {
				t.Errorf("%s did not go to the machine's name server", c.name)
			}
		}
	}
	if !m.egress.allows(netip.MustParseAddrPort("8.8.8.8:443"), now()) || m.egress.allows(netip.MustParseAddrPort("10.1.2.3:443"), now()) {
		t.Error("want the public address learned, and no other")
	}
	two := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("web."), Type: 1, Class: 1}, {Name: dnsmessage.MustNewName("web."), Type: 1, Class: 1}}}
	b, err := two.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string][]byte{"two questions": b, "nothing": {}, "half a header": make([]byte, 7), "a reply": append([]byte{0, 7, 0x80}, query(t, "web.", 1)[3:]...)} {
		if got := s.answer(m, q, true); got != nil {
			t.Errorf("%s was answered with %x", name, got)
		}
	}
}
