package lease_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/lease"
)

// TestSecretIsNotShown: however a message with credentials is printed, logged or
// written as JSON, the password is not in it [LEASE-43].
func TestSecretIsNotShown(t *testing.T) {
	const password = "pa55-of-the-registry"
	p := proposeWith(func(p *lease.Propose) {
		p.Credentials = lease.Credentials{{Registry: "a", Username: "ann", Password: password}}
	})
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("text", "propose", p, "secret", p.Credentials[0].Password)
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("json", "propose", p, "secret", p.Credentials[0].Password)
	for name, text := range map[string]string{
		"v": fmt.Sprint(p), "+v": fmt.Sprintf("%+v", p), "#v": fmt.Sprintf("%#v", p), "s": fmt.Sprint(p.Credentials[0].Password),
		"x": fmt.Sprintf("%x", p.Credentials[0].Password), "q": fmt.Sprintf("%q", p.Credentials[0].Password),
		"JSON": string(must(json.Marshal(p))), "log": logged.String(),
		"refusal": fmt.Sprint(lease.Credentials{{Registry: "a", Password: password}, {Registry: "a", Password: password}}.Validate()),
	} {
		if strings.Contains(text, password) || strings.Contains(text, fmt.Sprintf("%x", password)) {
			t.Errorf("%s shows the password: %s", name, text)
		}
	}
	if got := string(must(lease.AppendMessage(nil, p))); !strings.Contains(got, password) {
		t.Error("the message itself does not carry it")
	}
}

// TestCredentialsOfARegistry: each registry gets its own, others none [LEASE-44].
func TestCredentialsOfARegistry(t *testing.T) {
	c := lease.Credentials{{Registry: "a", Password: "1"}, {Registry: "b:5000", Password: "2"}}
	for registry, want := range map[string]lease.Secret{"a": "1", "b:5000": "2", "b": "", "": "", "aa": ""} {
		if got := c.For(registry).Password; got != want {
			t.Errorf("%q: got the wrong credential", registry)
		}
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
