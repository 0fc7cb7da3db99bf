package web_test

import (
	"net/http"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestVolumesOnTheLeasePage: how large and how free each is, who has it, and that
// the end deletes it. A lease without volumes says nothing of them.
func TestVolumesOnTheLeasePage(t *testing.T) {
	twin, s := newWeb(t)
	page, err := twin.Offers(t.Context(), service.OfferQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for _, volumes := range [][]service.VolumeRequest{{{Name: "data", Path: "/var/lib/<db>", Size: 2 << 30}}, nil} {
		l, err := twin.CreateLease(t.Context(), service.LeaseRequest{
			Offer: page.Offers[0].ID, Image: "db", MaxRate: pktcloud.UnitsPerPKT, TermSeconds: 600, Resources: service.Resources{MilliCPU: 100, MemoryBytes: 16 << 20}, Volumes: volumes,
		})
		if err != nil {
			t.Fatal(err)
		}
		status, body, _ := get(t, s.URL+"/leases/"+l.Label)
		if status != http.StatusOK {
			t.Fatalf("got status %d", status)
		}
		for _, want := range []string{`<h2 id="volumes">Volumes</h2>`, "2 GiB", "512 MiB", "/var/lib/&lt;db&gt;</code>", "volumes with all their data"} {
			if strings.Contains(body, want) != (volumes != nil) {
				t.Errorf("with volumes %v: %q is in the page: %t\n%s", volumes, want, strings.Contains(body, want), body)
			}
		}
	}
}
