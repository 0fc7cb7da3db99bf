package main

import (
	"slices"
	"strings"
	"testing"
)

const list = "# what is needed\ndoctor root containers\ndoctor cgroups limits on memory\ndoctor loop-devices disks\n\ncommand gcc the part in C\ntool runsc a kernel\noptional PKTD_RPC a real node\n"

func TestCapabilities(t *testing.T) {
	caps, err := parseCapabilities(list)
	if err != nil {
		t.Fatal(err)
	}
	if got := optionalNames(caps); !slices.Equal(got, []string{"PKTD_RPC"}) {
		t.Errorf("got optional %v, want PKTD_RPC alone", got)
	}
	const doctor = `{"ok":true,"checks":[{"name":"root","ok":true},{"name":"cgroups","ok":true},{"name":"loop devices","ok":true},{"name":"other","ok":false}]}`
	for _, c := range []struct {
		name, doctor string
		commands     []string
		want         string // part of what is printed or returned; "" for all there
	}{
		{"all there", doctor, []string{"gcc", "runsc"}, ""},
		{"no command", doctor, []string{"runsc"}, "lacks gcc"},
		{"no tool", doctor, []string{"gcc"}, "MISSING: it is not built; make runsc"},
		{"a check fails", strings.Replace(doctor, `"cgroups","ok":true`, `"cgroups","ok":false,"detail":"read only","remedy":"mount it"`, 1), []string{"gcc", "runsc"}, "MISSING: read only; mount it"},
		{"doctor does not know it", strings.Replace(doctor, "cgroups", "groups", 1), []string{"gcc", "runsc"}, "doctor has no check of this name"},
		{"doctor found nothing", `{"checks":[]}`, []string{"gcc", "runsc"}, "lacks root, cgroups, loop-devices"},
	} {
		t.Run(c.name, func(t *testing.T) {
			report, err := askDoctor("echo " + strings.ReplaceAll(c.doctor, ": ", ":"))
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			there := func(name string) bool { return slices.Contains(c.commands, name) }
			err = checkCapabilities(&out, caps, report, there, there)
			if err != nil {
				out.WriteString(err.Error())
			}
			if (err != nil) != (c.want != "") || !strings.Contains(out.String(), c.want) {
				t.Errorf("got %v, want one that holds %q; printed:\n%s", err, c.want, out.String())
			}
		})
	}
	for _, bad := range []string{"doctor root\n", "wanted root containers\n"} {
		if _, err := parseCapabilities(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if _, err := askDoctor("echo no object"); err == nil {
		t.Error("an answer that is no JSON was accepted")
	}
	if _, err := askDoctor("/nowhere/pktcloud doctor"); err == nil {
		t.Error("a command that is missing was passed over")
	}
}
