package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// demoResources are what the demo's lease asks for.
var demoResources = service.Resources{MilliCPU: 500, MemoryBytes: 128 << 20, DiskBytes: 64 << 20}

func (d *demo) makeImage(context.Context) (string, error) {
	if d.o.image != "" {
		d.execArgs = []string{"cat", "/proc/self/status"}
		return "uses " + d.o.image, nil
	}
	r, text, err := newRegistry()
	if err != nil {
		return "", err
	}
	d.registry, d.o.image, d.execArgs = r, r.ref, r.cat
	return text, nil
}

func (d *demo) prePull(ctx context.Context) (string, error) {
	image, err := d.provider.PullImage(ctx, d.o.image)
	return fmt.Sprintf("the provider has %s (%s) ahead of the lease, so that the start below is that of a cached image", d.o.image, short(image.Digest)), err
}

func (d *demo) fund(ctx context.Context) (string, error) {
	a, err := d.tenant.WalletAddress(ctx, service.AddressRequest{})
	if err != nil {
		return "", err
	}
	d.address = a.Address
	if _, err := (devnetRPC{d.path("chain")}).faucet(ctx, a.Address, demoFunds); err != nil {
		return "", err
	}
	err = wait(ctx, 20*time.Millisecond, "the money does not arrive", func(ctx context.Context) (bool, error) {
		b, err := d.tenant.WalletBalance(ctx)
		return err == nil && b.Spendable >= demoFunds, err
	})
	return fmt.Sprintf("the tenant has %s at %s", pktcloud.Amount(demoFunds), a.Address), err
}

func (d *demo) publish(ctx context.Context) (string, error) {
	const price = pktcloud.UnitsPerPKT
	o, err := d.provider.PublishOffer(ctx, service.OfferSpec{
		Region: "DE-BE", CPUPerCoreHour: price / 10, MemoryPerGiBHour: price / 40, DiskPerGiBHour: price / 1000,
		Capacity: service.Resources{MilliCPU: uint64(min(2, runtime.NumCPU())) * 1000, MemoryBytes: 256 << 20, DiskBytes: 1 << 30},
	})
	return fmt.Sprintf("the provider offers %s for %s an hour", resourceText(service.Resources(market.Reference)), pktcloud.Amount(o.Rate)), err
}

func (d *demo) find(ctx context.Context) (string, error) {
	err := wait(ctx, demoPoll, "the offer does not arrive", func(ctx context.Context) (bool, error) {
		page, err := d.tenant.Offers(ctx, service.OfferQuery{Resources: demoResources, Region: "DE"})
		if err == nil && len(page.Offers) > 0 {
			d.offer = page.Offers[0]
		}
		return err == nil && len(page.Offers) > 0, err
	})
	return fmt.Sprintf("the tenant found it: %s an hour for half a core, 128 MiB and 64 MiB of disk", pktcloud.Amount(d.offer.Rate)), err
}

// create agrees the lease and waits for the first byte of the service through
// the tunnel. The clock runs from the choice.
func (d *demo) create(ctx context.Context) (string, error) {
	chosen := time.Now()
	var err error
	d.lease, err = d.tenant.CreateLease(ctx, service.LeaseRequest{
		Offer: d.offer.ID, Image: d.o.image, Command: d.o.command, Port: d.o.port, Resources: demoResources,
		MaxRate: d.offer.Rate, IntervalSeconds: 1, TermSeconds: max(3600, 2*d.o.intervals),
		Limits: &service.ExposureRequest{CreditSeconds: 2, PrepaidSeconds: 1, UnconfirmedSeconds: 15 * 60},
	})
	if err != nil {
		return "", err
	}
	d.result.AgreeMS = time.Since(chosen).Milliseconds()
	var body []byte
	err = wait(ctx, demoPoll, "the service does not answer", func(ctx context.Context) (bool, error) {
		body, err = d.get(ctx)
		return err == nil, err
	})
	if err != nil {
		return "", err
	}
	d.result.RunningMS = time.Since(chosen).Milliseconds()
	l, err := d.tenant.Lease(ctx, d.lease.Label)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("lease %s agreed after %d ms; %d bytes of its page came through the tunnel after %d ms, funding at depth %d; open %s",
		d.lease.Label, d.result.AgreeMS, len(body), d.result.RunningMS, l.Channel.Depth, l.Endpoint), nil
}

