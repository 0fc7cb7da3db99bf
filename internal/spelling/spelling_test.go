package spelling_test

import (
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/internal/spelling"
)

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"image", "image", 0},
		{"imge", "image", 1},
		{"images", "image", 1},
		{"imaeg", "image", 2},
		{"", "image", 5},
		{strings.Repeat("a", 33), "image", spelling.Far},
	} {
		if got := spelling.Distance(c.a, c.b); got != c.want {
			t.Errorf("of %q and %q: got %d, want %d", c.a, c.b, got, c.want)
		}
		if got := spelling.Distance(c.b, c.a); got != c.want {
			t.Errorf("of %q and %q: got %d, want %d", c.b, c.a, got, c.want)
		}
	}
}
