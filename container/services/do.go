package services

import (
	"cmp"
	"context"
	"errors"
	"path"
	"slices"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// tenantCodes are refusals that no other attempt changes: they are about the
// image, the program or the specification.
var tenantCodes = []container.Code{
	container.CodeInvalidSpec, container.CodeConflict, container.CodeUnknownImage, container.CodeForbiddenHost, container.CodeBadImage,
	container.CodeDigestMismatch, container.CodeWrongArch, container.CodeTooLarge, container.CodeProgram,
}

// do carries out an action beside the set's goroutine, and returns what it saw.
// plain says that a program is not asked to end before it is killed.
func (r *runner) do(ctx context.Context, a Action, plain bool) Event {
	id := Container(r.set.ID, r.set.Services[a.Service].Name, a.Run)
	switch a.Do {
	case DoStart:
		return r.start(ctx, a)
	case DoMake:
		return r.make(ctx)
	case DoRemove:
		return r.remove(ctx, a, id, plain)
	case DoPause, DoResume:
		r.pause(ctx, a, id)
	case DoLimit:
		r.limit(ctx, a, id)
	case DoLook:
	}
	return nil
}

func (r *runner) start(ctx context.Context, a Action) Event {
	spec := r.set.Services[a.Service]
	if a.Run > 1 && !r.clear(ctx, a.Service, a.Run-1) {
		return nil
	}
	err := r.startBox(ctx, a)
	if errors.Is(err, container.CodeUnknownImage) && r.m.cfg.Fetch != nil {
		if err = r.m.cfg.Fetch(ctx, r.set.ID, spec.Ref, spec.Image); err == nil {
			err = r.startBox(ctx, a)
		}
	}
	if err == nil {
		return Seen{Service: a.Service, Run: a.Run, Was: Up}
	}
	if ctx.Err() != nil {
		return nil // what became of it is found out by whoever starts or removes it next
	}
	r.m.cfg.Log.Warn("services: a container could not be started", "set", r.set.ID, "service", spec.Name, "run", a.Run, "error", err)
	return refusal(a, err)
}

// startBox starts a container. One that an earlier manager has started, before
// a change of its limits, is the same.
func (r *runner) startBox(ctx context.Context, a Action) error {
	set := r.sizes()
	spec := set.Services[a.Service].spec(set, a.Run)
	err := r.m.cfg.Runtime.Start(ctx, spec)
	if !errors.Is(err, container.CodeConflict) {
		return err
	}
	if st, serr := r.m.cfg.Runtime.Status(ctx, spec.ID); serr == nil && st.Limits != spec.Limits {
		spec.Limits = st.Limits
		return r.m.cfg.Runtime.Start(ctx, spec)
	}
	return err
}

// refusal says of an error what whoever wrote the set may know: all about its
// image and program, and of this machine only that the fault lies there.
func refusal(a Action, err error) Refused {
	e := Refused{Service: a.Service, Run: a.Run, Code: container.CodeRuntime, Text: "the machine could not run it"}
	var known *container.Error
	if !errors.As(err, &known) {
		return e
	}
	e.Code = known.Code
	if known.Code == container.CodeNoVolume { // it was made once, and is not made again [SERVICE-28]
		e.Final, e.Text = true, clip("volume "+path.Base(known.Detail)+" and what it held are lost")
		return e
	}
	if !slices.Contains(tenantCodes, known.Code) {
		return e
	}
	e.Final, e.Text = true, known.Code.Error()
	if known.Code == container.CodeInvalidSpec { // what it does not fit is the image
		e.Text = cmp.Or(known.Detail, e.Text)
	}
	if known.Code == container.CodeProgram {
		if e.Text = known.Detail; known.Err != nil {
			e.Text += ": " + known.Err.Error()
		}
	}
	e.Text = clip(e.Text)
	return e
}

// clear removes a container, and tries until it is gone. It reports whether it
// is. The lines that it wrote are kept.
func (r *runner) clear(ctx context.Context, service int, run uint64) bool {
	name := r.set.Services[service].Name
	id := Container(r.set.ID, name, run)
	r.lookAt(ctx, service, run)
	for {
		err := r.keepLog(ctx, name, id, run)
		if err == nil {
			err = r.m.cfg.Runtime.Destroy(ctx, id)
		}
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.m.cfg.Log.Warn("services: a container could not be removed", "container", id, "error", err)
		if !sleep(ctx, retryDelay) {
			return false
		}
	}
}

func (r *runner) remove(ctx context.Context, a Action, id string, plain bool) Event {
	e := Seen{Service: a.Service, Run: a.Run, Was: Removed, ExitCode: -1}
	if !plain {
		grace := r.set.Services[a.Service].StopGrace
		limited, cancel := context.WithTimeout(ctx, grace+pollLimit)
		if err := r.m.cfg.Runtime.Stop(limited, id, grace); err == nil {
			if st, err := r.m.cfg.Runtime.Status(limited, id); err == nil && st.State == container.Exited {
				e.ExitCode, e.OOMKilled = st.ExitCode, st.OOMKilled
			}
		}
		cancel()
	}
	if !r.clear(ctx, a.Service, a.Run) {
		return nil
	}
	return e
}

func (r *runner) pause(ctx context.Context, a Action, id string) {
	w := r.works[a.Service]
	call := r.m.cfg.Runtime.Resume
	if a.Do == DoPause {
		call = r.m.cfg.Runtime.Pause
	}
	err := call(ctx, id)
	if errors.Is(err, container.CodeNotRunning) || errors.Is(err, container.CodeNotFound) {
		err = nil // the next look will tell
	}
	if err != nil {
		r.m.cfg.Log.Warn("services: freezing or thawing a container", "container", id, "error", err)
	}
	r.post(func() { w.failed = err })
}

// observe looks at a container. Of an error nothing is concluded.
func (r *runner) observe(ctx context.Context, service int, run uint64) Event {
	ctx, cancel := context.WithTimeout(ctx, pollLimit)
	defer cancel()
	e := Seen{Service: service, Run: run}
	st, err := r.m.cfg.Runtime.Status(ctx, Container(r.set.ID, r.set.Services[service].Name, run))
	if errors.Is(err, container.CodeNotFound) {
		e.Was = Missing
		return e
	}
	if err != nil {
		return nil
	}
	switch st.State {
	case container.Running, container.Paused:
		e.Was = Up
	case container.Exited:
		r.lookAt(ctx, service, run)
		e.Was, e.ExitCode, e.OOMKilled = Exited, st.ExitCode, st.OOMKilled
		if !st.StartedAt.IsZero() && !st.FinishedAt.IsZero() {
			e.Ran = st.FinishedAt.Sub(st.StartedAt)
		}
		if e.ExitCode != 0 {
			e.Last = r.lastLine(ctx, st.ID)
		}
	case container.Created:
		return nil
	}
	return e
}

// sleep reports whether the whole time has passed.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
