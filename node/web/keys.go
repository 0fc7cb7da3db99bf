package web

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// sweepPatience is how long a reviewed sweep may wait to be confirmed.
const sweepPatience = 10 * time.Minute

// reviewedSweep is the private key of a sweep that was reviewed: it waits here,
// so that no page carries it.
type reviewedSweep struct {
	once  string // what the confirmation must name
	until time.Time
	ask   service.SweepRequest
}

type keysPage struct {
	page
	Accounts []service.WalletAccount
	Done     string
	Sweep    *service.Sweep // the plan of the key that was reviewed
	Once     string
	Name     string // of an account that could not be made
}

func (w *Web) keys(rw http.ResponseWriter, r *http.Request) {
	w.showKeys(rw, r, keysPage{Done: r.URL.Query().Get("done")}, nil)
}

func (w *Web) showKeys(rw http.ResponseWriter, r *http.Request, p keysPage, problem error) {
	accounts, err := w.svc.WalletAccounts(r.Context())
	err, status := firstError(problem, err), http.StatusOK
	if err != nil {
		status = service.CodeOf(err).Status()
	}
	p.page, p.Accounts = w.page(r, "Keys", err), accounts
	w.show(rw, status, "keys", p)
}

func (w *Web) addAccount(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	name := strings.TrimSpace(r.PostForm.Get("name"))
	if _, err := w.svc.WalletAddAccount(r.Context(), service.AccountRequest{Name: name}); err != nil {
		w.showKeys(rw, r, keysPage{Name: name}, err)
		return
	}
	http.Redirect(rw, r, "/wallet/keys?done=account", http.StatusSeeOther)
}

// reviewSweep shows what a private key would give. Nothing moves by it.
func (w *Web) reviewSweep(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	ask := service.SweepRequest{Key: strings.TrimSpace(r.PostForm.Get("key")), Plan: true}
	plan, err := w.svc.WalletSweep(r.Context(), ask)
	if err != nil {
		w.showKeys(rw, r, keysPage{}, err)
		return
	}
	var once [16]byte
	rand.Read(once[:])
	held := reviewedSweep{once: hex.EncodeToString(once[:]), until: time.Now().Add(sweepPatience), ask: ask}
	held.ask.Plan, held.ask.MaxFee = false, plan.Fee
	w.mu.Lock()
	w.sweep = held
	w.mu.Unlock()
	w.showKeys(rw, r, keysPage{Sweep: &plan, Once: held.once}, nil)
}

// sweepKey makes the sweep that was reviewed, at the fee that was shown, once.
func (w *Web) sweepKey(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	w.mu.Lock()
	held := w.sweep
	w.sweep = reviewedSweep{}
	w.mu.Unlock()
	if held.once == "" || r.PostForm.Get("once") != held.once || time.Now().After(held.until) {
		w.showKeys(rw, r, keysPage{}, service.Errorf(service.CodeConflict, "this sweep was made already, or its review is too old; look at the history, or give the key again"))
		return
	}
	swept, err := w.svc.WalletSweep(r.Context(), held.ask)
	if err != nil {
		w.showKeys(rw, r, keysPage{}, err)
		return
	}
	done := "sent"
	if swept.Stored {
		done = "stored"
	}
	http.Redirect(rw, r, "/wallet/tx/"+swept.TxID+"?done="+done, http.StatusSeeOther)
}

func (w *Web) password(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	change := service.PasswordRequest{Old: r.PostForm.Get("old"), New: r.PostForm.Get("new")}
	var err error
	if change.New != r.PostForm.Get("again") {
		err = service.Errorf(service.CodeInvalid, "the new password and its repetition differ; nothing was changed")
	} else {
		_, err = w.svc.WalletPassword(r.Context(), change)
	}
	if err != nil {
		w.showKeys(rw, r, keysPage{}, err)
		return
	}
	http.Redirect(rw, r, "/wallet/keys?done=password", http.StatusSeeOther)
}

// accountOf reads the account that a form or address names; the first without
// one.
func accountOf(v url.Values) (uint32, error) {
	text := v.Get("account")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, service.Errorf(service.CodeInvalid, "there is no account %q", text[:min(len(text), 40)])
	}
	return uint32(n), nil
}

// choice is an account in a form.
type choice struct {
	Number    uint32
	Name      string
	Spendable pktcloud.Amount
	Chosen    bool
}

// choices are the accounts of a form: none where there is but one.
func choices(accounts []service.WalletAccount, chosen string) []choice {
	if len(accounts) < 2 {
		return nil
	}
	var list []choice
	for _, a := range accounts {
		list = append(list, choice{a.Number, accountName(a), a.Spendable, strconv.FormatUint(uint64(a.Number), 10) == chosen})
	}
	return list
}

func accountName(a service.WalletAccount) string {
	if a.Name != "" {
		return a.Name
	}
	return "Account " + strconv.FormatUint(uint64(a.Number), 10)
}
