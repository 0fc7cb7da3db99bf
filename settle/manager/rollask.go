package manager

import (
	"context"
	"errors"
	"net"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/crash"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// RollProtocol names, on a transport that names protocols, how a payer asks its
// payee for the second signature of a roll [ROLL-30].
const RollProtocol = "/pktcloud/roll/1"

// Limits of the protocol [ROLL-30].
const (
	MaxRollAskBytes    = 96 << 10
	MaxRollJudgements  = 2 // at once; others are told busy
	MaxRollAnswerBytes = 40 << 10
)

// RollAsk is a payer's question: its offer, and the latest voucher of the
// predecessor, which may still be on its way by another stream.
type RollAsk struct {
	Version uint64            `cbor:"v"`
	Offer   []byte            `cbor:"offer"`  // encoded settle.RollOffer
	Latest  []byte            `cbor:"latest"` // encoded voucher; empty where nothing was paid
	Ext     map[string][]byte `cbor:"ext"`
}

// ParseRollAsk decodes and validates a question, not what is in it. Errors match
// [settle.ErrMalformed].
func ParseRollAsk(data []byte) (RollAsk, error) {
	var a RollAsk
	if err := pktcloud.Unmarshal(data, &a, MaxRollAskBytes); err != nil {
		return RollAsk{}, settle.Refuse(settle.ErrMalformed, "a question for a roll: %w", err)
	}
	if a.Version != 1 || len(a.Offer) == 0 || len(a.Offer) > settle.MaxRollOfferBytes || len(a.Latest) > settle.MaxVoucherBytes || len(a.Ext) > settle.MaxExt {
		return RollAsk{}, settle.Refuse(settle.ErrMalformed, "question version %d, want 1 with an offer within its limits", a.Version)
	}
	return a, nil
}

// RollAnswer is the answer of a payee that accepts.
type RollAnswer struct {
	Version uint64            `cbor:"v"`
	Tx      []byte            `cbor:"tx"` // the roll with both signatures
	Ext     map[string][]byte `cbor:"ext"`
}

// ParseRollAnswer decodes and validates an answer; [Manager.CompleteRoll] judges
// the transaction. Errors match [settle.ErrMalformed].
func ParseRollAnswer(data []byte) (RollAnswer, error) {
	var a RollAnswer
	if err := pktcloud.Unmarshal(data, &a, MaxRollAnswerBytes); err != nil {
		return RollAnswer{}, settle.Refuse(settle.ErrMalformed, "the answer to a roll: %w", err)
	}
	if a.Version != 1 || len(a.Tx) == 0 || len(a.Tx) > settle.MaxRollBytes+pktchain.MaxEndingBytes || len(a.Ext) > settle.MaxExt {
		return RollAnswer{}, settle.Refuse(settle.ErrMalformed, "answer version %d, want 1 with a roll of at most %d bytes", a.Version, settle.MaxRollBytes+pktchain.MaxEndingBytes)
	}
	return a, nil
}

// RollProposal is what a payee's owner is asked about: a channel, what it would
// roll into, and the voucher that it will then have.
type RollProposal struct {
	Channel   settle.Params
	Successor settle.Params
	Latest    settle.Voucher // Sequence 0: nothing was paid
}

// ServeRoll answers one question as payee and closes the connection. remote is
// the device at the other end, which must be the channel's payer [ROLL-31].
// admit says whether what the owner agreed to allows the successor; an offer that
// was accepted is not put to it again.
func (m *Manager) ServeRoll(ctx context.Context, conn net.Conn, remote pktcloud.PublicKey, admit func(context.Context, RollProposal) error) error {
	defer conn.Close()
	return within(ctx, conn, func() error {
		data, err := wire.ReadFrame(conn, MaxRollAskBytes)
		if err != nil && !errors.Is(err, pktcloud.ErrTooLarge) {
			return err
		}
		raw, refused := m.rollAnswer(ctx, data, remote, admit)
		kind, body := byte(answerProof), any(RollAnswer{Version: 1, Tx: raw})
		if refused != nil {
			kind, body = answerRefuse, refusalOf(refused)
		}
		b, err := pktcloud.Marshal(body)
		if err != nil {
			return err
		}
		crash.Point("roll answer")
		err = wire.WriteFrame(conn, append([]byte{kind}, b...))
		crash.Point("roll answer")
		return errors.Join(err, refused)
	})
}

func (m *Manager) rollAnswer(ctx context.Context, data []byte, remote pktcloud.PublicKey, admit func(context.Context, RollProposal) error) ([]byte, error) {
	ask, err := ParseRollAsk(data)
	if err != nil {
		return nil, err
	}
	o, err := settle.ParseRollOffer(ask.Offer)
	if err != nil {
		return nil, err
	}
	ch, err := m.channel(o.Channel)
	if err != nil || ch.role != settle.Payee || ch.chain.Params.Payer != remote { // [ROLL-31]
		return nil, settle.Refuse(settle.ErrUnknown, "no channel %s from this device", o.Channel)
	}
	done, err := take(ctx, ch.asks) // a refusal must not overtake the answer to an earlier question [ROLL-38]
	if err != nil {
		return nil, err
	}
	defer done()
	if raw, err := m.acceptedRoll(ch, o); raw != nil || err != nil {
		return raw, err
	}
	p := RollProposal{Channel: ch.chain.Params, Successor: o.Successor, Latest: ch.state.Load().Channel.Latest.Body}
	var latest pktcloud.Signed[settle.Voucher]
	if len(ask.Latest) > 0 {
		if latest, err = settle.ParseVoucher(ask.Latest); err != nil {
			return nil, err
		}
		if latest.Body.Channel != o.Channel {
			return nil, settle.Refuse(settle.ErrChannel, "the latest voucher is of %s", latest.Body.Channel)
		}
		if latest.Body.Sequence > p.Latest.Sequence {
			p.Latest = latest.Body
		}
	}
	if err := admit(ctx, p); err != nil {
		return nil, err
	}
	if latest.Body.Sequence > 0 { // one that is on its way by the lease's stream is not waited for [ROLL-32]
		if err := m.Receive(ctx, latest); err != nil && !errors.Is(err, settle.ErrStale) {
			return nil, err
		}
	}
	return m.AcceptRoll(ctx, o)
}

// OfferedRolls returns the channels whose roll this side offered, as payer, that
// the payee has not answered and is not being asked for: ask for each again and
// again [ROLL-33]. They are in no order.
func (m *Manager) OfferedRolls() []pktcloud.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []pktcloud.ID
	for id, r := range m.rolls {
		ch := m.channels[id]
		if len(r.Raw) == 0 && ch != nil && len(ch.asks) == 1 && ch.role == settle.Payer && ch.state.Load().Channel.Phase == settle.Rolling {
			ids = append(ids, id)
		}
	}
	return ids
}

