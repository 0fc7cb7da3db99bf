package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// amendPage changes a lease that runs: the form, and with Plan its review.
type amendPage struct {
	page
	Lease      service.Lease
	Form       form
	Names      []string // of the fields
	Field      string   // the one that cannot be read
	FieldError string
	Plan       *service.Amendment
}

// amendField is a size that the form changes.
type amendField struct {
	Name, Label, Unit, Hint string
	scale, most             float64
	now                     uint64
}

// amendRow are the fields of a service, of a volume or of the lease.
type amendRow struct {
	Title  string
	Fields []amendField
}

// rowsOf are the fields of a lease's form.
func rowsOf(l service.Lease) []amendRow {
	var rows []amendRow
	for i, s := range l.Services {
		at := strconv.Itoa(i)
		rows = append(rows, amendRow{"Service " + s.Name, []amendField{
			{"cores" + at, "Processor", "cores", "", 1000, 1024, s.Resources.MilliCPU},
			{"memory" + at, "Memory", "MiB", "", 1 << 20, 1 << 24, s.Resources.MemoryBytes},
			{"disk" + at, "Disk", "GiB", "It grows only.", 1 << 30, 1 << 24, s.Resources.DiskBytes},
		}})
	}
	if len(l.Services) == 1 {
		rows[0].Title = "Resources"
	}
	for i, v := range l.Volumes {
		rows = append(rows, amendRow{"Volume " + v.Name, []amendField{
			{"size" + strconv.Itoa(i), "Size", "GiB", "It grows only.", 1 << 30, lease.MaxVolumeBytes >> 30, v.Size},
		}})
	}
	return append(rows, amendRow{"Time", []amendField{
		{"term", "Term", "hours", "In all, from the start of the lease.", 3600, lease.MaxTermSeconds / 3600, l.Term},
	}})
}

func (p amendPage) Rows() []amendRow { return rowsOf(p.Lease) }

// Input returns a field with what was typed, or what it is now, and what is wrong
// with it.
func (p amendPage) Input(f amendField) input {
	i := input{Name: f.Name, Label: f.Label, Mode: "decimal", Unit: f.Unit, Hint: f.Hint, Value: p.Form[f.Name], Required: true}
	if i.Value == "" {
		i.Value = strconv.FormatFloat(float64(f.now)/f.scale, 'f', -1, 64)
	}
	if p.Field == f.Name {
		i.Error = p.FieldError
	}
	return i
}

// Values are what was typed, for the forms of the review.
func (p amendPage) Values() url.Values {
	v := url.Values{}
	for _, n := range p.Names {
		v.Set(n, p.Form[n])
	}
	return v
}

// Back is the address of the form with what was typed.
func (p amendPage) Back() string {
	return "/leases/" + url.PathEscape(p.Lease.Label) + "/amend?" + p.Values().Encode()
}

// amendment reads what shall change of a lease: what differs from what it is.
func (f form) amendment(l service.Lease) (service.AmendRequest, error) {
	var r service.AmendRequest
	typed := map[string]uint64{}
	for _, row := range rowsOf(l) {
		for _, field := range row.Fields {
			n, err := f.quantity(field.Name, field.Label+" in "+field.Unit, field.scale, field.most)
			if err != nil {
				return r, err
			}
			if f[field.Name] != "" && n == 0 && field.now != 0 {
				return r, &fieldError{field.Name, field.Label + " cannot be 0."}
			}
			if n != field.now {
				typed[field.Name] = n
			}
		}
	}
	if len(typed) == 0 {
		return r, &fieldError{"cores0", "Nothing is changed yet."}
	}
	for i, s := range l.Services {
		at := strconv.Itoa(i)
		to := service.Resources{MilliCPU: typed["cores"+at], MemoryBytes: typed["memory"+at], DiskBytes: typed["disk"+at]}
		switch {
		case to == (service.Resources{}):
		case len(l.Services) == 1:
			r.Resources = to
		case r.Services == nil:
			r.Services = map[string]service.Resources{s.Name: to}
		default:
			r.Services[s.Name] = to
		}
	}
	for i, v := range l.Volumes {
		name := "size" + strconv.Itoa(i)
		n, ok := typed[name]
		if !ok {
			continue
		}
		if n < v.Size {
			return r, &fieldError{name, fmt.Sprintf("Volume %s cannot become smaller.", v.Name)}
		}
		if r.Volumes == nil {
			r.Volumes = map[string]uint64{}
		}
		r.Volumes[v.Name] = (n + lease.VolumeStep - 1) / lease.VolumeStep * lease.VolumeStep
	}
	r.Term = typed["term"]
	return r, nil
}

// amendOf finds the lease that a page of amendments is about.
func (w *Web) amendOf(rw http.ResponseWriter, r *http.Request) (p amendPage, ok bool) {
	l, err := w.svc.Lease(r.Context(), r.PathValue("lease"))
	if err != nil {
		w.fail(rw, r, err)
		return p, false
	}
	p.Lease, p.Names = l, []string{"most"}
	for _, row := range rowsOf(l) {
		for _, f := range row.Fields {
			p.Names = append(p.Names, f.Name)
		}
	}
	return p, true
}

func (w *Web) amendForm(rw http.ResponseWriter, r *http.Request) {
	if p, ok := w.amendOf(rw, r); ok {
		p.Form = typed(r.URL.Query(), p.Names...)
		w.showAmend(rw, r, p, nil)
	}
}

func (w *Web) showAmend(rw http.ResponseWriter, r *http.Request, p amendPage, err error) {
	status := http.StatusOK
	if err != nil {
		status = service.CodeOf(err).Status()
	}
	if bad := new(fieldError); errors.As(err, &bad) {
		p.Field, p.FieldError, status = bad.field, bad.text, http.StatusUnprocessableEntity
		err = nil // said beside the field
	}
	p.page = w.page(r, "Amend a lease", err)
	w.show(rw, status, "amend", p)
}

// reviewAmend shows what would stand, and what it would cost. Nothing is changed
// by it, and the provider is not asked.
func (w *Web) reviewAmend(rw http.ResponseWriter, r *http.Request) { w.amendBy(rw, r, true) }

// amendLease does what was reviewed, at no higher price than was shown.
func (w *Web) amendLease(rw http.ResponseWriter, r *http.Request) { w.amendBy(rw, r, false) }

func (w *Web) amendBy(rw http.ResponseWriter, r *http.Request, plan bool) {
	p, ok := w.amendOf(rw, r)
	if !ok || !w.posted(rw, r) {
		return
	}
	p.Form = typed(r.PostForm, p.Names...)
	request, err := p.Form.amendment(p.Lease)
	if request.Plan = plan; !plan && err == nil {
		err = (*pktcloud.Amount)(&request.MaxRate).UnmarshalText([]byte(p.Form["most"]))
	}
	var done service.Amendment
	if err == nil {
		done, err = w.svc.AmendLease(r.Context(), p.Lease.ID.String(), request)
	}
	if plan && err == nil {
		p.Plan = &done
	}
	if plan || err != nil {
		w.showAmend(rw, r, p, err)
		return
	}
	http.Redirect(rw, r, "/leases/"+url.PathEscape(p.Lease.Label), http.StatusSeeOther)
}
