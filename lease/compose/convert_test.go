package compose_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/compose"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
)

var update = flag.Bool("update", false, "write what is converted")

// variables are those of the files of testdata.
var variables = map[string]string{
	"DB_ROOT_PASSWORD": "root", "DB_PASSWORD": "p$ss", "MYSQL_ROOT_PASSWORD": "root", "MYSQL_PASSWORD": "secret", "SECRET_KEY_BASE": "0123", "ADMIN_PASSWORD": "admin",
}

// TestConvert: files as small businesses have them become the manifests and
// warnings beside them [SERVICE-38].
func TestConvert(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 8 {
		t.Fatalf("got %d files, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			m, format, warnings, err := compose.Read(data, compose.Options{Variables: variables})
			if err != nil {
				t.Fatal(err)
			}
			if format != compose.Compose {
				t.Errorf("it was read as %s", format)
			}
			for _, w := range warnings {
				if lines := strings.Count(string(data), "\n"); w.Line < 0 || w.Line > lines {
					t.Errorf("%v, of a file of %d lines", w, lines)
				}
			}
			b, err := pktcloud.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := lease.ParseManifest(b); err != nil {
				t.Errorf("what was converted is refused on the wire: %v", err)
			}
			var got bytes.Buffer
			for _, w := range warnings {
				got.WriteString(w.String() + "\n")
			}
			e := json.NewEncoder(&got)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			if err := e.Encode(m); err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(path, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%v, got\n%s\nwant\n%s", err, got.Bytes(), want)
			}
		})
	}
}

