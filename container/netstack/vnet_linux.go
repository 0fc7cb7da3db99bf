package netstack

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A packet on the device is behind a header, by which each end tells the other
// that a checksum was left out, as both are in one machine's memory:
//
//	flags      1 byte   what is said of the checksum
//	gso type   1 byte   0: packets are not joined
//	header     2 bytes  \ of joined packets
//	gso size   2 bytes  /
//	start      2 bytes  \ in the machine's order of bytes: from where the checksum
//	offset     2 bytes  / is, and where behind that it stands
const vnetBytes = 10

// TUNFlags and TUNOffloads are with what the device of [New] is made.
const (
	TUNFlags    = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	TUNOffloads = unix.TUN_F_CSUM
)

// checksumSaid judges what the header says of its packet, b, a whole header of
// IPv4 at least. It is false if it says anything but that the checksum of TCP or
// UDP need not be looked at, or nothing [CONTAINER-95].
func checksumSaid(vnet, b []byte) (unneeded, ok bool) {
	if vnet[1] != unix.VIRTIO_NET_HDR_GSO_NONE || binary.NativeEndian.Uint32(vnet[2:]) != 0 {
		return false, false
	}
	start, offset := int(binary.NativeEndian.Uint16(vnet[6:])), int(binary.NativeEndian.Uint16(vnet[8:]))
	switch vnet[0] {
	case 0, unix.VIRTIO_NET_HDR_F_DATA_VALID:
		return vnet[0] != 0, start == 0 && offset == 0
	case unix.VIRTIO_NET_HDR_F_NEEDS_CSUM:
		return true, !fragment(b) && start == int(b[0]&15)*4 && offset == checksumOffset(b[9]) && start+offset+2 <= len(b)
	}
	return false, false
}

// checksumOffset is where the checksum of a protocol stands in its header, or -1.
func checksumOffset(protocol byte) int {
	switch protocol {
	case unix.IPPROTO_TCP:
		return header.TCPChecksumOffset
	case unix.IPPROTO_UDP:
		return 6
	}
	return -1
}

// fragment reports whether a packet is a part of one.
func fragment(b []byte) bool { return binary.BigEndian.Uint16(b[6:])&0x3fff != 0 }

// checksumRight looks at the checksum of a packet of TCP or UDP whose sender
// made one. Of a fragment it cannot be seen.
func checksumRight(b []byte) bool {
	head, at := int(b[0]&15)*4, checksumOffset(b[9])
	if at < 0 || fragment(b) {
		return true
	}
	if head+at+2 > len(b) {
		return false
	}
	if b[9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(b[head+at:]) == 0 {
		return true
	}
	src, dst := tcpip.AddrFrom4([4]byte(b[12:16])), tcpip.AddrFrom4([4]byte(b[16:20]))
	sum := header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(b[9]), src, dst, uint16(len(b)-head))
	return checksum.Checksum(b[head:], sum) == 0xffff
}

// leaveChecksum writes the header of a packet of the stack's own. It leaves the
// checksum of TCP and UDP to the machine, which as a rule never makes it.
func leaveChecksum(vnet []byte, pkt *stack.PacketBuffer) {
	clear(vnet)
	ip, transport := header.IPv4(pkt.NetworkHeader().Slice()), pkt.TransportHeader().Slice()
	if len(ip) < header.IPv4MinimumSize || fragment(ip) {
		return
	}
	at := checksumOffset(ip[9])
	if at < 0 || len(transport) < at+2 {
		return
	}
	sum := header.PseudoHeaderChecksum(ip.TransportProtocol(), ip.SourceAddress(), ip.DestinationAddress(), uint16(pkt.Size()-len(ip)))
	binary.BigEndian.PutUint16(transport[at:], sum)
	vnet[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(vnet[6:], uint16(len(ip)))
	binary.NativeEndian.PutUint16(vnet[8:], uint16(at))
}
