package containertest

import (
	"cmp"
	"context"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

// maxTwinSignals wait for a program; more are lost, as with any signal.
const maxTwinSignals = 16

// programMemory is what a twin's program is taken to use by itself.
const programMemory = 1 << 20

// Signal hands a signal to the program. One that does not read its signals
// does not notice.
func (t *Twin) Signal(ctx context.Context, id string, s container.Signal) error {
	if !s.Valid() {
		return fail(container.CodeInvalidSpec, s.String())
	}
	b, err := t.find(ctx, id)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == container.Exited:
		return fail(container.CodeNotRunning, id)
	case s == container.SIGKILL:
		b.endLocked(container.EndSignal)
	case b.state == container.Paused:
		b.pending = append(b.pending, s)
	default:
		b.deliver(s)
	}
	return nil
}

func (b *twinBox) deliver(s container.Signal) {
	select {
	case b.signals <- s:
	default:
	}
}

// end kills the program, for a reason that counts if it is the first.
func (b *twinBox) end(why container.End) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endLocked(why)
}

func (b *twinBox) endLocked(why container.End) {
	b.cause = cmp.Or(b.cause, why)
	b.kill()
}

// Stop asks the program to end, and kills it if it does not.
func (t *Twin) Stop(ctx context.Context, id string, grace time.Duration) error {
	if grace < 0 || grace > container.MaxStopGrace {
		return fail(container.CodeInvalidSpec, "grace")
	}
	b, err := t.find(ctx, id)
	if err != nil {
		return err
	}
	if t.Signal(ctx, id, container.StopSignalOf(b.img.Image)) == nil {
		_ = t.Resume(ctx, id)
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-late.C:
		b.end(container.EndSignal)
	case <-b.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	<-b.ended
	return nil
}

// Update changes what the container may use.
func (t *Twin) Update(ctx context.Context, id string, l container.Limits) error {
	if err := l.Validate(); err != nil {
		return err
	}
	b, err := t.find(ctx, id)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == container.Exited {
		return fail(container.CodeNotRunning, id)
	}
	if err := b.usage.CheckFit(b.spec.Limits, l); err != nil {
		return err
	}
	if l.MemoryBytes < b.usage.MemoryBytes {
		return fail(container.CodeDoesNotFit, "memory")
	}
	b.spec.Limits = l
	return nil
}

func (b *twinBox) specNow() container.Spec {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spec
}

// Usage reports what the programs said that they use.
func (t *Twin) Usage(ctx context.Context, id string) (container.Usage, error) {
	b, err := t.find(ctx, id)
	if err != nil {
		return container.Usage{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.usage
	u.DiskSizeBytes = b.spec.Limits.DiskBytes
	return u, nil
}

// meter gives a program the functions by which it uses something. The returned
// one takes back what a program that has ended used.
func (b *twinBox) meter(p *Process, kill func()) (done func()) {
	var memory, pids uint64
	over := false // has ended, and uses nothing any more
	p.Memory = func(more uint64) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		if over {
			return false
		}
		if b.usage.MemoryBytes+more > b.spec.Limits.MemoryBytes {
			b.usage.Hits.Memory++
			b.usage.OOMKills++
			if p.Signals != nil {
				b.endLocked(container.EndOOM)
			}
			kill()
			return false
		}
		memory += more
		b.usage.MemoryBytes += more
		b.usage.MemoryPeakBytes = max(b.usage.MemoryPeakBytes, b.usage.MemoryBytes)
		return true
	}
	p.Pids = func(more uint64) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		if over {
			return false
		}
		if b.usage.Pids+more > b.spec.Limits.Pids {
			b.usage.Hits.Pids++
			return false
		}
		pids += more
		b.usage.Pids += more
		b.usage.PidsPeak = max(b.usage.PidsPeak, b.usage.Pids)
		return true
	}
	p.Disk = func(more uint64) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.usage.DiskBytes+more > b.spec.Limits.DiskBytes {
			b.usage.Hits.Disk++
			return false
		}
		b.usage.DiskBytes += more
		return true
	}
	p.Write = func(bytes uint64) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.usage.WrittenBytes += bytes
	}
	p.CPU = func(d time.Duration) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.usage.CPUTime += d
		quota := 100 * time.Millisecond * time.Duration(b.spec.Limits.MilliCPU) / 1000
		b.usage.Hits.CPU += uint64(d / quota)
	}
	p.Memory(programMemory)
	p.Pids(1)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		over = true
		b.usage.MemoryBytes -= memory
		b.usage.Pids -= pids
	}
}
