package manager

import (
	"context"
	"errors"
	"net"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

// ResumeProtocol names, on a transport that names protocols, how a side that
// lost its store asks the other for their channel [SETTLE-116].
const ResumeProtocol = "/pktcloud/resume/1"

// Limits of the protocol [SETTLE-116].
const (
	MaxResumeAskBytes = 4 << 10
	MaxShownBytes     = 64 << 10
	MaxResumeProof    = 72 // a signature, DER
)

// ResumeAsk is the question of a side that has a channel of its phrase from the
// chain or from a tower, and no more of it.
type ResumeAsk struct {
	Version uint64            `cbor:"v"`
	Funding settle.Outpoint   `cbor:"funding"`
	Proof   []byte            `cbor:"proof"` // pktchain.Keychain.SignResume for the device that asks
	Close   []byte            `cbor:"close"` // an encoded close offer that the payee shall complete, or nothing
	Ext     map[string][]byte `cbor:"ext"`
}

// ParseResumeAsk decodes and validates a question. Errors match
// [settle.ErrMalformed].
func ParseResumeAsk(data []byte) (ResumeAsk, error) {
	var a ResumeAsk
	if err := pktcloud.Unmarshal(data, &a, MaxResumeAskBytes); err != nil {
		return ResumeAsk{}, settle.Refuse(settle.ErrMalformed, "a question for a channel: %w", err)
	}
	if a.Version != 1 || len(a.Proof) == 0 || len(a.Proof) > MaxResumeProof || len(a.Close) > settle.MaxCloseOfferBytes || len(a.Ext) > settle.MaxExt {
		return ResumeAsk{}, settle.Refuse(settle.ErrMalformed, "question version %d, want 1 with a proof", a.Version)
	}
	return a, nil
}

// Shown is a channel as the other side shows it: its parameters, its funding
// transaction and its latest voucher, all encoded.
type Shown struct {
	Version uint64            `cbor:"v"`
	Params  []byte            `cbor:"params"`
	Funding []byte            `cbor:"funding"`
	Voucher []byte            `cbor:"voucher"`
	Ext     map[string][]byte `cbor:"ext"`
}

// ParseShown decodes and validates an answer, not what is in it. Errors match
// [settle.ErrMalformed].
func ParseShown(data []byte) (Shown, error) {
	var s Shown
	if err := pktcloud.Unmarshal(data, &s, MaxShownBytes); err != nil {
		return Shown{}, settle.Refuse(settle.ErrMalformed, "a channel that is shown: %w", err)
	}
	if s.Version != 1 || len(s.Funding) > pktchain.MaxFundingBytes || len(s.Ext) > settle.MaxExt {
		return Shown{}, settle.Refuse(settle.ErrMalformed, "a channel shown with version %d, want 1", s.Version)
	}
	return s, nil
}

// Lost returns the fundings of the restored channels that the other side may
// still show, in no order [SETTLE-116].
func (m *Manager) Lost() []settle.Outpoint {
	var list []settle.Outpoint
	for _, r := range m.Restored() {
		if !r.Adopted && !r.Other && r.ClosingTxID == ([32]byte{}) {
			list = append(list, r.Funding)
		}
	}
	return list
}

// OtherMachine reports whether it was seen that another machine uses the phrase
// of this one [SETTLE-66].
func (m *Manager) OtherMachine() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.restored {
		if r.Other {
			return true
		}
	}
	for _, r := range m.recalled {
		if r.Other {
			return true
		}
	}
	return m.twin
}

// ServeResume answers one question and closes the connection. remote is the
// device at the other end.
func (m *Manager) ServeResume(ctx context.Context, conn net.Conn, remote pktcloud.PublicKey) error {
	defer conn.Close()
	return within(ctx, conn, func() error {
		data, err := wire.ReadFrame(conn, MaxResumeAskBytes)
		if err != nil && !errors.Is(err, pktcloud.ErrTooLarge) {
			return err
		}
		shown, refused := m.show(ctx, data, remote)
		kind, body := byte(answerProof), any(shown)
		if refused != nil {
			kind, body = answerRefuse, refusalOf(refused)
		}
		b, err := pktcloud.Marshal(body)
		if err != nil {
			return err
		}
		return errors.Join(wire.WriteFrame(conn, append([]byte{kind}, b...)), refused)
	})
}

// refusalOf is how an error travels.
func refusalOf(err error) lateRefusal {
	r := lateRefusal{Version: 1, Code: uint64(settle.ErrBusy), Text: "the other side cannot answer now"}
	if e, ok := errors.AsType[*settle.Error](err); ok {
		r.Code, r.Text = uint64(e.Code), strings.ToValidUTF8(e.Text[:min(len(e.Text), MaxLateText)], "")
	}
	return r
}

