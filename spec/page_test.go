package spec_test

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// page is what the checks need of one page of the spec.
type page struct {
	name   string // such as settle.md
	rules  []rule
	tests  []testRow
	limits []limitRow
	cites  []rule          // of any page's rules, in running text
	quoted map[string]bool // words in code spans and in cells of tables
}

// rule is a rule's id, or a mention of it, and the line where it stands.
type rule struct {
	id   string
	line int
}

// testRow is a row of the Tests table: a rule and what would fail without it.
type testRow struct {
	rule
	shownBy string
}

// limitRow is a row of the Limits table.
type limitRow struct {
	constant, value string
	line            int
}

var (
	ruleBullet = regexp.MustCompile(`^\s*[-*]\s+\[([A-Z][A-Z0-9]*-\d+)\]\s+\S`)
	// A citation holds one id or several: [SETTLE-3] or [SETTLE-3, SETTLE-4].
	citation = regexp.MustCompile(`\[([A-Z][A-Z0-9]*-\d+(?:,\s*[A-Z][A-Z0-9]*-\d+)*)\]`)
	ruleID   = regexp.MustCompile(`[A-Z][A-Z0-9]*-\d+`)
	quote    = regexp.MustCompile("`([^`]+)`")
)

// readPages reads the pages at the top of spec; README.md has no rules.
func readPages(fsys fs.FS) ([]page, error) {
	names, err := fs.Glob(fsys, "spec/*.md")
	if err != nil {
		return nil, err
	}
	var pages []page
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		pages = append(pages, parsePage(path.Base(name), string(text)))
	}
	return pages, nil
}

func parsePage(name, text string) page {
	p := page{name: name, quoted: map[string]bool{}}
	section, fenced, number := "", false, 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if fenced {
			continue
		}
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.ToLower(strings.TrimSpace(title))
			continue
		}
		for _, q := range quote.FindAllStringSubmatch(line, -1) {
			p.quoted[q[1]] = true
		}
		p.take(section, line, number)
	}
	return p
}

// take reads one line outside code blocks.
func (p *page) take(section, line string, number int) {
	if m := ruleBullet.FindStringSubmatch(line); m != nil {
		p.rules = append(p.rules, rule{m[1], number})
		line = strings.Replace(line, "["+m[1]+"]", "", 1)
	}
	cells := tableRow(line)
	switch {
	case len(cells) >= 2 && section == "tests":
		// A row may name several rules that one test shows.
		for _, id := range ruleID.FindAllString(cells[0], -1) {
			p.tests = append(p.tests, testRow{rule{id, number}, cells[1]})
		}
		return
	case len(cells) >= 2 && section == "limits" && cells[0] != "constant" && strings.Trim(cells[0], ":- ") != "":
		p.limits = append(p.limits, limitRow{strings.Trim(cells[0], "` "), cells[1], number})
	}
	for _, cell := range cells { // names of refusals, quoted or not
		if !strings.Contains(cell, " ") {
			p.quoted[strings.Trim(cell, "`")] = true
		}
	}
	for _, m := range citation.FindAllStringSubmatch(line, -1) {
		for _, id := range ruleID.FindAllString(m[1], -1) {
			p.cites = append(p.cites, rule{id, number})
		}
	}
}

// tableRow returns the cells of a line of a table, or nil.
func tableRow(line string) []string {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") {
		return nil
	}
	// A bar inside a code span or behind a backslash parts no cells.
	var cells []string
	var cell strings.Builder
	code := false
	for i, r := range line {
		switch {
		case r == '`':
			code = !code
			cell.WriteRune(r)
		case r == '|' && !code && (i == 0 || line[i-1] != '\\'):
			cells = append(cells, strings.TrimSpace(cell.String()))
			cell.Reset()
		default:
			cell.WriteRune(r)
		}
	}
	if rest := strings.TrimSpace(cell.String()); rest != "" {
		cells = append(cells, rest)
	}
	return cells[1:]
}

// pageFaults checks pages against each other and against the tests, vectors and
// limits of the tree. Faults are sorted by page.
func pageFaults(pages []page, tests testIndex, vectors []string, limits constants) []string {
	var faults []string
	where := map[string]string{} // of each rule
	for _, p := range pages {
		for _, r := range p.rules {
			at := fmt.Sprintf("spec/%s:%d", p.name, r.line)
			if first, twice := where[r.id]; twice {
				faults = append(faults, fmt.Sprintf("%s: rule %s stands already at %s; ids are never used again", at, r.id, first))
				continue
			}
			where[r.id] = at
		}
	}
	for _, p := range pages {
		if len(p.rules) == 0 && p.name != "README.md" {
			faults = append(faults, fmt.Sprintf("spec/%s has no rule such as “- [X-1] The payee MUST …”; why-pages go to spec/why", p.name))
		}
		faults = append(faults, p.testFaults(tests, vectors)...)
		faults = append(faults, p.limitFaults(limits)...)
		for _, r := range p.cites {
			if where[r.id] == "" {
				faults = append(faults, fmt.Sprintf("spec/%s:%d cites %s, which no page has", p.name, r.line, r.id))
			}
		}
	}
	return faults
}

// testFaults checks that each rule has a row in the Tests table and that what
// the rows name exists.
func (p page) testFaults(tests testIndex, vectors []string) []string {
	var faults []string
	for _, r := range p.rules {
		if !slices.ContainsFunc(p.tests, func(t testRow) bool { return t.id == r.id }) {
			faults = append(faults, fmt.Sprintf("spec/%s:%d: rule %s has no row in the page's Tests table", p.name, r.line, r.id))
		}
	}
	for _, t := range p.tests {
		if !slices.ContainsFunc(p.rules, func(r rule) bool { return r.id == t.id }) {
			faults = append(faults, fmt.Sprintf("spec/%s:%d: the Tests table names rule %s, which the page does not have", p.name, t.line, t.id))
		}
		for _, why := range shownByFaults(t.shownBy, tests, vectors) {
			faults = append(faults, fmt.Sprintf("spec/%s:%d: rule %s: %s", p.name, t.line, t.id, why))
		}
	}
	return faults
}

func (p page) limitFaults(limits constants) []string {
	var faults []string
	for _, l := range p.limits {
		if why := limits.differs(l.constant, l.value); why != "" {
			faults = append(faults, fmt.Sprintf("spec/%s:%d: %s", p.name, l.line, why))
		}
	}
	return faults
}
