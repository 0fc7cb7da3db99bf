package peer

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/pkt-cash/pkt-cloud/lease"
)

// MaxQuotes bounds the quotes of a provider that stand at one time, and with
// them the payment keys that strangers can make it keep.
const MaxQuotes = 1024

// quoted are the payment keys of quotes that no channel has used [LEASE-18].
type quoted struct {
	mu   sync.Mutex
	keys []quotedKey
}

type quotedKey struct {
	detail  []byte
	expires int64 // of the quote that names it, Unix seconds
}

// take returns a payment key for a quote: that of an expired one if there is
// one, else a fresh one.
func (q *quoted) take(ctx context.Context, payee Payee, now, expires int64) ([]byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.IndexFunc(q.keys, func(k quotedKey) bool { return k.expires <= now }); i >= 0 {
		q.keys[i].expires = expires
		return q.keys[i].detail, nil
	}
	if len(q.keys) >= MaxQuotes {
		return nil, lease.Refusal(lease.CodeBusy, "too many quotes are open, try again")
	}
	detail, err := payee.PayeeDetail(ctx)
	if err != nil {
		return nil, &lease.Error{Code: lease.CodeBusy, Detail: "no payment key at the moment", Err: err}
	}
	q.keys = append(q.keys, quotedKey{detail, expires})
	return detail, nil
}

// used forgets a key that a channel has.
func (q *quoted) used(detail []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.IndexFunc(q.keys, func(k quotedKey) bool { return bytes.Equal(k.detail, detail) }); i >= 0 {
		q.keys = slices.Delete(q.keys, i, i+1)
	}
}
