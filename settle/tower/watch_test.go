package tower_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/settletest"
	"github.com/pkt-cash/pkt-cloud/settle/tower"
)

// What a tower decides after each look, from one state to the next.
func TestNext(t *testing.T) {
	l := settletest.NewLedger(network(t))
	c := open(t, l, 0)
	r, err := tower.Read(network(t), c.lateDeposit(1_000_000, 400, 1_600))
	if err != nil {
		t.Fatal(err)
	}
	funding, err := l.Output(t.Context(), c.chain.Detail.Funding)
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := tower.NewBook(network(t), tower.Quota{}, 0).Weigh(r, 20, funding)
	if err != nil {
		t.Fatal(err)
	}
	foreign := [32]byte{7}
	spend := func(txid [32]byte, depth uint64) settle.Output {
		o := funding
		o.Spend = &settle.Spend{TxID: txid, Depth: depth}
		return o
	}
	sent := tower.Watch{Since: lock}
	raised := tower.Watch{Level: 1, Since: lock + 3}
	for _, tt := range []struct {
		name    string
		watch   tower.Watch
		height  uint64
		funding settle.Output
		want    tower.Watch
		act     tower.Act
	}{
		{"one block early", tower.Watch{}, lock - 1, funding, tower.Watch{}, tower.Sleep},
		{"its time", tower.Watch{}, lock, funding, sent, tower.Send},
		{"in the mempool", sent, lock + 2, spend(e.Endings[0].TxID, 0), sent, tower.Sleep},
		{"lost by the mempool", sent, lock + 2, funding, sent, tower.Send},
		{"three blocks in vain", sent, lock + 3, spend(e.Endings[0].TxID, 0), raised, tower.Send},
		{"no level above", raised, lock + 30, spend(e.Endings[1].TxID, 0), raised, tower.Sleep},
		{"raised by another tower", sent, lock + 1, spend(e.Endings[1].TxID, 0), tower.Watch{Level: 1, Since: lock + 1}, tower.Sleep},
		{"something else in the way", sent, lock + 1, spend(foreign, 0), sent, tower.Send},
		{"mined", sent, lock + 1, spend(e.Endings[0].TxID, 1), tower.Watch{Since: lock, Ended: lock + 1, TxID: e.Endings[0].TxID}, tower.Sleep},
		{"taken back", tower.Watch{Since: lock, Ended: lock + 1, TxID: foreign}, lock + 2, funding, sent, tower.Send},
		{"closed before its time", tower.Watch{}, lock - 9, spend(foreign, 3), tower.Watch{Ended: lock - 11, TxID: foreign}, tower.Sleep},
		{"deep and old", tower.Watch{}, lock + 20_000, spend(foreign, 10_001), tower.Watch{Ended: lock + 10_000, TxID: foreign}, tower.Drop},
		{"deep and one block too young", tower.Watch{}, lock + 20_000, spend(foreign, 10_000), tower.Watch{Ended: lock + 10_001, TxID: foreign}, tower.Sleep},
		{"a channel that the chain lost", sent, expiry + tower.RetainBlocks, settle.Output{}, sent, tower.Drop},
	} {
		e.Watch = tt.watch
		if w, act := e.Next(tower.View{Height: tt.height, Funding: tt.funding}); w != tt.want || act != tt.act {
			t.Errorf("%s: got %+v and act %d, want %+v and %d", tt.name, w, act, tt.want, tt.act)
		}
	}
}
