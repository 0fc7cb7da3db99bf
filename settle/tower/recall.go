package tower

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Recall asks each tower once for what it keeps for this client, and gives it to
// take, such as manager.Manager.Recall, one tower at a time [TOWER-32]. It is how
// a payee that lost everything but its phrase has its channels back. A tower that
// answered to the end is not asked again, unless all are. One that lies, answers
// half or does not answer at all spoils nothing that another says. Recall returns
// once each was tried, with the errors of all.
func (d *Depositor) Recall(ctx context.Context, all bool, take func(ctx context.Context, parcels []Parcel) (bad []error, err error)) error {
	var turn sync.Mutex // of take
	results := make([]error, len(d.cfg.Towers))
	var wait sync.WaitGroup
	for i, t := range d.cfg.Towers {
		d.mu.Lock()
		told := d.state[t.Name].Told
		d.mu.Unlock()
		if told && !all {
			continue
		}
		wait.Go(func() {
			parcels, bad, asked := d.recall(ctx, t)
			turn.Lock()
			refused, err := take(ctx, parcels)
			turn.Unlock()
			results[i] = d.heard(t, len(parcels)-len(refused), bad+len(refused), errors.Join(asked, err))
		})
	}
	wait.Wait()
	return errors.Join(results...)
}

// heard notes what became of a question.
func (d *Depositor) heard(t Target, kept, bad int, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state[t.Name]
	s.Told, s.Kept, s.Bad, s.Withheld = s.Told || err == nil, kept, bad, ""
	if err != nil {
		s.Withheld = err.Error()
		err = fmt.Errorf("tower %s: %w", t.Name, err)
	}
	d.state[t.Name] = s
	return err
}

// recall asks one tower. With an error it returns what came before.
func (d *Depositor) recall(ctx context.Context, t Target) (parcels []Parcel, bad int, err error) {
	ctx, cancel := context.WithTimeout(ctx, supplyLimit)
	defer cancel()
	conn, err := t.Dial(ctx)
	if err != nil {
		return nil, 0, err
	}
	c, err := Dial(ctx, conn, d.cfg.Network, d.cfg.Key, t.Key)
	if err != nil {
		return nil, 0, err
	}
	defer c.Close() //nolint:errcheck // it is over
	list, bad, err := c.Deposits(ctx)
	for _, r := range list {
		parcels = append(parcels, Parcel{Owner: r.Record.Body.Owner, Txs: r.Record.Body.Txs})
	}
	return parcels, bad, err
}