// get asks the service through the session tunnel.
func (d *demo) get(ctx context.Context) ([]byte, error) {
	hc := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.tenant.Forward(ctx, d.lease.Label, d.o.port)
		},
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lease/", nil)
	if err != nil {
		return nil, err
	}
	answer, err := hc.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && answer.StatusCode >= 500 {
		err = fmt.Errorf("the service answered %s", answer.Status)
	}
	return body, err
}

func (d *demo) exec1(ctx context.Context) (string, error) {
	var out, errOut bytes.Buffer
	code, err := d.tenant.Exec(ctx, d.lease.Label, service.ExecRequest{Args: d.execArgs}, service.Streams{Stdout: &out, Stderr: &errOut})
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out.String()) {
		if name, value, ok := strings.Cut(line, ":"); ok && name == "Seccomp" {
			if value = strings.TrimSpace(value); value != "2" {
				return "", fmt.Errorf("the container runs with Seccomp: %s, want 2", value)
			}
			return "a program inside reports \"Seccomp: 2\"", nil
		}
	}
	return "", fmt.Errorf("the program ended with %d and reported no seccomp state: %s%s", code, out.String(), errOut.String())
}

func (d *demo) logs(ctx context.Context) (string, error) {
	var out bytes.Buffer
	if err := d.tenant.Logs(ctx, d.lease.Label, service.LogRequest{Tail: 20}, &out); err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return fmt.Sprintf("%d lines, the last: %s", len(lines), lines[len(lines)-1]), nil
}

func (d *demo) pay(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(d.o.intervals)*2*time.Second+demoPatience)
	defer cancel()
	for {
		l, err := d.tenant.Lease(ctx, d.lease.Label)
		if err != nil {
			return "", err
		}
		d.lease = l
		price, err := l.Rate.For(d.o.intervals)
		if err != nil {
			return "", err
		}
		if l.Paid >= price {
			d.result.Intervals = l.Served / l.Interval
			return fmt.Sprintf("%d statements, %s paid for %d s of service", l.Intervals, l.Paid, l.Served), nil
		}
		if l.Phase != "active" && l.Phase != "starting" && l.Phase != "funded" && l.Phase != "agreed" {
			return "", fmt.Errorf("the lease is %s after %d intervals: %s%s", l.Phase, l.Intervals, l.Problem, l.CloseReason)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

func (d *demo) close(ctx context.Context) (string, error) {
	l, err := d.tenant.CloseLease(ctx, d.lease.Label)
	if err != nil {
		return "", err
	}
	d.lease = l
	p, err := d.provider.Lease(ctx, l.ID.String())
	if err != nil {
		return "", err
	}
	d.result.PaidUnits = uint64(l.Paid)
	d.result.MaxCredit, d.result.MaxPrepaid = uint64(peak(p, "credit")), uint64(peak(l, "prepaid"))
	return fmt.Sprintf("both signed: %s paid, because: %s", l.Paid, l.CloseReason), nil
}

func peak(l service.Lease, name string) pktcloud.Amount {
	for _, e := range l.Exposure {
		if e.Name == name {
			return e.Peak
		}
	}
	return 0
}

// payout mines the closing and compares what the chain pays with what was
// paid by voucher.
func (d *demo) payout(ctx context.Context) (string, error) {
	err := wait(ctx, 50*time.Millisecond, "the closing is not on the chain", func(ctx context.Context) (bool, error) {
		if _, err := (devnetRPC{d.path("chain")}).mine(ctx, 1); err != nil {
			return true, err
		}
		l, err := d.provider.Lease(ctx, d.lease.ID.String())
		d.lease = l
		return err == nil && l.Channel.Closed > 0, err
	})
	if err != nil {
		return "", err
	}
	c := d.lease.Channel
	d.result.ClaimedUnits = uint64(c.Claimed)
	if uint64(c.Claimed) != d.result.PaidUnits {
		return "", fmt.Errorf("the chain pays %d units, by voucher were paid %d", uint64(c.Claimed), d.result.PaidUnits)
	}
	var left pktcloud.Amount
	err = wait(ctx, 50*time.Millisecond, "the rest does not come back", func(ctx context.Context) (bool, error) {
		b, err := d.tenant.WalletBalance(ctx)
		left = b.Spendable
		return err == nil && b.Reserved == 0 && b.Unconfirmed == 0, err
	})
	if err != nil {
		return "", err
	}
	fees, err := pktcloud.Amount(demoFunds).Sub(left + c.Claimed)
	d.result.FeesUnits = uint64(fees)
	return fmt.Sprintf("the chain pays %s to the provider, to the unit what was paid; %s came back, fees of both transactions %s", c.Claimed, left, fees), err
}
