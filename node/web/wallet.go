package web

import (
	"net/http"

	"github.com/skip2/go-qrcode"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

const (
	maxAddress = 128
	qrPixels   = 5 // of a module
)

type walletPage struct {
	page
	Balance service.Balance
	Total   pktcloud.Amount // all that is not set aside
	Address string
	History []service.Movement
}

func (w *Web) wallet(rw http.ResponseWriter, r *http.Request) {
	balance, err1 := w.svc.WalletBalance(r.Context())
	history, err2 := w.svc.WalletHistory(r.Context())
	err, status := firstError(err1, err2), http.StatusOK
	if err != nil {
		status = service.CodeOf(err).Status()
	}
	w.mu.Lock()
	address := w.address
	w.mu.Unlock()
	w.show(rw, status, "wallet", walletPage{page: w.page(r, "Wallet", err), Balance: balance, Total: balance.Spendable + balance.Unconfirmed, Address: address, History: history})
}

func (w *Web) newAddress(rw http.ResponseWriter, r *http.Request) {
	a, err := w.svc.WalletAddress(r.Context())
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	w.mu.Lock()
	w.address = a.Address
	w.mu.Unlock()
	http.Redirect(rw, r, "/wallet", http.StatusSeeOther)
}

func (w *Web) qr(rw http.ResponseWriter, r *http.Request) {
	address := r.URL.Query().Get("address")
	if address == "" || len(address) > maxAddress {
		w.fail(rw, r, service.Errorf(service.CodeInvalid, "an address has 1 to %d characters", maxAddress))
		return
	}
	var png []byte
	code, err := qrcode.New(address, qrcode.Medium)
	if err == nil {
		png, err = code.PNG(-qrPixels)
	}
	if err != nil {
		w.fail(rw, r, service.Errorf(service.CodeInternal, "the QR code could not be made"))
		return
	}
	rw.Header().Set("Content-Type", "image/png")
	rw.Write(png) //nolint:errcheck // the browser has left
}
