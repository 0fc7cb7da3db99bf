package kernelnet

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/netstack"
)

// shaper bounds bytes a second by token buckets of the kernel, for both ways out of
// the group together. What a container sends goes through a device on which all
// their queues are; what it receives through a queue of its interface, after one
// for the whole group. Where nothing bounds there is nothing of this.
type shaper struct {
	h       *netlink.Handle
	rate    uint64 // of the group
	sending int    // the device's index, 0 while there is none
	classes map[netip.Addr]bool
}

const (
	sendingName   = "sending"
	receivingName = "receiving"
	// mostRate is as many bytes a second as the kernel's classes count.
	mostRate = math.MaxUint32
)

func newShaper(h *netlink.Handle, rate uint64) *shaper {
	return &shaper{h: h, rate: min(rate, mostRate), classes: map[netip.Addr]bool{}}
}

// queue is how many packets wait, an eighth of a second's small ones.
func queue(rate uint64) int { return int(min(max(rate/8/1500, 32), 1000)) }

// device makes a device that holds packets back, with the group's class on it.
func (s *shaper) device(name string, rate uint64) (int, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.TxQLen, attrs.MTU = name, queue(rate), netstack.MTU
	if err := s.h.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil {
		return 0, &container.Error{Code: container.CodeMissingFeature, Detail: "no device to bound bytes a second with; load the kernel module ifb", Err: err}
	}
	link, err := s.h.LinkByName(name)
	if err != nil {
		return 0, err
	}
	index := link.Attrs().Index
	return index, errors.Join(s.h.LinkSetTxQLen(link, queue(rate)), s.h.LinkSetUp(link), s.root(index, 1), s.class(index, handle(1, 0), 1, rate, rate))
}

func handle(major, minor uint16) uint32 { return netlink.MakeHandle(major, minor) }

// root makes the root queue of a device, whose packets go to a class unless a
// filter says otherwise.
func (s *shaper) root(index int, usual uint32) error {
	q := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: index, Handle: handle(1, 0), Parent: netlink.HANDLE_ROOT})
	q.Defcls = usual
	return s.h.QdiscReplace(q)
}

// class makes one that sends rate bytes a second, and as much as ceil while its
// parent has them; each may lend a tenth of a second's.
func (s *shaper) class(index int, parent uint32, minor uint16, rate, ceil uint64) error {
	return s.h.ClassReplace(netlink.NewHtbClass(
		netlink.ClassAttrs{LinkIndex: index, Parent: parent, Handle: handle(1, minor)},
		netlink.HtbClassAttrs{Rate: 8 * rate, Ceil: 8 * ceil, Buffer: burst(rate), Cbuffer: burst(ceil), Quantum: netstack.MTU},
	))
}

func burst(rate uint64) uint32 { return uint32(min(max(rate/10, 1600), 64<<20)) }

// filter matches packets of which four bytes at an offset are as given.
func filter(index int, parent uint32, prio uint16, p netip.Prefix, offset int32) *netlink.U32 {
	m := uint32(uint64(1)<<32 - uint64(1)<<(32-p.Bits()))
	b := p.Masked().Addr().As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	return &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: parent, Priority: prio, Protocol: unix.ETH_P_IP},
		Sel:         &netlink.TcU32Sel{Flags: netlink.TC_U32_TERMINAL, Nkeys: 1, Keys: []netlink.TcU32Key{{Mask: m, Val: v, Off: offset}}},
	}
}

var everything = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// redirect leads what comes from a device through another, but for what goes
// within the group.
func (s *shaper) redirect(name string, through int, within bool) error {
	link, err := s.h.LinkByName(name)
	if err != nil {
		return err
	}
	index := link.Attrs().Index
	q := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: handle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
	if err := s.h.QdiscReplace(q); err != nil {
		return fmt.Errorf("bound what comes from %s: %w", name, err)
	}
	if within {
		pass := filter(index, handle(0xffff, 0), 1, netstack.Subnet, atDest)
		pass.ClassId = handle(1, 1)
		if err := s.h.FilterAdd(pass); err != nil {
			return err
		}
	}
	all := filter(index, handle(0xffff, 0), 2, everything, atDest)
	all.Actions = []netlink.Action{netlink.NewMirredAction(through)}
	return s.h.FilterAdd(all)
}

// group bounds what the group receives, from the machine and from the stack.
func (s *shaper) group(from ...string) error {
	if s.rate == 0 {
		return nil
	}
	index, err := s.device(receivingName, s.rate)
	if err != nil {
		return err
	}
	for _, name := range from {
		if err := s.redirect(name, index, false); err != nil {
			return err
		}
	}
	return nil
}

// member bounds a container.
func (s *shaper) member(a netip.Addr, device string, rate uint64) error {
	rate = min(rate, mostRate)
	if rate != 0 {
		if err := s.receives(device, rate); err != nil {
			return err
		}
	}
	if rate == 0 && s.rate == 0 {
		return nil
	}
	var err error
	if s.sending == 0 {
		most := s.rate
		if most == 0 {
			most = mostRate
		}
		if s.sending, err = s.device(sendingName, most); err != nil {
			return err
		}
	}
	return errors.Join(s.sends(a, rate), s.redirect(device, s.sending, true))
}

// sends bounds what a container sends. What several send together the group's
// class bounds: each has little of its own and borrows.
func (s *shaper) sends(a netip.Addr, rate uint64) error {
	ceil := rate
	switch {
	case ceil == 0:
		ceil = s.rate
	case s.rate != 0:
		ceil = min(ceil, s.rate)
	}
	minor := 0x100 + uint16(a.As4()[3])
	if err := s.class(s.sending, handle(1, 1), minor, max(ceil/64, 1), ceil); err != nil {
		return err
	}
	if s.classes[a] {
		return nil
	}
	s.classes[a] = true
	f := filter(s.sending, handle(1, 0), 1, netip.PrefixFrom(a, 32), atSource)
	f.ClassId = handle(1, minor)
	return s.h.FilterAdd(f)
}

// receives bounds what a container receives but from others of its group; the
// gateway stands for hosts outside.
func (s *shaper) receives(name string, rate uint64) error {
	link, err := s.h.LinkByName(name)
	if err != nil {
		return err
	}
	index := link.Attrs().Index
	if err := errors.Join(s.h.LinkSetTxQLen(link, queue(rate)), s.root(index, 2),
		s.class(index, handle(1, 0), 1, mostRate, mostRate), s.class(index, handle(1, 0), 2, rate, rate)); err != nil {
		return err
	}
	gateway := filter(index, handle(1, 0), 1, netip.PrefixFrom(netstack.Gateway, 32), atSource)
	gateway.ClassId = handle(1, 2)
	group := filter(index, handle(1, 0), 2, netstack.Subnet, atSource)
	group.ClassId = handle(1, 1)
	return errors.Join(s.h.FilterAdd(gateway), s.h.FilterAdd(group))
}
