package main

import (
	"slices"
	"strings"
	"testing"
)

func TestLimits(t *testing.T) {
	limits := []limit{{"settle", 3, 2_000_000}, {"market", 0, 1_500_000}}
	got, err := parseLimits(formatLimits(limits))
	if err != nil || !slices.Equal(got, limits) {
		t.Errorf("got %v (%v), want %v", got, err, limits)
	}
	for _, bad := range []string{"", "# nothing\n", "settle three modules 5 bytes\n"} {
		if _, err := parseLimits(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}

	c := cost{[]string{"a", "b", "c"}, 2_000_000}
	if err := limits[0].check(c); err != nil {
		t.Errorf("at its limits: %v", err)
	}
	c.bytes++
	if err := limits[0].check(c); err == nil {
		t.Error("a larger binary was passed over")
	}
	c = cost{[]string{"a", "b", "c", "d"}, 5}
	if err := limits[0].check(c); err == nil {
		t.Error("one more module was passed over")
	}
}

func TestNever(t *testing.T) {
	good := outsideModules("b.org/b\na.org/a\nb.org/b\nscratch\ngithub.com/pkt-cash/pkt-cloud\n")
	if want := []string{"a.org/a", "b.org/b"}; !slices.Equal(good, want) {
		t.Errorf("got modules %v, want %v", good, want)
	}
	if err := never("settle", good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"github.com/libp2p/go-libp2p", "modernc.org/sqlite", "github.com/opencontainers/runc", "gvisor.dev/gvisor"} {
		if err := never("settle", append(slices.Clone(good), bad)); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("got %v, want an error that names %s", err, bad)
		}
	}
}
