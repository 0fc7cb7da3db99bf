package manager

import (
	"context"
	"errors"
	"net"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// LateProtocol names, on a transport that names protocols, how a payee asks for
// a late proof [SETTLE-90].
const LateProtocol = "/pktcloud/late/1"

// Limits of a question for a late proof [SETTLE-90].
const (
	MaxLateAskBytes = 1 << 10
	MaxLateText     = 200
)

// lateLimit is for question and answer; a variable for tests alone, on machines
// that stand still for longer.
var lateLimit = 15 * time.Second

// Kinds of an answer: the first byte of its frame.
const (
	answerProof  = 0
	answerRefuse = 1
)

// LateAsk is a payee's question for a late proof of a channel.
type LateAsk struct {
	Version uint64            `cbor:"v"`
	Channel pktcloud.ID       `cbor:"channel"`
	Ext     map[string][]byte `cbor:"ext"`
}

// ParseLateAsk decodes and validates a question. Errors match
// [settle.ErrMalformed].
func ParseLateAsk(data []byte) (LateAsk, error) {
	var a LateAsk
	if err := pktcloud.Unmarshal(data, &a, MaxLateAskBytes); err != nil {
		return LateAsk{}, settle.Refuse(settle.ErrMalformed, "a question for a late proof: %w", err)
	}
	if a.Version != 1 || len(a.Ext) > settle.MaxExt {
		return LateAsk{}, settle.Refuse(settle.ErrMalformed, "question version %d, want 1", a.Version)
	}
	return a, nil
}

// lateRefusal is the answer that is no proof.
type lateRefusal struct {
	Version uint64            `cbor:"v"`
	Code    uint64            `cbor:"code"`
	Text    string            `cbor:"text"`
	Ext     map[string][]byte `cbor:"ext"`
}

// ServeLate answers one question as payer and closes the connection. remote is
// the device at the other end, which must be the channel's payee [SETTLE-91].
func (m *Manager) ServeLate(ctx context.Context, conn net.Conn, remote pktcloud.PublicKey) error {
	defer conn.Close()
	return within(ctx, conn, func() error {
		data, err := wire.ReadFrame(conn, MaxLateAskBytes)
		if err != nil && !errors.Is(err, pktcloud.ErrTooLarge) {
			return err
		}
		l, refused := m.lateAnswer(ctx, data, remote)
		kind, body := byte(answerProof), any(l)
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

func (m *Manager) lateAnswer(ctx context.Context, data []byte, remote pktcloud.PublicKey) (settle.LateProof, error) {
	ask, err := ParseLateAsk(data)
	if err != nil {
		return settle.LateProof{}, err
	}
	ch, err := m.channel(ask.Channel)
	if err != nil {
		return settle.LateProof{}, err
	}
	if ch.chain.Params.Payee != remote { // [SETTLE-91]
		return settle.LateProof{}, settle.Refuse(settle.ErrUnknown, "no channel %s to this device", ask.Channel)
	}
	return m.LateProof(ctx, ask.Channel)
}

// AskLate asks the payer at the other end of a connection for a late proof, and
// takes it. It closes the connection. Errors match the code that the payer
// refuses with, or are those of TakeLate or the connection's.
func (m *Manager) AskLate(ctx context.Context, conn net.Conn, channel pktcloud.ID) error {
	defer conn.Close()
	st, err := m.Status(ctx, channel)
	if err != nil {
		return err
	}
	var l settle.LateProof
	err = within(ctx, conn, func() error {
		b, err := pktcloud.Marshal(LateAsk{Version: 1, Channel: channel})
		if err != nil {
			return err
		}
		if err := wire.WriteFrame(conn, b); err != nil {
			return err
		}
		answer, err := wire.ReadFrame(conn, 1+settle.MaxLateProofBytes)
		if err != nil {
			return err
		}
		if len(answer) == 0 || answer[0] != answerProof {
			return lateRefused(answer)
		}
		l, err = settle.ParseLateProof(answer[1:])
		return err
	})
	switch {
	case err != nil:
		return err
	case l.Channel != channel:
		return settle.Refuse(settle.ErrChannel, "a late proof for another channel than asked for")
	case l.Total < st.Paid: // each proof raises the fee of all that follow [SETTLE-92]
		return settle.Refuse(settle.ErrFell, "a late proof of %d units, %d were paid when it was asked for", uint64(l.Total), uint64(st.Paid))
	}
	return m.TakeLate(ctx, l)
}

func lateRefused(answer []byte) error {
	refused, err := readRefusal(answer)
	if err != nil {
		return err
	}
	return refused
}

// readRefusal returns the refusal that an answer is, or why it is none.
func readRefusal(answer []byte) (refused, err error) {
	var r lateRefusal
	if len(answer) == 0 || answer[0] != answerRefuse {
		return nil, settle.Refuse(settle.ErrMalformed, "neither what was asked for nor a refusal")
	}
	if err := pktcloud.Unmarshal(answer[1:], &r, MaxLateAskBytes); err != nil {
		return nil, settle.Refuse(settle.ErrMalformed, "a refusal: %w", err)
	}
	if r.Version != 1 || r.Code == 0 || r.Code > 1<<16-1 || len(r.Text) > MaxLateText || len(r.Ext) > settle.MaxExt {
		return nil, settle.Refuse(settle.ErrMalformed, "a refusal with code %d", r.Code)
	}
	return settle.Refuse(settle.Code(r.Code), "the other side: %q", r.Text), nil
}

// within runs fn under the deadline of ctx, and of lateLimit.
func within(ctx context.Context, conn net.Conn, fn func() error) error {
	end := time.Now().Add(lateLimit)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	if err := conn.SetDeadline(end); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := fn()
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
