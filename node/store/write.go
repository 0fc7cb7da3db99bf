package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxGroup bounds how many concurrent changes share one transaction.
	maxGroup = 256
	// groupGap is how long a group stays open for one more change while several
	// callers write at once, and maxGather how long in all. A caller that is
	// alone never waits.
	groupGap  = 2 * time.Millisecond
	maxGather = 10 * time.Millisecond
)

// writer makes changes durable over a connection of its own. A caller that
// finds it idle writes by itself, without a change of goroutine; the others
// gather, and write commits what has gathered as one.
type writer struct {
	changes chan change
	stop    chan struct{}
	done    chan struct{}
	pending atomic.Int64      // callers that wait for write
	count   atomic.Uint64     // transactions committed
	commits func(changes int) // told after each transaction; for tests

	mu     sync.Mutex // held while a group is written; guards all below
	conn   *sql.Conn
	sql    map[string]*sql.Stmt // prepared once, by their text
	last   int                  // changes of the last group
	broken error
	closed bool
}

type change struct {
	puts   []Put
	result chan error
}

// What the writer says to SQLite. A transaction takes the write lock at once.
const (
	sqlBegin    = "BEGIN IMMEDIATE"
	sqlCommit   = "COMMIT"
	sqlRollback = "ROLLBACK"
	sqlPut      = "INSERT INTO kv(key, value) VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value"
	sqlDelete   = "DELETE FROM kv WHERE key = ?"
)

func newWriter(db *sql.DB) (*writer, error) {
	conn, err := db.Conn(context.Background())
	if err != nil {
		return nil, err
	}
	w := &writer{
		changes: make(chan change, maxGroup), stop: make(chan struct{}), done: make(chan struct{}),
		commits: func(int) {}, conn: conn, sql: map[string]*sql.Stmt{},
	}
	for _, q := range []string{sqlBegin, sqlCommit, sqlRollback, sqlPut, sqlDelete} {
		if w.sql[q], err = conn.PrepareContext(context.Background(), q); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	go w.write()
	return w, nil
}

// apply makes puts durable.
func (w *writer) apply(ctx context.Context, puts []Put) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.pending.Load() == 0 && w.mu.TryLock() {
		if w.closed || w.last < 2 { // none came along lately
			defer w.mu.Unlock()
			if w.closed {
				return ErrClosed
			}
			return w.commit([]change{{puts: puts}})
		}
		w.mu.Unlock()
	}
	w.pending.Add(1)
	defer w.pending.Add(-1)
	c := change{puts: puts, result: make(chan error, 1)}
	select {
	case w.changes <- c:
	case <-w.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.result:
		return err
	case <-w.done:
		select {
		case err := <-c.result:
			return err
		default:
			return ErrClosed
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write commits what gathers until the writer is closed.
func (w *writer) write() {
	defer close(w.done)
	for {
		select {
		case c := <-w.changes:
			w.mu.Lock()
			group := w.gather(c)
			err := w.commit(group)
			w.mu.Unlock()
			for _, c := range group {
				c.result <- err
			}
		case <-w.stop:
			return
		}
	}
}

// gather returns a group that begins with a change. Once several callers were
// seen to write at once, it waits a moment for more of them: a sync costs more.
func (w *writer) gather(first change) []change {
	group := []change{first}
	gap := time.NewTimer(0)
	defer gap.Stop()
	for end := time.Now().Add(maxGather); len(group) < maxGroup; {
		select {
		case c := <-w.changes:
			group = append(group, c)
			continue
		default:
		}
		if w.last < 2 || time.Now().After(end) {
			break
		}
		gap.Reset(groupGap)
		select {
		case c := <-w.changes:
			group = append(group, c)
			continue
		case <-gap.C:
		case <-w.stop:
		}
		break
	}
	return group
}

// commit writes a group as one transaction. The caller holds w.mu.
func (w *writer) commit(group []change) error {
	if w.broken != nil {
		return w.broken
	}
	err := w.transact(group)
	w.last = len(group)
	w.commits(len(group))
	if errors.Is(err, ErrBroken) {
		w.broken = err
	}
	return err
}

func (w *writer) transact(group []change) error {
	if err := w.exec(sqlBegin); err != nil {
		return wrap(err)
	}
	err := w.putAll(group)
	if err == nil {
		if err = w.exec(sqlCommit); err == nil {
			w.count.Add(1)
			return nil
		}
		if !isFull(err) {
			return fmt.Errorf("%w: %w", ErrBroken, err)
		}
	}
	// A transaction that was refused is open until it is rolled back, or SQLite
	// did so already. Another one begins only where nothing is left of it.
	_ = w.exec(sqlRollback)
	if e := w.exec(sqlBegin); e != nil {
		return fmt.Errorf("%w: %w", ErrBroken, errors.Join(err, e))
	}
	if e := w.exec(sqlRollback); e != nil {
		return fmt.Errorf("%w: %w", ErrBroken, errors.Join(err, e))
	}
	return wrap(err)
}

func (w *writer) putAll(group []change) error {
	for _, c := range group {
		for _, p := range c.puts {
			var err error
			if p.Value == nil {
				err = w.exec(sqlDelete, []byte(p.Key))
			} else {
				err = w.exec(sqlPut, []byte(p.Key), p.Value)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// exec runs a prepared statement. No context ends it halfway.
func (w *writer) exec(query string, args ...any) error {
	_, err := w.sql[query].ExecContext(context.Background(), args...)
	return err
}

// close ends the writer once what is being written is written.
func (w *writer) close() error {
	close(w.stop)
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	var errs []error
	for _, s := range w.sql {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}
