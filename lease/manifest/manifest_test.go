package manifest_test

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
	"github.com/pkt-cash/pkt-cloud/market"
)

func TestRead(t *testing.T) {
	data, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := manifest.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	want := lease.Manifest{
		Version: 1, Volumes: []lease.Volume{{Name: "data", SizeBytes: 2 << 30}, {Name: "uploads", SizeBytes: 512 << 20}},
		Probe: lease.Probe{Service: "web", Port: 8080, HTTPPath: "/healthz", TimeoutSeconds: 5},
		Services: []lease.Service{
			{
				Name: "web", Image: "example.org/shop:3", Args: []string{"shop", "serve"}, Env: []string{"DB=localhost", "DEBUG=1"}, Ports: []uint64{8080, 9090},
				Resources: market.Resources{MilliCPU: 250, MemoryBytes: 128 << 20, DiskBytes: 1 << 30}, Restart: lease.Restart{Policy: "always"}, Stop: 10,
				Depends: []lease.Dependency{{Service: "db", When: "healthy"}, {Service: "migrate", When: "completed"}},
				Mounts:  []lease.Mount{{Volume: "uploads", Path: "/srv/uploads"}, {Volume: "data", Path: "/data", ReadOnly: true}},
				Health:  lease.Health{Check: "http", Port: 8080, Path: "/healthz", Interval: 5, Timeout: 2, Start: 60, Retries: 3},
			},
			{
				Name: "db", Image: "example.org/db@sha256:" + strings.Repeat("ab", 32), Digest: "sha256:" + strings.Repeat("ab", 32), User: "999", Env: []string{"MODE=one"},
				Resources: market.Resources{MilliCPU: 500, MemoryBytes: 256 << 20, DiskBytes: 5 << 30}, Restart: lease.Restart{Policy: "on-failure", Max: 5}, Stop: 60,
				Mounts: []lease.Mount{{Volume: "data", Path: "/var/lib/db"}},
				Ports:  []uint64{}, Health: lease.Health{Check: "command", Command: []string{"db", "ping"}, Interval: 10, Timeout: 5, Retries: 3},
			},
			{
				Name: "migrate", Image: "example.org/shop:3", Args: []string{"shop", "migrate"}, Job: true, Restart: lease.Restart{Policy: "no"}, Stop: 10,
				Resources: market.Resources{MilliCPU: 500, MemoryBytes: 256 << 20, DiskBytes: 1 << 30},
				Depends:   []lease.Dependency{{Service: "db", When: "healthy"}},
			},
		},
	}
	for i := range got.Services {
		if len(got.Services[i].Ports) == 0 {
			got.Services[i].Ports, want.Services[i].Ports = nil, nil
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestReadArgs: what stands behind the image's entrypoint is told apart from a
// whole command line [SERVICE-14].
func TestReadArgs(t *testing.T) {
	for text, want := range map[string]lease.Service{
		"":                  {},
		", command: [a, b]": {Args: []string{"a", "b"}},
		", args: [a, b]":    {Args: []string{"a", "b"}, Entrypoint: true},
		", args: []":        {Entrypoint: true},
	} {
		m, err := manifest.Read([]byte("services: {a: {image: x" + text + "}}"))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Services[0]; !slices.Equal(got.Args, want.Args) || got.Entrypoint != want.Entrypoint {
			t.Errorf("%q: got %q, %v", text, got.Args, got.Entrypoint)
		}
	}
}

// TestReadClass shows that a file can demand a class of isolation [LEASE-34].
func TestReadClass(t *testing.T) {
	for text, want := range map[string]string{"": "", "class: gvisor\n": "gvisor"} {
		m, err := manifest.Read([]byte(text + "services: {a: {image: x}}"))
		if err != nil || m.Isolation() != want {
			t.Errorf("%q: got %q, %v, want %q", text, m.Isolation(), err, want)
		}
	}
}

// TestReadNetwork reads what services ask of the provider's network
// [SERVICE-14].
func TestReadNetwork(t *testing.T) {
	for text, want := range map[string]lease.Service{
		"egress: none":                                {},
		"egress: public":                              {Egress: []string{"public"}},
		"egress: [public]":                            {Egress: []string{"public"}},
		"egress: [\"*.example.org:443\"]":             {Egress: []string{"*.example.org:443"}},
		"egress: []":                                  {},
		"publish: [8080]":                             {Publish: []lease.PublishedPort{{Port: 8080, Protocol: "tcp"}}},
		"publish: [8080, 53/udp, 53/tcp]":             {Publish: []lease.PublishedPort{{Port: 53, Protocol: "tcp"}, {Port: 53, Protocol: "udp"}, {Port: 8080, Protocol: "tcp"}}},
		"{egress: public, bandwidth: 2MiB}":           {Egress: []string{"public"}, Bandwidth: 2 << 20},
		"{publish: [\"53/udp\"], bandwidth: 4194304}": {Publish: []lease.PublishedPort{{Port: 53, Protocol: "udp"}}, Bandwidth: 4 << 20},
	} {
		text = strings.Trim(text, "{}")
		m, err := manifest.Read([]byte("services: {a: {image: x, " + text + "}}"))
		if err != nil {
			t.Errorf("%s: got %v", text, err)
			continue
		}
		got := lease.Service{Egress: m.Services[0].Egress, Publish: m.Services[0].Publish, Bandwidth: m.Services[0].Bandwidth}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":               "",
		"no services":           "probe: web",
		"services as a list":    "services: [web]",
		"no YAML":               "services: {",
		"two documents":         "services: {a: {image: x}}\n---\nservices: {b: {image: x}}",
		"a word it has not":     "services: {a: {image: x, privileged: true}}",
		"a word beside":         "services: {a: {image: x}}\nnetworks: {}",
		"volumes that are none": "services: {a: {image: x}}\nvolumes: {}",
		"volumes as a list":     "services: {a: {image: x, mounts: [\"d:/x\"]}}\nvolumes: [d]",
		"a volume of no size":   "services: {a: {image: x, mounts: [\"d:/x\"]}}\nvolumes: {d: }",
		"a volume of size {}":   "services: {a: {image: x, mounts: [\"d:/x\"]}}\nvolumes: {d: {size: 1GiB}}",
		"two volumes of a name": "services: {a: {image: x, mounts: [\"d:/x\"]}}\nvolumes: {d: 1GiB, d: 1GiB}",
		"a small volume":        "services: {a: {image: x, mounts: [\"d:/x\"]}}\nvolumes: {d: 1MiB}",
		"an unused volume":      "services: {a: {image: x}}\nvolumes: {d: 1GiB}",
		"an unknown volume":     "services: {a: {image: x, mounts: [\"e:/x\", \"d:/y\"]}}\nvolumes: {d: 1GiB}",
		"a mount of no path":    "services: {a: {image: x, mounts: [d]}}\nvolumes: {d: 1GiB}",
		"a mount for writing":   "services: {a: {image: x, mounts: [\"d:/x:rw\"]}}\nvolumes: {d: 1GiB}",
		"a mount that climbs":   "services: {a: {image: x, mounts: [\"d:/x/../proc\"]}}\nvolumes: {d: 1GiB}",
		"a mount of the host":   "services: {a: {image: x, mounts: [\"/etc:/x\", \"d:/y\"]}}\nvolumes: {d: 1GiB}",
		"two of a name":         "services: {a: {image: x}, a: {image: x}}",
		"no image":              "services: {a: {}}",
		"a bad size":            "services: {a: {image: x, memory: much}}",
		"a size beyond":         "services: {a: {image: x, memory: 18446744073709551615KiB}}",
		"bytes or MiB":          "services: {a: {image: x, memory: 64}}",
		"hardly any memory":     "services: {a: {image: x, memory: 1MiB}}",
		"hardly any disk":       "services: {a: {image: x, disk: 1KiB}}",
		"hardly any processor":  "services: {a: {image: x, cpu: 0.001}}",
		"a bad time":            "services: {a: {image: x, stop: 1.5s}}",
		"negative cores":        "services: {a: {image: x, cpu: -1}}",
		"cores that are none":   "services: {a: {image: x, cpu: .nan}}",
		"an env of lists":       "services: {a: {image: x, env: {B: [c]}}}",
		"an env without =":      "services: {a: {image: x, env: [B]}}",
		"a restart of 0 times":  "services: {a: {image: x, restart: \"on-failure:0\"}}",
		"two ways to look":      "services: {a: {image: x, health: {tcp: 80, http: 80/}}}",
		"no way to look":        "services: {a: {image: x, health: {interval: 5s}}}",
		"an unknown depend":     "services: {a: {image: x, depends: [b]}}",
		"a circle":              "services: {a: {image: x, depends: [b]}, b: {image: x, depends: [a]}}",
		"an unknown probe":      "services: {a: {image: x}}\nprobe: b",
		"a file that is large":  "# " + strings.Repeat("x", manifest.MaxFileBytes),
		"aliases of aliases":    bomb(),
		"a word as egress":      "services: {a: {image: x, egress: internet}}",
		"an egress of words":    "services: {a: {image: x, egress: [public, \"example.org:443\"]}}",
		"a place without port":  "services: {a: {image: x, egress: [example.org]}}",
		"an egress of maps":     "services: {a: {image: x, egress: {example.org: 443}}}",
		"an outside port":       "services: {a: {image: x, publish: [\"80:8080\"]}}",
		"port 0":                "services: {a: {image: x, publish: [0]}}",
		"another protocol":      "services: {a: {image: x, publish: [80/sctp]}}",
		"a port twice":          "services: {a: {image: x, publish: [80, 80/tcp]}}",
		"a job's port":          "services: {a: {image: x, job: true, publish: [80]}}",
		"a lone bandwidth":      "services: {a: {image: x, bandwidth: 1MiB}}",
		"a class of no name":    "services: {a: {image: x}}\nclass: A kernel",
	} {
		if _, err := manifest.Read([]byte(text)); !errors.Is(err, lease.CodeManifest) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}

// TestLines: a fault is told with the line at which somebody has to look.
func TestLines(t *testing.T) {
	const good = "services:\n  web:\n    image: x\n    depends: [db]\n  db:\n    image: y\n"
	for _, c := range []struct {
		text string
		line int
	}{
		{good + "    cpu: much\n", 7},
		{good + "    memory: 1GiB\n    disk: much\n", 8},
		{good + "    env:\n      A: [b]\n", 7},
		{good + "    health:\n      tcp: 80\n      interval: soon\n", 9},
		{good + "    health:\n      tcp: 80\n      http: here\n", 9},
		{good + "    health: {}\n", 7},
		{good + "    privileged: true\n", 7},
		{good + "    health:\n      tcp: 80\n      often: true\n", 9},
		{good + "    ports: [http]\n", 7},
		{good + "    restart: sometimes\n", 7},
		{good + "    depends: [web]\n", 4},
		{good + "  cache:\n    image: z\n    depends: {none: started}\n", 9},
		{good + "  web:\n    image: z\n", 7},
		{good + "volumes: {}\n", 7},
		{good + "    mounts: [d:/x]\nvolumes:\n  d: 1GiB\n  d: 1GiB\n", 10},
		{good + "    mounts: [d:/x]\nvolumes:\n  d: much\n", 9},
		{good + "    mounts: [here]\n", 7},
		{good + "    egress: internet\n", 7},
		{good + "    cpu: 1\n    publish: [sctp]\n", 8},
		{good + "networks: {}\n", 7},
		{good + "    mounts: [d:/x]\n    depends: [web]\nvolumes: {d: 1GiB}\n", 4},
		{good + "    mounts: [d:/x, e:/y]\nvolumes: {d: 1GiB}\n", 7},
		{good + "    ports: [70000]\n", 7},
		{good + "    memory: 1GiB\n    disk: 16000000TiB\n", 8},
		{good + "    http: /x\n", 7},
		{good + "    ports: [80]\n    http: x\n", 8},
		{good + "    job: true\n    restart: always\n    ports: [80]\n", 7},
		{good + "    mounts: [d:/x]\nvolumes:\n  d: 1MiB\n", 9},
		{good + "    mounts: [d:/x]\nvolumes:\n  d: 1GiB\n  e: 1GiB\n", 10},
		{good + "    mounts: [d:/dev/x]\nvolumes:\n  d: 1GiB\n", 7},
		{good + "  c:\n    cpu: 1\n", 7},
		{good + "    egress: [\"Example.org:1\"]\n", 7},
		{good + "    env:\n      - A\n", 7},
		{good + "    user: [\n", 7},
		{good + "---\nservices: {}\n", 7},
		{"services: [web]\n", 0},
	} {
		_, err := manifest.Read([]byte(c.text))
		at := new(manifest.LineError)
		if !errors.Is(err, lease.CodeManifest) || errors.As(err, &at) != (c.line > 0) || at.Line != c.line {
			t.Errorf("got %v, want line %d of\n%s", err, c.line, c.text)
		}
	}
}

// TestWords: what is refused is told in the words of the file, and those for
// which somebody may have meant another one name it.
func TestWords(t *testing.T) {
	const head = "services: {a: {image: x, "
	for text, want := range map[string]string{
		head + "memmory: 1GiB}}":                          `service "a": there is no word "memmory" here; did you mean "memory"?`,
		head + "environment: {}}}":                        `service "a": there is no word "environment" here; it is "env"`,
		head + "environmnt: {}}}":                         `service "a": there is no word "environmnt" here; it is "env"`,
		head + "depends_on: []}}":                         `service "a": there is no word "depends_on" here; it is "depends"`,
		head + "healthcheck: {}}}":                        `service "a": there is no word "healthcheck" here; it is "health"`,
		head + "privileged: true}}":                       `service "a": there is no word "privileged" here`,
		head + "health: {test: x}}}":                      `service "a": there is no word "test" here; it is "command", "http" or "tcp"`,
		"version: 3\nservices: {a: {image: x}}":           `there is no word "version" here; no version is needed`,
		"services: {a: {image: x}}\nvolume: {}":           `there is no word "volume" here; did you mean "volumes"?`,
		"- services":                                      `a file begins with "services:", and below it the name of each service`,
		head + "ports: [\"80:8080\"]}}":                   `service "a": ports are numbers of TCP ports that the service listens on, such as 8080; what is reached from outside stands in "publish"`,
		head + "ports: 80}}":                              `service "a": ports is a list, such as [8080]`,
		head + "command: [a], args: [b]}}":                `service "a": "command" is the whole command line, and "args" what the image's entrypoint gets; write one of them`,
		head + "command: sleep 5}}":                       `service "a": command is a list, such as ["first", "second"]`,
		head + "command: [a, [b]]}}":                      `service "a": command is a list of texts; entry 2 is none`,
		head + "job: maybe}}":                             `service "a": job is true or false`,
		head + "health: {tcp: web}}}":                     `service "a": tcp is a whole number, such as 3`,
		head + "health: 8080/x}}":                         `service "a": health has words of its own, such as http: 8080/healthz`,
		head + "cpu: [1]}}":                               `service "a": cpu is one text, not several`,
		head + "http: /x}}":                               `service "a": the tenant's probe asks for "/x" at the first of the "ports", and there are none`,
		head + "depends: [dbb]}}":                         `service a: it waits for "dbb", which is not there`,
		head + "env: [A]}}":                               `service a: environment entry 1, "A", is not NAME=value of at most 16384 bytes`,
		head + "mounts: [\"d:x\"]}}\nvolumes: {d: 1GiB}":  `service a: the path "x" of a mount is not absolute and clean, of at most 1024 printable bytes`,
		head + "mounts: [\"d:/x\"]}}\nvolumes: {d: 1MiB}": `volume d has 1 MiB; a size is whole MiB, from 300 MiB to 16 TiB`,
		head + "mounts: [\"d:/x\"]}}":                     `service a mounts volume "d", which is not there`,
		head + "restart: never}}":                         `service a: a service restarts "no", "on-failure" or "always", not "never"`,
		head + "memory: 1MiB}}":                           `service a: a service needs at least 16 MiB of memory; it has 1 MiB`,
		head + "memory: 64}}":                             `service "a": 64 is a number of bytes; did you mean 64MiB?`,
		head + "ports: [70000]}}":                         `service a: port 70000 is out of place: ports are 1 to 65535, each once, in ascending order`,
	} {
		_, err := manifest.Read([]byte(text))
		if at := new(manifest.LineError); errors.As(err, &at) {
			err = at.Err
		}
		if got := lease.Plainly(err); got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}

// TestMerged: what services share may be written once, and is looked at as if it
// were written there.
func TestMerged(t *testing.T) {
	const base = "services:\n  a: &a {image: x, cpu: 0.25}\n  b:\n    <<: *a\n    memory: 64MiB\n"
	m, err := manifest.Read([]byte(base))
	if err != nil || m.Services[1].Image != "x" || m.Services[1].Resources.MilliCPU != 250 || m.Services[1].Resources.MemoryBytes != 64<<20 {
		t.Errorf("got %+v, %v", m.Services, err)
	}
	for _, text := range []string{
		base + "  c: {<<: [*a, {privileged: true}]}\n",
		"services: {a: &a {<<: *a, image: x}}",
	} {
		if _, err := manifest.Read([]byte(text)); !errors.Is(err, lease.CodeManifest) {
			t.Errorf("got %v, want a refusal of %s", err, text)
		}
	}
}

// bomb is a small file that means a large one.
func bomb() string {
	var b strings.Builder
	b.WriteString("services:\n  a:\n    image: x\n    env: &a0 [A=b]\n")
	return b.String() + "x: &a [&b [&c [*a0,*a0,*a0,*a0],*c,*c,*c,*c,*c],*b,*b,*b,*b,*b]\n"
}

func TestReadVolume(t *testing.T) {
	v, m, err := manifest.ReadVolume("data:/var/lib/db:2GiB")
	if err != nil || v != (lease.Volume{Name: "data", SizeBytes: 2 << 30}) || m != (lease.Mount{Volume: "data", Path: "/var/lib/db"}) {
		t.Errorf("got %+v, %+v, %v", v, m, err)
	}
	for _, text := range []string{"", "data", "data:/x", ":/x:2GiB", "data::2GiB", "data:/x:much", "data:/x:ro:2GiB", "data:/x:y:2GiB"} {
		if _, _, err := manifest.ReadVolume(text); !errors.Is(err, lease.CodeManifest) {
			t.Errorf("%q: got %v, want a refusal", text, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	data, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("services: {a: {image: x, egress: [\"192.0.2.0/24:*\"], publish: [53/udp, 80], bandwidth: 2MiB}}"))
	f.Add([]byte(`{"services":{"a":{"image":"x","env":["A=b"]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := manifest.Read(data)
		if err != nil {
			return
		}
		b, err := pktcloud.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lease.ParseManifest(b); err != nil && len(b) <= lease.MaxManifestBytes {
			t.Fatalf("what was accepted is refused on the wire: %v", err)
		}
	})
}

func FuzzReadVolume(f *testing.F) {
	f.Add("data:/var/lib/db:2GiB")
	f.Add("a:/b:ro:1B")
	f.Fuzz(func(t *testing.T, text string) {
		v, m, err := manifest.ReadVolume(text)
		if err == nil && (v.Name != m.Volume || m.ReadOnly || !strings.HasPrefix(text, v.Name+":"+m.Path+":")) {
			t.Fatalf("got %+v, %+v from %q", v, m, text)
		}
	})
}
