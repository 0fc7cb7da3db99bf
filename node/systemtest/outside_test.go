//go:build system && linux

package systemtest

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pkt-cash/pkt-cloud/internal/netlab"
)

// What the other network has.
var (
	publicAddrs  = []string{"8.8.8.8", "1.1.1.1"}
	privateAddrs = []string{"10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1"}
)

// outside is another network, to which this one is connected.
type outside struct{ *netlab.Outside }

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{netlab.New(t, slices.Concat(publicAddrs, privateAddrs)...)}
	for port, says := range map[int]string{80: "hello", 25: "mail", 443: "other"} {
		o.ServeTCP(port, func(c net.Conn) { io.WriteString(c, says+"\n") })
	}
	return o
}

// ask sends a text to an address from outside, and returns the answer.
func (o *outside) ask(network, address, text string) (answer string, err error) {
	err = o.Do(func() error {
		c, err := net.DialTimeout(network, address, 3*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		buf := make([]byte, 4096)
		n, err := c.Read(buf)
		for network == "tcp" && err == nil {
			var more int
			more, err = c.Read(buf[n:])
			n += more
		}
		answer = string(buf[:n])
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	return strings.TrimSpace(answer), err
}
