package pktcloud_test

import (
	"fmt"
	"go/parser"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pkt-cash/pkt-cloud/internal/source"
)

// A pattern is a folder of the tree: "settle" is that folder alone,
// "settle/..." whatever lies below it, "..." everything, "." the root package.

// importRule says what the packages of a folder may import. Of the rules that
// match a folder the longest pattern counts.
type importRule struct {
	folder  string
	ours    []string // folders of this module
	outside []string // modules outside; nil means any that heavyModules allows
	pure    bool     // the core: nothing of impureStandard
}

// importRules is who may import whom. Test files are free.
var importRules = []importRule{
	{folder: ".", ours: none, outside: []string{"github.com/fxamacker/cbor/v2"}, pure: true},
	{folder: "market", ours: []string{".", "internal/..."}, outside: none, pure: true},
	{folder: "settle", ours: []string{".", "internal/..."}, outside: none, pure: true},
	{folder: "container", ours: []string{".", "internal/..."}, outside: none, pure: true},
	{folder: "backup", ours: []string{".", "internal/..."}, outside: none, pure: true},
	{folder: "lease", ours: []string{".", "market", "settle", "internal/..."}, outside: none, pure: true},

	{folder: "market/...", ours: []string{".", "market", "market/...", "internal/..."}},
	{folder: "settle/...", ours: []string{".", "settle", "settle/...", "internal/..."}},
	{folder: "container/...", ours: []string{".", "container", "container/...", "internal/..."}},
	{folder: "lease/...", ours: []string{".", "lease", "lease/...", "market", "settle", "internal/..."}},
	{folder: "backup/...", ours: []string{".", "backup", "backup/...", "internal/..."}},
	{folder: "backup/remote", ours: []string{".", "backup", "backup/...", "lease", "market", "internal/..."}},

	{folder: "node", ours: everything},
	{folder: "node/...", ours: everything},
	{folder: "examples/...", ours: publicFolders},
	{folder: "bench/...", ours: everything},
	{folder: "internal/...", ours: []string{".", "internal/..."}},
	{folder: "spec/...", ours: none, outside: none},
}

var (
	none          = []string{}
	everything    = []string{"..."}
	publicFolders = []string{
		".", "market", "market/...", "settle", "settle/...", "container", "container/...",
		"lease", "lease/...", "backup", "backup/...", "node", "node/...",
	}
)

// heavyModules are modules that an embedder of the core must never compile, and
// the folders that may import them.
var heavyModules = []struct {
	prefix  string
	folders []string
}{
	{"github.com/libp2p/", []string{"market/gossip", "lease/peer", "lease/session", "node", "node/..."}},
	{"github.com/opencontainers/runc", []string{"container/libcontainer", "container/libcontainer/..."}},
	{"github.com/opencontainers/cgroups", []string{"container/libcontainer", "container/libcontainer/..."}},
	{"github.com/google/nftables", []string{"container/internal/kernelnet"}},
	{"github.com/containerd/containerd", []string{"container/image", "container/image/..."}},
	{"github.com/google/go-containerregistry", []string{"container/image", "container/image/...", "node", "node/..."}},
	{"gvisor.dev/", []string{"container/netstack"}},
	{"modernc.org/sqlite", []string{"node/store", "node/audit"}}, // the audit reads a store without its code
	{"github.com/btcsuite/", []string{"settle/...", "node", "node/..."}},
	{"github.com/compose-spec/", []string{"lease/compose"}},
	{"github.com/danielgtaylor/huma", []string{"node", "node/api", "node/web"}},
	{"github.com/spf13/cobra", []string{"node/pktcloud", "node/pktcloud/..."}},
}

// impureStandard are packages of the standard library by which clocks, files,
// networks, logs or randomness would enter the core.
var impureStandard = []string{
	"crypto/rand", "database/sql", "log", "log/slog", "math/rand", "math/rand/v2",
	"net/http", "os", "os/exec", "os/signal", "os/user", "plugin", "syscall", "testing", "unsafe", "C",
}

func TestImports(t *testing.T) {
	tree, err := source.Load(os.DirFS("."), parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Files) < 10 {
		t.Fatalf("got %d Go files, want the whole tree: is the test run in the module's root?", len(tree.Files))
	}
	for _, fault := range importFaults(tree) {
		t.Error(fault)
	}
}

// importFaults returns a sentence for each import that the policy forbids and
// for each folder that it does not know.
func importFaults(tree *source.Tree) []string {
	var faults []string
	unknown := map[string]bool{}
	for _, f := range tree.Files {
		if f.Test {
			continue
		}
		rule, ok := ruleOf(f.Dir)
		if !ok {
			if !unknown[f.Dir] {
				faults = append(faults, fmt.Sprintf("folder %s has no import rule: add {folder: %q, ours: …} to importRules in deps_test.go, or move it into a folder that has one", f.Dir, f.Dir))
			}
			unknown[f.Dir] = true
			continue
		}
		for _, imported := range f.Imports() {
			if why := forbids(rule, f.Dir, imported); why != "" {
				faults = append(faults, fmt.Sprintf("%s imports %s: %s", f.Path, imported, why))
			}
		}
	}
	return faults
}

// ruleOf returns the rule with the longest pattern that matches dir.
func ruleOf(dir string) (best importRule, ok bool) {
	for _, r := range importRules {
		if matches(r.folder, dir) && (!ok || len(r.folder) > len(best.folder)) {
			best, ok = r, true
		}
	}
	return best, ok
}

