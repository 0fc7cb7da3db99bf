package web_test

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// TestAmendLease: the form has what the lease is, the review shows old and new;
// nothing changes before it is confirmed, and nothing at a higher price.
func TestAmendLease(t *testing.T) {
	twin, s := newWeb(t)
	page, err := twin.Offers(t.Context(), service.OfferQuery{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := twin.CreateLease(t.Context(), service.LeaseRequest{
		Offer: page.Offers[0].ID, Image: "db", MaxRate: pktcloud.UnitsPerPKT, TermSeconds: 3600,
		Resources: service.Resources{MilliCPU: 500, MemoryBytes: 128 << 20, DiskBytes: 1 << 30},
		Volumes:   []service.VolumeRequest{{Name: "data", Path: "/data", Size: 2 << 30}},
	})
	if err != nil {
		t.Fatal(err)
	}
	at := s.URL + "/leases/" + l.Label
	_, body, _ := get(t, at)
	wants(t, body, `href="/leases/`+l.Label+`/amend"`)
	_, body, _ = get(t, at+"/amend")
	wants(t, body, `name="cores0"`, `value="0.5"`, `name="memory0"`, `value="128"`, `name="size0"`, `value="2"`, `name="term"`, "Review")
	same := url.Values{"cores0": {"0.5"}, "memory0": {"128"}, "disk0": {"1"}, "size0": {"2"}, "term": {"1"}}
	for want, edit := range map[string][2]string{
		"Nothing is changed yet.":            {"cores0", "0.5"},
		"Processor in cores is a number":     {"cores0", "many"},
		"Memory cannot be 0.":                {"memory0", "0"},
		"Volume data cannot become smaller.": {"size0", "1"},
	} {
		form := maps.Clone(same)
		form.Set(edit[0], edit[1])
		if status, body, _ := post(t, at+"/amend", form); status != http.StatusUnprocessableEntity || !strings.Contains(body, want) {
			t.Errorf("%v: got %d, want %q", edit, status, want)
		}
	}
	same.Set("cores0", "2")
	same.Set("size0", "3")
	_, body, _ = post(t, at+"/amend", same)
	wants(t, body, `id="rate"`, `id="rate-before"`, "2 cores", "0.5 cores", "Amend now", `name="size0" value="3"`)
	if m := inline.FindString(body); m != "" {
		t.Errorf("inline script or style: %s", m)
	}
	if now, _ := twin.Lease(t.Context(), l.Label); now.Revision != 0 {
		t.Error("the review changed the lease already")
	}
	same.Set("most", "1")
	if status, body, _ := post(t, at+"/amend/confirm", same); status != service.CodeMoney.Status() || !strings.Contains(body, "at most") {
		t.Errorf("a price above what was shown: got %d", status)
	}
	plan, err := twin.AmendLease(t.Context(), l.Label, service.AmendRequest{Resources: service.Resources{MilliCPU: 2000}, Volumes: map[string]uint64{"data": 3 << 30}, Plan: true})
	if err != nil {
		t.Fatal(err)
	}
	text, _ := plan.After.Rate.MarshalText()
	same.Set("most", string(text))
	_, _, path := post(t, at+"/amend/confirm", same)
	now, err := twin.Lease(t.Context(), l.Label)
	if err != nil || now.Revision != 1 || now.Resources.MilliCPU != 2000 || now.Volumes[0].Size != 3<<30 || path != "/leases/"+l.Label {
		t.Errorf("got %+v at %s, %v; want it amended", now, path, err)
	}
	_, body, _ = get(t, at)
	wants(t, body, `<dd id="revision">once</dd>`)
	if status, _, _ := get(t, s.URL+"/leases/none/amend"); status != http.StatusNotFound {
		t.Errorf("no such lease: got %d", status)
	}
}
