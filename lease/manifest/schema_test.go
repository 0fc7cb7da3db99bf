package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/pkt-cash/pkt-cloud/lease"
)

type schemaNode struct {
	Properties           map[string]schemaNode `json:"properties"`
	Defs                 map[string]schemaNode `json:"$defs"`
	MaxItems             int                   `json:"maxItems"`
	MaxProperties        int                   `json:"maxProperties"`
	MaxLength            int                   `json:"maxLength"`
	Description          string                `json:"description"`
	AdditionalProperties any                   `json:"additionalProperties"`
}

// TestSchemaHasTheWords: schema and reader have the same words and limits, and the
// specification has this schema [SERVICE-41].
func TestSchemaHasTheWords(t *testing.T) {
	var s schemaNode
	if err := json.Unmarshal(Schema, &s); err != nil {
		t.Fatal(err)
	}
	for of, n := range map[reflect.Type]schemaNode{reflect.TypeFor[file](): s, reflect.TypeFor[entry](): s.Defs["service"], reflect.TypeFor[health](): s.Defs["health"]} {
		var words []string
		for f := range of.Fields() {
			word, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			words = append(words, word)
			if n.Properties[word].Description == "" {
				t.Errorf("%s: no word on %q", of.Name(), word)
			}
		}
		slices.Sort(words)
		if got := slices.Sorted(maps.Keys(n.Properties)); !slices.Equal(got, words) || n.AdditionalProperties != false {
			t.Errorf("%s: the schema has %v, and more %v; the reader has %v", of.Name(), got, n.AdditionalProperties, words)
		}
	}
	service := s.Defs["service"].Properties
	for name, got := range map[string][2]int{
		"services": {s.Properties["services"].MaxProperties, lease.MaxServices}, "volumes": {s.Properties["volumes"].MaxProperties, lease.MaxVolumes},
		"ports": {service["ports"].MaxItems, lease.MaxPorts}, "publish": {service["publish"].MaxItems, lease.MaxPublish}, "mounts": {service["mounts"].MaxItems, lease.MaxMounts},
		"image": {service["image"].MaxLength, lease.MaxImage}, "user": {service["user"].MaxLength, lease.MaxUser}, "workdir": {service["workdir"].MaxLength, lease.MaxPath},
		"arguments": {s.Defs["texts"].MaxItems, lease.MaxArgs},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: the schema allows %d, the reader %d", name, got[0], got[1])
		}
	}
	if of, err := os.ReadFile("../../spec/manifest.schema.json"); err != nil || !bytes.Equal(of, Schema) {
		t.Errorf("spec/manifest.schema.json is another one (%v); copy lease/manifest/schema.json there", err)
	}
}

// TestSchemaJudges: the schema takes the files that the reader takes, and refuses
// what is not of its words and kinds [SERVICE-41].
func TestSchemaJudges(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("s.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("s.json")
	if err != nil {
		t.Fatal(err)
	}
	shop, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/services.md")
	if err != nil {
		t.Fatal(err)
	}
	good := []string{
		string(shop), "services: {a: {image: x, args: []}}", "services: {a: {image: x, egress: public, publish: [53/udp, 80], bandwidth: 2MiB, user: 1000}}",
		"services: {a: {image: x, job: true, restart: on-failure:3, stop: 1m30s, cpu: 2, env: [A=b]}}\nclass: gvisor\nprobe: a",
	}
	for block := range strings.SplitSeq("\n"+string(page), "\n\n") {
		if text := strings.ReplaceAll("\n"+block, "\n    ", "\n"); strings.HasPrefix(block, "    ") && strings.Contains(text, "\nservices:\n") {
			good = append(good, text)
		}
	}
	for _, text := range good {
		if _, err := Read([]byte(text)); err != nil {
			t.Errorf("the reader refuses %s: %v", text, err)
		}
		if err := schema.Validate(plain(t, text)); err != nil {
			t.Errorf("the schema refuses %s: %v", text, err)
		}
	}
	if len(good) < 7 {
		t.Errorf("got %d files", len(good))
	}
	for _, text := range []string{
		"{}", "services: {}", "services: {A: {image: x}}", "services: {a: {}}", "services: {a: {image: x, privileged: true}}", "services: {a: {image: x, ports: [70000]}}",
		"services: {a: {image: x, ports: [\"80:80\"]}}", "services: {a: {image: x, command: sleep}}", "services: {a: {image: x, memory: much}}", "services: {a: {image: x, job: maybe}}",
		"services: {a: {image: x, health: {}}}", "services: {a: {image: x, health: {tcp: 1, http: 80/}}}", "services: {a: {image: x, restart: never}}", "services: {a: {image: x, mounts: [data]}}",
		"services: {a: {image: x, egress: all}}", "services: {a: {image: x}}\nvolumes: {data: {}}", "services: {a: {image: x}}\nclass: [vm]", "services: {a: {image: x}}\nversion: 3",
	} {
		if err := schema.Validate(plain(t, text)); err == nil {
			t.Errorf("the schema takes %s", text)
		}
		if _, err := Read([]byte(text)); err == nil {
			t.Errorf("the reader takes %s", text)
		}
	}
}

// plain is a file as the schema's library wants it.
func plain(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", text, err))
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