// refusals are files with what cannot be had, each by the line and the words by
// which it is refused.
var refusals = []struct {
	name, file, want string
	line             int
}{
	{"empty", "", "the file is empty", 0},
	{"list", "- a\n", "begins with \"services:\"", 1},
	{"no services", "version: \"3\"\n", "names each service", 1},
	{"syntax", "services:\n  a:\n image: x\n  b: [", "did not find", 2},
	{"twice", "services:\n  a: {image: x}\n  a: {image: x}\n", "stands here twice", 3},
	{"unknown", "services:\n  a:\n    image: x\n    environmnt: {}\n", "did you mean \"environment\"", 4},
	{"unknown at the top", "services: {a: {image: x}}\nvolume: {}\n", "did you mean \"volumes\"", 2},
	{"bind", "services:\n  a:\n    image: x\n    volumes:\n      - data:/x\n      - ./conf:/etc/app\nvolumes: {data: {}}\n", "none of this machine's files", 6},
	{"bind in words", "services:\n  a:\n    image: x\n    volumes:\n      - {type: bind, source: /, target: /host}\n", "none of this machine's files", 5},
	{"socket", "services:\n  a: {image: x, volumes: [/var/run/docker.sock:/var/run/docker.sock]}\n", "none of this machine's files", 2},
	{"anonymous", "services:\n  a: {image: x, volumes: [/data]}\n", "has no name", 2},
	{"external volume", "services:\n  a: {image: x, volumes: [\"data:/d\"]}\nvolumes:\n  data:\n    external: true\n", "begins with empty volumes", 5},
	{"nfs", "services:\n  a: {image: x, volumes: [\"data:/d\"]}\nvolumes:\n  data:\n    driver_opts:\n      type: nfs\n", "option \"type\"", 6},
	{"driver", "services:\n  a: {image: x, volumes: [\"data:/d\"]}\nvolumes:\n  data: {driver: rclone}\n", "driver \"rclone\"", 4},
	{"no such volume", "services:\n  a:\n    image: x\n    volumes: [\"data:/d\"]\n", "undefined volume", 2},
	{"small volume", "services:\n  a: {image: x, volumes: [\"data:/d\"]}\nvolumes:\n  data: {x-pktcloud: {size: 1MiB}}\n", "from 300 MiB", 2},
	{"bare size", "services:\n  a: {image: x, volumes: [\"data:/d\"]}\nvolumes:\n  data:\n    x-pktcloud: {size: 500}\n", "did you mean 500MiB", 5},
	{"build", "services:\n  a:\n    build: .\n", "push it to a registry", 3},
	{"no image", "services:\n  a:\n    command: x\n    environment: {A: b}\n", "it has no image", 2},
	{"privileged", "services:\n  a:\n    image: x\n    privileged: true\n", "no rights", 4},
	{"capabilities", "services:\n  a:\n    image: x\n    cap_add: [SYS_ADMIN]\n", "cap_add cannot be had", 4},
	{"devices", "services:\n  a:\n    image: x\n    devices: [/dev/kvm]\n", "no device", 4},
	{"gpus", "services:\n  a:\n    image: x\n    deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}\n", "no device", 4},
	{"host network", "services:\n  a:\n    image: x\n    network_mode: host\n", "network_mode \"host\" cannot be had", 4},
	{"host processes", "services:\n  a:\n    image: x\n    pid: host\n", "pid cannot be had", 4},
	{"unconfined", "services:\n  a:\n    image: x\n    security_opt:\n      - seccomp:unconfined\n", "provider's filters", 5},
	{"variables of a file", "services:\n  a:\n    image: x\n    env_file: .env\n", "env_file cannot be had", 4},
	{"extends", "services:\n  a:\n    image: x\n    extends: {file: /etc/passwd, service: b}\n", "extends cannot be had", 4},
	{"include", "services: {a: {image: x}}\ninclude:\n  - /etc/passwd\n", "include cannot be had", 2},
	{"secrets", "services:\n  a:\n    image: x\n    secrets: [key]\nsecrets:\n  key: {file: /etc/shadow}\n", "secrets cannot be had", 4},
	{"configs", "services:\n  a:\n    image: x\n    configs: [app]\nconfigs: {app: {content: x}}\n", "configs cannot be had", 4},
	{"replicas", "services:\n  a:\n    image: x\n    deploy:\n      replicas: 3\n", "runs once, not 3 times", 5},
	{"scale", "services:\n  a:\n    image: x\n    scale: 2\n", "runs once, not 2 times", 4},
	{"alias", "services:\n  a:\n    image: x\n    networks: {n: {aliases: [database]}}\nnetworks: {n: {}}\n", "not as \"database\"", 4},
	{"link", "services:\n  a: {image: x}\n  b:\n    image: x\n    links: [\"a:database\"]\n", "not \"database\"", 5},
	{"hooks", "services:\n  a:\n    image: x\n    post_start: [{command: x}]\n", "put it into the command", 4},
	{"health of an image", "services:\n  a: {image: x, depends_on: {b: {condition: service_healthy}}}\n  b: {image: x}\n", "no healthcheck here", 2},
	{"times alone", "services:\n  a:\n    image: x\n    healthcheck: {interval: 3s}\n", "by \"test\" how to look", 4},
	{"undefined", "services:\n  a: {image: x, depends_on: [b]}\n", "undefined service", 2},
	{"circle", "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n", "dependency cycle", 0},
	{"schema", "services:\n  a:\n    image: x\n    ports: 80\n", "must be a array", 4},
	{"many ports", "services:\n  a:\n    image: x\n    ports: [\"1-65535:1-65535\"]\n", "at most 16 ports", 4},
	{"many exposed", "services:\n  a:\n    image: x\n    expose: [\"1000-65535\"]\n", "at most 16 ports", 4},
	{"long stop", "services:\n  a:\n    image: x\n    stop_grace_period: 1h\n", "at most 300 s to end by itself", 4},
	{"no memory", "services:\n  a:\n    image: x\n    mem_limit: 1m\n", "at least 16 MiB", 4},
	{"unset", "services:\n  a:\n    image: \"x:${VERSION}\"\n", "the variable VERSION has no value", 3},
	{"required", "services:\n  a:\n    image: x:${VERSION:?say which}\n", "say which", 3},
	{"dollar", "services:\n  a:\n    image: x\n    command: echo $(hostname)\n", "write $$ for a dollar", 4},
	{"one name", "services:\n  a_b: {image: x}\n  a-b: {image: x}\n", "would both be called a-b", 3},
	{"own word", "services:\n  a:\n    image: x\n    x-pktcloud:\n      egres: public\n", "no word \"egres\"", 5},
	{"own egress", "services:\n  a:\n    image: x\n    x-pktcloud: {egress: everything}\n", "egress is public", 4},
	{"tags", "services:\n  a:\n    image: x\n    ports: !reset []\n", "tag \"!reset\"", 4},
	{"two documents", "services: {a: {image: x}}\n---\nservices: {b: {image: x}}\n", "one document", 2},
	{"nothing left", "services:\n  a: {image: x, profiles: [p]}\n", "no service is left", 1},
}

// TestRefuses: what cannot be had is refused with its line and what to do instead
// [SERVICE-38].
func TestRefuses(t *testing.T) {
	for _, c := range refusals {
		_, _, err := compose.Convert([]byte(c.file), compose.Options{})
		faults, at := new(compose.Faults), new(manifest.LineError)
		switch {
		case !errors.As(err, &faults) || !errors.Is(err, lease.CodeManifest):
			t.Errorf("%s: got %v, want faults", c.name, err)
		case !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: got %v, want it to say %q", c.name, err, c.want)
		case c.line != 0 && (!errors.As(faults.List[0], &at) || at.Line != c.line):
			t.Errorf("%s: got %v, want line %d", c.name, err, c.line)
		}
	}
}

