//go:build system

package systemtest

import (
	"net/http"
	"strings"
	"testing"
)

// TestBrowserServices rents three services as a person does who has a file: the
// page says what is wrong with it and what it costs, and then shows how each
// service stands, what it wrote and what it used, while it happens.
func TestBrowserServices(t *testing.T) {
	w := newBrowserStory(t)
	b := w.chromium.open("services", w.origin)
	if got := b.open(w.link); got != http.StatusOK {
		t.Fatalf("logging in: got status %d", got)
	}
	b.open(w.origin + "/deploy?offer=" + w.offer.String())
	b.click(`a[href*="several=1"]`)
	b.shows("label", "A compose.yaml, or services")
	b.look("deploy-several")

	file := strings.TrimSpace(strings.ReplaceAll(shop, "IMAGE", w.image))
	write := func(text string) {
		eval[bool](b, `(e => { e.value = `+quoted(text)+`; e.dispatchEvent(new Event("input", {bubbles: true})); return true })(document.querySelector("#file"))`)
	}
	b.mark()
	write(strings.Replace(file, "32MiB", "plenty", 1))
	b.shows("#fault", "Line 6")
	b.shows("#fault .here", "memory: plenty")
	b.look("deploy-several-wrong")
	write(file)
	b.wait("the fault is gone", `document.querySelector("#fault").innerText.trim() === ""`)
	b.shows("#price", "waits for db (healthy), migrate (completed)")
	b.shows("#price", "Together 0.3 cores, 96 MiB memory")
	b.marked("what is typed")
	b.submit(`button[formaction="/deploy/preview"]`)
	b.wait("the file is still there", `document.querySelector("#file").value.includes("migrated")`)
	if leases, err := w.tenant.client().Leases(t.Context()); err != nil || len(leases) != 0 {
		t.Fatalf("a preview agreed %d leases, %v", len(leases), err)
	}
	b.fill("#max", "") // the price that is shown
	b.click("#payment summary")
	b.fill("#interval", "1")
	b.fill("#credit", testCredit)
	b.fill("#prepaid", "0")
	b.look("deploy-several-priced")
	b.submit("button[form=deploy]")
	b.shows("h1", "Lease")
	b.mark()
	b.wait("all services are well", `document.querySelectorAll("#services ~ table .badge.good").length >= 3`)
	b.shows("#services ~ table", "healthy")
	b.wait("the log of all has their names", `document.querySelector(".log")?.innerText.includes("migrate | migrated")`)
	b.wait("the charts of each that ran come by themselves", `document.querySelectorAll(".chart path.line[d^=M]").length >= 6`)
	b.look("lease-three")
	b.marked("the lease's page")

	b.click(`a[href$="/amend"]`)
	b.shows("h1", "Amend lease")
	b.look("amend")
	b.fill("[name=memory0]", "24")
	b.submit(`form[action$="/amend"] button`)
	b.shows("#resources", "88 MiB memory")
	b.look("amend-review")
	b.submit(`form[action$="/confirm"] button`)
	b.wait("the lease is amended", `document.querySelector("h1").innerText.startsWith("Lease") && document.body.innerText.includes("88 MiB memory") && document.body.innerText.includes("Amended")`)
	b.look("lease-amended")

	leases, err := w.tenant.client().Leases(t.Context())
	if err != nil || len(leases) != 1 {
		t.Fatalf("got %d leases, %v", len(leases), err)
	}
	b.click(`#services ~ table a[href*="service=db"]`)
	b.shows("#logs", "Log of db")
	b.wait("the four charts of the database", `document.querySelectorAll(".chart").length === 4`)
	b.click("#use-table summary")
	rows := eval[int](b, `document.querySelectorAll("#use-table tbody tr").length`)
	path := eval[string](b, `document.querySelector(".chart path.line").getAttribute("d")`)
	b.mark()
	b.wait("the charts go on", `document.querySelector(".chart path.line").getAttribute("d") !== `+quoted(path))
	b.wait("the table stays open", `document.querySelector("#use-table").open && document.querySelectorAll("#use-table tbody tr").length >= 1`)
	b.marked("the metrics")
	t.Logf("%d rows at first", rows)
	w.killDatabase()
	b.wait("the page shows that the database was started again", `[...document.querySelectorAll("#services ~ table tbody tr")][1].innerText.includes("137")`)
	b.look("lease-restarted")
	use := w.run("lease", "metrics", "--dir", w.tenant.dir, leases[0].Label, "--service", "db")
	t.Log("\n" + use)
	if !strings.Contains(use, "memory") || !strings.Contains(use, "MiB") || strings.Contains(use, "web") {
		t.Errorf("got %s, want what the database used", use)
	}
	all, err := w.tenant.client().LeaseMetrics(t.Context(), leases[0].Label)
	if err != nil || len(all) != 3 || all[1].Runs < 1 || all[1].Memory != 32<<20 || len(all[1].Recent.Points) == 0 {
		t.Errorf("got %+v, %v", all, err)
	}
	w.closeLease(leases[0].ID)
	b.shows("[sse-swap=metrics]", "ended with the lease")
	w.chromium.quiet()
	w.clean()
}

// quoted is a text as JavaScript writes it.
func quoted(s string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`", "$", "\\$").Replace(s) + "`"
}
