package web

import (
	"errors"
	"net/http"
	"net/url"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// rollPage adds money or time to a channel: the form, and with Plan its review.
type rollPage struct {
	page
	Channel    service.ChannelView
	Form       form
	Field      string // the one that cannot be read
	FieldError string
	Plan       *service.Roll
	Balance    service.Balance
}

var rollFields = []string{"add", "hours", "most"}

// Together is what leaves the wallet.
func (p rollPage) Together() pktcloud.Amount { return p.Plan.Added + p.Plan.Fee }

// Input returns a field with what was typed and what is wrong with it.
func (p rollPage) Input(name, label, unit, hint string) input {
	i := input{Name: name, Label: label, Mode: "decimal", Unit: unit, Hint: hint, Value: p.Form[name]}
	if p.Field == name {
		i.Error = p.FieldError
	}
	return i
}

func (f form) roll() (service.RollRequest, error) {
	var r service.RollRequest
	add, err := f.money("add", "The money")
	if err != nil {
		return r, err
	}
	r.Add = pktcloud.Amount(add)
	if r.ExtendSeconds, err = f.quantity("hours", "The time in hours", 3600, 24*366); err != nil {
		return r, err
	}
	if r.Add == 0 && r.ExtendSeconds == 0 {
		return r, &fieldError{"add", "Say what to add: money, time or both."}
	}
	return r, nil
}

func (w *Web) rollForm(rw http.ResponseWriter, r *http.Request) {
	w.showRoll(rw, r, rollPage{Form: typed(r.URL.Query(), rollFields...)}, nil)
}

func (w *Web) showRoll(rw http.ResponseWriter, r *http.Request, p rollPage, err error) {
	c, missing := w.svc.Channel(r.Context(), r.PathValue("channel"))
	if missing != nil {
		w.fail(rw, r, missing)
		return
	}
	status := http.StatusOK
	if err != nil {
		status = service.CodeOf(err).Status()
	}
	if bad := new(fieldError); errors.As(err, &bad) {
		p.Field, p.FieldError, status = bad.field, bad.text, http.StatusUnprocessableEntity
		err = nil // said beside the field
	}
	balance, err2 := w.svc.WalletBalance(r.Context())
	p.Channel, p.Balance, p.page = c, balance, w.page(r, "Add money or time", firstError(err, err2))
	w.show(rw, status, "roll", p)
}

// reviewRoll shows what it would cost. Nothing is changed by it.
func (w *Web) reviewRoll(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	p := rollPage{Form: typed(r.PostForm, rollFields...)}
	request, err := p.Form.roll()
	request.Plan = true
	if err == nil {
		var plan service.Roll
		if plan, err = w.svc.RollChannel(r.Context(), r.PathValue("channel"), request); err == nil {
			p.Plan = &plan
		}
	}
	w.showRoll(rw, r, p, err)
}

// rollChannel does what was reviewed, at the fee that was shown. A channel rolls
// once, however often the button is pressed.
func (w *Web) rollChannel(rw http.ResponseWriter, r *http.Request) {
	if !w.posted(rw, r) {
		return
	}
	p := rollPage{Form: typed(r.PostForm, rollFields...)}
	request, err := p.Form.roll()
	if err == nil {
		err = request.MaxFee.UnmarshalText([]byte(p.Form["most"]))
	}
	if err == nil {
		_, err = w.svc.RollChannel(r.Context(), r.PathValue("channel"), request)
	}
	if err != nil {
		w.showRoll(rw, r, p, err)
		return
	}
	http.Redirect(rw, r, "/channels/"+url.PathEscape(r.PathValue("channel")), http.StatusSeeOther)
}
