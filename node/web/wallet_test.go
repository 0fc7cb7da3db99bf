package web_test

import (
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/service/servicetest"
)

// post sends a form and returns the page that it leads to, and its path.
func post(t *testing.T, address string, v url.Values) (status int, body, path string) {
	t.Helper()
	r, err := http.PostForm(address, v)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if m := inline.FindString(string(b)); m != "" {
		t.Errorf("inline script or style: %s", m)
	}
	return r.StatusCode, string(b), r.Request.URL.Path
}

func wants(t *testing.T, body string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(body, w) {
			t.Errorf("%q is missing from\n%s", w, body)
		}
	}
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]*)">`)

// review asks for a payment and returns the form of the page that shows it.
func review(t *testing.T, s string, v url.Values) (body string, form url.Values) {
	t.Helper()
	status, body, _ := post(t, s+"/wallet/send", v)
	if status != http.StatusOK {
		t.Fatalf("review: got %d\n%s", status, body)
	}
	form = url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(body, -1) {
		form.Add(m[1], m[2])
	}
	return body, form
}

// TestSend: what is reviewed is what is paid, once however often it is sent,
// and nothing before.
func TestSend(t *testing.T) {
	twin, s := newWeb(t)
	before, err := twin.WalletBalance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	payment := url.Values{"address": {"dpk1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"}, "amount": {"0.5"}, "speed": {"quick"}, "label": {"rent <1>"}, "coin": {"ab:0", "ab:1"}}
	body, form := review(t, s.URL, payment)
	wants(t, body, "You are about to pay", "0.5 PKT", "0.000000131 PKT", "dpk1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu", "rent &lt;1&gt;", "Pay now")
	if b, err := twin.WalletBalance(t.Context()); err != nil || b != before {
		t.Errorf("after the review the wallet has %+v (%v), want %+v", b, err, before)
	}
	if form.Get("most") != "141" || len(form.Get("once")) != 32 || len(form["coin"]) != 2 {
		t.Errorf("the form carries %v", form)
	}
	for range 3 { // pressed three times
		status, body, path := post(t, s.URL+"/wallet/pay", form)
		if status != http.StatusOK || !strings.HasPrefix(path, "/wallet/tx/") {
			t.Fatalf("pay: got %d at %s\n%s", status, path, body)
		}
		wants(t, body, "Sent. The next blocks confirm it.", "−", "0.5 PKT", "waits for a block", "Raise the fee")
	}
	moves, err := twin.WalletHistory(t.Context(), service.HistoryQuery{})
	if err != nil || len(moves) != 3 || moves[0].Sent != 1<<29 {
		t.Errorf("got %+v, %v; want one payment", moves, err)
	}
	_, again := review(t, s.URL, payment)
	if again.Get("once") == form.Get("once") {
		t.Error("two reviews carry one word")
	}
	// The fee that was shown is the most that is paid.
	again.Set("most", "140")
	status, body, _ := post(t, s.URL+"/wallet/pay", again)
	if status != service.CodeMoney.Status() {
		t.Errorf("a higher fee than reviewed: got %d", status)
	}
	wants(t, body, "The fee is above the limit", `value="0.5"`)
	for _, missing := range []string{"once", "most"} {
		_, f := review(t, s.URL, payment)
		f.Del(missing)
		if status, _, _ := post(t, s.URL+"/wallet/pay", f); status < 400 {
			t.Errorf("a payment without %q, so without a review: got %d", missing, status)
		}
	}
	if status, body, _ := post(t, s.URL+"/wallet/tx/"+moves[0].TxID+"/raise", nil); status != http.StatusOK || !strings.Contains(body, "The fee is raised") {
		t.Errorf("raise: got %d\n%s", status, body)
	}
}

