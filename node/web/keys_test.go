package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/service/servicetest"
)

func TestAccounts(t *testing.T) {
	twin, s := newWeb(t)
	for _, path := range []string{"/wallet", "/wallet/send"} {
		if _, body, _ := get(t, s.URL+path); strings.Contains(body, `name="account"`) {
			t.Errorf("%s asks for one of one account", path)
		}
	}
	_, body, path := post(t, s.URL+"/wallet/accounts", url.Values{"name": {" <Savings> "}})
	wants(t, body, "The account is made.", "&lt;Savings&gt;")
	if path != "/wallet/keys" {
		t.Errorf("the page is %s", path)
	}
	status, body, _ := post(t, s.URL+"/wallet/accounts", url.Values{"name": {"<Savings>"}})
	if status != service.CodeConflict.Status() {
		t.Errorf("the same name again: got %d", status)
	}
	wants(t, body, `value="&lt;Savings&gt;"`)
	_, body, _ = get(t, s.URL+"/wallet/send?account=1")
	wants(t, body, `<option value="1" selected>&lt;Savings&gt;`)
	if _, body, _ = get(t, s.URL+"/wallet"); !strings.Contains(body, `name="account"`) {
		t.Error("an address cannot be had for an account")
	}
	payment := url.Values{"address": {"dpk1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"}, "amount": {"0.5"}, "account": {"1"}}
	_, form := review(t, s.URL, payment)
	if status, body, _ := post(t, s.URL+"/wallet/pay", form); status != http.StatusOK {
		t.Fatalf("pay: %d\n%s", status, body)
	}
	if p := twin.Payments(); len(p) != 1 || p[0].Account != 1 {
		t.Errorf("got %+v, want one payment from account 1", p)
	}
	payment.Set("account", "-1")
	if status, _, _ := post(t, s.URL+"/wallet/send", payment); status != service.CodeInvalid.Status() {
		t.Errorf("account -1: got %d", status)
	}
}

// TestSweep: a key is swept once, at the fee that was shown, after a review, and
// no page carries it.
func TestSweep(t *testing.T) {
	const key = "cTpB4YiyKiBcPxnefsDpbnDxFDffjqJob8wGCEDXxgQ7zQoMXJdH"
	twin, s := newWeb(t)
	once := func() url.Values {
		status, body, _ := post(t, s.URL+"/wallet/sweep", url.Values{"key": {" " + key + "\n"}})
		if status != http.StatusOK {
			t.Fatalf("review: got %d\n%s", status, body)
		}
		wants(t, body, "This key holds", "0.004656613 PKT", "1 coin", "Sweep it into this wallet")
		if strings.Contains(body, key) {
			t.Errorf("the page carries the key:\n%s", body)
		}
		return url.Values{"once": {hidden.FindStringSubmatch(body)[2]}}
	}
	first := once()
	once()
	for name, form := range map[string]url.Values{"an older review": first, "no review": {}} {
		if status, _, _ := post(t, s.URL+"/wallet/sweep/confirm", form); status != service.CodeConflict.Status() {
			t.Errorf("%s: got %d", name, status)
		}
	}
	if len(twin.Swept()) != 0 {
		t.Errorf("swept without a review: %v", twin.Swept())
	}
	second := once() // a wrong confirmation takes the review back
	status, body, path := post(t, s.URL+"/wallet/sweep/confirm", second)
	if status != http.StatusOK || !strings.HasPrefix(path, "/wallet/tx/") {
		t.Fatalf("sweep: got %d at %s\n%s", status, path, body)
	}
	if status, body, _ := post(t, s.URL+"/wallet/sweep/confirm", second); status != service.CodeConflict.Status() || !strings.Contains(body, "made already") {
		t.Errorf("pressed again: got %d", status)
	}
	if got := twin.Swept(); len(got) != 1 || got[0].Key != key || got[0].MaxFee != 141 {
		t.Errorf("got %+v, want one sweep of at most the fee that was shown", got)
	}
}

func TestPasswordPage(t *testing.T) {
	_, s := newWeb(t)
	for _, c := range []struct {
		name, old, next, again string
		status                 int
		want                   string
	}{
		{"a wrong one", "no", "new horse", "new horse", service.CodeForbidden.Status(), "The password is wrong."},
		{"a slip", servicetest.Password, "new horse", "new house", service.CodeInvalid.Status(), "nothing was changed"},
		{"right", servicetest.Password, "new horse", "new horse", http.StatusOK, "The password is changed."},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, _ := post(t, s.URL+"/wallet/password", url.Values{"old": {c.old}, "new": {c.next}, "again": {c.again}})
			if status != c.status {
				t.Errorf("got %d, want %d", status, c.status)
			}
			wants(t, body, c.want)
			if strings.Contains(body, "new hor") || strings.Contains(body, servicetest.Password) {
				t.Error("the page carries a password")
			}
		})
	}
}
