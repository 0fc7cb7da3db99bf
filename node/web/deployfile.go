package web

import (
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/compose"
	"github.com/pkt-cash/pkt-cloud/lease/manifest"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// formMemory is how much of a form with a file is kept in memory; the server
// bounds the whole.
const formMemory = 1 << 20

// excerptLines are shown on either side of the line that cannot be read.
const excerptLines = 2

// fileFault is what is wrong with the file of several services.
type fileFault struct {
	Text    string
	Line    int // 0: not in one place
	Excerpt []excerptLine
	More    []string // what else is wrong, each with its line
}

type excerptLine struct {
	Number int
	Text   string
	Wrong  bool
}

// serviceLine is a service of the file as the preview shows it.
type serviceLine struct {
	Name, Image string
	Job         bool
	Resources   service.Resources
	Facts       []string // what it waits for, how it is looked at, when it starts again
}

// readForm reads a form, also one with a file: what was uploaded counts instead
// of what was typed.
func readForm(r *http.Request) (form, error) {
	if err := r.ParseMultipartForm(formMemory); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		return nil, service.Errorf(service.CodeInvalid, "the form cannot be read; a file has at most %d KiB", manifest.MaxFileBytes>>10)
	}
	f := typed(r.PostForm, deployFields...)
	f["file"], f["variables"] = r.PostForm.Get("file"), r.PostForm.Get("variables")
	if r.MultipartForm == nil {
		return f, nil
	}
	defer r.MultipartForm.RemoveAll() //nolint:errcheck // nothing of it is on disk
	for _, h := range r.MultipartForm.File["upload"] {
		text, err := uploaded(h)
		if err != nil {
			return nil, err
		}
		if text != "" {
			f["file"] = text
		}
	}
	return f, nil
}

func uploaded(h *multipart.FileHeader) (string, error) {
	in, err := h.Open()
	if err != nil {
		return "", service.Errorf(service.CodeInvalid, "the file cannot be read")
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, manifest.MaxFileBytes+1))
	if err != nil || len(b) > manifest.MaxFileBytes {
		return "", service.Errorf(service.CodeInvalid, "a file of services has at most %d KiB", manifest.MaxFileBytes>>10)
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), nil
}

// several reports whether the form is that of several services.
func (f form) several() bool { return f["several"] != "" }

// manifest reads the file of the form, of Compose or of the own form, with the
// variables of the form and nothing else. An empty one is no fault yet, but nothing
// either.
func (f form) manifest() (*lease.Manifest, []compose.Warning, *fileFault) {
	if strings.TrimSpace(f["file"]) == "" {
		return nil, nil, &fileFault{}
	}
	variables, err := compose.ReadVariables([]byte(f["variables"]))
	if err != nil {
		fault := faultOf(err, f["variables"])
		fault.Text = "In the variables: " + fault.Text
		return nil, nil, fault
	}
	o := compose.Options{Variables: variables}
	if f["outside"] != "" {
		o.Egress = []string{lease.EgressPublic}
	}
	m, _, warnings, err := compose.Read([]byte(f["file"]), o)
	if err == nil {
		return &m, warnings, nil
	}
	list := []error{err}
	if faults := new(compose.Faults); errors.As(err, &faults) {
		list = faults.List
	}
	fault := faultOf(list[0], f["file"])
	for _, err := range list[1:] {
		more := faultOf(err, "")
		if more.Line > 0 {
			more.Text = fmt.Sprintf("Line %d: %s", more.Line, more.Text)
		}
		fault.More = append(fault.More, more.Text)
	}
	return nil, nil, fault
}

func faultOf(err error, text string) *fileFault {
	fault := &fileFault{}
	if at := new(manifest.LineError); errors.As(err, &at) {
		fault.Line, err = at.Line, at.Err
		fault.Excerpt = excerpt(text, at.Line)
	}
	fault.Text = sentence(errors.New(plainly(err)))
	return fault
}

// plainly is a refusal's text without the names of the code.
func plainly(err error) string {
	var parts []string
	for e := new(lease.Error); errors.As(err, &e); err = e.Err {
		parts = append(parts, e.Detail)
		if e.Err == nil {
			break
		}
	}
	if len(parts) == 0 {
		return err.Error()
	}
	return strings.Join(parts, ": ")
}

// excerpt is a line of a text and those around it.
func excerpt(text string, line int) []excerptLine {
	var out []excerptLine
	n := 0
	for l := range strings.Lines(text) {
		if n++; n >= line-excerptLines && n <= line+excerptLines {
			l = strings.TrimRight(l, "\r\n")
			if r := []rune(l); len(r) > 120 {
				l = string(r[:120]) + "…"
			}
			out = append(out, excerptLine{Number: n, Text: l, Wrong: n == line})
		}
	}
	return out
}

// serviceLines is what the file means.
func serviceLines(m *lease.Manifest) []serviceLine {
	var out []serviceLine
	for _, s := range m.Services {
		l := serviceLine{Name: s.Name, Image: s.Image, Job: s.Job, Resources: service.Resources(s.Resources)}
		var waits []string
		for _, d := range s.Depends {
			waits = append(waits, d.Service+" ("+d.When+")")
		}
		if len(waits) > 0 {
			l.Facts = append(l.Facts, "waits for "+strings.Join(waits, ", "))
		}
		if s.Health.Check != lease.CheckNone {
			l.Facts = append(l.Facts, "health by "+s.Health.Check)
		}
		switch s.Restart.Policy {
		case lease.RestartAlways:
			l.Facts = append(l.Facts, "always starts again")
		case lease.RestartOnFailure:
			l.Facts = append(l.Facts, "starts again when it fails")
		}
		l.Facts = append(l.Facts, outside(s)...)
		for _, v := range s.Mounts {
			fact := "volume " + v.Volume + " at " + v.Path
			if v.ReadOnly {
				fact += ", for reading"
			}
			l.Facts = append(l.Facts, fact)
		}
		if s.Name == m.Probe.Service {
			l.Facts = append(l.Facts, "you look at this one")
		}
		out = append(out, l)
	}
	return out
}

// outside is what a service asks for of the world outside its lease.
func outside(s lease.Service) (facts []string) {
	if len(s.Egress) > 0 {
		facts = append(facts, "connects to "+strings.Join(s.Egress, ", "))
	}
	for _, p := range s.Publish {
		facts = append(facts, fmt.Sprintf("port %d/%s published", p.Port, p.Protocol))
	}
	return facts
}

// deployPreview shows what the form means, and agrees nothing. A page that asks
// for a part of itself gets no page of an error.
func (w *Web) deployPreview(rw http.ResponseWriter, r *http.Request) {
	part := r.Header.Get("HX-Request") != ""
	f, err := readForm(r)
	p := deployPage{Form: f}
	if err == nil {
		p.read()
		p.Offer, err = w.offerOf(r, &p)
	}
	switch {
	case err != nil && !part:
		w.fail(rw, r, err)
		return
	case err != nil:
		p.PriceProblem = sentence(err)
	default:
		if p.Form["max"] == "" && p.Manifest != nil { // a part shows the price alone
			p.Form["max"] = roundedUp(p.Offer.Rate)
		}
		p.price()
	}
	if part {
		w.render(rw, http.StatusOK, "deploy", "checked", p)
		return
	}
	p.page = w.page(r, "Deploy", nil)
	w.show(rw, http.StatusOK, "deploy", p)
}
