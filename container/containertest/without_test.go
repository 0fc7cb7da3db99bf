package containertest

import (
	"strings"
	"testing"
)

// TestWithout shows that a promise which a fixture leaves out is not checked,
// and that it says which and why.
func TestWithout(t *testing.T) {
	const name = "exit-code-known"
	for _, c := range []struct {
		without map[string]string
		want    string // the error's beginning
	}{
		{nil, name + ": "},
		{map[string]string{name: "its programs end as they like"}, ""},
		{map[string]string{name: ""}, "a fixture without"},
		{map[string]string{"immortality": "nobody has it"}, "a fixture without"},
	} {
		rt, f := NewTwinWithPrograms()
		f.Without = c.without
		f.Late = func(int) []string { return f.Exit(0) }
		got := ""
		if err := TestRuntime(rt, f); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("without %q: got %q, want %q", c.without, got, c.want)
		}
	}
}

// TestOwnPids shows that a runtime whose processes are bounded inside may not
// take another bound for them.
func TestOwnPids(t *testing.T) {
	rt, f := NewTwinWithPrograms()
	f.OwnPids = true
	if err := TestRuntime(rt, f); err == nil || !strings.HasPrefix(err.Error(), "update: more processes") {
		t.Errorf("got %v, want the update refused", err)
	}
}
