//go:build unix

package node

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockExclusive holds a file for this process until it is closed.
func lockExclusive(f *os.File) (held bool, err error) {
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
