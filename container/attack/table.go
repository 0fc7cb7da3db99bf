//go:build linux && amd64

package main

import (
	"fmt"
	"strings"
)

// table is the list as docs/security.md has it.
func table() string {
	var b strings.Builder
	b.WriteString("| attack | tries to | stopped by, each alone | control | with cgroup v2 |\n|---|---|---|---|---|\n")
	unproven := 0
	for _, a := range attacks() {
		if a.Unproven != "" {
			unproven++
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", a.Name, a.About, names(a.Without), controlOf(a), onV2(a))
	}
	fmt.Fprintf(&b, "\n%d attacks, %d of them unproven.\n", len(attacks()), unproven)
	return b.String()
}

func names(defences []string) string {
	return strings.ReplaceAll(strings.Join(defences, ", "), "CAP_", "no CAP_")
}

// controlOf is where it was seen that the attack works where nothing stops it.
func controlOf(a attack) string {
	where := "a container"
	switch {
	case a.Unproven != "":
		return "**unproven**: " + a.Unproven
	case a.Mutant != "":
		return "the mutant `" + a.Mutant + "`"
	case a.Guest:
		where = "a virtual machine"
	}
	if len(a.Also) > 0 {
		where += ", also without " + strings.ReplaceAll(names(a.Also), "no no ", "no ")
	}
	if a.Asks {
		where += " (let in, not done)"
	}
	return where
}

// onV2 tells what the virtual machine, with cgroup v2 alone, shows.
func onV2(a attack) string {
	switch {
	case a.V1:
		return "not tried"
	case (a.Guest || a.V2) && a.Unproven == "":
		return "lease, control"
	}
	return "lease"
}
