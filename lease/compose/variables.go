package compose

import (
	"fmt"
	"strings"
)

// maxValue bounds one value with its variables put in; no service takes a longer
// one.
const maxValue = 64 << 10

// maxNested bounds defaults of variables within defaults.
const maxNested = 8

// substitute puts variables into a value: $NAME, ${NAME}, and with it :-default
// or -default, :?error or ?error, :+other or +other, of which those with a colon
// take an empty value as none; $$ is a dollar. What has no value is an error:
// that an empty password is put in is nobody's wish.
func substitute(text string, variables map[string]string, most int) (string, error) {
	s := substitution{rest: text, variables: variables, most: most}
	return s.run(false, true, 0)
}

type substitution struct {
	rest      string
	variables map[string]string
	most      int
}

// run reads up to the end, or in braces up to the one that closes. What does not
// count is read alike, and needs no values.
func (s *substitution) run(braces, counts bool, depth int) (string, error) {
	var out strings.Builder
	if depth > maxNested {
		return "", fmt.Errorf("variables stand more than %d deep in each other", maxNested)
	}
	for s.rest != "" {
		if out.Len() > s.most {
			return "", fmt.Errorf("the value has more than %d bytes, with its variables put in", s.most)
		}
		i := strings.IndexAny(s.rest, "$}")
		if i < 0 {
			i = len(s.rest)
		}
		out.WriteString(s.rest[:i])
		if s.rest = s.rest[i:]; s.rest == "" {
			break
		}
		if s.rest[0] == '}' {
			if braces {
				return out.String(), nil
			}
			out.WriteByte('}')
			s.rest = s.rest[1:]
			continue
		}
		text, err := s.one(counts, depth)
		if err != nil {
			return "", err
		}
		out.WriteString(text)
	}
	if braces {
		return "", fmt.Errorf("a \"${\" is not closed; write $$ for a dollar")
	}
	if out.Len() > s.most {
		return "", fmt.Errorf("the value has more than %d bytes, with its variables put in", s.most)
	}
	return out.String(), nil
}

// one reads what begins with a dollar.
func (s *substitution) one(counts bool, depth int) (string, error) {
	s.rest = s.rest[1:]
	if rest, ok := strings.CutPrefix(s.rest, "$"); ok {
		s.rest = rest
		return "$", nil
	}
	rest, braced := strings.CutPrefix(s.rest, "{")
	n := nameLength(rest)
	if n == 0 {
		return "", fmt.Errorf("a \"$\" begins a variable, such as ${NAME}; write $$ for a dollar")
	}
	name := rest[:n]
	s.rest = rest[n:]
	value, set := s.variables[name]
	if !braced || strings.HasPrefix(s.rest, "}") {
		if braced {
			s.rest = s.rest[1:]
		}
		if !set && counts {
			return "", unset(name)
		}
		return value, nil
	}
	rest, colon := strings.CutPrefix(s.rest, ":")
	has := set && (!colon || value != "")
	if rest == "" || strings.IndexByte("-?+", rest[0]) < 0 {
		return "", fmt.Errorf("${%.40s is followed by }, or by :-default, :?error or :+other", name)
	}
	does := rest[0]
	s.rest = rest[1:]
	other, err := s.run(true, counts && (does == '+') == has, depth+1)
	if err != nil {
		return "", err
	}
	s.rest = s.rest[1:] // the brace
	switch {
	case does == '?' && !has && counts:
		return "", fmt.Errorf("the variable %.40s needs a value: %.120s", name, other)
	case does == '+' && !has:
		return "", nil
	case does == '-' && has, does == '?':
		return value, nil
	}
	return other, nil
}

func unset(name string) error {
	return fmt.Errorf("the variable %.40s has no value; give it one with --variables or --set, on a page below Variables, or in the file, as in ${%[1]s:-value}; a dollar is written $$", name)
}

func nameLength(s string) int {
	for i, c := range s {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}

// MaxVariablesBytes is the largest file of variables.
const MaxVariablesBytes = 64 << 10

// ReadVariables reads a file of NAME=VALUE lines, as .env files are: what follows
// # is a comment, a value may be quoted, in double quotes with \n, \t, \\ and \",
// and "export" before a name has no meaning. Values are taken as they stand: no
// variable is put into them. Errors match [lease.CodeManifest] and have a line.
func ReadVariables(data []byte) (map[string]string, error) {
	if len(data) > MaxVariablesBytes {
		return nil, at(0, "a file of variables has at most %d KiB", MaxVariablesBytes>>10)
	}
	out := map[string]string{}
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(string(data), "\uFEFF")) {
		n++
		text := strings.TrimSpace(line)
		if text == "" || text[0] == '#' {
			continue
		}
		text = strings.TrimSpace(strings.TrimPrefix(text, "export "))
		name, value, ok := strings.Cut(text, "=")
		if name = strings.TrimSpace(name); !ok || nameLength(name) != len(name) || name == "" {
			return nil, at(n, "this is not NAME=VALUE")
		}
		value, ok = unquoted(strings.TrimSpace(value))
		if !ok {
			return nil, at(n, "the quotes of %.40s are not closed on its line, or something follows them", name)
		}
		out[name] = value
	}
	return out, nil
}

func unquoted(s string) (string, bool) {
	if s == "" || s[0] != '"' && s[0] != '\'' {
		if i := strings.Index(s, " #"); i >= 0 {
			s = strings.TrimSpace(s[:i])
		}
		return s, true
	}
	var out strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == s[0]:
			rest := strings.TrimSpace(s[i+1:])
			return out.String(), rest == "" || rest[0] == '#'
		case s[i] == '\\' && s[0] == '"' && i+1 < len(s):
			i++
			switch s[i] {
			case 'n':
				out.WriteByte('\n')
			case 't':
				out.WriteByte('\t')
			default:
				out.WriteByte(s[i])
			}
		default:
			out.WriteByte(s[i])
		}
	}
	return "", false
}
