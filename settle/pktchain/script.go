package pktchain

import (
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Versions of the funding script, as the sealed note names them [SETTLE-46].
const (
	scriptSingle = 1 // refund by the key that the phrase derives
	scriptMulti  = 2 // refund by keys that the owner knows from elsewhere
)

// FundingScript returns the witness script of a channel [SETTLE-46]:
//
//	OP_IF
//	  2 <payee> <spender> 2 OP_CHECKMULTISIG
//	OP_ELSE
//	  <expiry> OP_CHECKLOCKTIMEVERIFY OP_DROP
//	  <refund> OP_CHECKSIG              or: m <key>… n OP_CHECKMULTISIG
//	OP_ENDIF
//
// expiry is a height. Errors match [settle.ErrParams].
func FundingScript(payee, spender []byte, expiry uint64, refund RefundKeys) ([]byte, error) {
	if expiry == 0 || expiry >= lockTimeThreshold {
		return nil, settle.Refuse(settle.ErrParams, "expiry %d is no height", expiry)
	}
	b := txscript.NewScriptBuilder()
	b.AddOp(txscript.OP_IF)
	b.AddInt64(2).AddData(payee).AddData(spender).AddInt64(2).AddOp(txscript.OP_CHECKMULTISIG)
	b.AddOp(txscript.OP_ELSE)
	b.AddInt64(int64(expiry)).AddOp(txscript.OP_CHECKLOCKTIMEVERIFY).AddOp(txscript.OP_DROP)
	if refund.single() {
		b.AddData(refund.Keys[0]).AddOp(txscript.OP_CHECKSIG)
	} else {
		b.AddInt64(int64(refund.Required))
		for _, k := range refund.Keys {
			b.AddData(k)
		}
		b.AddInt64(int64(len(refund.Keys))).AddOp(txscript.OP_CHECKMULTISIG)
	}
	b.AddOp(txscript.OP_ENDIF)
	script, err := b.Script()
	if err != nil {
		return nil, settle.Refuse(settle.ErrParams, "funding script: %w", err)
	}
	return script, nil
}

// single reports whether the refund needs no multi-signature.
func (r RefundKeys) single() bool { return len(r.Keys) == 1 }
