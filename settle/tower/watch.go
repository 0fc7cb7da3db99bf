package tower

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// Watch is where a tower stands with a deposit.
//
//	waiting ──lock height──► live (level 0, 1, …) ──mined──► ended ──deep, retained──► dropped
//	                          ▲                               │
//	                          └───────── reorganised ─────────┘
type Watch struct {
	Level uint64   `cbor:"level"` // that is sent
	Since uint64   `cbor:"since"` // height at which it was sent first; 0: none yet
	Ended uint64   `cbor:"ended"` // height of the block that spends the funding; 0: none
	TxID  [32]byte `cbor:"tx"`    // of what spends it there
}

// Act is what a tower does next with a deposit.
type Act uint8

// The acts.
const (
	Sleep Act = iota // nothing
	Send             // broadcast the level of the Watch
	Drop             // forget the deposit
)

// View is what the chain says about a deposit's channel.
type View struct {
	Height  uint64
	Funding settle.Output
}

// Entry is a deposit that a tower keeps.
type Entry struct {
	Reading
	Funding pktcloud.Amount // of the output that is spent
	Levels  []pktchain.Level
	Since   uint64 // no block below holds the funding
	Watch   Watch
}

// LockHeight is the height from which the deposit is sent.
func (e Entry) LockHeight() uint64 { return e.First().LockHeight }

// Live reports whether the deposit's time has come at a height, and nothing
// has ended its channel yet.
func (e Entry) Live(height uint64) bool { return height >= e.LockHeight() && e.Watch.Ended == 0 }

// Next returns what to do about a deposit after a look at the chain [TOWER-20]
// to [TOWER-24]. It is pure; the same look again asks for the same.
func (e Entry) Next(v View) (Watch, Act) {
	w, spend := e.Watch, v.Funding.Spend
	if spend != nil && spend.Depth > 0 {
		w.Ended, w.TxID = v.Height-min(v.Height, spend.Depth-1), spend.TxID
		if spend.Depth >= FinalDepth && v.Height >= w.Ended+RetainBlocks {
			return w, Drop
		}
		return w, Sleep
	}
	w.Ended, w.TxID = 0, [32]byte{} // an end that a reorganisation took back [TOWER-23]
	switch {
	case v.Height < e.LockHeight():
		return w, Sleep
	case !v.Funding.Known && v.Height >= e.First().Expiry+RetainBlocks: // the chain lost the channel
		return w, Drop
	case w.Since == 0:
		w.Since = v.Height
		return w, Send
	case spend != nil && e.level(spend.TxID) > int(w.Level): // another tower has raised it
		w.Level, w.Since = uint64(e.level(spend.TxID)), v.Height
		return w, Sleep
	case v.Height >= w.Since+RaiseBlocks && w.Level+1 < uint64(len(e.Levels)):
		w.Level, w.Since = w.Level+1, v.Height
		return w, Send
	case spend != nil && e.level(spend.TxID) == int(w.Level):
		return w, Sleep
	}
	return w, Send
}

// Contested returns the next level once the network refused the one of w
// because a transaction of somebody else stands in its way in the mempool: the
// tower does not wait for a block then [TOWER-22]. False means that there is no
// higher level, or nothing in the way.
func (e Entry) Contested(w Watch, v View) (Watch, bool) {
	spend := v.Funding.Spend
	if spend == nil || spend.Depth > 0 || e.level(spend.TxID) >= 0 || w.Level+1 >= uint64(len(e.Levels)) {
		return w, false
	}
	w.Level, w.Since = w.Level+1, v.Height
	return w, true
}
