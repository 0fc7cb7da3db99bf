//go:build linux && amd64

package libcontainer

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the generated seccomp filter anew")

// The generator of filter_amd64.go. It turns moby's default profile, resolved
// for the capabilities that containers get, into BPF for x86_64 alone: a call
// from another architecture's entry ends the process [CONTAINER-23].

// rule allows one system call under conditions that must all hold, or, with an
// errno, refuses it that way.
type rule struct {
	nr     uint32
	args   []specs.LinuxSeccompArg
	action uint32
}

const (
	actKill   = 0x80000000 // SECCOMP_RET_KILL_PROCESS
	actErrno  = 0x00050000
	actAllow  = 0x7fff0000
	denied    = actErrno | 1 // EPERM
	auditArch = 0xc000003e   // AUDIT_ARCH_X86_64
	x32Bit    = 0x40000000
)

// refused are calls that the profile allows and a shared machine cannot: the
// requests that io_setup sets aside come out of one number for the whole
// machine, which no control group divides. Programs take ENOSYS for a kernel
// without them, and do without.
var refused = map[string]uint32{"io_setup": actErrno | 38}

// profileRules resolves the profile. Names that x86_64 does not have fall out.
func profileRules(t *testing.T) []rule {
	t.Helper()
	numbers := syscallNumbers(t)
	p := seccomp.DefaultProfile()
	if p.DefaultAction != specs.ActErrno || *p.DefaultErrnoRet != 1 {
		t.Fatalf("the profile's default is %s, want EPERM", p.DefaultAction)
	}
	var rules []rule
	for _, call := range p.Syscalls {
		if !applies(call) {
			continue
		}
		action := uint32(actAllow)
		switch {
		case call.Action == specs.ActErrno && call.ErrnoRet != nil:
			action = actErrno | uint32(*call.ErrnoRet)
		case call.Action != specs.ActAllow:
			t.Fatalf("the profile has an action %s that the generator does not know", call.Action)
		}
		for _, name := range call.Names {
			if nr, ok := numbers[name]; ok && refused[name] == 0 {
				rules = append(rules, rule{nr: nr, args: call.Args, action: action})
			}
		}
	}
	for name, action := range refused {
		rules = append(rules, rule{nr: numbers[name], action: action})
	}
	slices.SortStableFunc(rules, func(a, b rule) int { return cmp.Compare(a.nr, b.nr) })
	return rules
}

// applies resolves a rule's conditions; every supported kernel is new enough.
func applies(call *seccomp.Syscall) bool {
	if in := call.Includes; in != nil {
		if len(in.Arches) > 0 && !slices.Contains(in.Arches, "amd64") {
			return false
		}
		for _, c := range in.Caps {
			if !slices.Contains(capabilities, c) {
				return false
			}
		}
	}
	if out := call.Excludes; out != nil {
		if slices.Contains(out.Arches, "amd64") {
			return false
		}
		for _, c := range out.Caps {
			if slices.Contains(capabilities, c) {
				return false
			}
		}
	}
	return true
}

// syscallNumbers reads the table of golang.org/x/sys for linux/amd64.
func syscallNumbers(t *testing.T) map[string]uint32 {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(strings.TrimSpace(string(dir)), "zsysnum_linux_amd64.go")
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]uint32{}
	ast.Inspect(tree, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Names) != 1 || len(v.Values) != 1 {
			return true
		}
		if lit, ok := v.Values[0].(*ast.BasicLit); ok {
			nr, err := strconv.ParseUint(lit.Value, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			numbers[strings.ToLower(strings.TrimPrefix(v.Names[0].Name, "SYS_"))] = uint32(nr)
		}
		return true
	})
	if numbers["read"] != 0 || numbers["execve"] != 59 {
		t.Fatal("the table of system calls was not understood")
	}
	return numbers
}

// Classic BPF as seccomp has it; loads are of struct seccomp_data.
const (
	opLoad  = 0x20 // A = *(u32 *)(data + k)
	opJump  = 0x05
	opEqual = 0x15
	opAtMin = 0x35
	opAnd   = 0x54
	opRet   = 0x06
)

