package quorum

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"github.com/pkt-cash/pkt-cloud/settle"
)

// Output implements settle.Ledger. What enough servers know alike counts, at the
// depth that enough of them see [LEDGER-51]; what enough do not know is not
// known; all else is a disagreement [LEDGER-52].
func (l *Ledger) Output(ctx context.Context, at settle.Outpoint) (settle.Output, error) {
	return l.output(ctx, at, func(ctx context.Context, m *member) (settle.Output, error) { return m.Server.Output(ctx, at) })
}

// Unspent implements settle.CoinReader in the same way.
func (l *Ledger) Unspent(ctx context.Context, at settle.Outpoint) (settle.Output, error) {
	return l.output(ctx, at, func(ctx context.Context, m *member) (settle.Output, error) { return m.Server.Unspent(ctx, at) })
}

func (l *Ledger) output(ctx context.Context, at settle.Outpoint, question func(context.Context, *member) (settle.Output, error)) (settle.Output, error) {
	var out settle.Output
	err := l.settled(ctx, func(w whom) error {
		answers, err := everybody(l, w, searchPatience*l.cfg.Patience, question).ask(ctx, l)
		if err == nil {
			out, err = l.agreeOutput(at, answers)
		}
		return err
	})
	return out, err
}

// sum is what servers must say alike of an output.
type sum struct {
	amount uint64
	script string
}

// agreeOutput finds what enough answers say.
func (l *Ledger) agreeOutput(at settle.Outpoint, answers []answer[settle.Output]) (settle.Output, error) {
	votes, spent := map[sum]int{}, map[string]int{}
	known := 0
	for _, a := range answers {
		if !a.value.Known {
			continue
		}
		known++
		votes[sumOf(a.value)]++
		if s := a.value.Spend; s != nil {
			spent[string(s.TxID[:])]++
		}
	}
	best, n := most(votes)
	switch {
	case len(answers)-known >= l.need:
		for _, a := range answers {
			l.tell(a.from, facts, invented(a.value))
		}
		return settle.Output{}, nil
	case n < l.need:
		for _, a := range answers { // whoever is right
			if few := 2*known <= len(answers); a.value.Known == few || 2*known == len(answers) {
				l.tell(a.from, facts, otherwise)
			}
		}
		return settle.Output{}, disagree("output %x:%d is known to %d of %d servers", at.TxID, at.Index, known, len(answers))
	}
	spend := l.agreeSpend(at, best, answers, spent)
	var out settle.Output
	var depths, ends []uint64
	for _, a := range answers {
		o := a.value
		if !o.Known || sumOf(o) != best || (o.Spend == nil) != (spend == nil) || spend != nil && o.Spend.TxID != spend.TxID {
			l.tell(a.from, facts, otherwise)
		} else {
			l.tell(a.from, facts, "")
		}
		if !o.Known || sumOf(o) != best {
			continue
		}
		out = o
		depths = append(depths, o.Depth)
		if spend != nil && o.Spend != nil && o.Spend.TxID == spend.TxID {
			ends = append(ends, o.Spend.Depth)
		}
	}
	out.Depth, out.Spend = nth(depths, l.need), spend
	if spend != nil {
		out.Spend = &settle.Spend{TxID: spend.TxID, Raw: spend.Raw, Depth: nth(ends, l.need)}
	}
	return out, nil
}

// invented says what is wrong with an output that the others do not know. One of
// the last blocks, or of the mempool, may be on its way to them.
func invented(o settle.Output) string {
	if o.Known && o.Depth > lagging {
		return "names an output that the others do not know"
	}
	return ""
}

const otherwise = "says otherwise of an output than the others"

// agreeSpend finds the spend that enough answers name; else one that some name
// and that bears the signatures which the output asks for: nobody could make it
// up, and it may be on its way. Of several bytes for one spend those count whose
// signatures are good.
func (l *Ledger) agreeSpend(at settle.Outpoint, of sum, answers []answer[settle.Output], votes map[string]int) *settle.Spend {
	by, n := most(votes)
	var named *settle.Spend
	for _, a := range answers {
		s := a.value.Spend
		if s == nil || !a.value.Known || n >= l.need && string(s.TxID[:]) != by {
			continue
		}
		if spends(at, of, s) {
			return s
		}
		if tx, err := parse(s.Raw); n >= l.need && err == nil && tx.TxHash() == s.TxID {
			named = s
		}
	}
	return named
}

func parse(raw []byte) (*wire.MsgTx, error) {
	tx := new(wire.MsgTx)
	r := bytes.NewReader(raw)
	if err := tx.Deserialize(r); err != nil {
		return nil, err
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("%d bytes after the transaction", r.Len())
	}
	return tx, nil
}