// TestSendKeepsInput: a payment that cannot be is shown with what was typed.
func TestSendKeepsInput(t *testing.T) {
	_, s := newWeb(t)
	for _, c := range []struct {
		name, field, value string
		status             int
		want               string
	}{
		{"nobody", "address", "", 422, "Say whom to pay."},
		{"another network", "address", "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu", 422, "is an address of Bitcoin; this wallet pays on pkt-devnet only"},
		{"no amount", "amount", "", 422, "Say how much."},
		{"no number", "amount", "much", 422, "is no amount"},
		{"too much", "amount", "5000", 402, "Not enough money"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := url.Values{"address": {"dpk1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"}, "amount": {"0.5"}, "speed": {"urgent"}, "label": {`a "b" <c>`}}
			v.Set(c.field, c.value)
			status, body, _ := post(t, s.URL+"/wallet/send", v)
			if status != c.status {
				t.Errorf("got %d, want %d", status, c.status)
			}
			wants(t, body, c.want, `value="a &#34;b&#34; &lt;c&gt;"`, `value="urgent" checked`, `value="`+c.value+`"`)
		})
	}
}

// TestReceive: a fresh address as text and as a code, which is an image of the
// node itself.
func TestReceive(t *testing.T) {
	_, s := newWeb(t)
	_, body, _ := post(t, s.URL+"/wallet/address", url.Values{"label": {"from Eve"}})
	src := regexp.MustCompile(`/wallet/qr\?address=[a-z0-9]+`).FindString(body)
	status, svg, header := get(t, s.URL+src)
	if status != 200 || header.Get("Content-Type") != "image/svg+xml" || xml.Unmarshal([]byte(svg), new(struct{})) != nil || strings.Count(svg, "M") < 200 {
		t.Errorf("the QR code at %q: %d %s\n%s", src, status, header.Get("Content-Type"), svg)
	}
	if status, _, _ := get(t, s.URL+"/wallet/qr?address="+strings.Repeat("a", 200)); status != 422 {
		t.Errorf("a code of 200 letters: got %d, want 422", status)
	}
}

func TestExport(t *testing.T) {
	_, s := newWeb(t)
	_, text, header := get(t, s.URL+"/wallet/history.csv")
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 3 || rows[2][2] != "12375683001" || rows[2][10] != `'=1+1 & <b>"x"</b>` {
		t.Errorf("got %q, %v", rows, err)
	}
	if d := header.Get("Content-Disposition"); d != `attachment; filename="pktcloud-history.csv"` {
		t.Errorf("got %q", d)
	}
	_, text, _ = get(t, s.URL+"/wallet/history.json")
	var moves []map[string]any
	if err := json.Unmarshal([]byte(text), &moves); err != nil || moves[1]["received"] != "12375683001" {
		t.Errorf("got %v, %v; want amounts as strings", moves, err)
	}
}

func TestCoinsAndLock(t *testing.T) {
	twin, s := newWeb(t)
	coins, err := twin.WalletCoins(t.Context(), service.CoinQuery{})
	if err != nil {
		t.Fatal(err)
	}
	v := url.Values{"coin": {coins[0].Coin}, "frozen": {"true"}}
	_, body, _ := post(t, s.URL+"/wallet/coins/freeze", v)
	wants(t, body, "frozen", "Unfreeze")
	v.Set("coin", "nonsense")
	status, body, _ := post(t, s.URL+"/wallet/coins/freeze", v)
	if status != service.CodeConflict.Status() {
		t.Errorf("an unknown coin: got %d", status)
	}
	wants(t, body, "the wallet has none such")

	_, body, _ = post(t, s.URL+"/wallet/lock", nil)
	wants(t, body, ">locked<", "Password of the keystore")
	_, form := review(t, s.URL, url.Values{"address": {"dpk1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"}, "amount": {"1"}})
	if status, body, _ := post(t, s.URL+"/wallet/pay", form); status != service.CodeLocked.Status() || !strings.Contains(body, "The wallet is locked") {
		t.Errorf("pay while locked: got %d\n%s", status, body)
	}
	status, body, _ = post(t, s.URL+"/wallet/unlock", url.Values{"password": {"wrong"}})
	if status != service.CodeForbidden.Status() || strings.Contains(body, "wrong\"") {
		t.Errorf("a wrong password: got %d", status)
	}
	wants(t, body, "The password is wrong.")
	_, body, _ = post(t, s.URL+"/wallet/unlock", url.Values{"password": {servicetest.Password}})
	if strings.Contains(body, ">locked<") {
		t.Error("the right password leaves the wallet locked")
	}
}

