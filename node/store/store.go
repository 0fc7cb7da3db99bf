package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Limits of one change.
const (
	MaxKeyBytes   = 512
	MaxValueBytes = 8 << 20
)

// Errors that functions of this package wrap. Match them with errors.Is.
var (
	// ErrFull marks a change that was refused because the disk is full. Nothing
	// of it was stored.
	ErrFull = errors.New("the disk of the data directory is full")
	// ErrNewer marks a file that a newer release wrote.
	ErrNewer = errors.New("the data directory was written by a newer release")
	// ErrForeign marks a file that is no store of ours.
	ErrForeign = errors.New("not a PKT Cloud store")
	// ErrClosed marks a call after Close.
	ErrClosed = errors.New("the store is closed")
	// ErrBroken marks a store whose last commit ended in doubt. It takes no
	// further change until it is opened again.
	ErrBroken = errors.New("the store failed while it wrote; start the node again")
	// ErrTooLarge marks a key or value beyond the limits.
	ErrTooLarge = errors.New("key or value too large")
)

// Put is one change: the value of a key, or its removal when Value is nil.
type Put = struct {
	Key   string
	Value []byte
}

// Store is a durable map in SQLite. All methods may be called at once. Changes
// that arrive while one is being written share the next transaction, so that
// many channels cost few syncs of the disk.
type Store struct {
	db     *sql.DB
	writer *writer
	once   sync.Once
	closed error // of the first Close
}

// Open opens the store of a file, or makes it. Errors match [ErrNewer],
// [ErrForeign] or [ErrFull].
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	db, err := sql.Open("sqlite", dataSource(path))
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := migrate(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	w, err := newWriter(db)
	if err != nil {
		return nil, errors.Join(wrap(err), db.Close())
	}
	return &Store{db: db, writer: w}, nil
}

func dataSource(path string) string {
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)",
		"journal_mode(WAL)",
		"synchronous(FULL)",
	}}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// Apply makes all puts durable, all or none, before it returns. Errors match
// [ErrFull], [ErrTooLarge], [ErrClosed], [ErrBroken] or the context's. A call
// whose context ends while its change is being written does not know whether
// it was stored.
func (s *Store) Apply(ctx context.Context, puts []Put) error {
	if len(puts) == 0 {
		return nil
	}
	for _, p := range puts {
		if err := checkPut(p); err != nil {
			return err
		}
	}
	return s.writer.apply(ctx, puts)
}

func checkPut(p Put) error {
	if p.Key == "" || len(p.Key) > MaxKeyBytes || len(p.Value) > MaxValueBytes {
		return fmt.Errorf("store: %w: %d bytes under a key of %d, at most %d and %d", ErrTooLarge, len(p.Value), len(p.Key), MaxValueBytes, MaxKeyBytes)
	}
	return nil
}

// Commits is how many transactions were committed since Open, each with one
// sync of the disk.
func (s *Store) Commits() uint64 { return s.writer.count.Load() }

// Load calls fn for each key with the prefix, in ascending order of key, from
// one state of the store. It ends early with fn's first error.
func (s *Store) Load(ctx context.Context, prefix string, fn func(key string, value []byte) error) (err error) {
	query, args := "SELECT key, value FROM kv WHERE key >= ? ORDER BY key", []any{[]byte(prefix)}
	if end := prefixEnd(prefix); end != nil {
		query, args = "SELECT key, value FROM kv WHERE key >= ? AND key < ? ORDER BY key", append(args, end)
	}
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return wrap(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var key, value []byte
		if err := rows.Scan(&key, &value); err != nil {
			return wrap(err)
		}
		if value == nil {
			value = []byte{}
		}
		if err := fn(string(key), value); err != nil {
			return err
		}
	}
	return wrap(rows.Err())
}

// prefixEnd returns the first key behind all that have the prefix, or nil when
// there is none.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}

// Close ends the store. Changes under way are finished first.
func (s *Store) Close() error {
	s.once.Do(func() { s.closed = wrap(errors.Join(s.writer.close(), s.db.Close())) })
	return s.closed
}

func isFull(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_FULL || e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE)
}

// wrap names the store and turns what SQLite says of a full disk, a closed or
// a foreign file into our own errors.
func wrap(err error) error {
	var e *sqlite.Error
	switch {
	case err == nil:
		return nil
	case isFull(err):
		return fmt.Errorf("%w: free some space and try again: %w", ErrFull, err)
	case errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_NOTADB || e.Code()&0xff == sqlite3.SQLITE_CORRUPT):
		return fmt.Errorf("%w: %w", ErrForeign, err)
	default:
		return fmt.Errorf("store: %w", err)
	}
}
