package container

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func goodSpec() Spec {
	return Spec{
		ID: "lease-1.web", Image: "sha256:" + strings.Repeat("0a", 32), Args: []string{"/bin/serve", "--port=80"},
		Env: []string{"A=b", "C="}, WorkDir: "/srv", User: "web:web", Hostname: "web-1",
		Class:  ClassGVisor,
		Limits: Limits{MilliCPU: 500, MemoryBytes: 64 << 20, DiskBytes: 64 << 20, Pids: 100},
	}
}

// TestSpecValidate has one fault for each case.
func TestSpecValidate(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(*Spec)
		ok    bool
	}{
		{"nothing", func(*Spec) {}, true},
		{"defaults", func(s *Spec) { s.Args, s.Env, s.WorkDir, s.User, s.Hostname = nil, nil, "", "", "" }, true},
		{"longest id", func(s *Spec) { s.ID = strings.Repeat("x", MaxIDBytes) }, true},
		{"no id", func(s *Spec) { s.ID = "" }, false},
		{"long id", func(s *Spec) { s.ID = strings.Repeat("x", MaxIDBytes+1) }, false},
		{"id that climbs", func(s *Spec) { s.ID = "../x" }, false},
		{"hidden id", func(s *Spec) { s.ID = ".x" }, false},
		{"id with a slash", func(s *Spec) { s.ID = "a/b" }, false},
		{"upper-case id", func(s *Spec) { s.ID = "Lease" }, false},
		{"image by name", func(s *Spec) { s.Image = "busybox:latest" }, false},
		{"short digest", func(s *Spec) { s.Image = "sha256:00" }, false},
		{"upper-case digest", func(s *Spec) { s.Image = strings.ToUpper(s.Image) }, false},
		{"too many arguments", func(s *Spec) { s.Args = make([]string, MaxArgs+1) }, false},
		{"too long arguments", func(s *Spec) { s.Args = []string{strings.Repeat("x", MaxArgBytes)} }, false},
		{"zero byte in an argument", func(s *Spec) { s.Args = []string{"a\x00b"} }, false},
		{"argument not UTF-8", func(s *Spec) { s.Args = []string{"a\xff"} }, false},
		{"empty program", func(s *Spec) { s.Args = []string{""} }, false},
		{"empty argument", func(s *Spec) { s.Args = []string{"a", ""} }, true},
		{"too many variables", func(s *Spec) { s.Env = make([]string, MaxEnv+1) }, false},
		{"too long variables", func(s *Spec) { s.Env = []string{"A=" + strings.Repeat("x", MaxEnvBytes)} }, false},
		{"variable without value", func(s *Spec) { s.Env = []string{"A"} }, false},
		{"variable without name", func(s *Spec) { s.Env = []string{"=b"} }, false},
		{"zero byte in a variable", func(s *Spec) { s.Env = []string{"A=\x00"} }, false},
		{"relative directory", func(s *Spec) { s.WorkDir = "srv" }, false},
		{"directory that climbs", func(s *Spec) { s.WorkDir = "/srv/../.." }, false},
		{"long directory", func(s *Spec) { s.WorkDir = "/" + strings.Repeat("x", MaxPathBytes) }, false},
		{"directory with a newline", func(s *Spec) { s.WorkDir = "/a\nb" }, false},
		{"user of three parts", func(s *Spec) { s.User = "a:b:c" }, false},
		{"long user", func(s *Spec) { s.User = strings.Repeat("x", MaxUserBytes+1) }, false},
		{"dotted hostname", func(s *Spec) { s.Hostname = "a.b" }, false},
		{"long hostname", func(s *Spec) { s.Hostname = strings.Repeat("x", MaxHostname+1) }, false},
		{"hostname ending in a dash", func(s *Spec) { s.Hostname = "a-" }, false},
		{"class of isolation", func(s *Spec) { s.Class = ClassGVisor }, true},
		{"unknown class", func(s *Spec) { s.Class = "vault" }, false},
		{"no processor", func(s *Spec) { s.Limits.MilliCPU = 0 }, false},
		{"no memory", func(s *Spec) { s.Limits.MemoryBytes = 0 }, false},
		{"no disk", func(s *Spec) { s.Limits.DiskBytes = 0 }, false},
		{"no pids", func(s *Spec) { s.Limits.Pids = 0 }, false},
		{"memory that overflows", func(s *Spec) { s.Limits.MemoryBytes = 1 << 63 }, false},
		{"pids beyond the kernel's", func(s *Spec) { s.Limits.Pids = MaxPids + 1 }, false},
	} {
		s := goodSpec()
		c.fault(&s)
		err := s.Validate()
		if c.ok != (err == nil) || err != nil && !errors.Is(err, CodeInvalidSpec) {
			t.Errorf("%s: got %v, want accepted %v", c.name, err, c.ok)
		}
	}
}