type insn struct {
	op     uint16
	jt, jf uint8
	k      uint32
}

// word packs an instruction as it lies in memory on x86_64.
func (i insn) word() uint64 {
	return uint64(i.op) | uint64(i.jt)<<16 | uint64(i.jf)<<24 | uint64(i.k)<<32
}

// compile makes the filter of rules sorted by number.
func compile(t *testing.T, rules []rule) []insn {
	t.Helper()
	out := []insn{
		{op: opLoad, k: 4},
		{op: opEqual, jt: 1, k: auditArch},
		{op: opRet, k: actKill},
		{op: opLoad, k: 0},
		{op: opAtMin, jf: 1, k: x32Bit},
		{op: opRet, k: actKill},
	}
	return append(out, search(t, blocks(t, rules))...)
}

// block is what happens from one number up to the next block's.
type block struct {
	from uint32
	code []insn
}

func blocks(t *testing.T, rules []rule) []block {
	t.Helper()
	out := []block{{from: 0, code: []insn{{op: opRet, k: denied}}}}
	add := func(from uint32, code []insn) {
		if last := &out[len(out)-1]; last.from == from {
			*last = block{from: from, code: code}
		} else if !slices.Equal(last.code, code) {
			out = append(out, block{from: from, code: code})
		}
	}
	for len(rules) > 0 {
		n := 1
		for n < len(rules) && rules[n].nr == rules[0].nr {
			n++
		}
		add(rules[0].nr, verdict(t, rules[:n]))
		if n == len(rules) || rules[n].nr != rules[0].nr+1 {
			add(rules[0].nr+1, []insn{{op: opRet, k: denied}})
		}
		rules = rules[n:]
	}
	return out
}

// verdict tries the rules of one call. An unconditional rule decides alone.
func verdict(t *testing.T, rules []rule) []insn {
	t.Helper()
	if i := slices.IndexFunc(rules, func(r rule) bool { return len(r.args) == 0 }); i >= 0 {
		return []insn{{op: opRet, k: rules[i].action}}
	}
	var out []insn
	for _, r := range rules {
		out = append(out, conditions(t, r)...)
	}
	return append(out, insn{op: opRet, k: denied})
}

// conditions falls through to what follows when one does not hold.
func conditions(t *testing.T, r rule) []insn {
	t.Helper()
	var out []insn
	for _, a := range r.args {
		low := uint32(16 + 8*a.Index)
		mask, want := ^uint64(0), a.Value
		switch a.Op {
		case specs.OpEqualTo:
		case specs.OpLessThan:
			if a.Value>>32 != 0 {
				t.Fatalf("the profile compares with %#x, which the generator cannot", a.Value)
			}
			out = append(out, insn{op: opLoad, k: low + 4}, insn{op: opEqual, k: 0},
				insn{op: opLoad, k: low}, insn{op: opAtMin, k: uint32(a.Value)})
			continue
		case specs.OpMaskedEqual:
			mask, want = a.Value, a.ValueTwo
		case specs.OpNotEqual, specs.OpLessEqual, specs.OpGreaterEqual, specs.OpGreaterThan:
			t.Fatalf("the profile has a comparison %s that the generator does not know", a.Op)
		}
		for half := range uint32(2) {
			out = append(out,
				insn{op: opLoad, k: low + 4*half},
				insn{op: opAnd, k: uint32(mask >> (32 * half))},
				insn{op: opEqual, k: uint32(want >> (32 * half))})
		}
	}
	out = append(out, insn{op: opRet, k: r.action})
	for i := range out {
		switch out[i].op {
		case opEqual:
			out[i].jf = uint8(len(out) - i - 1)
		case opAtMin:
			out[i].jt = uint8(len(out) - i - 1)
		}
	}
	return out
}

// search is a binary search over the blocks. Its far side is reached by a long
// jump, since conditional ones reach 255 instructions.
func search(t *testing.T, b []block) []insn {
	t.Helper()
	if len(b) == 1 {
		return b[0].code
	}
	mid := len(b) / 2
	low, high := search(t, b[:mid]), search(t, b[mid:])
	out := []insn{{op: opAtMin, jf: 1, k: b[mid].from}, {op: opJump, k: uint32(len(low))}}
	return append(append(out, low...), high...)
}

