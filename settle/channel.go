package settle

import (
	"fmt"
	"slices"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// Channel is one side's view of a channel: a value that its methods never
// change. They return the next state, or the same one with an error. Its
// encoding is what a store keeps; [Channel.Check] states what always holds.
type Channel struct {
	ID     pktcloud.ID              `cbor:"id"`
	Params Params                   `cbor:"params"`
	Role   Role                     `cbor:"role"`
	Phase  Phase                    `cbor:"phase"`
	Height uint64                   `cbor:"height"` // last observed or estimated
	Funded bool                     `cbor:"funded"` // the chain knows the funding output
	Depth  uint64                   `cbor:"depth"`  // its confirmations
	Latest pktcloud.Signed[Voucher] `cbor:"latest"` // Sequence 0: none yet
	Close  CloseOffer               `cbor:"close"`  // Version 0: none signed
	Spent  Spent                    `cbor:"spent"`
	Into   Into                     `cbor:"into,omitzero"` // of a predecessor
	From   From                     `cbor:"from,omitzero"` // of a successor
}

// Spent is what a side knows of the transaction that ends the channel.
type Spent struct {
	Known  bool     `cbor:"known"` // seen in a block or in the mempool
	TxID   [32]byte `cbor:"tx"`
	Depth  uint64   `cbor:"depth"`
	Refund bool     `cbor:"refund"` // it pays the payer alone, after expiry
}

// Observation is what the chain said of a channel in one look at it.
type Observation struct {
	Height uint64
	Funded bool
	Depth  uint64
	Spent  Spent
}

// NewChannel returns a channel that begins at a height. Errors match
// [ErrParams] or [ErrLate].
func NewChannel(p Params, role Role, height uint64) (Channel, error) {
	if err := p.Validate(); err != nil {
		return Channel{}, err
	}
	if role != Payer && role != Payee {
		return Channel{}, Refuse(ErrRole, "role %d", role)
	}
	id, err := p.ID()
	if err != nil {
		return Channel{}, Refuse(ErrParams, "%w", err)
	}
	if height >= p.Deadline() {
		return Channel{}, Refuse(ErrLate, "expiry %d leaves no time at height %d", p.ExpiryHeight, height)
	}
	return Channel{ID: id, Params: p, Role: role, Phase: Opening, Height: height}, nil
}

// Paid is the total of the latest voucher.
func (c Channel) Paid() pktcloud.Amount { return c.Latest.Body.Total }

// Settled reports whether the funding has the depth that was agreed.
func (c Channel) Settled() bool {
	return c.Funded && c.Depth >= c.Params.MinDepth && (c.From.Channel.IsZero() || c.Depth > 0) // a roll can be replaced until then
}

// Room is what a further voucher can still add to the total now.
func (c Channel) Room() pktcloud.Amount {
	most := c.Params.Spendable()
	if !c.Settled() {
		most = min(most, c.trusted())
	}
	return most.SubFloor(c.Paid())
}

// trusted is the largest total before the funding has depth: the unconfirmed
// limit and, in a successor, what its predecessor pays all the same [ROLL-6].
func (c Channel) trusted() pktcloud.Amount { return c.From.Secured + c.Params.Unconfirmed }

// Next returns the body of the payer's next voucher, which raises one lease's
// entry, without its proof [SETTLE-12]. When the latest voucher already says
// so, it returns that one's body, proof included. Errors are those of Accept.
func (c Channel) Next(e Entry) (Voucher, error) {
	if c.Role != Payer {
		return Voucher{}, Refuse(ErrRole, "only the payer makes vouchers")
	}
	last := c.Latest.Body
	old, ok := last.Entry(e.Lease)
	if ok && old == e {
		return last, nil
	}
	if ok && e.Cumulative < old.Cumulative {
		return Voucher{}, Refuse(ErrFell, "a lease's entry fell from %d to %d units", uint64(old.Cumulative), uint64(e.Cumulative))
	}
	if e.Cumulative == 0 {
		return Voucher{}, Refuse(ErrMalformed, "a voucher entry pays nothing")
	}
	entries := slices.DeleteFunc(slices.Clone(last.Entries), func(o Entry) bool { return o.Lease == e.Lease })
	at, _ := slices.BinarySearchFunc(entries, e.Lease, func(o Entry, l pktcloud.ID) int { return compareIDs(o.Lease, l) })
	entries = slices.Insert(entries, at, e)
	if len(entries) > MaxEntries {
		return Voucher{}, Refuse(ErrCapacity, "a channel pays at most %d leases", MaxEntries)
	}
	total, err := last.Total.SubFloor(old.Cumulative).Add(e.Cumulative)
	if err != nil {
		return Voucher{}, Refuse(ErrCapacity, "%w", err)
	}
	v := Voucher{
		Version: VoucherVersion, Channel: c.ID, Payer: c.Params.Payer,
		Sequence: last.Sequence + 1, Total: total, Entries: entries,
	}
	return v, c.follows(v)
}

// Issue returns the payer's state after it signed a voucher that [Channel.Next]
// made. It trusts its own signatures. Make the new state durable before the
// voucher leaves.
func (c Channel) Issue(s pktcloud.Signed[Voucher]) (Channel, error) {
	if c.Role != Payer {
		return c, Refuse(ErrRole, "only the payer makes vouchers")
	}
	return c.take(s, nil)
}

// Adopt returns the payer's state after it was shown a voucher of its own that
// it does not know, as after the loss of its store [SETTLE-64]. One that is not
// above the latest changes nothing. Errors are those of Accept.
func (c Channel) Adopt(s pktcloud.Signed[Voucher], r Rail) (Channel, error) {
	if c.Role != Payer {
		return c, Refuse(ErrRole, "only the payer adopts vouchers of its own")
	}
	if s.Body.Sequence <= c.Latest.Body.Sequence && s.Body.Channel == c.ID {
		return c, nil
	}
	return c.take(s, r)
}

// Accept returns the payee's state after a voucher [SETTLE-13] to [SETTLE-18].
// A voucher equal to the latest one changes nothing and is no error. Make the
// new state durable before it is acknowledged. Errors match [ErrMalformed],
// [ErrRole], [ErrChannel], [ErrStale], [ErrFell], [ErrCapacity],
// [ErrUnconfirmed], [ErrLate], [ErrClosed] or [ErrProof].
func (c Channel) Accept(s pktcloud.Signed[Voucher], r Rail) (Channel, error) {
	if c.Role != Payee {
		return c, Refuse(ErrRole, "only the payee accepts vouchers")
	}
	return c.take(s, r)
}

func (c Channel) take(s pktcloud.Signed[Voucher], r Rail) (Channel, error) {
	if same(c.Latest, s) {
		return c, nil
	}
	if err := s.Body.Validate(); err != nil {
		return c, err
	}
	if err := c.follows(s.Body); err != nil {
		return c, err
	}
	if r != nil {
		if err := c.proves(s, r); err != nil {
			return c, err
		}
	}
	c.Latest = s
	return c, nil
}

// proves checks both signatures of a voucher [SETTLE-19].
func (c Channel) proves(s pktcloud.Signed[Voucher], r Rail) error {
	if err := s.Verify(); err != nil {
		return Refuse(ErrProof, "the payer's device signature: %w", err)
	}
	if r.Name() != c.Params.Rail {
		return Refuse(ErrParams, "rail %q cannot judge a channel of %q", r.Name(), c.Params.Rail)
	}
	return r.VerifyVoucher(c.Params, s.Body.Total, s.Body.Proof)
}

// same reports whether two vouchers are equal to the byte.
func same(a, b pktcloud.Signed[Voucher]) bool {
	if a.Sig != b.Sig || a.Body.Sequence != b.Body.Sequence || a.Body.Sequence == 0 {
		return false
	}
	x, errX := a.Encode()
	y, errY := b.Encode()
	return errX == nil && errY == nil && string(x) == string(y)
}

// follows holds the rules for a voucher after the latest one. Both sides call
// it, so that they cannot quarrel over its result.
func (c Channel) follows(v Voucher) error {
	last := c.Latest.Body
	switch {
	case v.Channel != c.ID || v.Payer != c.Params.Payer: // [SETTLE-13]
		return Refuse(ErrChannel, "the voucher is for %s", v.Channel)
	case v.Sequence <= last.Sequence: // [SETTLE-14]
		return Refuse(ErrStale, "sequence %d after %d", v.Sequence, last.Sequence)
	case c.Phase == Rolling:
		return Refuse(ErrRolling, "a payment is signed for the successor %s as well", c.Into.Channel)
	case c.Phase != Opening && c.Phase != Open: // [SETTLE-18]
		return Refuse(ErrClosed, "the channel is %s", c.Phase)
	case c.Height >= c.Params.Deadline(): // [SETTLE-20]
		return Refuse(ErrLate, "height %d, no voucher from %d on", c.Height, c.Params.Deadline())
	}
	for _, old := range last.Entries { // then the total, their sum, does not fall either [SETTLE-15]
		e, ok := v.Entry(old.Lease)
		if !ok || e.Cumulative < old.Cumulative {
			return Refuse(ErrFell, "the entry of lease %s fell below %d units", old.Lease, uint64(old.Cumulative))
		}
	}
	if v.Total > c.Params.Spendable() { // [SETTLE-16]
		return Refuse(ErrCapacity, "a total of %d units, the channel pays at most %d", uint64(v.Total), uint64(c.Params.Spendable()))
	}
	if !c.Settled() && v.Total > c.trusted() { // [SETTLE-17]
		return Refuse(ErrUnconfirmed, "a total of %d units, at most %d until the funding has %d confirmations (now %d)",
			uint64(v.Total), uint64(c.trusted()), c.Params.MinDepth, c.Depth)
	}
	return nil
}

// OfferClose checks that the payer may sign a close that pays final, and
// returns the state that pays no more [SETTLE-30]. The offer bears the rail's
// signature. Make the new state durable before the offer leaves. Errors match
// [ErrRole], [ErrClosed], [ErrClose] or [ErrMalformed].
func (c Channel) OfferClose(o CloseOffer) (Channel, error) {
	if c.Role != Payer {
		return c, Refuse(ErrRole, "only the payer offers a close")
	}
	if err := c.closes(o); err != nil {
		return c, err
	}
	c.Phase, c.Close = Closing, o
	return c, nil
}

// AcceptClose returns the payee's state after a close offer that it will sign:
// it accepts nothing more [SETTLE-31] [SETTLE-32]. An offer equal to the one
// accepted changes nothing. Make the new state durable before the close is
// broadcast. Errors match [ErrRole], [ErrClosed], [ErrClose], or are the rail's.
func (c Channel) AcceptClose(o CloseOffer, r Rail) (Channel, error) {
	if c.Role != Payee {
		return c, Refuse(ErrRole, "only the payee accepts a close")
	}
	if c.Close.Version != 0 {
		if c.Close.Final == o.Final && c.Close.Fee == o.Fee && slices.Equal(c.Close.Signature, o.Signature) {
			return c, nil
		}
		return c, Refuse(ErrClosed, "another close has been signed")
	}
	if c.Phase != Opening && c.Phase != Open && c.Phase != Rolling {
		return c, Refuse(ErrClosed, "the channel is %s", c.Phase)
	}
	if err := c.closes(o); err != nil {
		return c, err
	}
	if err := r.VerifyClose(c.Params, o); err != nil {
		return c, err
	}
	c.Phase, c.Close = Closing, o
	return c, nil
}

// closes holds what both sides demand of a close offer.
func (c Channel) closes(o CloseOffer) error {
	if err := o.Validate(); err != nil {
		return err
	}
	if o.Channel != c.ID {
		return Refuse(ErrChannel, "the close offer is for %s", o.Channel)
	}
	if c.Phase == Rolling {
		return Refuse(ErrRolling, "close its successor %s", c.Into.Channel)
	}
	if c.Phase.Final() || c.Spent.Known {
		return Refuse(ErrClosed, "the channel is %s", c.Phase)
	}
	if o.Final < c.Paid() { // [SETTLE-31]
		return Refuse(ErrClose, "final %d units are less than the %d of the latest voucher", uint64(o.Final), uint64(c.Paid()))
	}
	if need, err := o.Final.Add(o.Fee); err != nil || need > c.Params.Capacity {
		return Refuse(ErrClose, "final %d and fee %d units exceed the capacity", uint64(o.Final), uint64(o.Fee))
	}
	return nil
}

// Claim returns the payee's state once it decided to claim its latest voucher
// without the payer: it accepts nothing more. Errors match [ErrRole],
// [ErrClosed] or, without a voucher, [ErrClose].
func (c Channel) Claim() (Channel, error) {
	switch {
	case c.Role != Payee:
		return c, Refuse(ErrRole, "only the payee claims")
	case c.Phase.Final() || c.Spent.Depth > 0:
		return c, Refuse(ErrClosed, "the channel is %s", c.Phase)
	case c.Latest.Body.Sequence == 0:
		return c, Refuse(ErrClose, "there is no voucher to claim")
	}
	c.Phase = Closing
	return c, nil
}

// Refund returns the payer's state once it takes everything back. Errors match
// [ErrRole], [ErrClosed] or, before the expiry height, [ErrEarly] [SETTLE-22].
func (c Channel) Refund() (Channel, error) {
	switch {
	case c.Role != Payer:
		return c, Refuse(ErrRole, "only the payer refunds")
	case c.Phase.Final() || c.Spent.Depth > 0:
		return c, Refuse(ErrClosed, "the channel is %s", c.Phase)
	case c.Height < c.Params.ExpiryHeight:
		return c, Refuse(ErrEarly, "height %d, refundable from %d on", c.Height, c.Params.ExpiryHeight)
	}
	c.Phase = Closing
	return c, nil
}

// Abandon returns the payer's state once it gave up a channel whose funding it
// never let go. Errors match [ErrRole] or [ErrClosed].
func (c Channel) Abandon() (Channel, error) {
	switch {
	case c.Role != Payer:
		return c, Refuse(ErrRole, "only the payer abandons")
	case c.Phase == Abandoned:
		return c, nil
	case c.Phase != Opening || c.Funded:
		return c, Refuse(ErrClosed, "the channel is %s and funded", c.Phase)
	}
	c.Phase = Abandoned
	return c, nil
}

// At returns the channel at a height that was estimated, if that is beyond the
// one last observed. The next observation corrects it.
func (c Channel) At(height uint64) Channel {
	c.Height = max(c.Height, height)
	return c
}

// Observe returns the channel after a look at the chain. An observation has no
// error: it is what is. A funding that lost its depth takes the channel back to
// Opening; an end counts once it is as deep as the funding had to be [SETTLE-24].
func (c Channel) Observe(o Observation) Channel {
	c.Height = o.Height
	if c.Phase == Closed || c.Phase == Refunded {
		c.Spent.Depth = max(c.Spent.Depth, o.Spent.Depth)
		return c
	}
	c.Funded, c.Depth, c.Spent = o.Funded, o.Depth, o.Spent
	if c.Phase == Abandoned && !c.Funded {
		return c
	}
	if !c.Into.Channel.IsZero() {
		return c.observeRoll()
	}
	if c.Phase != Closing {
		c.Phase = Opening
		if c.Settled() {
			c.Phase = Open
		}
	}
	if !c.Spent.Known {
		return c
	}
	return c.ended()
}

// ended is the channel after its funding was seen spent.
func (c Channel) ended() Channel {
	c.Phase = Closing
	if c.Spent.Depth >= max(1, c.Params.MinDepth) {
		c.Phase = Closed
		if c.Spent.Refund {
			c.Phase = Refunded
		}
	}
	return c
}

// Decide returns what the channel needs at a height, which may be an estimate
// while the chain is out of sight [SETTLE-20] [SETTLE-21] [SETTLE-22].
func (c Channel) Decide(height uint64) Decision {
	height = max(height, c.Height)
	switch {
	case c.Phase.Final() || c.Spent.Depth > 0 || height < c.Params.Deadline():
		return Wait
	case c.Role == Payee && c.Latest.Body.Sequence > 0:
		return ClaimNow
	case c.Role == Payer && c.Funded && height >= c.Params.ExpiryHeight:
		return RefundNow
	}
	return StopServing
}

// Check states what always holds of a channel.
func (c Channel) Check() error {
	id, err := c.Params.ID()
	if err != nil {
		return err
	}
	v := c.Latest.Body
	switch {
	case id != c.ID:
		return fmt.Errorf("settle: channel %s has the parameters of %s", c.ID, id)
	case c.Role != Payer && c.Role != Payee, c.Phase < Opening || c.Phase > Rolled:
		return fmt.Errorf("settle: channel of %s in %s", c.Role, c.Phase)
	case v.Sequence == 0 && v.Total != 0, v.Sequence > 0 && (v.Channel != c.ID || v.Payer != c.Params.Payer):
		return fmt.Errorf("settle: a voucher that is not the channel's own")
	case v.Total > c.Params.Spendable():
		return fmt.Errorf("settle: paid %d of %d units", uint64(v.Total), uint64(c.Params.Spendable()))
	case c.Phase == Open && !c.Settled():
		return fmt.Errorf("settle: open at depth %d", c.Depth)
	case (c.Phase == Closed || c.Phase == Refunded) && c.Spent.Depth == 0:
		return fmt.Errorf("settle: %s without a block", c.Phase)
	case (c.Phase == Rolling || c.Phase == Rolled) && c.Into.Channel.IsZero():
		return fmt.Errorf("settle: %s into nothing", c.Phase)
	case c.Phase == Rolled && (c.Spent.Depth == 0 || c.Spent.TxID != c.Into.TxID):
		return fmt.Errorf("settle: rolled by %x at depth %d", c.Spent.TxID, c.Spent.Depth)
	case c.From.Secured > v.Total && c.Phase != Abandoned:
		return fmt.Errorf("settle: paid %d units, %d of them secured", uint64(v.Total), uint64(c.From.Secured))
	case c.Close.Version != 0 && (c.Phase == Opening || c.Phase == Open || c.Phase == Rolling):
		return fmt.Errorf("settle: a signed close in phase %s", c.Phase)
	case c.Close.Version != 0 && c.Close.Final < v.Total:
		return fmt.Errorf("settle: a close of %d units below a voucher of %d", uint64(c.Close.Final), uint64(v.Total))
	}
	if v.Sequence > 0 {
		return v.Validate()
	}
	return nil
}