// AskRoll puts the offer of [Manager.Roll] to the payee at the other end of a
// connection, which it closes. An answer is completed and broadcast, and the
// successor's id returned; a refusal takes the offer back [ROLL-33]. After any
// other error ask again: the offer is durable, and the payee answers it as before.
// A channel's questions are asked one at a time [ROLL-38]. Errors match the code
// that the payee refuses with, [settle.ErrUnknown] without an offer, or are those
// of CompleteRoll or the connection's.
func (m *Manager) AskRoll(ctx context.Context, conn net.Conn, channel pktcloud.ID) (pktcloud.ID, error) {
	defer conn.Close()
	ch, err := m.channel(channel)
	if err != nil {
		return pktcloud.ID{}, err
	}
	done, err := take(ctx, ch.asks)
	if err != nil {
		return pktcloud.ID{}, err
	}
	defer done()
	record, rolls := m.rollOf(channel)
	c := ch.state.Load().Channel
	switch {
	case !rolls || ch.role != settle.Payer:
		return pktcloud.ID{}, settle.Refuse(settle.ErrUnknown, "channel %s has no offer of a roll", channel)
	case len(record.Raw) > 0: // by another call, or from the chain
		return c.Into.Channel, nil
	}
	ask := RollAsk{Version: 1, Offer: record.Offer}
	if c.Latest.Body.Sequence > 0 {
		if ask.Latest, err = c.Latest.Encode(); err != nil {
			return pktcloud.ID{}, err
		}
	}
	answer, err := askRoll(ctx, conn, ask)
	if err != nil {
		return pktcloud.ID{}, err
	}
	if answer[0] == answerRefuse {
		refused, err := readRefusal(answer)
		if err != nil {
			return pktcloud.ID{}, err // no refusal, and no reason to take anything back
		}
		return pktcloud.ID{}, errors.Join(refused, m.withdraw(ctx, channel, record.Offer))
	}
	a, err := ParseRollAnswer(answer[1:])
	if err != nil {
		return pktcloud.ID{}, err
	}
	return c.Into.Channel, m.CompleteRoll(ctx, channel, a.Tx)
}

// askRoll sends a question and reads the frame that answers it.
func askRoll(ctx context.Context, conn net.Conn, ask RollAsk) (answer []byte, err error) {
	b, err := pktcloud.Marshal(ask)
	if err != nil {
		return nil, err
	}
	err = within(ctx, conn, func() error {
		crash.Point("roll ask")
		if err := wire.WriteFrame(conn, b); err != nil {
			return err
		}
		crash.Point("roll ask")
		if answer, err = wire.ReadFrame(conn, 1+MaxRollAnswerBytes); err != nil {
			return err
		}
		if len(answer) == 0 || answer[0] != answerProof && answer[0] != answerRefuse {
			return settle.Refuse(settle.ErrMalformed, "neither a roll nor a refusal")
		}
		return nil
	})
	return answer, err
}

// Successors returns the parameters of the channels that one rolled into, link by
// link: the last one pays in its place, and none means itself. A roll counts once
// both sides have signed it, and no more when the predecessor ended otherwise.
func (m *Manager) Successors(channel pktcloud.ID) []settle.Params {
	var list []settle.Params
	for {
		ch, err := m.channel(channel)
		if err != nil {
			return list
		}
		c := ch.state.Load().Channel
		record, _ := m.rollOf(channel)
		if c.Phase != settle.Rolling && c.Phase != settle.Rolled || len(record.Raw) == 0 {
			return list
		}
		to, err := m.channel(c.Into.Channel)
		if err != nil {
			return list
		}
		list, channel = append(list, to.chain.Params), to.id
	}
}

// Payment returns a channel's latest voucher, made or accepted, and with it its
// predecessor's while their roll is under way; false when there is none.
func (m *Manager) Payment(channel pktcloud.ID) (RollPayment, bool) {
	ch, err := m.channel(channel)
	if err != nil {
		return RollPayment{}, false
	}
	c := ch.state.Load().Channel
	p := RollPayment{To: c.Latest}
	if from, _, err := m.pair(channel); err == nil {
		if f := from.state.Load().Channel; !(settle.Pair{From: f, To: c}).Done() {
			p.From = f.Latest
		}
	}
	return p, p.To.Body.Sequence > 0
}
