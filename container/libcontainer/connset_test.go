//go:build linux && cgo && amd64

package libcontainer

import (
	"net"
	"testing"
	"time"
)

// TestConnSet has as many connections as a monitor serves: one more gets the place
// of the first that ends, and what tenants may ask for is never all of them
// [CONTAINER-93].
func TestConnSet(t *testing.T) {
	var s connSet
	all := make([]net.Conn, maxConns+1)
	for i := range all {
		c, other := net.Pipe()
		defer other.Close()
		all[i] = c
		if i < maxConns && !s.add(c) {
			t.Fatalf("connection %d has no place", i)
		}
	}
	got := make(chan bool, 1)
	go func() { got <- s.add(all[maxConns]) }()
	waits := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.freed != nil
	}
	for deadline := time.Now().Add(time.Minute); !waits(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody waits for a place")
		}
	}
	s.remove(all[0])
	if !<-got {
		t.Error("one more was turned away, though another had ended")
	}
	s.closeAll()
	if s.add(all[0]) {
		t.Error("one was added at the end")
	}
	guests := 0
	for range maxConns {
		if _, ok := s.guest(); ok {
			guests++
		}
	}
	if guests > maxConns-16 {
		t.Errorf("tenants may have %d of %d places", guests, maxConns)
	}
}
