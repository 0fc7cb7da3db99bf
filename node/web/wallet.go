package web

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/skip2/go-qrcode"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

const (
	maxAddress = 128
	// shownMovements is how much of the history the page shows; an export has
	// all of it.
	shownMovements = 50
	// shownCoins is how many coins the page shows, the largest.
	shownCoins = 200
)

type walletPage struct {
	page
	Balance service.Balance
	Total   pktcloud.Amount // all that is neither set aside nor frozen
	Address string
	Choices []choice
	History []service.Movement
	More    bool // the history goes on
}

func (w *Web) wallet(rw http.ResponseWriter, r *http.Request) { w.showWallet(rw, r, nil) }

func (w *Web) showWallet(rw http.ResponseWriter, r *http.Request, problem error) {
	balance, err1 := w.svc.WalletBalance(r.Context())
	history, err2 := w.svc.WalletHistory(r.Context(), service.HistoryQuery{Limit: shownMovements + 1})
	accounts, err3 := w.svc.WalletAccounts(r.Context())
	err, status := firstError(problem, err1, err2, err3), http.StatusOK
	if err != nil {
		status = service.CodeOf(err).Status()
	}
	w.mu.Lock()
	address := w.address
	w.mu.Unlock()
	w.show(rw, status, "wallet", walletPage{
		page: w.page(r, "Wallet", err), Balance: balance, Total: balance.Spendable + balance.Unconfirmed, Address: address, Choices: choices(accounts, ""),
		History: history[:min(len(history), shownMovements)], More: len(history) > shownMovements,
	})
}

// posted reads a form. It reports false when it answered already.
func (w *Web) posted(rw http.ResponseWriter, r *http.Request) bool {
	if err := r.ParseForm(); err != nil {
		w.fail(rw, r, service.Errorf(service.CodeInvalid, "the form cannot be read"))
		return false
	}
	return true
}

func (w *Web) newAddress(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	account, err := accountOf(r.PostForm)
	var a service.Address
	if err == nil {
		a, err = w.svc.WalletAddress(r.Context(), service.AddressRequest{Account: account, Label: strings.TrimSpace(r.PostForm.Get("label"))})
	}
	if err != nil {
		w.showWallet(rw, r, err)
		return
	}
	w.mu.Lock()
	w.address = a.Address
	w.mu.Unlock()
	http.Redirect(rw, r, "/wallet", http.StatusSeeOther)
}

