// Package storetest tells whether an implementation keeps the promises of the
// node's store. Start with [TestStore].
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pkt-cash/pkt-cloud/node/store"
)

// Store is what is tested.
type Store interface {
	Apply(ctx context.Context, puts []store.Put) error
	Load(ctx context.Context, prefix string, fn func(key string, value []byte) error) error
}

// TestStore runs the promises against an empty store and returns the first
// that is broken. Reopen closes the store and opens it again; nil for one that
// does not outlive its process.
func TestStore(s Store, reopen func() (Store, error)) error {
	ctx := context.Background()
	for _, test := range []struct {
		name string
		run  func(context.Context, Store) error
	}{
		{"order and prefix", testOrder},
		{"replace and delete", testReplace},
		{"refused change", testRefused},
		{"early end", testEarlyEnd},
		{"change inside Load", testNested},
		{"many at once", testConcurrent},
	} {
		if err := test.run(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", test.name, err)
		}
	}
	if reopen == nil {
		return nil
	}
	before, err := dump(ctx, s, "")
	if err != nil {
		return err
	}
	again, err := reopen()
	if err != nil {
		return fmt.Errorf("reopen: %w", err)
	}
	after, err := dump(ctx, again, "")
	if err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("after reopening: got\n%s\nwant\n%s", after, before)
	}
	return nil
}

func dump(ctx context.Context, s Store, prefix string) (string, error) {
	var b bytes.Buffer
	err := s.Load(ctx, prefix, func(k string, v []byte) error {
		fmt.Fprintf(&b, "%q=%q\n", k, v)
		return nil
	})
	return b.String(), err
}

func expect(ctx context.Context, s Store, prefix, want string) error {
	got, err := dump(ctx, s, prefix)
	if err == nil && got != want {
		err = fmt.Errorf("under %q got\n%s\nwant\n%s", prefix, got, want)
	}
	return err
}

func testOrder(ctx context.Context, s Store) error {
	err := s.Apply(ctx, []store.Put{
		{Key: "o/b", Value: []byte("2")},
		{Key: "o/a", Value: []byte("1")},
		{Key: "o/\xff", Value: []byte("4")},
		{Key: "o/\xff\xff", Value: []byte("5")},
		{Key: "o/b/c", Value: []byte{}},
		{Key: "p", Value: []byte("6")},
	})
	if err != nil {
		return err
	}
	return errors.Join(
		expect(ctx, s, "o/", "\"o/a\"=\"1\"\n\"o/b\"=\"2\"\n\"o/b/c\"=\"\"\n\"o/\\xff\"=\"4\"\n\"o/\\xff\\xff\"=\"5\"\n"),
		expect(ctx, s, "o/\xff", "\"o/\\xff\"=\"4\"\n\"o/\\xff\\xff\"=\"5\"\n"),
		expect(ctx, s, "o/%", ""),
		expect(ctx, s, "q", ""),
	)
}

func testReplace(ctx context.Context, s Store) error {
	if err := s.Apply(ctx, []store.Put{{Key: "r/a", Value: []byte("1")}, {Key: "r/b", Value: []byte("1")}}); err != nil {
		return err
	}
	// The last change of a key in one call counts.
	if err := s.Apply(ctx, []store.Put{{Key: "r/a", Value: []byte("2")}, {Key: "r/b"}, {Key: "r/none"}, {Key: "r/a", Value: []byte("3")}}); err != nil {
		return err
	}
	return expect(ctx, s, "r/", "\"r/a\"=\"3\"\n")
}

func testRefused(ctx context.Context, s Store) error {
	err := s.Apply(ctx, []store.Put{{Key: "x/a", Value: []byte("1")}, {Key: "x/b", Value: make([]byte, store.MaxValueBytes+1)}})
	if !errors.Is(err, store.ErrTooLarge) {
		return fmt.Errorf("an oversized value: got %v, want ErrTooLarge", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Apply(ended, []store.Put{{Key: "y", Value: make([]byte, store.MaxValueBytes+1)}}); err == nil {
		return errors.New("a change under an ended context was accepted")
	}
	return errors.Join(expect(ctx, s, "x/", ""), s.Apply(ctx, nil))
}

func testEarlyEnd(ctx context.Context, s Store) error {
	if err := s.Apply(ctx, []store.Put{{Key: "e/a", Value: []byte("1")}, {Key: "e/b", Value: []byte("2")}}); err != nil {
		return err
	}
	stop, calls := errors.New("stop"), 0
	err := s.Load(ctx, "e/", func(string, []byte) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		return fmt.Errorf("got %v after %d calls, want the callback's own error after 1", err, calls)
	}
	return nil
}

func testNested(ctx context.Context, s Store) error {
	if err := s.Apply(ctx, []store.Put{{Key: "n/a", Value: []byte("1")}}); err != nil {
		return err
	}
	calls := 0
	err := s.Load(ctx, "n/", func(string, []byte) error {
		calls++
		return s.Apply(ctx, []store.Put{{Key: "n/b", Value: []byte("2")}})
	})
	if err != nil || calls != 1 {
		return fmt.Errorf("got %v after %d calls, want one state seen", err, calls)
	}
	return expect(ctx, s, "n/", "\"n/a\"=\"1\"\n\"n/b\"=\"2\"\n")
}

func testConcurrent(ctx context.Context, s Store) error {
	const callers, changes = 16, 20
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range changes {
				key := fmt.Sprintf("c/%02d", c)
				err := s.Apply(ctx, []store.Put{{Key: key + "/n", Value: []byte{byte(i)}}, {Key: key + "/m", Value: []byte{byte(i)}}})
				errs[c] = errors.Join(errs[c], err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	n := 0
	err := s.Load(ctx, "c/", func(key string, value []byte) error {
		n++
		if !bytes.Equal(value, []byte{changes - 1}) {
			return fmt.Errorf("%s: got %v, want the last change", key, value)
		}
		return nil
	})
	if err == nil && n != 2*callers {
		err = fmt.Errorf("got %d keys, want %d", n, 2*callers)
	}
	return err
}
