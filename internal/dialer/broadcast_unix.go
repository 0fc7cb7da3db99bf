//go:build unix

package dialer

import "syscall"

// toOneHost takes back what Go gives every socket for datagrams: that it may send
// to all hosts of a network at once, also of one with public addresses.
func toOneHost(c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_BROADCAST, 0)
	})
	if err != nil {
		return err
	}
	return failed
}