// show is what a question is answered with. Whoever is no side of the channel
// learns nothing, not even that it is here [SETTLE-117].
func (m *Manager) show(ctx context.Context, data []byte, remote pktcloud.PublicKey) (Shown, error) {
	ask, err := ParseResumeAsk(data)
	if err != nil {
		return Shown{}, err
	}
	m.mu.Lock()
	ch := m.channels[m.funded[ask.Funding]]
	m.mu.Unlock()
	if ch == nil {
		return Shown{}, settle.Refuse(settle.ErrUnknown, "no such channel with this device")
	}
	role, err := ch.chain.VerifyResume(remote, ask.Proof)
	if err != nil {
		return Shown{}, settle.Refuse(settle.ErrUnknown, "no such channel with this device")
	}
	if role == ch.role {
		m.mu.Lock()
		m.twin = true
		m.mu.Unlock()
		m.cfg.Log.Error("another machine uses this phrase: it asked for a channel that is in this store; let one machine alone use a phrase", "channel", ch.id, "machine", remote)
		return Shown{}, settle.Refuse(settle.ErrRole, "this machine has your phrase; let one machine alone use it")
	}
	if len(ask.Close) > 0 {
		if err := m.completeAsked(ctx, ch, ask.Close); err != nil {
			return Shown{}, err
		}
	}
	return ch.shown()
}

// completeAsked completes a close that a payer asks for which resumed a channel.
func (m *Manager) completeAsked(ctx context.Context, ch *channel, data []byte) error {
	o, err := settle.ParseCloseOffer(data)
	if err != nil {
		return err
	}
	_, err = m.CompleteClose(ctx, ch.id, o)
	if errors.Is(err, settle.ErrLedgerUnavailable) || errors.Is(err, settle.ErrRejected) { // Run broadcasts it again
		return nil
	}
	return err
}

func (ch *channel) shown() (Shown, error) {
	c := ch.state.Load().Channel
	switch {
	case c.Phase.Final():
		return Shown{}, settle.Refuse(settle.ErrClosed, "the channel is %s", c.Phase)
	case c.Latest.Body.Sequence == 0:
		return Shown{}, settle.Refuse(settle.ErrClose, "nothing was ever paid over the channel")
	}
	s := Shown{Version: 1, Funding: ch.funding}
	var err error
	if s.Params, err = c.Params.Encode(); err != nil {
		return Shown{}, err
	}
	s.Voucher, err = c.Latest.Encode()
	return s, err
}

// AskResume asks the other side, at the other end of a connection, for a
// restored channel, and takes what it shows. It closes the connection. Errors
// match the code that the other side refuses with, or are those of
// [Manager.Resume] or the connection's.
func (m *Manager) AskResume(ctx context.Context, conn net.Conn, funding settle.Outpoint) (pktcloud.ID, error) {
	defer conn.Close()
	role, index, ok := m.lost(funding)
	if !ok {
		return pktcloud.ID{}, settle.Refuse(settle.ErrUnknown, "this phrase has no restored channel at %x", funding.TxID)
	}
	shown, err := m.ask(ctx, conn, role, index, ResumeAsk{Version: 1, Funding: funding})
	if err != nil {
		return pktcloud.ID{}, err
	}
	return m.Resume(ctx, funding, shown)
}

// lost is how this side signs for a restored channel.
func (m *Manager) lost(funding settle.Outpoint) (role settle.Role, index uint32, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.restored[funding]; ok {
		return settle.Payer, r.what.Index, true
	}
	r, ok := m.recalled[funding]
	if !ok {
		return 0, 0, false
	}
	return settle.Payee, uint32(r.Index), true
}

// AskClose signs, as payer, a close of a channel at what was paid, and asks the
// payee at the other end of a connection to complete it: the way out of a
// channel that came back, over which nothing more is paid [SETTLE-120]. It closes
// the connection. The same again is harmless. Errors are those of OfferClose, or
// match the code that the payee refuses with.
func (m *Manager) AskClose(ctx context.Context, conn net.Conn, channel pktcloud.ID) error {
	defer conn.Close()
	ch, err := m.channel(channel)
	if err != nil {
		return err
	}
	o, err := m.OfferClose(ctx, channel, ch.state.Load().Channel.Paid())
	if err != nil {
		return err
	}
	ask := ResumeAsk{Version: 1, Funding: ch.chain.Detail.Funding}
	if ask.Close, err = o.Encode(); err != nil {
		return err
	}
	_, err = m.ask(ctx, conn, settle.Payer, ch.index, ask)
	return err
}

