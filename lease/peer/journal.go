package peer

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/crash"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// Keys of the journal, spec/lease.md section "Journal". <id> is the lease's id
// in hexadecimal, <n> a number of 20 digits.
//
//	lease/<id>/state          lease.State
//	lease/<id>/terms          lease.SignedTerms
//	lease/<id>/commit         lease.Commit, as a message
//	lease/<id>/offer          pktcloud.Signed[market.Offer] that the terms name
//	lease/<id>/clock          clockMark
//	lease/<id>/statement/<n>  pktcloud.Signed[lease.Statement], by sequence
//	lease/<id>/dispute/<n>    pktcloud.Signed[lease.Dispute], by the statement's sequence
//	lease/<id>/voucher/<n>    pktcloud.Signed[settle.Voucher], by the voucher's sequence
//	lease/<id>/successor/<n>  settle.Params that the lease's channel rolled into, the n-th
//	lease/<id>/rolled/<channel>/<n>  pktcloud.Signed[settle.Voucher] of a successor
//	lease/<id>/proposal       proposal: an amendment under way
//	lease/<id>/amendment/<n>  lease.Countersigned, by revision
//	lease/<id>/close          lease.SignedClose
//	lease/<id>/event/<n>      Event
//	lease/<id>/refusal        refusal: a commit refused for good
const prefix = "lease/"

func key(id pktcloud.ID, parts ...string) string {
	return prefix + id.Hex() + "/" + strings.Join(parts, "/")
}

func numbered(id pktcloud.ID, kind string, n uint64) string {
	return key(id, kind, fmt.Sprintf("%020d", n))
}

// splitKey is the inverse of key.
func splitKey(k string) (id pktcloud.ID, rest string, ok bool) {
	k, ok = strings.CutPrefix(k, prefix)
	if !ok {
		return id, "", false
	}
	name, rest, ok := strings.Cut(k, "/")
	raw, err := hex.DecodeString(name)
	if !ok || err != nil || len(raw) != len(id) {
		return id, "", false
	}
	return pktcloud.ID(raw), rest, true
}

// clockMark ties a lease's uptime to the clocks at the last write.
type clockMark struct {
	Boot   string `cbor:"boot"`
	Since  int64  `cbor:"since"`  // nanoseconds since that boot
	Unix   int64  `cbor:"unix"`   // seconds
	Uptime int64  `cbor:"uptime"` // nanoseconds
}

// uptime returns how long the lease has been going on by now. The clock of the
// same boot is trusted; after another boot the wall clock must do [LEASE-13].
func (m clockMark) uptime(c Clock) time.Duration {
	since, boot := c.Boot()
	away := time.Duration(max(0, c.Now().Unix()-m.Unix)) * time.Second
	if boot != "" && boot == m.Boot {
		away = max(0, since-time.Duration(m.Since))
	}
	return time.Duration(m.Uptime) + away
}

// refusal is a commit refused for good.
type refusal struct {
	CommitBy int64       `cbor:"commit_by"`
	Quote    pktcloud.ID `cbor:"quote"`
	Code     lease.Code  `cbor:"code"`
	Text     string      `cbor:"text"`
}

// apply is the only way to the store.
func apply(ctx context.Context, s Store, puts []Put) error {
	crash.Point("lease store")
	if err := s.Apply(ctx, puts); err != nil {
		return fmt.Errorf("keeping a lease: %w", err)
	}
	crash.Point("lease store")
	return nil
}

func encode(v any) []byte {
	b, err := pktcloud.Marshal(v)
	if err != nil {
		panic("lease/peer: a value of ours that cannot be encoded: " + err.Error())
	}
	return b
}