// spends reports whether a transaction spends an output with what its script
// asks for.
func spends(at settle.Outpoint, of sum, s *settle.Spend) bool {
	tx, err := parse(s.Raw)
	if err != nil || tx.TxHash() != s.TxID {
		return false
	}
	i := slices.IndexFunc(tx.TxIn, func(in *wire.TxIn) bool {
		return in.PreviousOutPoint == wire.OutPoint{Hash: at.TxID, Index: at.Index}
	})
	if i < 0 {
		return false
	}
	fetch := txscript.NewCannedPrevOutputFetcher([]byte(of.script), int64(of.amount))
	vm, err := txscript.NewEngine([]byte(of.script), tx, i, txscript.StandardVerifyFlags, nil, txscript.NewTxSigHashes(tx, fetch), int64(of.amount), fetch)
	return err == nil && vm.Execute() == nil
}

func sumOf(o settle.Output) sum { return sum{uint64(o.Amount), string(o.Script)} }

// Coins implements settle.Ledger: the coins that enough servers list
// [LEDGER-56].
func (l *Ledger) Coins(ctx context.Context, script []byte) ([]settle.Coin, error) {
	var coins []settle.Coin
	err := l.settled(ctx, func(w whom) error {
		answers, err := everybody(l, w, searchPatience*l.cfg.Patience, func(ctx context.Context, m *member) ([]settle.Coin, error) {
			return m.Server.Coins(ctx, script)
		}).ask(ctx, l)
		if err == nil {
			coins, err = l.agreeCoins(answers)
		}
		return err
	})
	return coins, err
}

// coinKey is what servers must say alike of a coin.
type coinKey struct {
	at       settle.Outpoint
	amount   uint64
	script   string
	coinbase bool
}

func keyOf(c settle.Coin) coinKey {
	return coinKey{c.At, uint64(c.Amount), string(c.Script), c.Coinbase}
}

func (l *Ledger) agreeCoins(answers []answer[[]settle.Coin]) ([]settle.Coin, error) {
	depths := map[coinKey][]uint64{}
	place := map[coinKey]int{} // in the list of whoever named it first
	coin := map[coinKey]settle.Coin{}
	for _, a := range answers {
		for i, c := range distinct(a.value) {
			k := keyOf(c)
			if len(depths[k]) == 0 {
				place[k], coin[k] = i, c
			}
			depths[k] = append(depths[k], c.Depth)
		}
	}
	var list []settle.Coin
	open := 0 // coins that neither enough list nor enough deny
	for k, c := range coin {
		if n := len(depths[k]); n < l.need {
			if len(answers)-n < l.need && slices.Max(depths[k]) > lagging {
				open++
			}
			continue // made up, or on its way to the others
		}
		c.Depth = nth(depths[k], l.need)
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b settle.Coin) int {
		return cmp.Or(cmp.Compare(b.Depth, a.Depth), cmp.Compare(place[keyOf(a)], place[keyOf(b)]))
	})
	for _, a := range answers {
		l.tell(a.from, facts, coinTrouble(a.value, list))
	}
	if open > 0 {
		return nil, disagree("%d coins are listed by too few of %d servers", open, len(answers))
	}
	return list, nil
}

// distinct returns a list of coins without those that it names again: a server
// has one vote for a coin.
func distinct(coins []settle.Coin) []settle.Coin {
	seen := make(map[settle.Outpoint]bool, len(coins))
	return slices.DeleteFunc(slices.Clone(coins), func(c settle.Coin) bool {
		again := seen[c.At]
		seen[c.At] = true
		return again
	})
}

// coinTrouble says what is wrong with a server's list of coins beside the one
// that was agreed. Coins of the last blocks may be on their way.
func coinTrouble(got, agreed []settle.Coin) string {
	has := func(list []settle.Coin, c settle.Coin) bool {
		return c.Depth <= lagging || slices.ContainsFunc(list, func(o settle.Coin) bool { return keyOf(o) == keyOf(c) })
	}
	for _, c := range got {
		if !has(agreed, c) {
			return "lists a coin that the others do not know"
		}
	}
	for _, c := range agreed {
		if !has(got, c) {
			return "hides a coin that the others list"
		}
	}
	return ""
}

// Used implements settle.Watcher: a script was used when enough servers say so.
func (l *Ledger) Used(ctx context.Context, script []byte) (bool, error) {
	var used bool
	err := l.settled(ctx, func(w whom) error {
		answers, err := everybody(l, w, searchPatience*l.cfg.Patience, func(ctx context.Context, m *member) (bool, error) {
			return m.Server.Used(ctx, script)
		}).ask(ctx, l)
		if err == nil {
			used, err = l.agreeUsed(answers)
		}
		return err
	})
	return used, err
}

func (l *Ledger) agreeUsed(answers []answer[bool]) (bool, error) {
	n := 0
	for _, a := range answers {
		if a.value {
			n++
		}
	}
	used := n >= l.need
	for _, a := range answers {
		text := ""
		if a.value != used {
			text = "says otherwise of a script than the others"
		}
		l.tell(a.from, facts, text)
	}
	if !used && len(answers)-n < l.need {
		return false, disagree("a script was used for %d of %d servers", n, len(answers))
	}
	return used, nil
}
