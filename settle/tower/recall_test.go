package tower_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

// TestRecallAsksAll: each tower is asked until it answered to the end; what one
// shows reaches who takes it, whatever another withholds, damages or says.
func TestRecallAsksAll(t *testing.T) {
	l := settletest.NewLedger(network(t))
	a, b := open(t, l, 0), open(t, l, 1)
	first, second := newWatch(t, l, nil), newWatch(t, l, nil)
	first.take(a.lateDeposit(1_000_000, 400))
	second.take(a.lateDeposit(2_000_000, 900))
	second.take(b.lateDeposit(3_000_000, 400))
	away := errors.New("away")
	down := true
	var mu sync.Mutex // guards asked
	asked := map[string]int{}
	target := func(name string, w *watch) tower.Target {
		return tower.Target{Name: name, Dial: func(context.Context) (net.Conn, error) {
			mu.Lock()
			asked[name]++
			mu.Unlock()
			if name == "second" && down {
				return nil, away
			}
			return w.served(), nil
		}}
	}
	d, err := tower.NewDepositor(t.Context(), tower.DepositorConfig{
		Network: network(t), Key: towerKey(t, a.payee), Store: settletest.NewStore(), Towers: []tower.Target{target("first", first), target("second", second)},
		Parcels: func(context.Context) ([]tower.Parcel, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	var refusals []error
	var failure error
	take := func(_ context.Context, parcels []tower.Parcel) ([]error, error) {
		for _, p := range parcels {
			got = append(got, p.Txs...)
		}
		return refusals, failure
	}
	has := func(what string, p tower.Parcel) {
		t.Helper()
		if !slices.ContainsFunc(got, func(raw []byte) bool { return bytes.Equal(raw, p.Txs[0]) }) {
			t.Errorf("%s did not come back", what)
		}
	}
	if err := d.Recall(t.Context(), false, take); !errors.Is(err, away) {
		t.Errorf("a tower that is away: got %v", err)
	}
	has("what the other tower keeps", a.late(1_000_000, 400))
	if s := d.Supplies(); !s[0].Told || s[0].Kept != 1 || s[1].Told || s[1].Withheld == "" {
		t.Errorf("got %+v", s)
	}
	down, failure = false, settletest.ErrStore
	if err := d.Recall(t.Context(), false, take); !errors.Is(err, settletest.ErrStore) {
		t.Errorf("nobody could take it: got %v", err)
	}
	failure, refusals = nil, []error{settle.Refuse(settle.ErrProof, "one of them")}
	if err := d.Recall(t.Context(), false, take); err != nil {
		t.Error(err)
	}
	has("a newer deposit", a.late(2_000_000, 900))
	has("another channel's", b.late(3_000_000, 400))
	if s := d.Supplies(); !s[1].Told || s[1].Kept != 1 || s[1].Bad != 1 || s[1].Withheld != "" {
		t.Errorf("got %+v", s)
	}
	if err := d.Recall(t.Context(), false, take); err != nil || asked["first"] != 1 || asked["second"] != 3 {
		t.Errorf("asked %v, %v, want a tower that answered asked once", asked, err)
	}
	if err := d.Recall(t.Context(), true, take); err != nil || asked["first"] != 2 || asked["second"] != 4 {
		t.Errorf("asked %v, %v, want all asked again", asked, err)
	}
}
