//go:build linux && amd64

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"
)

var netAttacks = []attack{
	{
		Name: "net/addresses", About: "have an address that others can reach", Without: []string{ownNetwork},
		run: func(*targets) error {
			all, err := net.InterfaceAddrs()
			for _, a := range all {
				if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() {
					return nil
				}
			}
			return errors.Join(errors.New("only the loopback addresses"), err)
		},
	},
	{Name: "net/metadata", About: "ask the cloud's metadata service", Without: []string{ownNetwork}, run: connect("169.254.169.254:80")},
	{Name: "net/private", About: "reach the provider's private network", Without: []string{ownNetwork}, run: connect("10.77.0.1:80", "172.16.77.1:80", "192.168.77.1:80", "100.64.77.1:80")},
	{
		Name: "net/machine", About: "reach what listens on the machine's own loopback", Without: []string{ownNetwork},
		run: func(t *targets) error { return connect(t.Addresses...)(t) },
	},
	{
		Name: "net/raw", About: "send packets with forged headers", Without: []string{capNetRaw},
		run: func(*targets) error { return openSocket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_RAW) },
	},
	{
		Name: "net/packet", About: "send and watch whole frames", Without: []string{capNetRaw},
		run: func(*targets) error { return openSocket(syscall.AF_PACKET, syscall.SOCK_RAW, 0) },
	},
	{
		Name: "net/spoof", About: "send from the address of another lease", Without: []string{capNetRaw},
		run: func(*targets) error {
			fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			defer func() { _ = syscall.Close(fd) }()
			return syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, 19, 1) // IP_TRANSPARENT
		},
	},
	{
		Name: "net/take-address", About: "give itself the address of another lease", Without: []string{capNet},
		run: func(*targets) error { return addAddress() },
	},
	{
		Name: "net/interface", About: "make a network interface", Without: []string{capNet},
		run: func(*targets) error { return makeBridge() },
	},
}

// connect succeeds when one of the addresses answers.
func connect(addresses ...string) func(*targets) error {
	return func(*targets) error {
		errs := []error{errors.New("there is nothing to reach")}
		for _, a := range addresses {
			c, err := net.DialTimeout("tcp", a, time.Second)
			if err == nil {
				err = c.Close()
			}
			errs = append(errs, err)
		}
		return firstError(append(errs[min(1, len(addresses)):], errs[0])...)
	}
}

// addAddress gives the loopback interface an address by netlink.
func addAddress() error {
	msg := struct {
		syscall.NlMsghdr
		syscall.IfAddrmsg
		syscall.RtAttr
		ip [4]byte
	}{
		IfAddrmsg: syscall.IfAddrmsg{Family: syscall.AF_INET, Prefixlen: 32, Index: 1},
		RtAttr:    syscall.RtAttr{Len: 8, Type: syscall.IFA_LOCAL},
		ip:        [4]byte{10, 99, 0, 1},
	}
	msg.NlMsghdr = header(syscall.RTM_NEWADDR, uint32(unsafe.Sizeof(msg)))
	return netlink(unsafe.Slice((*byte)(unsafe.Pointer(&msg)), unsafe.Sizeof(msg)))
}

// makeBridge makes a bridge, which every kernel has.
func makeBridge() error {
	msg := struct {
		syscall.NlMsghdr
		syscall.IfInfomsg
		info, kind syscall.RtAttr
		name       [8]byte
	}{
		info: syscall.RtAttr{Len: 16, Type: 18 /* IFLA_LINKINFO */},
		kind: syscall.RtAttr{Len: 10, Type: 1 /* IFLA_INFO_KIND */},
		name: [8]byte{'b', 'r', 'i', 'd', 'g', 'e'},
	}
	msg.NlMsghdr = header(syscall.RTM_NEWLINK, uint32(unsafe.Sizeof(msg)))
	return netlink(unsafe.Slice((*byte)(unsafe.Pointer(&msg)), unsafe.Sizeof(msg)))
}

func header(kind uint16, size uint32) syscall.NlMsghdr {
	return syscall.NlMsghdr{Len: size, Type: kind, Flags: syscall.NLM_F_REQUEST | syscall.NLM_F_ACK | syscall.NLM_F_CREATE | syscall.NLM_F_EXCL, Seq: 1}
}

// netlink sends a message and returns the kernel's answer.
func netlink(msg []byte) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW, syscall.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(fd) }()
	if err := syscall.Sendto(fd, msg, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := syscall.Recvfrom(fd, answer, 0)
	if err != nil || n < 20 {
		return fmt.Errorf("no answer: %w", err)
	}
	if code := *(*int32)(unsafe.Pointer(&answer[16])); code < 0 {
		return syscall.Errno(-code)
	}
	return nil
}
