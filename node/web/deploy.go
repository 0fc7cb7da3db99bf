package web

import (
	"errors"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/compose"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

type deployPage struct {
	page
	Form         form
	password     string // of a registry; no template sees it
	Field        string // the one that cannot be read
	FieldError   string
	Offer        service.Offer
	Price        *price
	PriceProblem string
	// Of several services: what the file means, or what is wrong with it.
	Manifest *lease.Manifest
	Warnings []compose.Warning // where it means not quite what it means to Compose
	Fault    *fileFault
}

// read reads the file of several services.
func (p *deployPage) read() {
	if p.Form.several() {
		p.Manifest, p.Warnings, p.Fault = p.Form.manifest()
	}
}

// Services is what the file means.
func (p deployPage) Services() []serviceLine {
	if p.Manifest == nil {
		return nil
	}
	return serviceLines(p.Manifest)
}

// Whole is what all services use.
func (p deployPage) Whole() service.Resources { return service.Resources(p.Manifest.Resources()) }

// Other is the address of the form for one service, or for several.
func (p deployPage) Other(several string) string {
	q := url.Values{"offer": {p.Form["offer"]}}
	if several != "" {
		q.Set("several", several)
	}
	return "/deploy?" + q.Encode()
}

type price struct {
	Of              service.Resources
	Rate            pktcloud.Rate
	Interval, Total pktcloud.Amount
	Credit, Prepaid pktcloud.Amount // at most at risk
	Above           bool            // more than the form allows
	Beyond          []market.Lack   // more than the offer has free
}

// input is one field of the form, as the template shows it.
type input struct {
	Name, Label, Mode, Unit, Hint, Value, Error string
	Required                                    bool
}

// Input returns a field with what was typed and what is wrong with it.
func (p deployPage) Input(name, label, mode, unit, hint string) input {
	i := input{Name: name, Label: label, Mode: mode, Unit: unit, Hint: hint, Value: p.Form[name], Required: name != "max" && !slices.Contains(optionalFields, name)}
	if p.Field == name {
		i.Error = p.FieldError
	}
	return i
}

// MoreOpen says whether the fields that few people change are to be seen.
func (p deployPage) MoreOpen() bool {
	return slices.Contains([]string{"interval", "credit", "prepaid"}, p.Field) || p.Form["own"] != ""
}

var deployFields = append([]string{
	"offer", "several", "image", "port", "command", "cores", "memory", "disk", "max", "term", "interval", "credit", "prepaid", "own", "class", "shown", "outside",
}, networkFields...)

// request reads the form. Errors are *fieldError.
func (p deployPage) request() (service.LeaseRequest, error) {
	f := p.Form
	var r service.LeaseRequest
	id, err := pktcloud.ParseID(f["offer"])
	if err != nil {
		return r, &fieldError{"offer", "The link to the offer is damaged; choose it on the market again."}
	}
	if p.Fault != nil {
		return r, &fieldError{"file", "The price comes once the file can be read."}
	}
	rate, err2 := f.money("max", "Pay at most")
	term, err3 := f.quantity("term", "The time in hours", 3600, 24*366)
	interval, err4 := f.quantity("interval", "The interval in seconds", 1, 3600)
	credit, err5 := f.quantity("credit", "What the provider risks", 1, 86400)
	prepaid, err6 := f.quantity("prepaid", "What you risk", 1, 86400)
	r = service.LeaseRequest{
		Offer: id, Manifest: p.Manifest, MaxRate: rate, IntervalSeconds: interval, TermSeconds: term, OwnChannel: f["own"] != "",
		Limits: &service.ExposureRequest{CreditSeconds: credit, PrepaidSeconds: prepaid, UnconfirmedSeconds: 15 * 60},
	}
	if p.Manifest == nil {
		var port uint64
		var err0, err1 error
		r.Resources, err0 = f.resources()
		port, err1 = f.quantity("port", "The port", 1, 65535)
		if err1 == nil {
			err1 = p.network(&r)
		}
		if err1 == nil {
			r.Volumes, err1 = f.volumes()
		}
		if err1 == nil && len(r.Volumes) > 0 && !p.Offer.Body.Volumes {
			err1 = &fieldError{rowOf(1).Name, "This offer has no volumes; leave them out, or choose another offer."}
		}
		r.Image, r.Command, r.Port, r.Class = f["image"], strings.Fields(f["command"]), uint16(port), f["class"]
		err = firstError(err0, err1)
	}
	if err := firstError(err, err2, err3, err4, err5, err6); err != nil {
		return r, err
	}
	switch {
	case rate == 0 && p.Offer.Rate != 0 && f["max"] != "":
		return r, &fieldError{"max", "Say how much you will pay at most."}
	case term == 0:
		return r, &fieldError{"term", "Say for how long."}
	case interval == 0:
		return r, &fieldError{"interval", "Payments are at least a second apart."}
	}
	if rate == 0 { // the offer's own price: it cannot change, for the offer's id is that of its text
		r.MaxRate = max(p.Offer.Rate, 1)
	}
	return r, nil
}

// agreed refuses to agree to a price that nobody typed and that was not shown.
func (p *deployPage) agreed() error {
	if p.Form["max"] != "" || p.Form["shown"] == p.Shown() {
		return nil
	}
	p.Form["max"] = roundedUp(p.Offer.Rate)
	return &fieldError{"max", "Nothing is agreed yet: this is what it costs. Press Deploy again to agree to it."}
}

// Shown names the price that the page shows.
func (p deployPage) Shown() string { return strconv.FormatUint(uint64(p.Offer.Rate), 10) }

// offerOf is the offer that the form names, priced for what it asks for.
func (w *Web) offerOf(r *http.Request, p *deployPage) (service.Offer, error) {
	id, err := pktcloud.ParseID(p.Form["offer"])
	if err != nil {
		return service.Offer{}, service.Errorf(service.CodeNotFound, "choose an offer on the market first")
	}
	return w.svc.Offer(r.Context(), id, p.wanted())
}

// price computes what the form asks for, or says why it cannot.
func (p *deployPage) price() {
	r, err := p.request()
	if err != nil {
		p.PriceProblem = err.Error()
		return
	}
	interval, err1 := p.Offer.Rate.For(r.IntervalSeconds)
	total, err2 := p.Offer.Rate.For(r.TermSeconds)
	credit, err3 := p.Offer.Rate.For(r.Limits.CreditSeconds)
	prepaid, err4 := p.Offer.Rate.For(r.Limits.PrepaidSeconds)
	if firstError(err1, err2, err3, err4) != nil {
		p.PriceProblem = "This costs more than there is."
		return
	}
	p.Price = &price{Rate: p.Offer.Rate, Interval: interval, Total: total, Credit: credit, Prepaid: prepaid, Above: p.Offer.Rate > r.MaxRate}
	want := p.wanted()
	p.Price.Of = want
	p.Price.Beyond = market.Explain(slices.Values([]market.Offer{p.Offer.Body}), market.Query{For: market.Resources(want)}).List
}

func (w *Web) deployForm(rw http.ResponseWriter, r *http.Request) {
	p := deployPage{Form: typed(r.URL.Query(), deployFields...)}
	p.read()
	offer, err := w.offerOf(r, &p)
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	free := reference(offer.Body)
	interval := max(offer.Body.Limits.MinIntervalSeconds, lease.DefaultIntervalSeconds)
	credit := min(max(lease.DefaultCreditSeconds, 2*interval), offer.Body.Limits.MaxCreditSeconds)
	for name, v := range map[string]string{
		"cores":    cores(free.MilliCPU),
		"memory":   strconv.FormatUint(free.MemoryBytes>>20, 10),
		"disk":     strconv.FormatFloat(math.Floor(float64(free.DiskBytes)/(1<<30)*100)/100, 'f', -1, 64),
		"term":     "1",
		"interval": strconv.FormatUint(interval, 10),
		"credit":   strconv.FormatUint(credit, 10),
		"prepaid":  strconv.FormatUint(interval-min(interval, credit), 10),
	} {
		if p.Form[name] == "" {
			p.Form[name] = v
		}
	}
	if p.Offer, err = w.offerOf(r, &p); err != nil {
		w.fail(rw, r, err)
		return
	}
	if p.Form["max"] == "" && !p.Form.several() {
		p.Form["max"] = roundedUp(p.Offer.Rate)
	}
	if p.price(); p.Form.several() {
		p.PriceProblem = ""
	}
	p.page = w.page(r, "Deploy", nil)
	w.show(rw, http.StatusOK, "deploy", p)
}

func (w *Web) deployPrice(rw http.ResponseWriter, r *http.Request) {
	p := deployPage{Form: typed(r.URL.Query(), deployFields...)}
	var err error
	if p.Offer, err = w.offerOf(r, &p); err != nil {
		p.PriceProblem = sentence(err)
	} else {
		p.price()
	}
	w.render(rw, http.StatusOK, "deploy", "price", p)
}

func (w *Web) deploy(rw http.ResponseWriter, r *http.Request) {
	f, err := readForm(r)
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	p := deployPage{Form: f, password: r.PostForm.Get("registry_password")}
	p.read()
	if p.Offer, err = w.offerOf(r, &p); err != nil {
		w.fail(rw, r, err)
		return
	}
	request, err := p.request()
	if err == nil {
		err = p.agreed()
	}
	if err == nil {
		request.Credentials, err = p.credentials()
	}
	var lease service.Lease
	if err == nil {
		lease, err = w.svc.CreateLease(r.Context(), request)
	}
	if err == nil {
		http.Redirect(rw, r, "/leases/"+url.PathEscape(lease.Label), http.StatusSeeOther)
		return
	}
	status := service.CodeOf(err).Status()
	if bad := new(fieldError); errors.As(err, &bad) {
		p.Field, p.FieldError, status = bad.field, bad.text, http.StatusUnprocessableEntity
		err = nil // said beside the field
	}
	if p.Fault != nil && p.Fault.Text == "" {
		p.Fault.Text = "Say what runs: type or upload a file of services."
	}
	if p.price(); p.Field != "" {
		p.PriceProblem = ""
	}
	p.page = w.page(r, "Deploy", err)
	w.show(rw, status, "deploy", p)
}
