//go:build system

package systemtest

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// badStarts rents what cannot run: the tenant is told why, by the command that
// waits and by "lease show", and pays nothing; then what can run does.
func (w *world) badStarts(t *testing.T) {
	offer := w.publish()
	w.known(t, w.tenant, offer.ID)
	rent := func(more ...string) []string {
		return w.create(w.tenant, append([]string{"--image", w.image, "--max-price", "1", "--offer", offer.ID.String(), "--wait"}, more...)...)
	}
	w.fails(t, refusal{9, service.CodeWorkload, []string{"could not be started", "nosuchprog", "Nothing was paid"}}, rent("/nosuchprog")...)
	leases, err := w.tenant.client().Leases(t.Context())
	if err != nil || len(leases) == 0 {
		t.Fatalf("got %d leases, %v", len(leases), err)
	}
	l := w.closeLease(leases[0].ID) // it closes by itself; then the block
	if l.Fault == nil || l.Fault.Code != "program" || !strings.Contains(l.Fault.Text, "/nosuchprog: no such file") || l.Paid != 0 {
		t.Errorf("got %+v and %d units paid, want the program and nothing", l.Fault, uint64(l.Paid))
	}
	shown := w.run("lease", "show", "--dir", w.tenant.dir, l.Label)
	if !strings.Contains(shown, "workload (program)") || !strings.Contains(shown, "The provider says: \"/nosuchprog: no such file") {
		t.Errorf("lease show does not say why:\n%s", shown)
	}

	offer = w.publish()
	w.known(t, w.tenant, offer.ID)
	var got service.Lease
	if err := json.Unmarshal([]byte(w.run(append(rent("--port", "8080"), "--json")...)), &got); err != nil || got.Phase != "active" {
		t.Errorf("got %s, %v from a create that waits, want active", got.Phase, err)
	}
	w.closeLease(got.ID)
}