// ask signs a question, sends it and reads the answer.
func (m *Manager) ask(ctx context.Context, conn net.Conn, role settle.Role, index uint32, a ResumeAsk) (s Shown, err error) {
	if a.Proof, err = m.cfg.Keychain.SignResume(role, index, m.self, a.Funding); err != nil {
		return s, err
	}
	b, err := pktcloud.Marshal(a)
	if err != nil {
		return s, err
	}
	err = within(ctx, conn, func() error {
		if err := wire.WriteFrame(conn, b); err != nil {
			return err
		}
		answer, err := wire.ReadFrame(conn, 1+MaxShownBytes)
		if err != nil {
			return err
		}
		if len(answer) == 0 || answer[0] != answerProof {
			return lateRefused(answer)
		}
		s, err = ParseShown(answer[1:])
		return err
	})
	return s, err
}

// Resume takes back a restored channel from what its other side shows: as payer
// as [Manager.Adopt] says; as payee it is claimed like any other from then on,
// and takes further vouchers [SETTLE-119]. What is shown must give the very late
// claims that this side deposited, and a voucher of no less. It is durable when
// Resume returns. Errors match [settle.ErrUnknown], [settle.ErrParams],
// [settle.ErrFunding], [settle.ErrFell], [settle.ErrClosed], or are those of
// [settle.Channel.Accept].
func (m *Manager) Resume(ctx context.Context, funding settle.Outpoint, s Shown) (pktcloud.ID, error) {
	p, err := settle.ParseParams(s.Params)
	if err != nil {
		return pktcloud.ID{}, err
	}
	v, err := settle.ParseVoucher(s.Voucher)
	if err != nil {
		return pktcloud.ID{}, err
	}
	m.mu.Lock()
	_, payer := m.restored[funding]
	r, payee := m.recalled[funding]
	m.mu.Unlock()
	switch {
	case payer:
		return m.Adopt(ctx, p, v)
	case payee:
		return m.resumePayee(ctx, p, v, s.Funding, *r)
	}
	return pktcloud.ID{}, settle.Refuse(settle.ErrUnknown, "this phrase has no restored channel at %x", funding.TxID)
}

func (m *Manager) resumePayee(ctx context.Context, p settle.Params, v pktcloud.Signed[settle.Voucher], funding []byte, r recalled) (pktcloud.ID, error) {
	chain, late, err := r.what.Fits(p)
	if err != nil {
		return pktcloud.ID{}, err
	}
	if err := chain.Funds(funding); err != nil {
		return pktcloud.ID{}, err
	}
	tip, err := m.askTip(ctx)
	if err != nil {
		return pktcloud.ID{}, err
	}
	out, err := m.cfg.Ledger.Output(ctx, chain.Detail.Funding)
	if err != nil {
		return pktcloud.ID{}, err
	}
	c, err := settle.NewChannel(p, settle.Payee, tip.Height)
	if err != nil {
		return pktcloud.ID{}, err
	}
	if out.Spend != nil {
		return pktcloud.ID{}, settle.Refuse(settle.ErrClosed, "the funding output is spent")
	}
	c = c.Observe(settle.Observation{Height: tip.Height, Funded: out.Known, Depth: out.Depth})
	if c, err = c.Accept(v, chain.Rail()); err != nil {
		return pktcloud.ID{}, err
	}
	if c.Paid() < late.Total {
		return pktcloud.ID{}, settle.Refuse(settle.ErrFell, "a voucher of %d units, %d were deposited", uint64(c.Paid()), uint64(late.Total))
	}
	m.beginning.Lock()
	defer m.beginning.Unlock()
	m.mu.Lock()
	_, adopted := m.funded[chain.Detail.Funding]
	m.mu.Unlock()
	if adopted {
		return c.ID, nil // by another call, or it was never lost: it takes vouchers as any other
	}
	record := lateRecord{Number: 2, Proof: late, Fees: r.what.Fees, Top: r.what.Top}
	m.mu.Lock()
	m.lates[c.ID] = lateState{record: record}
	m.mu.Unlock()
	st := state{Channel: c, Announced: true, seen: seenRecord{Since: settle.Birthday(r.Height)}}
	return c.ID, m.beginAs(ctx, channelRecord{Params: p, Role: settle.Payee, Index: r.Index, Funding: funding}, st, put{keyLates + c.ID.Hex(), record})
}