func matches(pattern, dir string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "..."); ok {
		return strings.HasPrefix(dir, prefix)
	}
	return pattern == dir
}

func matchesAny(patterns []string, dir string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, dir) })
}

// forbids returns why a folder under the rule may not import a path, or "".
func forbids(rule importRule, dir, imported string) string {
	if folder, ours := source.Folder(imported); ours {
		if matchesAny(rule.ours, folder) {
			return ""
		}
		return fmt.Sprintf("rule %q allows of this module only [%s]; declare an interface here and let node join the two, or move the code", rule.folder, strings.Join(rule.ours, " "))
	}
	if source.Standard(imported) {
		if rule.pure && slices.Contains(impureStandard, imported) {
			return fmt.Sprintf("rule %q is part of the pure core; take what it gives as an argument, or move the code to a running half", rule.folder)
		}
		return ""
	}
	for _, heavy := range heavyModules {
		if strings.HasPrefix(imported, heavy.prefix) && !matchesAny(heavy.folders, dir) {
			return fmt.Sprintf("heavyModules keeps %s… to [%s], so that embedders of the rest do not compile it; put the code there behind an interface", heavy.prefix, strings.Join(heavy.folders, " "))
		}
	}
	inModule := func(module string) bool { return imported == module || strings.HasPrefix(imported, module+"/") }
	if rule.outside != nil && !slices.ContainsFunc(rule.outside, inModule) {
		return fmt.Sprintf("rule %q allows of outside modules only [%s]; move the code to a running half", rule.folder, strings.Join(rule.outside, " "))
	}
	return ""
}

func TestImportFaults(t *testing.T) {
	ours := source.Module
	for _, c := range []struct {
		name, path, imported string
		want                 string // part of the fault; "" for none
	}{
		{"root may use the encoder", "x.go", "github.com/fxamacker/cbor/v2", ""},
		{"root may use nothing of ours", "x.go", ours + "/settle", `rule "."`},
		{"root may not even use internal", "x.go", ours + "/internal/wire", `rule "."`},
		{"settle may use the root", "settle/x.go", ours, ""},
		{"settle may not use market", "settle/x.go", ours + "/market", `rule "settle"`},
		{"settle's core may not use its running half", "settle/x.go", ours + "/settle/manager", `rule "settle"`},
		{"settle's core may not use a chain library", "settle/x.go", "github.com/btcsuite/btcd/wire", "heavyModules"},
		{"settle's core may not use a small module either", "settle/x.go", "golang.org/x/crypto/hkdf", "outside modules"},
		{"settle's core may not open files", "settle/x.go", "os", "pure core"},
		{"settle/pktchain may use a chain library", "settle/pktchain/x.go", "github.com/btcsuite/btcd/wire", ""},
		{"settle/manager may not use lease", "settle/manager/x.go", ours + "/lease", `rule "settle/..."`},
		{"lease may use market", "lease/x.go", ours + "/market", ""},
		{"lease may not use container", "lease/x.go", ours + "/container", `rule "lease"`},
		{"lease's core may not read files of Compose", "lease/x.go", "github.com/compose-spec/compose-go/v2/loader", "heavyModules"},
		{"lease/manifest neither", "lease/manifest/x.go", "github.com/compose-spec/compose-go/v2/loader", "heavyModules"},
		{"lease/compose reads them", "lease/compose/x.go", "github.com/compose-spec/compose-go/v2/loader", ""},
		{"lease/peer may use libp2p", "lease/peer/x.go", "github.com/libp2p/go-libp2p/core/host", ""},
		{"lease/peer may not use settle/manager", "lease/peer/x.go", ours + "/settle/manager", `rule "lease/..."`},
		{"market may not use libp2p", "market/x.go", "github.com/libp2p/go-libp2p/core/peer", "heavyModules"},
		{"container/image may not use runc", "container/image/x.go", "github.com/opencontainers/runc/libcontainer", "heavyModules"},
		{"backup may not use lease", "backup/x.go", ours + "/lease", `rule "backup"`},
		{"backup/remote may use lease", "backup/remote/x.go", ours + "/lease", ""},
		{"node may use everything", "node/x.go", ours + "/container/libcontainer", ""},
		{"only the store may use SQLite", "node/x.go", "modernc.org/sqlite", "heavyModules"},
		{"the store may use SQLite", "node/store/x.go", "modernc.org/sqlite", ""},
		{"nobody but node uses node", "container/image/x.go", ours + "/node/store", `rule "container/..."`},
		{"an example uses public packages", "examples/pay-by-second/main.go", ours + "/settle", ""},
		{"an example may not use internal", "examples/pay-by-second/main.go", ours + "/internal/wire", `rule "examples/..."`},
		{"internal may not use a pillar", "internal/wire/x.go", ours + "/settle", `rule "internal/..."`},
		{"a new folder needs a rule", "extra/x.go", "fmt", `add {folder: "extra"`},
		{"test files are free", "settle/x_test.go", ours + "/node", ""},
		{"a file behind a build tag counts", "settle/plan9.go", "os", "pure core"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := fmt.Sprintf("package x\n\nimport _ %q\n", c.imported)
			if strings.Contains(c.path, "plan9") {
				text = "//go:build plan9\n\n" + text
			}
			tree, err := source.Load(fstest.MapFS{c.path: {Data: []byte(text)}}, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(importFaults(tree), "\n")
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("got fault %q, want one that contains %q", got, c.want)
			}
		})
	}
}
