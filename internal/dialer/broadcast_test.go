//go:build unix

package dialer

import (
	"net"
	"syscall"
	"testing"
)

// TestToOneHost shows that datagrams cannot be sent to all hosts of a network.
func TestToOneHost(t *testing.T) {
	d, err := New([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.DialContext(t.Context(), "udp4", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	got := -1
	if err := raw.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_BROADCAST) }); err != nil || got != 0 {
		t.Errorf("got SO_BROADCAST %d, %v, want 0", got, err)
	}
}