// qr draws an address, dark on light whatever the page's colours are: not every
// scanner reads the opposite.
func (w *Web) qr(rw http.ResponseWriter, r *http.Request) {
	address := r.URL.Query().Get("address")
	if address == "" || len(address) > maxAddress {
		w.fail(rw, r, service.Errorf(service.CodeInvalid, "an address has 1 to %d characters", maxAddress))
		return
	}
	code, err := qrcode.New(address, qrcode.Medium)
	if err != nil {
		w.fail(rw, r, service.Errorf(service.CodeInternal, "the QR code could not be made"))
		return
	}
	dots := code.Bitmap() // with the quiet zone around it
	var path strings.Builder
	for y, row := range dots {
		for x, dark := range row {
			if dark {
				fmt.Fprintf(&path, "M%d %dh1v1h-1z", x, y)
			}
		}
	}
	rw.Header().Set("Content-Type", "image/svg+xml")
	fmt.Fprintf(rw, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[1]d" viewBox="0 0 %[2]d %[2]d" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h%[2]dv%[2]dH0z"/><path d="%[3]s"/></svg>`,
		5*len(dots), len(dots), path.String())
}

// export sends the whole history as a file.
func (w *Web) export(rw http.ResponseWriter, r *http.Request) {
	moves, err := w.svc.WalletHistory(r.Context(), service.HistoryQuery{})
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	format := strings.TrimPrefix(r.URL.Path, "/wallet/history.")
	rw.Header().Set("Content-Disposition", `attachment; filename="pktcloud-history.`+format+`"`)
	if format == "json" {
		rw.Header().Set("Content-Type", "application/json")
		err = service.WriteHistoryJSON(rw, moves)
	} else {
		rw.Header().Set("Content-Type", "text/csv; charset=utf-8")
		err = service.WriteHistory(rw, moves)
	}
	if err != nil {
		w.log.Debug("export the history", "error", err)
	}
}

// speeds are the fees that the form offers, by the name of the choice, in base
// units per 1000 virtual bytes; the chain's own rate counts when it is higher.
var speeds = map[string]pktcloud.Amount{"normal": 0, "quick": 5_000, "urgent": 25_000}

var sendFields = []string{"address", "amount", "speed", "label", "account", "all", "once", "most"}

type sendPage struct {
	page
	Form       form
	Coins      []string // that were chosen; none: the wallet chooses
	Choices    []choice // of the account that pays
	Field      string   // the one that cannot be read
	FieldError string
	Plan       *service.Plan // of the review
	Total      pktcloud.Amount
	Balance    service.Balance
}

// Input returns a field with what was typed and what is wrong with it.
func (p sendPage) Input(name, label, mode, unit, hint string) input {
	i := input{Name: name, Label: label, Mode: mode, Unit: unit, Hint: hint, Value: p.Form[name], Required: name == "address"}
	if p.Field == name {
		i.Error = p.FieldError
	}
	return i
}

// Query is the way back to the form with everything in it.
func (p sendPage) Query() string {
	q := url.Values{"coin": p.Coins}
	for _, name := range []string{"address", "amount", "speed", "label", "account", "all"} {
		q.Set(name, p.Form[name])
	}
	return q.Encode()
}

func (p sendPage) request() (service.PaymentRequest, error) {
	r := service.PaymentRequest{
		Address: p.Form["address"], All: p.Form["all"] != "", Label: p.Form["label"], Coins: p.Coins, FeeRate: speeds[p.Form["speed"]], Once: p.Form["once"],
	}
	var err error
	if r.Account, err = accountOf(url.Values{"account": {p.Form["account"]}}); err != nil {
		return r, err
	}
	switch {
	case r.Address == "":
		return r, &fieldError{"address", "Say whom to pay."}
	case r.All:
		return r, nil
	}
	amount, err := p.Form.money("amount", "The amount")
	if err == nil && amount == 0 {
		err = &fieldError{"amount", "Say how much."}
	}
	r.Amount = pktcloud.Amount(amount)
	return r, err
}

func (w *Web) sendForm(rw http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	w.showSend(rw, r, sendPage{Form: typed(q, sendFields...), Coins: q["coin"]}, nil)
}

func (w *Web) showSend(rw http.ResponseWriter, r *http.Request, p sendPage, err error) {
	status := http.StatusOK
	if err != nil {
		status = service.CodeOf(err).Status()
	}
	if bad := new(fieldError); errors.As(err, &bad) {
		p.Field, p.FieldError, status = bad.field, bad.text, http.StatusUnprocessableEntity
		err = nil // said beside the field
	}
	if _, ok := speeds[p.Form["speed"]]; !ok {
		p.Form["speed"] = "normal"
	}
	balance, err2 := w.svc.WalletBalance(r.Context())
	accounts, err3 := w.svc.WalletAccounts(r.Context())
	p.Choices = choices(accounts, p.Form["account"])
	p.Balance, p.page = balance, w.page(r, "Send", firstError(err, err2, err3))
	w.show(rw, status, "send", p)
}

// review shows what a payment would be. Nothing is paid by it.
func (w *Web) review(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	p := sendPage{Form: typed(r.PostForm, sendFields...), Coins: r.PostForm["coin"]}
	request, err := p.request()
	var plan service.Plan
	if err == nil {
		plan, err = w.svc.WalletPlan(r.Context(), request)
	}
	if err != nil {
		w.showSend(rw, r, p, err)
		return
	}
	var once [16]byte
	rand.Read(once[:])
	p.Form["once"], p.Form["most"] = hex.EncodeToString(once[:]), fmt.Sprint(uint64(plan.Fee))
	p.Form["amount"] = strings.TrimSuffix(plan.Amount.String(), " PKT")
	p.Plan, p.Total = &plan, plan.Amount+plan.Fee
	p.page = w.page(r, "Review", nil)
	w.show(rw, http.StatusOK, "review", p)
}

// pay makes the payment that was reviewed: at the fee that was shown, and once
// however often the button is pressed.
func (w *Web) pay(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	p := sendPage{Form: typed(r.PostForm, sendFields...), Coins: r.PostForm["coin"]}
	request, err := p.request()
	if err == nil {
		err = request.MaxFee.UnmarshalText([]byte(p.Form["most"]))
	}
	if err == nil && request.Once == "" {
		err = service.Errorf(service.CodeInvalid, "the payment was not reviewed")
	}
	var paid service.Payment
	if err == nil {
		paid, err = w.svc.WalletSend(r.Context(), request)
	}
	if err != nil {
		w.showSend(rw, r, p, err)
		return
	}
	done := "sent"
	if paid.Stored {
		done = "stored"
	}
	http.Redirect(rw, r, "/wallet/tx/"+paid.TxID+"?done="+done, http.StatusSeeOther)
}

type txPage struct {
	page
	Done string
	Tx   service.Movement
}

func (w *Web) tx(rw http.ResponseWriter, r *http.Request) { w.showTx(rw, r, r.PathValue("tx"), nil) }

// showTx shows one transaction of the history.
func (w *Web) showTx(rw http.ResponseWriter, r *http.Request, txid string, problem error) {
	moves, err := w.svc.WalletHistory(r.Context(), service.HistoryQuery{TxID: txid})
	if err == nil && len(moves) == 0 {
		err = service.Errorf(service.CodeNotFound, "this wallet has no transaction %s", txid[:min(len(txid), 80)])
	}
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	status := http.StatusOK
	if problem != nil {
		status = service.CodeOf(problem).Status()
	}
	w.show(rw, status, "tx", txPage{page: w.page(r, "Transaction", problem), Tx: moves[0], Done: r.URL.Query().Get("done")})
}

func (w *Web) labelTx(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	txid := r.PathValue("tx")
	if _, err := w.svc.WalletLabel(r.Context(), service.LabelRequest{TxID: txid, Label: strings.TrimSpace(r.PostForm.Get("label"))}); err != nil {
		w.showTx(rw, r, txid, err)
		return
	}
	http.Redirect(rw, r, "/wallet/tx/"+url.PathEscape(txid), http.StatusSeeOther)
}

// raise replaces a payment by one with a higher fee, within what the page said.
func (w *Web) raise(rw http.ResponseWriter, r *http.Request) {
	txid := r.PathValue("tx")
	moves, err := w.svc.WalletHistory(r.Context(), service.HistoryQuery{TxID: txid})
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	var most pktcloud.Amount
	if len(moves) > 0 {
		most = raised(moves[0].Fee)
	}
	paid, err := w.svc.WalletReplace(r.Context(), service.ReplaceRequest{TxID: txid, MaxFee: most})
	if err != nil {
		w.showTx(rw, r, txid, err)
		return
	}
	http.Redirect(rw, r, "/wallet/tx/"+paid.TxID+"?done=raised", http.StatusSeeOther)
}

// raised is the most that a replacement may cost.
func raised(fee pktcloud.Amount) pktcloud.Amount { return 4*fee + 1000 }

type coinsPage struct {
	page
	Coins []service.Coin
	More  bool
}

func (w *Web) coins(rw http.ResponseWriter, r *http.Request) { w.showCoins(rw, r, nil) }

func (w *Web) showCoins(rw http.ResponseWriter, r *http.Request, problem error) {
	coins, err := w.svc.WalletCoins(r.Context(), service.CoinQuery{Limit: shownCoins + 1})
	err, status := firstError(problem, err), http.StatusOK
	if err != nil {
		status = service.CodeOf(err).Status()
	}
	shown := coins[:min(len(coins), shownCoins)]
	w.show(rw, status, "coins", coinsPage{page: w.page(r, "Coins", err), Coins: shown, More: len(coins) > len(shown)})
}

func (w *Web) freeze(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	f := service.FreezeRequest{Coin: r.PostForm.Get("coin"), Frozen: r.PostForm.Get("frozen") == "true"}
	if _, err := w.svc.WalletFreeze(r.Context(), f); err != nil {
		w.showCoins(rw, r, err)
		return
	}
	http.Redirect(rw, r, "/wallet/coins", http.StatusSeeOther)
}

func (w *Web) lock(rw http.ResponseWriter, r *http.Request) {
	if _, err := w.svc.WalletLock(r.Context()); err != nil {
		w.showWallet(rw, r, err)
		return
	}
	http.Redirect(rw, r, "/wallet", http.StatusSeeOther)
}

func (w *Web) unlock(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	if _, err := w.svc.WalletUnlock(r.Context(), service.UnlockRequest{Password: r.PostForm.Get("password")}); err != nil {
		w.showWallet(rw, r, err)
		return
	}
	http.Redirect(rw, r, "/wallet", http.StatusSeeOther)
}
