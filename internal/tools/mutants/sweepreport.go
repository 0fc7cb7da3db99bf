package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/pkt-cash/pkt-cloud/internal/tools/mutants/operators"
)

// readSurvivors reads a file that says why mutants survive: blocks parted by
// blank lines, of the mutants' names and the reason that they share.
//
//	mutant: settle/phase.go Phase.Final result: false -> *new(bool)
//	because: the zero value of bool is false
func readSurvivors(name string) (map[string]string, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseSurvivors(name, string(text))
}

func parseSurvivors(name, text string) (map[string]string, error) {
	explained := map[string]string{}
	var faults []error
	for block := range strings.SplitSeq(text, "\n\n") {
		var mutants []string
		because := ""
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			key, value, _ := strings.Cut(line, ": ")
			switch {
			case line == "" || strings.HasPrefix(line, "#"):
			case key == "mutant":
				mutants = append(mutants, value)
			case key == "because" && because == "":
				because = value
			default:
				faults = append(faults, fmt.Errorf("%s: want mutant: or one because:, got %q", name, line))
			}
		}
		if len(mutants) > 0 && because == "" {
			faults = append(faults, fmt.Errorf("%s: no because: for %q", name, mutants[0]))
		}
		for _, m := range mutants {
			if explained[m] != "" {
				faults = append(faults, fmt.Errorf("%s: %q stands there twice", name, m))
			}
			explained[m] = because
		}
	}
	return explained, errors.Join(faults...)
}

// tally counts the mutants of an operator.
type tally struct{ made, killed, late, survived, explained int }

func (t *tally) add(m *swept) {
	t.made++
	switch {
	case m.verdict == caught:
		t.killed++
		if m.late {
			t.late++
		}
	case m.because != "":
		t.survived++
		t.explained++
	default:
		t.survived++
	}
}

// report prints the table by operator and returns what is wrong: a survivor
// that nobody explains, an explanation of none, and for a whole sweep too few
// mutants or too many survivors.
func (r *sweepRun) report(explained map[string]string, whole bool) error {
	byOperator := map[string]*tally{}
	var sum tally
	var faults []error
	known := map[string]bool{}
	for _, m := range r.mutants {
		known[m.key()] = true
		t := byOperator[m.Operator]
		if t == nil {
			t = new(tally)
			byOperator[m.Operator] = t
		}
		m.because = explained[m.key()]
		for _, t := range []*tally{t, &sum} {
			t.add(m)
		}
		switch {
		case m.verdict != caught && m.because == "":
			faults = append(faults, fmt.Errorf("survives: %s (line %d)", m.key(), m.line))
		case m.verdict == caught && m.because != "":
			faults = append(faults, fmt.Errorf("%s explains a survivor that is killed: %s", r.survivors, m.key()))
		}
	}
	if err := r.table(byOperator, sum); err != nil {
		return err
	}
	if whole {
		for name := range explained {
			if !known[name] {
				faults = append(faults, fmt.Errorf("%s explains a mutant that there is not: %s", r.survivors, name))
			}
		}
		if sum.made < r.least {
			faults = append(faults, fmt.Errorf("%d mutants, want %d", sum.made, r.least))
		}
		if 100*sum.killed < r.killed*sum.made {
			faults = append(faults, fmt.Errorf("%d of %d mutants killed, want %d %%", sum.killed, sum.made, r.killed))
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(faults...)
}

func (r *sweepRun) table(byOperator map[string]*tally, sum tally) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\noperator\tmade\tkilled\ttimed out\tsurvived\texplained\t")
	row := func(name string, t tally) {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t\n", name, t.made, t.killed, t.late, t.survived, t.explained)
	}
	for _, name := range operators.Names {
		if t := byOperator[name]; t != nil {
			row(name, *t)
		}
	}
	row("all", sum)
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Printf("%s: %d of %d mutants killed, %.1f %%\n", r.name, sum.killed, sum.made, 100*float64(sum.killed)/float64(max(1, sum.made)))
	return nil
}