// run interprets a filter over nr, the architecture and arguments.
func run(t *testing.T, code []insn, nr, arch uint32, args [6]uint64) uint32 {
	t.Helper()
	var a uint32
	for pc := 0; pc < len(code); pc++ {
		switch i := code[pc]; i.op {
		case opLoad:
			switch i.k {
			case 0:
				a = nr
			case 4:
				a = arch
			default:
				a = uint32(args[(i.k-16)/8] >> (8 * (i.k % 8)))
			}
		case opAnd:
			a &= i.k
		case opJump:
			pc += int(i.k)
		case opEqual, opAtMin:
			if i.op == opEqual && a == i.k || i.op == opAtMin && a >= i.k {
				pc += int(i.jt)
			} else {
				pc += int(i.jf)
			}
		case opRet:
			return i.k
		}
	}
	t.Fatal("the filter runs off its end")
	return 0
}

// TestFilterData compiles the profile again and compares byte for byte.
func TestFilterData(t *testing.T) {
	code := compile(t, profileRules(t))
	var b bytes.Buffer
	b.WriteString("// Code generated by profile_test.go; DO NOT EDIT. Make it anew with: go test ./container/libcontainer -run TestFilterData -update\n\n")
	b.WriteString("package libcontainer\n\n// filter is the default seccomp profile as BPF for x86_64, an instruction a word.\nvar filter = [...]uint64{\n")
	for i, in := range code {
		fmt.Fprintf(&b, "%#016x,", in.word())
		if i%6 == 5 {
			b.WriteByte('\n')
		}
	}
	b.WriteString("\n}\n")
	want, err := format.Source(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	const name = "filter_amd64.go"
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the profile compiles to; run this test with -update and review the difference", name)
	}
	if len(code) > 4096 {
		t.Errorf("%d instructions, the kernel takes 4096", len(code))
	}
}

// TestFilterMeaning interprets the filter beside a direct reading of the
// profile, for every number and telling arguments.
func TestFilterMeaning(t *testing.T) {
	rules := profileRules(t)
	code := compile(t, rules)
	values := []uint64{0, 1, 8, 16, 38, 40, 0x20000, 0x20008, 0x10000000, 0x02000000, 0x7e020000, 0xffffffff, 1 << 32, 1<<32 | 1, ^uint64(0)}
	for nr := range uint32(600) {
		for _, v := range values {
			args := [6]uint64{v, v, v, v, v, v}
			if got, want := run(t, code, nr, auditArch, args), meaning(rules, nr, args); got != want {
				t.Fatalf("call %d with %#x: got %#x, want %#x", nr, v, got, want)
			}
		}
	}
	for _, c := range []struct {
		name     string
		nr, arch uint32
	}{
		{"a 32-bit call", 1, 0x40000003},
		{"an x32 call", x32Bit | 1, auditArch},
	} {
		if got := run(t, code, c.nr, c.arch, [6]uint64{}); got != actKill {
			t.Errorf("%s: got %#x, want the process killed", c.name, got)
		}
	}
	for _, name := range []string{"mount", "unshare", "setns", "bpf", "ptrace_attach", "kexec_load", "add_key", "keyctl", "init_module", "io_uring_setup", "io_setup", "userfaultfd", "perf_event_open"} {
		nr, ok := syscallNumbers(t)[name]
		if ok && run(t, code, nr, auditArch, [6]uint64{}) == actAllow {
			t.Errorf("%s is allowed", name)
		}
	}
}

func meaning(rules []rule, nr uint32, args [6]uint64) uint32 {
	for _, r := range rules {
		holds := r.nr == nr
		for _, a := range r.args {
			v := args[a.Index]
			ok := v == a.Value
			if a.Op == specs.OpMaskedEqual {
				ok = v&a.Value == a.ValueTwo
			}
			if a.Op == specs.OpLessThan {
				ok = v < a.Value
			}
			holds = holds && ok
		}
		if holds {
			return r.action
		}
	}
	return denied
}
