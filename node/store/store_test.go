package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pkt-cash/pkt-cloud/node/store"
	"github.com/pkt-cash/pkt-cloud/node/store/storetest"
)

func open(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestKit(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		if err := storetest.TestStore(new(store.Memory), nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "with space?&#", "node.db")
		s := open(t, path)
		err := storetest.TestStore(s, func() (storetest.Store, error) {
			if err := s.Close(); err != nil {
				return nil, err
			}
			return open(t, path), nil
		})
		if err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the file lies elsewhere: %v", err)
		}
	})
}

// TestGroupCommit: changes that arrive while another is being written share
// one transaction.
func TestGroupCommit(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "node.db"))
	var commits, changes atomic.Int64
	store.OnCommit(s, func(n int) { commits.Add(1); changes.Add(int64(n)) })
	var wg sync.WaitGroup
	const callers, each = 100, 10
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				if err := s.Apply(t.Context(), []store.Put{{Key: fmt.Sprint(c), Value: []byte{byte(i)}}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := changes.Load(); got != callers*each {
		t.Errorf("got %d changes, want %d", got, callers*each)
	}
	if got, most := commits.Load(), int64(callers*each/5); got > most {
		t.Errorf("got %d transactions for %d changes of %d callers, want at most %d", got, callers*each, callers, most)
	}
}

func TestDiskFull(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "node.db"))
	if err := s.Apply(t.Context(), []store.Put{{Key: "a", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	if err := store.LimitPages(s, 20); err != nil {
		t.Fatal(err)
	}
	err := s.Apply(t.Context(), []store.Put{{Key: "a", Value: []byte("2")}, {Key: "b", Value: make([]byte, 1<<20)}})
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	seen := ""
	if err := s.Load(t.Context(), "", func(k string, v []byte) error { seen += k + "=" + string(v); return nil }); err != nil {
		t.Fatal(err)
	}
	if seen != "a=1" {
		t.Errorf("after a refused change got %q, want %q", seen, "a=1")
	}
	if err := s.Apply(t.Context(), []store.Put{{Key: "a", Value: []byte("3")}}); err != nil {
		t.Errorf("a change that fits, after one that did not: %v", err)
	}
}

func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	exec := func(name string, queries ...string) string {
		path := filepath.Join(dir, name)
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range queries {
			if _, err := db.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	newer := filepath.Join(dir, "newer.db")
	if s, err := store.Open(newer); err != nil {
		t.Fatal(err)
	} else if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	exec("newer.db", "PRAGMA user_version = 99")
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte("this is no database, and it is long enough to be read as a header of one......................"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		want       error
	}{
		{"newer", newer, store.ErrNewer},
		{"other tables", exec("other.db", "CREATE TABLE t (a)"), store.ErrForeign},
		{"no database", text, store.ErrForeign},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := store.Open(c.path)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if s != nil {
				s.Close()
			}
		})
	}
}

func TestAfterClose(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "node.db"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(context.Background(), []store.Put{{Key: "a", Value: []byte("1")}}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func BenchmarkApply(b *testing.B) {
	s, err := store.Open(filepath.Join(b.TempDir(), "node.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 400)
	for b.Loop() {
		if err := s.Apply(b.Context(), []store.Put{{Key: "k", Value: value}}); err != nil {
			b.Fatal(err)
		}
	}
}
