package web

import (
	"errors"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// form holds what was typed, as it was typed, so that an error loses nothing.
type form map[string]string

func typed(values url.Values, names ...string) form {
	f := form{}
	for _, n := range names {
		f[n] = strings.TrimSpace(values.Get(n))
	}
	return f
}

// fieldError is a field that cannot be read.
type fieldError struct {
	field, text string
}

func (e *fieldError) Error() string { return e.text }

// quantity reads a decimal number and returns it times scale; empty is zero.
func (f form) quantity(name, label string, scale, most float64) (uint64, error) {
	s := strings.Replace(f[name], ",", ".", 1)
	if s == "" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > most {
		return 0, &fieldError{name, fmt.Sprintf("%s is a number from 0 to %s.", label, strconv.FormatFloat(most, 'f', -1, 64))}
	}
	return uint64(math.Round(v * scale)), nil
}

func (f form) resources() (service.Resources, error) {
	cpu, err1 := f.quantity("cores", "The number of cores", 1000, 1024)
	memory, err2 := f.quantity("memory", "Memory in MiB", 1<<20, 1<<24)
	disk, err3 := f.quantity("disk", "Disk in GiB", 1<<30, 1<<24)
	return service.Resources{MilliCPU: cpu, MemoryBytes: memory, DiskBytes: disk}, firstError(err1, err2, err3)
}

func (f form) money(name, label string) (pktcloud.Rate, error) {
	if f[name] == "" {
		return 0, nil
	}
	a, err := pktcloud.ParseAmount(strings.Replace(f[name], ",", ".", 1))
	if err != nil {
		return 0, &fieldError{name, label + ": " + err.Error() + "."}
	}
	return pktcloud.Rate(a), nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

type marketPage struct {
	page
	Form       form
	FieldError string
	Offers     []service.Offer
	Why        string            // there are none
	Carry      template.URL      // the resources, for the link to the next page
	Of         service.Resources // what the prices are of
	Asked      bool              // by whoever looks
}

func (w *Web) market(rw http.ResponseWriter, r *http.Request) {
	p := marketPage{Form: typed(r.URL.Query(), "cores", "memory", "disk", "price", "region", "class", "egress", "ports", "bandwidth", "volumes")}
	status := http.StatusOK
	resources, err1 := p.Form.resources()
	rate, err2 := p.Form.money("price", "The price")
	ports, err3 := p.Form.quantity("ports", "The number of ports", 1, market.MaxPorts)
	bandwidth, err4 := p.Form.quantity("bandwidth", "The bandwidth in MiB a second", 1<<20, 1<<20)
	var result service.OfferPage
	err := firstError(err1, err2, err3, err4)
	if err == nil {
		result, err = w.svc.Offers(r.Context(), service.OfferQuery{
			Resources: resources, MaxRate: rate, Region: strings.ToUpper(p.Form["region"]), Class: p.Form["class"], Limit: 100,
			Network: market.Network{Egress: p.Form["egress"] != "", Ports: ports, BytesPerSecond: bandwidth}, Volumes: p.Form["volumes"] != "",
		})
	}
	if bad := new(fieldError); errors.As(err, &bad) || errors.Is(err, service.CodeInvalid) {
		p.FieldError, err, status = err.Error(), nil, http.StatusUnprocessableEntity
	} else if err != nil {
		status = service.CodeOf(err).Status()
	}
	p.page = w.page(r, "Market", err)
	p.Offers = result.Offers
	if p.Of, p.Asked = resources, resources != (service.Resources{}); !p.Asked {
		p.Of = service.Resources(market.Reference)
	}
	if result.Lacks != nil {
		p.Why = sentence(errors.New(result.Lacks.String()))
	}
	carry := url.Values{}
	for _, n := range []string{"cores", "memory", "disk", "class"} {
		if p.Form[n] != "" {
			carry.Set(n, p.Form[n])
		}
	}
	if p.Form["egress"] != "" {
		carry.Set("egress", egressPublic)
	}
	if p.Form["bandwidth"] != "" && p.Form["egress"] != "" {
		carry.Set("bandwidth", p.Form["bandwidth"])
	}
	if len(carry) > 0 {
		p.Carry = template.URL("&" + carry.Encode()) //nolint:gosec // encoded just now
	}
	w.show(rw, status, "market", p)
}

func reference(o market.Offer) service.Resources {
	r := market.Reference
	return service.Resources{
		MilliCPU:    min(r.MilliCPU, o.Capacity.MilliCPU),
		MemoryBytes: min(r.MemoryBytes, o.Capacity.MemoryBytes),
		DiskBytes:   min(r.DiskBytes, o.Capacity.DiskBytes),
	}
}
