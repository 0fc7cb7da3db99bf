//go:build system

package systemtest

import (
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/service/servicetest"
	"github.com/pkt-cash/pkt-cloud/node/web"
)

// receive shows an address with a label, and sees the payment to it arrive on a
// page that is not loaded again.
func (s *browserStory) receive() {
	t := s.tab
	t.click(`nav a[href="/wallet"]`)
	t.fill("#label", "from the faucet")
	t.submit(`form[action="/wallet/address"] button`)
	t.wait("the code is drawn", `(i => i && i.complete && i.naturalWidth > 100)(document.querySelector("img.qr"))`)
	address := t.text("#address")
	if src := eval[string](t, `document.querySelector("img.qr").getAttribute("src")`); address == "" || !strings.HasSuffix(src, "="+address) {
		s.t.Errorf("the code is of %q, the address says %q", src, address)
	}
	t.mark()
	before := t.units("#balance data")
	s.run("devnet", "faucet", "--dir", s.dir, "--chain-dir", s.chainDir(), address, "1")
	t.wait("the payment is in the history", `[...document.querySelectorAll("#history-table tr")].some(r => r.dataset.kind === "received" && r.innerText.includes("+1 PKT") && r.innerText.includes("confirmation"))`)
	t.wait("the balance grew", fmt.Sprintf(`Number(document.querySelector("#balance data").value) === %d`, before+pktcloud.UnitsPerPKT))
	t.shows("#history-table", "from the faucet")
	t.marked("receiving")
	t.look("wallet-received")
}

