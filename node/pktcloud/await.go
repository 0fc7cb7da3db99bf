package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// awaiter is what awaitService needs of a node.
type awaiter interface {
	AwaitLease(ctx context.Context, name string, most time.Duration) (service.Lease, error)
	Lease(ctx context.Context, name string) (service.Lease, error)
	LeaseServices(ctx context.Context, name string) ([]service.Standing, error)
}

// waiter is one wait for the services of a lease.
type waiter struct {
	a    *app
	n    awaiter
	said string
	// clock and sleep are those of the machine, or of a test.
	clock func() time.Time
	sleep func(ctx context.Context, d time.Duration)
}

// lookEvery is how often services are asked for: programs that end at once are
// gone with their lease within two seconds.
const lookEvery = 250 * time.Millisecond

// awaitService waits until a lease's services run.
func (a *app) awaitService(ctx context.Context, n awaiter, l service.Lease) (service.Lease, error) {
	w := waiter{a: a, n: n, clock: time.Now, sleep: func(ctx context.Context, d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}}
	return w.run(ctx, l)
}

// run waits until all services of a lease do what they are for, or the lease is
// over.
func (w *waiter) run(ctx context.Context, l service.Lease) (service.Lease, error) {
	for l.Pending() {
		w.say(l.Label, cmp.Or(l.Problem, "The lease is "+l.Phase+"."))
		next, err := w.n.AwaitLease(ctx, l.ID.String(), 5*time.Second)
		if err != nil {
			return l, w.failed(err, l)
		}
		l = next
	}
	var settling service.Settling
	for l.Phase == "active" {
		list, err := w.n.LeaseServices(ctx, l.ID.String())
		if err == nil {
			up, why := settling.Look(list, w.clock())
			switch {
			case up == service.AllUp:
				return l, nil
			case up == service.NotUp && !ends(list):
				return l, service.Errorf(service.CodeWorkload, "%s The lease goes on, and is paid for: see %q, or end it with %q", why, w.a.command("logs", l.Label), w.a.command("lease close", l.Label))
			}
			w.say(l.Label, cmp.Or(why, "The services are starting."))
		}
		if w.sleep(ctx, lookEvery); ctx.Err() != nil {
			return l, w.failed(ctx.Err(), l)
		}
		next, err := w.n.Lease(ctx, l.ID.String())
		if err != nil {
			return l, w.failed(err, l)
		}
		l = next
	}
	return l, ending(l)
}

// ends reports whether a lease ends with a service that is over [SERVICE-11].
func ends(list []service.Standing) bool {
	return slices.ContainsFunc(list, func(s service.Standing) bool { return !s.Job && (s.State == "done" || s.State == "failed") }) ||
		!slices.ContainsFunc(list, func(s service.Standing) bool { return s.State != "done" && s.State != "failed" })
}

// ending is what came of a lease that is not active: nothing is wrong with one
// that waits for its payment, nor with one whose jobs are all done.
func ending(l service.Lease) error {
	switch {
	case l.Phase == "suspended" || l.Fault != nil && l.Fault.Code == string(lease.FaultDone):
		return nil
	case l.Phase == "refused":
		return service.Errorf(service.CodeRefused, "the provider refused the lease: %s", l.Problem)
	}
	why := cmp.Or(l.Problem, "The reason is: "+l.CloseReason+".")
	if l.Served > 0 {
		return service.Errorf(service.CodeWorkload, "lease %s ended. %s", l.Label, why)
	}
	return service.Errorf(service.CodeWorkload, "lease %s ended before its service ran. %s", l.Label, why)
}

// failed is an error of the wait itself.
func (w *waiter) failed(err error, l service.Lease) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w; the lease goes on: see %q, or end it with %q", errInterrupted, w.a.command("lease show", l.Label), w.a.command("lease close", l.Label))
	}
	return err
}

// say tells whoever watches what is waited for, once.
func (w *waiter) say(label, status string) {
	if status != w.said && isTerminal(w.a.err) {
		fmt.Fprintf(w.a.err, "%s: %s\n", label, status)
		w.said = status
	}
}
