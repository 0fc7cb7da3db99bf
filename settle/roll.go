package settle

import (
	"fmt"
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// RollOfferVersion is the version of RollOffer that this package writes.
const RollOfferVersion = 1

// RollOffer is the payer's half of a roll: one transaction ends a channel, the
// predecessor, and funds its successor, which pays on where it stood. First
// carries what is paid over; Late is the rail's signature of the successor's
// late proof of the same total. Both are empty when nothing was paid. Tx is the
// rail's own, complete but for the payee's signature, and Signature the payer's
// of it [ROLL-1].
type RollOffer struct {
	Version   uint64                   `cbor:"v" json:"v"`
	Channel   pktcloud.ID              `cbor:"channel" json:"channel"`
	Successor Params                   `cbor:"successor" json:"successor"`
	First     pktcloud.Signed[Voucher] `cbor:"first" json:"first"`
	Late      []byte                   `cbor:"late" json:"late"`
	Tx        []byte                   `cbor:"tx" json:"tx"`
	Signature []byte                   `cbor:"sig" json:"sig"`
	Ext       map[string][]byte        `cbor:"ext" json:"ext,omitempty"`
}

// Validate checks the offer's shape. Errors match [ErrMalformed] or [ErrParams].
func (o RollOffer) Validate() error {
	switch {
	case o.Version != RollOfferVersion:
		return Refuse(ErrMalformed, "roll offer version %d, want %d", o.Version, RollOfferVersion)
	case len(o.Tx) == 0 || len(o.Tx) > MaxRollBytes:
		return Refuse(ErrMalformed, "a roll of %d bytes, at most %d", len(o.Tx), MaxRollBytes)
	case len(o.Signature) == 0 || len(o.Signature) > MaxProofBytes || len(o.Late) > MaxProofBytes || len(o.Ext) > MaxExt:
		return Refuse(ErrMalformed, "signatures or extensions of a roll offer of a wrong size")
	}
	if b, err := o.First.Encode(); err != nil || len(b) > MaxVoucherBytes {
		return Refuse(ErrMalformed, "a first voucher of %d bytes, at most %d", len(b), MaxVoucherBytes)
	}
	return o.Successor.Validate()
}

// Encode returns the offer's bytes.
func (o RollOffer) Encode() ([]byte, error) { return pktcloud.Marshal(o) }

// ParseRollOffer decodes and validates a roll offer. Whoever accepts it checks
// its signatures. Errors match [ErrMalformed] or [ErrParams].
func ParseRollOffer(data []byte) (RollOffer, error) {
	var o RollOffer
	if err := pktcloud.Unmarshal(data, &o, MaxRollOfferBytes); err != nil {
		return RollOffer{}, Refuse(ErrMalformed, "roll offer: %w", err)
	}
	if err := o.Validate(); err != nil {
		return RollOffer{}, err
	}
	return o, nil
}

// Into is what a predecessor knows of its roll.
type Into struct {
	Channel pktcloud.ID `cbor:"channel"` // the successor
	TxID    [32]byte    `cbor:"tx"`      // of the roll
	Depth   uint64      `cbor:"depth"`   // at which the roll is done: the successor's
}

// From is what a successor knows of its predecessor.
type From struct {
	Channel pktcloud.ID     `cbor:"channel"`
	Secured pktcloud.Amount `cbor:"secured"` // what the predecessor pays, should the roll fail
}

// Pair is a predecessor and its successor while their roll is under way: what is
// paid is signed for both [ROLL-6]. Like [Channel] it is a value.
type Pair struct{ From, To Channel }

// RollDeadline is the height from which no roll into a successor of this depth
// may begin: the deadline less that depth [ROLL-4].
func (p Params) RollDeadline(depth uint64) uint64 { return p.Deadline() - min(p.Deadline(), depth) }

// Roll returns both sides' state once a roll was offered or accepted; c is the
// predecessor as this side has it, and txid that of the roll. What the rail says
// of the transaction is the caller's to ask. A payer needs no rail: it trusts its
// own signatures. Make both states durable before the payer's signature leaves,
// or the payee's [ROLL-5]. Errors match [ErrMalformed], [ErrChannel],
// [ErrRolling], [ErrClosed], [ErrUnconfirmed], [ErrLate], [ErrParams],
// [ErrCapacity], [ErrRoll], or are those of Accept.
func (c Channel) Roll(o RollOffer, txid [32]byte, r Rail) (Pair, error) {
	if err := c.mayRoll(o); err != nil {
		return Pair{}, err
	}
	to, err := NewChannel(o.Successor, c.Role, c.Height)
	if err != nil {
		return Pair{}, err
	}
	if err := c.carries(o); err != nil {
		return Pair{}, err
	}
	c.Phase, c.Into = Rolling, Into{Channel: to.ID, TxID: txid, Depth: o.Successor.MinDepth}
	to.From = From{Channel: c.ID, Secured: c.Paid()}
	if o.First.Body.Sequence > 0 {
		if c.Role == Payer {
			to, err = to.Issue(o.First)
		} else {
			to, err = to.Accept(o.First, r)
		}
	}
	return Pair{From: c, To: to}, err
}

// mayRoll holds for the offer itself.
func (c Channel) mayRoll(o RollOffer) error {
	if err := o.Validate(); err != nil {
		return err
	}
	if o.Channel != c.ID {
		return Refuse(ErrChannel, "the roll is of %s", o.Channel)
	}
	return c.CanRoll(o.Successor)
}

// CanRoll holds when a channel may roll, and into what [ROLL-2] [ROLL-4]. It does
// not look at the rail's detail. Errors match [ErrRolling], [ErrUnconfirmed],
// [ErrClosed], [ErrLate], [ErrParams] or [ErrCapacity].
func (c Channel) CanRoll(s Params) error {
	p := c.Params
	switch {
	case c.Phase == Rolling:
		return Refuse(ErrRolling, "it rolls into %s already", c.Into.Channel)
	case c.Phase == Opening:
		return Refuse(ErrUnconfirmed, "the funding has %d confirmations, want %d before a roll", c.Depth, p.MinDepth)
	case c.Phase != Open: // after a signed close nothing more is accepted
		return Refuse(ErrClosed, "the channel is %s", c.Phase)
	case c.Height >= p.RollDeadline(s.MinDepth):
		return Refuse(ErrLate, "height %d, no roll from %d on", c.Height, p.RollDeadline(s.MinDepth))
	case s.Rail != p.Rail || s.Payer != p.Payer || s.Payee != p.Payee:
		return Refuse(ErrParams, "the successor is of another rail or other sides")
	case s.Reserve != p.Reserve || s.MinChange != p.MinChange || s.MarginBlocks != p.MarginBlocks:
		return Refuse(ErrParams, "the successor has another reserve, least change or margin")
	case s.MinDepth < p.MinDepth || s.Unconfirmed > p.Unconfirmed:
		return Refuse(ErrParams, "the successor asks for less depth, or trusts more before it")
	case s.ExpiryHeight < p.ExpiryHeight:
		return Refuse(ErrParams, "the successor expires at %d, before %d", s.ExpiryHeight, p.ExpiryHeight)
	case s.Spendable() < c.Paid():
		return Refuse(ErrCapacity, "the successor pays at most %d units, %d are paid", uint64(s.Spendable()), uint64(c.Paid()))
	}
	return nil
}

// carries holds that the first voucher says what the latest one does [ROLL-3].
func (c Channel) carries(o RollOffer) error {
	last, first := c.Latest.Body, o.First.Body
	switch {
	case last.Sequence == 0 && (first.Sequence > 0 || len(o.Late) > 0):
		return Refuse(ErrRoll, "a first voucher where nothing was paid")
	case last.Sequence > 0 && (first.Sequence != 1 || first.Total != last.Total || !slices.Equal(first.Entries, last.Entries)):
		return Refuse(ErrRoll, "the successor's first voucher says %d units, or shares them otherwise than the %d paid", uint64(first.Total), uint64(last.Total))
	case last.Sequence > 0 && len(o.Late) == 0:
		return Refuse(ErrRoll, "no late proof for what the first voucher pays")
	}
	return nil
}

// Withdraw returns the payer's state after the payee refused the offer: the
// predecessor pays on alone. Errors match [ErrRole] or [ErrClosed] [ROLL-10].
func (p Pair) Withdraw() (Pair, error) {
	switch {
	case p.From.Role != Payer:
		return p, Refuse(ErrRole, "only the payer withdraws a roll")
	case p.From.Phase != Rolling || p.From.Spent.Known || p.To.Funded || p.To.Paid() != p.From.Paid():
		return p, Refuse(ErrClosed, "the channel is %s, and the roll may be under way", p.From.Phase)
	}
	p.From.Phase, p.From.Into = Opening, Into{}
	if p.From.Settled() {
		p.From.Phase = Open
	}
	p.To.Phase = Abandoned
	return p, nil
}

// Fail returns the state after the predecessor ended otherwise than by the roll:
// the successor can never be funded [ROLL-9]. Before that it is unchanged.
func (p Pair) Fail() Pair {
	if (p.From.Phase == Closed || p.From.Phase == Refunded || p.From.Phase == Abandoned) && !p.To.Funded {
		p.To.Phase = Abandoned
	}
	return p
}

// Done reports whether the successor pays alone [ROLL-8].
func (p Pair) Done() bool { return p.From.Phase == Rolled && p.To.Settled() }

// Unsecured is what the payee loses should the roll fail now, fees left out.
func (p Pair) Unsecured() pktcloud.Amount { return p.To.Paid().SubFloor(p.From.Paid()) }

// Room is what a further payment can still add to the total now: what both can
// pay, and what the successor alone may pay unconfirmed.
func (p Pair) Room() pktcloud.Amount {
	alone := p.To.Params.Unconfirmed.SubFloor(p.Unsecured())
	return min(p.To.Params.Spendable().SubFloor(p.To.Paid()), p.From.Params.Spendable().SubFloor(p.From.Paid())+alone)
}

// Next returns the bodies of the payer's vouchers that raise one lease's entry
// on both channels, without proofs: from raises it as far as the predecessor can
// pay, and has sequence zero when that is not at all [ROLL-6]. Errors are those
// of [Channel.Next].
func (p Pair) Next(e Entry) (to, from Voucher, err error) {
	if err := p.passes(); err != nil {
		return Voucher{}, Voucher{}, err
	}
	part := e
	old, _ := p.From.Latest.Body.Entry(e.Lease)
	part.Cumulative = min(e.Cumulative, old.Cumulative+p.From.Params.Spendable().SubFloor(p.From.Paid()))
	paid := p.From.Paid()
	if p.From.Phase == Rolling && part.Cumulative > old.Cumulative {
		if from, err = p.From.alone().Next(part); err != nil {
			return Voucher{}, Voucher{}, err
		}
		paid = from.Total
	}
	p.To.From.Secured = paid
	to, err = p.To.Next(e)
	return to, from, err
}

// Accept returns the payee's state after a payment of both channels; from has
// sequence zero when the predecessor pays no more. One that was accepted before
// changes nothing. Make both states durable, together, before it is
// acknowledged. Errors are those of [Channel.Accept], or match [ErrRolling].
func (p Pair) Accept(to, from pktcloud.Signed[Voucher], toRail, fromRail Rail) (Pair, error) {
	if p.To.Role != Payee {
		return p, Refuse(ErrRole, "only the payee accepts vouchers")
	}
	return p.take(to, from, toRail, fromRail)
}

// Issue returns the payer's state after it signed vouchers that [Pair.Next]
// made.
func (p Pair) Issue(to, from pktcloud.Signed[Voucher]) (Pair, error) {
	if p.To.Role != Payer {
		return p, Refuse(ErrRole, "only the payer makes vouchers")
	}
	return p.take(to, from, nil, nil)
}

func (p Pair) take(to, from pktcloud.Signed[Voucher], toRail, fromRail Rail) (Pair, error) {
	if err := p.passes(); err != nil {
		return p, err
	}
	next := p
	if from.Body.Sequence > 0 && !p.Done() {
		c, err := p.From.alone().take(from, fromRail)
		if err != nil {
			return p, err
		}
		next.From.Latest = c.Latest
	}
	next.To.From.Secured = next.From.Paid()
	var err error
	if next.To, err = next.To.take(to, toRail); err != nil {
		return p, err
	}
	if !covers(next.To.Latest.Body, next.From.Latest.Body) {
		return p, Refuse(ErrRolling, "the successor's voucher of %d units does not cover the predecessor's of %d", uint64(next.To.Paid()), uint64(next.From.Paid()))
	}
	return next, nil
}

// passes holds when payments of a pair pass: while the roll may still succeed,
// and the predecessor can be claimed in time.
func (p Pair) passes() error {
	switch {
	case p.From.Phase != Rolling && p.From.Phase != Rolled:
		return Refuse(ErrClosed, "the predecessor is %s, and not by the roll", p.From.Phase)
	case p.From.Phase == Rolling && p.From.Height >= p.From.Params.Deadline():
		return Refuse(ErrLate, "height %d, and the roll is not done; no voucher from %d on", p.From.Height, p.From.Params.Deadline())
	}
	return nil
}

// alone is the predecessor as one that does not roll: for the rules that hold
// for its half of a payment.
func (c Channel) alone() Channel {
	c.Phase = Open
	return c
}

// covers reports whether one voucher pays each lease as much as another.
func covers(v, other Voucher) bool {
	for _, o := range other.Entries {
		if e, _ := v.Entry(o.Lease); e.Cumulative < o.Cumulative {
			return false
		}
	}
	return true
}

// observeRoll is the rest of [Channel.Observe] for a predecessor [ROLL-7]
// [ROLL-8]. A reorganisation takes a roll that was done back. A side that claims
// already goes on doing so: its claim may still come first.
func (c Channel) observeRoll() Channel {
	switch {
	case c.Spent.Known && c.Spent.TxID != c.Into.TxID:
		return c.ended()
	case c.Spent.Depth >= max(1, c.Into.Depth):
		c.Phase = Rolled
	case c.Phase != Closing:
		c.Phase = Rolling
	}
	return c
}

// Check states what always holds of a predecessor and its successor.
func (p Pair) Check() error {
	switch {
	case p.From.Into.Channel != p.To.ID || p.To.From.Channel != p.From.ID || p.From.Role != p.To.Role:
		return fmt.Errorf("settle: %s and %s do not belong together", p.From.ID, p.To.ID)
	case p.To.From.Secured != p.From.Paid():
		return fmt.Errorf("settle: %d units are taken for secured, the predecessor pays %d", uint64(p.To.From.Secured), uint64(p.From.Paid()))
	case !covers(p.To.Latest.Body, p.From.Latest.Body):
		return fmt.Errorf("settle: the successor pays %d units, the predecessor %d", uint64(p.To.Paid()), uint64(p.From.Paid()))
	}
	if err := p.From.Check(); err != nil {
		return err
	}
	return p.To.Check()
}