// TestRollChannel: what is added to a channel, its fee and what stays are shown
// before; nothing is added at a higher fee, and nothing before it is confirmed.
func TestRollChannel(t *testing.T) {
	twin, s := newWeb(t)
	all, err := twin.Channels(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	page := s.URL + "/channels/" + all[0].Label
	_, body, _ := get(t, page)
	wants(t, body, "Add money or time")
	if _, body, _ := get(t, s.URL+"/channels/"+all[1].Label); strings.Contains(body, "Add money or time") {
		t.Error("a channel that came back with the phrase can be added to")
	}
	_, body, _ = get(t, page+"/roll")
	wants(t, body, "0.027939677", "ends at block 6000", "Review")
	for field, form := range map[string]url.Values{"add": {}, "The money": {"add": {"much"}}, "The time in hours": {"hours": {"-1"}}} {
		if status, body, _ := post(t, page+"/roll", form); status != http.StatusUnprocessableEntity || !strings.Contains(body, field) {
			t.Errorf("%v: got %d", form, status)
		}
	}
	if status, body, _ := post(t, page+"/roll", url.Values{"add": {"100"}}); status != service.CodeInvalid.Status() || !strings.Contains(body, "add at most 1 PKT") {
		t.Errorf("too much: got %d", status)
	}
	add := url.Values{"add": {"0.5"}, "hours": {"2"}}
	_, body, _ = post(t, page+"/roll", add)
	wants(t, body, `id="amount"`, "0.5", `id="fee"`, "0.000003725", `id="left"`, `id="together"`, "at block 6160, now 6000", `name="most" value="4000"`)
	if m := inline.FindString(body); m != "" {
		t.Errorf("inline script or style: %s", m)
	}
	if len(twin.Rolled()) != 0 {
		t.Error("the review added already")
	}
	add.Set("most", "3999")
	if status, body, _ := post(t, page+"/roll/confirm", add); status != service.CodeMoney.Status() || !strings.Contains(body, "above the limit") {
		t.Errorf("a fee above what was shown: got %d", status)
	}
	add.Set("most", "4000")
	_, _, path := post(t, page+"/roll/confirm", add)
	if got := twin.Rolled(); len(got) != 1 || got[0].Add != pktcloud.UnitsPerPKT/2 || got[0].ExtendSeconds != 7200 || got[0].MaxFee != 4_000 || path != "/channels/"+all[0].Label {
		t.Errorf("got %+v at %s", got, path)
	}
	if status, _, _ := get(t, s.URL+"/channels/none/roll"); status != http.StatusNotFound {
		t.Errorf("no such channel: got %d", status)
	}
}

// TestChannel: a channel's life stands there in words.
func TestChannel(t *testing.T) {
	twin, s := newWeb(t)
	all, err := twin.Channels(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	status, body, _ := get(t, s.URL+"/channels/"+all[0].Label)
	if status != http.StatusOK {
		t.Fatalf("got %d", status)
	}
	for _, step := range all[0].Steps {
		wants(t, body, `<li class="`+step.State+`"`, step.Name)
	}
	if strings.Contains(body, "Close this channel") {
		t.Error("a channel that a lease pays by can be closed by hand")
	}
	_, body, _ = get(t, s.URL+"/channels/"+all[1].Label)
	wants(t, body, "Close this channel")
	_, closed, path := post(t, s.URL+"/channels/"+all[1].Label+"/close", nil)
	wants(t, closed, ">closing<")
	if path != "/channels/"+all[1].Label || strings.Contains(closed, "Close this channel") {
		t.Errorf("after closing: %s", path)
	}
	if status, _, _ := post(t, s.URL+"/channels/"+all[0].Label+"/close", nil); status != service.CodeInvalid.Status() {
		t.Errorf("closing one in use: got %d", status)
	}
	_, body, _ = get(t, s.URL+"/channels/"+all[0].Label)
	wants(t, body, "In use: payments pass", `aria-current="step"`, "is the reserve", "From block 6000 on the payer may take back", "never more than")
	if m := inline.FindString(body); m != "" {
		t.Errorf("inline script or style: %s", m)
	}
}