// send pays the provider: nothing before the review is confirmed, then what it
// said, to the unit; a typing error loses nothing.
func (s *browserStory) send() {
	t := s.tab
	to, err := s.provider.client().WalletAddress(s.t.Context(), service.AddressRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	t.click(`nav a[href="/wallet"]`)
	before := s.balance()
	t.click(`a[href="/wallet/send"]`)
	t.shows("h1", "Send")
	t.fill("#address", "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu")
	t.fill("#amount", "0.25")
	t.fill("#label", "thanks")
	t.look("send")
	t.submit(`form[action="/wallet/send"] button`)
	t.shows("[role=alert]", "an address of Bitcoin")
	t.look("send-refused")
	if got := t.value("#amount") + " " + t.value("#label"); got != "0.25 thanks" {
		s.t.Errorf("after the refusal the form has %q, want what was typed", got)
	}
	t.fill("#address", to.Address)
	t.submit(`form[action="/wallet/send"] button`)
	t.shows("h1", "Review")
	t.shows("#to", to.Address)
	t.look("send-review")
	amount, fee, left := t.units("#amount data"), t.units("#fee data"), t.units("#left data")
	if now := s.balance(); amount != pktcloud.UnitsPerPKT/4 || fee == 0 || left != before-amount-fee || now != before {
		s.t.Errorf("the review says %d, fee %d, %d left of %d; the wallet has %d", amount, fee, left, before, now)
	}
	t.submit(`form[action="/wallet/pay"] button`)
	t.shows("#done", "Sent")
	if got := t.value("#label"); got != "thanks" {
		s.t.Errorf("the payment has the label %q, want \"thanks\"", got)
	}
	t.look("send-done")
	if now := s.balance(); now != left {
		s.t.Errorf("after the payment the wallet has %d units, the review said %d", now, left)
	}
	eventually(s.t, "the provider has the payment", func() (bool, error) {
		moves, err := s.provider.client().WalletHistory(s.t.Context(), service.HistoryQuery{})
		for _, m := range moves {
			if uint64(m.Received) == amount && m.Depth > 0 && len(m.Addresses) == 1 && m.Addresses[0] == to.Address {
				return true, nil
			}
		}
		return false, err
	})
}

// balance is what the tenant has, besides what channels hold.
func (s *browserStory) balance() uint64 {
	b, err := s.tenant.client().WalletBalance(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return uint64(b.Spendable + b.Unconfirmed)
}

// history shows every transaction, names one, and exports what adds up to the
// balance.
func (s *browserStory) history() {
	t := s.tab
	t.click(`nav a[href="/wallet"]`)
	t.wait("the payment is in the history", `[...document.querySelectorAll("#history-table tr")].some(r => r.dataset.kind === "sent" && r.innerText.includes("thanks"))`)
	for _, kind := range []string{"received", "sent", "channel-opened", "channel-ended"} {
		if !t.has(fmt.Sprintf(`#history-table tr[data-kind=%q]`, kind)) {
			s.t.Errorf("the history shows nothing %s", kind)
		}
	}
	t.look("wallet-history")
	t.click(`#history-table tr[data-kind="channel-opened"] a[href^="/wallet/tx/"]`)
	t.shows("h1", "Transaction")
	t.fill("#label", "my first lease")
	t.submit(`form[action$="/label"] button`)
	t.wait("the label is kept", `document.querySelector("#label")?.value === "my first lease"`)
	t.look("transaction")
	t.click(`nav a[href="/wallet"]`)
	t.wait("the history has the label", `document.querySelector("#history-table").innerText.includes("my first lease")`)
	address := eval[string](t, `document.querySelector('a[href$=".csv"][download]').href`)
	rows, err := csv.NewReader(strings.NewReader(s.fetch(address))).ReadAll()
	if err != nil || len(rows) < 5 {
		s.t.Fatalf("the export has %d lines (%v)", len(rows), err)
	}
	var sum uint64
	for _, row := range rows[1:] {
		var units [3]uint64
		for i := range units {
			if _, err := fmt.Sscan(row[2+i], &units[i]); err != nil {
				s.t.Fatal(err)
			}
		}
		sum += units[0] - units[1] - units[2]
	}
	if now := s.balance(); sum != now {
		s.t.Errorf("the exported history adds up to %d units, the wallet has %d", sum, now)
	}
}

// fetch reads a page with the session's cookie.
func (s *browserStory) fetch(address string) string {
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, address, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.AddCookie(s.cookie)
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: got status %d, %v", address, answer.StatusCode, err)
	}
	return string(b)
}

// channelInUse tells of the running lease's channel.
func (s *browserStory) channelInUse() {
	t := s.tab
	t.click(`nav a[href="/channels"]`)
	t.shows("#channels", s.lease.Label)
	t.look("channels")
	t.click("#channels td.lead a")
	t.wait("the channel is open", `document.querySelector("#now")?.innerText.startsWith("In use")`)
	t.mark()
	paid := t.units("#paid data")
	t.wait("the paid sum moves", fmt.Sprintf(`Number(document.querySelector("#paid data").value) > %d`, paid))
	t.marked("the channel's page")
	for _, want := range []string{"You set aside", "is the reserve", "At risk now", "may take back whatever was not claimed"} {
		t.shows("main", want)
	}
	t.shows(`li[aria-current="step"]`, "In use")
	t.look("channel")
	t.click(`nav a[href="/leases"]`)
}

// channelRolls gives the running lease's channel money and time: nothing before
// the review is confirmed, then what it said. The lease is paid over the successor.
func (s *browserStory) channelRolls() {
	t := s.tab
	t.click(`nav a[href="/channels"]`)
	t.click("#channels td.lead a")
	t.click(`a[href$="/roll"]`)
	t.shows("h1", "Add money or time")
	t.fill("#add", "1000")
	t.submit(`form[action$="/roll"] button`)
	t.shows("[role=alert]", "send more to an address")
	t.look("roll-refused")
	t.fill("#add", "0.01")
	t.fill("#hours", "2")
	t.look("roll")
	t.submit(`form[action$="/roll"] button`)
	t.shows("h2", "You are about to add")
	t.shows("#amount", "0.01 PKT")
	t.look("roll-review")
	t.submit(`form[action$="/roll/confirm"] button`)
	t.wait("the page names the successor", `[...document.querySelectorAll("dt")].some(d => d.innerText === "Goes on as")`)
	t.look("channel-rolls")
	t.wait("the channel has rolled", `document.querySelector("h1 + .badge")?.innerText === "rolled"`)
	t.click(`nav a[href="/channels"]`)
	t.click("#channels td.lead a")
	t.wait("the successor is open", `document.querySelector("#now")?.innerText.startsWith("In use")`)
	paid := t.units("#paid data")
	t.wait("the lease is paid over it", fmt.Sprintf(`Number(document.querySelector("#paid data").value) > %d`, paid))
	t.shows("main", "Went on from")
	t.look("channel-successor")
	t.click(`nav a[href="/leases"]`)
}

// channelClosed tells what became of it.
func (s *browserStory) channelClosed() {
	t := s.tab
	t.click(`nav a[href="/channels"]`)
	t.click("#channels td.lead a")
	t.wait("the channel is closed", `document.querySelector("#now")?.innerText.startsWith("Closed")`)
	t.shows("#now", "came back to the wallet")
	t.wait("all 4 parts of the channel's life are done", `document.querySelectorAll("ol.life li.done").length === 4`)
	t.look("channel-closed")
}

// TestWalletStates looks at the pages of the wallet and the channels in states
// that the story does not come through.
func TestWalletStates(t *testing.T) {
	twin := servicetest.New()
	pages, err := web.New(twin, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(pages)
	defer server.Close()
	c := startChromium(t)
	b := c.open("wallet", server.URL)
	b.open(server.URL + "/wallet")
	b.shows("main", "Set aside in a channel")
	b.look("wallet-twin")
	b.open(server.URL + "/wallet/coins")
	b.click("td input[type=checkbox]")
	b.submit("#choose button")
	b.shows("main", "coin that you chose")
	b.open(server.URL + "/wallet/coins")
	b.submit(`form[action="/wallet/coins/freeze"] button`)
	b.shows("tbody", "frozen")
	b.look("coins")
	b.open(server.URL + "/wallet")
	b.submit(`form[action="/wallet/lock"] button`)
	b.shows("main", "Password of the keystore")
	b.look("wallet-locked")
	b.fill("#password", servicetest.Password)
	b.submit(`form[action="/wallet/unlock"] button`)
	b.wait("the wallet is unlocked", `document.querySelector("form[action='/wallet/lock']") !== null`)
	b.open(server.URL + "/wallet/keys")
	b.fill("#name", "Savings")
	b.submit(`form[action="/wallet/accounts"] button`)
	b.shows("#accounts", "Savings")
	b.fill("#key", "any key")
	b.submit(`form[action="/wallet/sweep"] button`)
	b.shows("#sweep-amount", "0.004656613 PKT")
	b.look("keys")
	b.submit(`form[action="/wallet/sweep/confirm"] button`)
	b.shows("#done", "Sent")
	b.open(server.URL + "/wallet/send")
	b.shows("#account", "Savings")
	b.look("send-from-an-account")
	b.open(server.URL + "/channels")
	b.submit(`form[action="/channels/deposit"] button`)
	b.shows("#towers-table", "up to date")
	b.look("channels-twin")
	b.click("#channels td.lead a")
	b.shows("#now", "In use")
	b.look("channel-twin")
	b.open(server.URL + "/channels")
	b.click("#channels tr:last-child td.lead a")
	b.shows("main", "It came back with the phrase")
	b.look("channel-restored")
	b.submit(`form[action$="/close"] button`)
	b.shows("h1 + .badge", "closing")
	c.quiet()
}
