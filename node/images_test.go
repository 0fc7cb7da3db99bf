package node

import (
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// TestLooking: few looks at once, of one device and of all.
func TestLooking(t *testing.T) {
	var l looking
	device := func(i int) (k pktcloud.PublicKey) {
		k[0] = byte(i)
		return k
	}
	for range MaxInspectOfOne {
		if !l.enter(device(0)) {
			t.Fatal("refused too early")
		}
	}
	if l.enter(device(0)) {
		t.Errorf("a device has more than %d looks", MaxInspectOfOne)
	}
	for i := MaxInspectOfOne; i < MaxInspect; i++ {
		if !l.enter(device(i)) {
			t.Fatalf("refused with %d under way", i)
		}
	}
	if l.enter(device(100)) {
		t.Errorf("more than %d looks at once", MaxInspect)
	}
	l.leave(device(0))
	if !l.enter(device(100)) {
		t.Error("a place that came free is not given")
	}
	l.leave(device(0))
	l.leave(device(100))
	for i := MaxInspectOfOne; i < MaxInspect; i++ {
		l.leave(device(i))
	}
	if l.all != 0 || len(l.of) != 0 {
		t.Errorf("left over: %+v", &l.of)
	}
}