func TestExecValidate(t *testing.T) {
	for name, e := range map[string]ExecSpec{
		"no program":        {},
		"zero byte":         {Args: []string{"a\x00"}},
		"bad variable":      {Args: []string{"a"}, Env: []string{"x"}},
		"relative":          {Args: []string{"a"}, WorkDir: "x"},
		"too many to count": {Args: make([]string, MaxArgs+1)},
	} {
		if err := e.Validate(); !errors.Is(err, CodeInvalidSpec) {
			t.Errorf("%s: got %v, want %q", name, err, string(CodeInvalidSpec))
		}
	}
}

func TestSpecEqual(t *testing.T) {
	a := goodSpec()
	for i, change := range []func(*Spec){
		func(s *Spec) { s.ID = "x" }, func(s *Spec) { s.Image = "x" }, func(s *Spec) { s.Args = nil }, func(s *Spec) { s.Env = nil }, func(s *Spec) { s.Entrypoint = true },
		func(s *Spec) { s.WorkDir = "" }, func(s *Spec) { s.User = "" }, func(s *Spec) { s.Hostname = "" }, func(s *Spec) { s.Class = "" }, func(s *Spec) { s.Limits.Pids++ },
	} {
		b := goodSpec()
		if change(&b); a.Equal(b) || !b.Equal(b) {
			t.Errorf("change %d was not seen", i)
		}
	}
}

// TestCommandLine: what runs is told by the specification and the image
// [CONTAINER-120].
func TestCommandLine(t *testing.T) {
	img := Image{Args: []string{"entry", "-x", "own"}, Entrypoint: 2}
	for _, c := range []struct {
		args       []string
		entrypoint bool
		img        Image
		want       []string
	}{
		{nil, false, img, []string{"entry", "-x", "own"}},
		{[]string{"a"}, false, img, []string{"a"}},
		{[]string{"a", "b"}, true, img, []string{"entry", "-x", "a", "b"}},
		{nil, true, img, []string{"entry", "-x"}},
		{[]string{"a"}, true, Image{Args: []string{"own"}}, []string{"a"}},
		{nil, true, Image{Args: []string{"own"}}, nil},
		{nil, true, Image{Args: []string{"own"}, Entrypoint: 7}, []string{"own"}},
	} {
		s := Spec{Args: c.args, Entrypoint: c.entrypoint}
		if got := s.CommandLine(c.img); !slices.Equal(got, c.want) {
			t.Errorf("%q, %v over %q: got %q, want %q", c.args, c.entrypoint, c.img.Args, got, c.want)
		}
	}
	if s := (Spec{Args: []string{"a"}, Entrypoint: true}); s.CommandLine(img)[2] != "a" || img.Args[2] != "own" {
		t.Error("the image's own arguments were written over")
	}
}

// TestErrors shows that every code has a sentence, and how errors match.
func TestErrors(t *testing.T) {
	for code, sentence := range sentences {
		if sentence == "" || code.Error() != sentence {
			t.Errorf("%s: got %q", string(code), code.Error())
		}
	}
	cause := errors.New("cause")
	err := fmt.Errorf("doing: %w", Wrap(CodeDiskFull, "detail", cause))
	if !errors.Is(err, CodeDiskFull) || !errors.Is(err, cause) || errors.Is(err, CodeNotFound) {
		t.Errorf("%v does not match as it should", err)
	}
	if want := "doing: detail: cause: " + CodeDiskFull.Error(); err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if again := Wrap(CodeRuntime, "", err); !errors.Is(again, CodeDiskFull) || errors.Is(again, CodeRuntime) {
		t.Errorf("wrapping again changed the code: %v", again)
	}
	if Wrap(CodeRuntime, "", nil) != nil {
		t.Error("no error became one")
	}
}

var logSeeds = []string{
	"2026-11-22T15:24:13.000000000Z stdout hello\n",
	"2026-11-22T15:24:13.123456789Z stderr \n",
	"2026-11-22T15:24:13.123456789Z stdout a b\x00\xff\n",
}

func TestParseLogLine(t *testing.T) {
	for _, s := range logSeeds {
		if _, err := ParseLogLine([]byte(s)); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "\n", "2026-11-22T15:24:13.000000000Z stdout hello", "2026-11-22T15:24:13Z stdout hello\n",
		"2026-11-22T15:24:13.000000000Z stdin hello\n", "2026-11-22T15:24:13.000000000Z stdout\n",
		"2026-11-22T15:24:13.000000000Z stdout a\nb\n", "2026-13-22T15:24:13.000000000Z stdout a\n",
		"2026-11-22T15:24:13.000000000Z stdout " + strings.Repeat("x", MaxLogText+1) + "\n",
	} {
		if l, err := ParseLogLine([]byte(s)); err == nil {
			t.Errorf("%.60q: got %v, want it refused", s, l)
		}
	}
	l := LogLine{Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)), Stream: Stderr, Text: []byte("x")}
	if got := string(AppendLogLine(nil, l)); got != "2026-01-02T02:04:05.000000006Z stderr x\n" {
		t.Errorf("got %q", got)
	}
}

func FuzzParseLogLine(f *testing.F) {
	for _, s := range logSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLogLine(b)
		if err != nil {
			return
		}
		if got := AppendLogLine(nil, l); !bytes.Equal(got, b) {
			t.Errorf("got %q, want %q", got, b)
		}
	})
}
