package reach_test

import (
	"errors"
	"testing"

	"github.com/pkt-cash/pkt-cloud/internal/reach"
)

// What is read and what is refused is in the tests of package container.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24:443", "192.0.2.7:*", "example.org:443", "*.example.org:*", "::1:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := reach.Parse(s)
		if err != nil && !errors.Is(err, reach.ErrPlace) {
			t.Errorf("got %v", err)
		}
		if err == nil && p.String() != s {
			t.Errorf("got %q, want %q", p, s)
		}
	})
}