// TestAllFaults: all that a file asks for and cannot have is told at once.
func TestAllFaults(t *testing.T) {
	const file = "services:\n  a:\n    image: x\n    privileged: true\n    cap_add: [ALL]\n    env_file: x\n  b:\n    image: x\n    devices: [/dev/x]\n"
	_, _, err := compose.Convert([]byte(file), compose.Options{})
	faults := new(compose.Faults)
	if !errors.As(err, &faults) || len(faults.List) != 3 {
		t.Fatalf("got %v, want three faults", err)
	}
	if lines := strings.Split(err.Error(), "\n"); !strings.HasPrefix(lines[0], "line 5:") || !strings.HasPrefix(lines[2], "line 9:") {
		t.Errorf("got %q", lines)
	}
}

// TestEntrypoint: a command keeps the image's entrypoint, an entrypoint drops what
// the image would give it [SERVICE-38].
func TestEntrypoint(t *testing.T) {
	for text, want := range map[string]lease.Service{
		"":                            {},
		"command: [a, b]":             {Args: []string{"a", "b"}, Entrypoint: true},
		"command: a \"b c\"":          {Args: []string{"a", "b c"}, Entrypoint: true},
		"command: []":                 {Entrypoint: true},
		"command: null":               {},
		"entrypoint: [e]":             {Args: []string{"e"}},
		"entrypoint: e f":             {Args: []string{"e", "f"}},
		"entrypoint: [e], command: a": {Args: []string{"e", "a"}},
		"entrypoint: [], command: a":  {Args: []string{"a"}},
		"entrypoint: '', command: a":  {Args: []string{"a"}},
	} {
		m, _, err := compose.Convert([]byte("services: {a: {image: x, "+text+"}}"), compose.Options{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := m.Services[0]; strings.Join(got.Args, "|") != strings.Join(want.Args, "|") || got.Entrypoint != want.Entrypoint {
			t.Errorf("%s: got %q, %v", text, got.Args, got.Entrypoint)
		}
	}
	if _, _, err := compose.Convert([]byte("services: {a: {image: x, entrypoint: []}}"), compose.Options{}); err == nil {
		t.Error("a service without a program was converted")
	}
}

// TestVariables: variables come from the options alone, and from nothing of this
// machine [SERVICE-39].
func TestVariables(t *testing.T) {
	t.Setenv("MINE", "secret")
	t.Setenv("HOME", "/home/secret")
	env := func(text string, v map[string]string) (string, error) {
		m, _, err := compose.Convert([]byte("services:\n  a:\n    image: x\n    environment:\n      A: \""+text+"\"\n"), compose.Options{Variables: v})
		if err != nil {
			return "", err
		}
		return strings.TrimPrefix(m.Services[0].Env[0], "A="), nil
	}
	set := map[string]string{"A": "a", "EMPTY": ""}
	for text, want := range map[string]string{
		"$A": "a", "${A}": "a", "x${A}y$A-": "xaya-", "$$A": "$A", "${B:-b}": "b", "${B-b}": "b", "${EMPTY:-b}": "b", "${EMPTY-b}": "", "${A:-$B}": "a",
		"${B:-${A}}": "a", "${B:-${C:-c}}d": "cd", "${A:+yes}": "yes", "${B:+yes}": "", "${EMPTY:+yes}": "", "${EMPTY+yes}": "yes", "${A:?no}": "a", "${B:+$C}x": "x",
		"a}b": "a}b", "~/x": "~/x",
	} {
		if got, err := env(text, set); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"$MINE", "${MINE}", "${HOME}", "${MINE:?}", "$", "${", "${A", "${A:x}", "${}", "$1", "${B:-$MINE}", "${A:+$MINE}", "${B:-${B:-${B:-${B:-${B:-${B:-${B:-${B:-${B:-${B:-}}}}}}}}}}"} {
		if got, err := env(text, set); err == nil {
			t.Errorf("%s: got %q, want a refusal", text, got)
		}
	}
	m, warnings, err := compose.Convert([]byte("services: {a: {image: x, environment: [MINE, A]}}"), compose.Options{Variables: set})
	if err != nil || len(m.Services[0].Env) != 1 || m.Services[0].Env[0] != "A=a" || !strings.Contains(warnings[0].String()+warnings[1].String()+warnings[2].String(), "MINE is not set") {
		t.Errorf("got %+v, %v, %v", m.Services[0].Env, warnings, err)
	}
}

// TestOptions: profiles and egress come from outside.
func TestOptions(t *testing.T) {
	const file = "services:\n  a: {image: x}\n  b: {image: x, profiles: [p], x-pktcloud: {egress: none}}\n"
	m, _, err := compose.Convert([]byte(file), compose.Options{Profiles: []string{"p"}, Egress: []string{"public"}})
	if err != nil || len(m.Services) != 2 || len(m.Services[0].Egress) != 1 || len(m.Services[1].Egress) != 0 {
		t.Errorf("got %+v, %v", m.Services, err)
	}
	if m, _, err = compose.Convert([]byte(file), compose.Options{}); err != nil || len(m.Services) != 1 || len(m.Services[0].Egress) != 0 {
		t.Errorf("got %+v, %v", m.Services, err)
	}
}

// TestExtension: what Compose has no word for stands under one of our own
// [SERVICE-40].
func TestExtension(t *testing.T) {
	const file = `x-pktcloud: {class: gvisor, probe: b}
services:
  a: {image: x, ports: [80], x-pktcloud: {egress: ["example.org:443"], bandwidth: 2MiB, disk: 3g}}
  b: {image: x, expose: [9000], x-pktcloud: {http: /ok, egress: none}}
  c: {image: x, volumes: ["data:/d/"], x-pktcloud: {job: true}}
volumes:
  data: {x-pktcloud: {size: 1000MB}}
`
	m, _, err := compose.Convert([]byte(file), compose.Options{Egress: []string{"public"}})
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := m.Services[0], m.Services[1], m.Services[2]
	switch {
	case m.Isolation() != "gvisor" || m.Probe != (lease.Probe{Service: "b", Port: 9000, HTTPPath: "/ok", TimeoutSeconds: 5}):
		t.Errorf("got %s, %+v", m.Isolation(), m.Probe)
	case len(a.Egress) != 1 || a.Egress[0] != "example.org:443" || a.Bandwidth != 2<<20 || a.Resources.DiskBytes != 3<<30 || len(b.Egress) != 0 || c.Egress[0] != "public":
		t.Errorf("got %+v, %+v, %+v", a, b, c)
	case !c.Job || a.Job || c.Mounts[0].Path != "/d" || m.Volumes[0].SizeBytes != 1000<<20:
		t.Errorf("got %+v, %+v", c, m.Volumes)
	}
}

// TestReadVariables reads files as .env files are.
func TestReadVariables(t *testing.T) {
	got, err := compose.ReadVariables([]byte("\uFEFF# c\nA=b\r\nexport B = c d # e\nC=\"x\\n\\\"y\" # z\nD='$A \\n'\nE=\nF=a#b\n"))
	want := map[string]string{"A": "b", "B": "c d", "C": "x\n\"y", "D": "$A \\n", "E": "", "F": "a#b"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, text := range []string{"A", "=b", "1A=b", "A B=c", "A=\"b", "A='b' c", strings.Repeat("#", compose.MaxVariablesBytes+1)} {
		if _, err := compose.ReadVariables([]byte(text)); !errors.Is(err, lease.CodeManifest) {
			t.Errorf("%.20q: got %v, want a refusal", text, err)
		}
	}
}

// TestDetect tells the two forms apart by their words.
func TestDetect(t *testing.T) {
	shop, err := os.ReadFile("../manifest/testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]compose.Format{
		string(shop): compose.Native,
		"services: {a: {image: x, ports: [8080]}}":                             compose.Native,
		"services: {a: {image: x, ports: [\"80:8080\"]}}":                      compose.Compose,
		"services: {a: {image: x, command: echo a}}":                           compose.Compose,
		"services: {a: {image: x, restart: unless-stopped}}":                   compose.Compose,
		"services: {a: {image: x, environment: {A: b}}}":                       compose.Compose,
		"services: {a: {image: x, env: {A: b}}}":                               compose.Native,
		"version: \"3\"\nservices: {a: {image: x}}":                            compose.Compose,
		"services: {a: {image: x, mounts: [\"data:/d\"]}}\nvolumes: {d: 1GiB}": compose.Native,
		"services: {a: {image: x, volumes: [\"data:/d\"]}}\nvolumes: {d: {}}":  compose.Compose,
		"{\"services\": {\"a\": {\"image\": \"x\", \"build\": \".\"}}}":        compose.Compose,
		"services: {a: {image: x, cpu: 1, memory: 64MiB, environment: [A=b]}}": compose.Native,
		"not yaml: [": compose.Native,
	} {
		if got := compose.Detect([]byte(text)); got != want {
			t.Errorf("got %s, want %s for %.200s", got, want, text)
		}
	}
}
