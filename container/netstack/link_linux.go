package netstack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// tun is a TUN device as a link of the stack. What comes from it is dropped
// unless it is plain IPv4 from a container of the group [CONTAINER-51].
type tun struct {
	stack.LinkEndpoint // one that has no headers; the methods below are this one's own

	file *os.File
	fd   int
	// known reports whether an address is one of the group's containers.
	known func(netip.Addr) bool

	once    sync.Once
	reading sync.WaitGroup
}

var _ stack.LinkEndpoint = (*tun)(nil)

// openTUN takes over a TUN device of [TUNFlags] and [TUNOffloads].
func openTUN(f *os.File) (*tun, error) {
	if err := unix.SetNonblock(int(f.Fd()), true); err != nil {
		return nil, err
	}
	// A file has to be made anew to be known to the poller.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &tun{LinkEndpoint: loopback.New(), file: os.NewFile(uintptr(fd), "tun"), fd: fd}, nil
}

func (t *tun) MTU() uint32                             { return MTU }
func (t *tun) IsAttached() bool                        { return t.known != nil }
func (t *tun) Wait()                                   { t.reading.Wait() }
func (t *tun) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (t *tun) Close()                                  { t.once.Do(func() { _ = t.file.Close() }) }

// Capabilities tells the stack that accept has looked at the checksums of what
// arrives, and that WritePackets sees to those of what leaves.
func (t *tun) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload | stack.CapabilityTXChecksumOffload
}

// Attach begins to read.
func (t *tun) Attach(d stack.NetworkDispatcher) {
	if d != nil {
		t.reading.Go(func() { t.read(d) })
	}
}

func (t *tun) read(d stack.NetworkDispatcher) {
	const large = 1 << 15
	big := buffer.NewViewSize(1 << 16)
	for {
		b := big.AsSlice()
		n, err := t.file.Read(b)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil || !t.accept(b[:n]) {
			if errors.Is(err, unix.EBADFD) {
				return // the device is gone
			}
			continue
		}
		v := big
		if n >= large {
			v.CapLength(n)
			v.TrimFront(vnetBytes)
			big = buffer.NewViewSize(1 << 16)
		} else {
			// A small packet must not hold a large buffer while it waits.
			v = buffer.NewViewWithData(b[vnetBytes:n])
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
		d.DeliverNetworkPacket(header.IPv4ProtocolNumber, pkt)
		pkt.DecRef()
	}
}

// accept looks at a packet, and at the header before it, before anything else
// does.
func (t *tun) accept(b []byte) bool {
	if len(b) < vnetBytes+header.IPv4MinimumSize {
		return false
	}
	vnet, b := b[:vnetBytes], b[vnetBytes:]
	head := int(b[0]&15) * 4
	if b[0]>>4 != 4 || head < header.IPv4MinimumSize || head > len(b) || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		return false
	}
	from, to := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	if !t.known(from) || to.IsMulticast() || to.IsUnspecified() || to == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	unneeded, ok := checksumSaid(vnet, b)
	if !ok || checksum.Checksum(b[:head], 0) != 0xffff {
		return false
	}
	switch b[9] {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		return unneeded || checksumRight(b)
	case unix.IPPROTO_ICMP:
		first := binary.BigEndian.Uint16(b[6:])&0x1fff == 0
		return to == Gateway && (!first || len(b) > head && b[head] == byte(header.ICMPv4Echo))
	}
	return false
}

// WritePackets writes each packet at once.
func (t *tun) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	var vnet [vnetBytes]byte
	for _, pkt := range list.AsSlice() {
		leaveChecksum(vnet[:], pkt)
		if _, err := unix.Writev(t.fd, append([][]byte{vnet[:]}, pkt.AsSlices()...)); err != nil {
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
				return n, &tcpip.ErrNoBufferSpace{}
			}
			return n, &tcpip.ErrAborted{}
		}
		n++
	}
	return n, nil
}
