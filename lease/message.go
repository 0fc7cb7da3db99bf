package lease

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// MessageVersion is the version of the messages that this package writes.
const MessageVersion = 1

// Message is what one side sends the other on /pktcloud/lease/1 [LEASE-1]. On
// the wire it is an envelope with a type tag, see [AppendMessage].
type Message interface {
	// MessageType is the type tag.
	MessageType() string
	// Validate checks the message's shape.
	Validate() error
}

// Propose asks for a quote: draft terms, the manifest, and the tenant's
// account record, which lists the tenant's device.
type Propose struct {
	Version  uint64   `cbor:"v"`
	Account  []byte   `cbor:"account"` // encoded pktcloud.Signed[pktcloud.Account]
	Draft    Terms    `cbor:"draft"`
	Manifest Manifest `cbor:"manifest"`
	// Credentials let the provider look at private images; absent: none.
	Credentials Credentials `cbor:"credentials,omitempty"`
}

// Quote answers a proposal. The provider keeps nothing of the proposal but the
// payment key that the quote names.
type Quote struct {
	Version uint64 `cbor:"v"`
	Quote   []byte `cbor:"quote"`   // encoded pktcloud.Signed[market.Quote]
	Account []byte `cbor:"account"` // the provider's
}

// Refuse refuses a message. Lease is zero when a proposal is refused. A refused
// commit stays refused [LEASE-8].
type Refuse struct {
	Version uint64      `cbor:"v"`
	Lease   pktcloud.ID `cbor:"lease"`
	Code    Code        `cbor:"code"`
	Text    string      `cbor:"text"`
}

// Commit is the tenant's whole side of the agreement. It holds all that the
// provider needs to judge it, so that a provider which forgot the proposal
// gives the same answer [LEASE-7].
type Commit struct {
	Version   uint64             `cbor:"v"`
	Terms     Terms              `cbor:"terms"`
	Signature pktcloud.Signature `cbor:"sig"` // the tenant's device, over the terms
	Account   []byte             `cbor:"account"`
	Quote     []byte             `cbor:"quote"`
	Manifest  Manifest           `cbor:"manifest"`
	Params    settle.Params      `cbor:"params"`
	Funding   []byte             `cbor:"funding"` // the raw funding transaction, not yet broadcast; empty: the channel is open, and pays other leases
	Voucher   []byte             `cbor:"voucher"` // the first voucher, or empty
	// Credentials are for the images of this lease, and in no journal [LEASE-43];
	// absent: none.
	Credentials Credentials `cbor:"credentials,omitempty"`
}

// Ack makes the lease: the provider has stored the commit [LEASE-8].
type Ack struct {
	Version   uint64             `cbor:"v"`
	Lease     pktcloud.ID        `cbor:"lease"`
	Signature pktcloud.Signature `cbor:"sig"` // the provider's device, over the terms
}

// StatementMessage carries a statement.
type StatementMessage struct {
	Version   uint64                     `cbor:"v"`
	Statement pktcloud.Signed[Statement] `cbor:"statement"`
}

// VoucherMessage carries a voucher that pays the lease, and while the channel of
// it is one that another rolls into, that one's latest voucher [LEASE-30].
type VoucherMessage struct {
	Version     uint64      `cbor:"v"`
	Lease       pktcloud.ID `cbor:"lease"`
	Voucher     []byte      `cbor:"voucher"`               // encoded pktcloud.Signed[settle.Voucher]
	Predecessor []byte      `cbor:"predecessor,omitempty"` // likewise; absent: none
}

// DisputeMessage carries a dispute.
type DisputeMessage struct {
	Version uint64                   `cbor:"v"`
	Dispute pktcloud.Signed[Dispute] `cbor:"dispute"`
}

// Suspend tells the tenant that the workload is frozen, and how long it may
// take to pay.
type Suspend struct {
	Version      uint64      `cbor:"v"`
	Lease        pktcloud.ID `cbor:"lease"`
	Second       uint64      `cbor:"second"` // of service, at the freeze
	GraceSeconds uint64      `cbor:"grace"`
}

// Resume tells the tenant that the workload runs again.
type Resume struct {
	Version uint64      `cbor:"v"`
	Lease   pktcloud.ID `cbor:"lease"`
	Second  uint64      `cbor:"second"`
}

// CloseRequest asks the provider to end the lease. It answers with the final
// statement.
type CloseRequest struct {
	Version uint64      `cbor:"v"`
	Lease   pktcloud.ID `cbor:"lease"`
	Reason  Reason      `cbor:"reason"`
	Text    string      `cbor:"text"`
}

// Close is the tenant's answer to the final statement: the close record with
// its signature, and the payer's half of the transaction that pays exactly
// Record.Paid. Offer is empty when there is nothing to pay.
type Close struct {
	Version   uint64             `cbor:"v"`
	Record    CloseRecord        `cbor:"record"`
	Signature pktcloud.Signature `cbor:"sig"`
	Offer     []byte             `cbor:"offer"` // encoded settle.CloseOffer
}

// CloseAck carries the provider's signature over the same close record.
type CloseAck struct {
	Version   uint64             `cbor:"v"`
	Lease     pktcloud.ID        `cbor:"lease"`
	Signature pktcloud.Signature `cbor:"sig"`
	TxID      []byte             `cbor:"tx"` // of the closing transaction, internal byte order; empty: none
}

// Attach continues a lease on a new stream: the tenant has answered the
// statements up to Sequence, and wants those after it again.
type Attach struct {
	Version  uint64      `cbor:"v"`
	Lease    pktcloud.ID `cbor:"lease"`
	Sequence uint64      `cbor:"sequence"`
}

// Amend proposes an amendment, with the manifest that it names [AMEND-1].
type Amend struct {
	Version   uint64                     `cbor:"v"`
	Amendment pktcloud.Signed[Amendment] `cbor:"amendment"`
	Manifest  Manifest                   `cbor:"manifest"`
}

// AmendAck makes an amendment stand: the provider has carried it out, and stored
// that [AMEND-7].
type AmendAck struct {
	Version    uint64                      `cbor:"v"`
	Acceptance pktcloud.Signed[Acceptance] `cbor:"acceptance"`
}

// AmendRefuse refuses an attempt to amend for good: everything is as it was
// [AMEND-8].
type AmendRefuse struct {
	Version uint64      `cbor:"v"`
	Lease   pktcloud.ID `cbor:"lease"`
	Attempt uint64      `cbor:"attempt"`
	Code    Code        `cbor:"code"`
	Text    string      `cbor:"text"`
}

// Type tags of the messages.
const (
	TypePropose      = "propose"
	TypeQuote        = "quote"
	TypeRefuse       = "refuse"
	TypeCommit       = "commit"
	TypeAck          = "ack"
	TypeStatement    = "statement"
	TypeVoucher      = "voucher"
	TypeDispute      = "dispute"
	TypeSuspend      = "suspend"
	TypeResume       = "resume"
	TypeCloseRequest = "close-request"
	TypeClose        = "close"
	TypeCloseAck     = "close-ack"
	TypeAttach       = "attach"
	TypeAmend        = "amend"
	TypeAmendAck     = "amend-ack"
	TypeAmendRefuse  = "amend-refuse"
)

// MessageType returns the type tag.
func (Propose) MessageType() string { return TypePropose }

// MessageType returns the type tag.
func (Quote) MessageType() string { return TypeQuote }

// MessageType returns the type tag.
func (Refuse) MessageType() string { return TypeRefuse }

// MessageType returns the type tag.
func (Commit) MessageType() string { return TypeCommit }

// MessageType returns the type tag.
func (Ack) MessageType() string { return TypeAck }

// MessageType returns the type tag.
func (StatementMessage) MessageType() string { return TypeStatement }

// MessageType returns the type tag.
func (VoucherMessage) MessageType() string { return TypeVoucher }

// MessageType returns the type tag.
func (DisputeMessage) MessageType() string { return TypeDispute }

// MessageType returns the type tag.
func (Suspend) MessageType() string { return TypeSuspend }

// MessageType returns the type tag.
func (Resume) MessageType() string { return TypeResume }

// MessageType returns the type tag.
func (CloseRequest) MessageType() string { return TypeCloseRequest }

// MessageType returns the type tag.
func (Close) MessageType() string { return TypeClose }

// MessageType returns the type tag.
func (CloseAck) MessageType() string { return TypeCloseAck }

// MessageType returns the type tag.
func (Attach) MessageType() string { return TypeAttach }

// MessageType returns the type tag.
func (Amend) MessageType() string { return TypeAmend }

// MessageType returns the type tag.
func (AmendAck) MessageType() string { return TypeAmendAck }

// MessageType returns the type tag.
func (AmendRefuse) MessageType() string { return TypeAmendRefuse }

// envelope is what travels: the type tag and the message's own encoding.
type envelope struct {
	Type string `cbor:"type"`
	Body []byte `cbor:"body"`
}

// AppendMessage appends the encoding of a message to dst [LEASE-1]:
//
//	{"body": <encoding of the message, as a byte string>, "type": <tag>}
func AppendMessage(dst []byte, m Message) ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	body, err := pktcloud.Marshal(m)
	if err != nil {
		return nil, err
	}
	b, err := pktcloud.Marshal(envelope{Type: m.MessageType(), Body: body})
	if err != nil {
		return nil, err
	}
	if len(b) > MaxMessageBytes {
		return nil, Refusal(CodeMalformed, "a %s of %d bytes, at most %d", m.MessageType(), len(b), MaxMessageBytes)
	}
	return append(dst, b...), nil
}

// ParseMessage decodes and validates a message. Signatures of statements and
// disputes are verified; those over terms and close records need the terms, see
// [State.Step]. Errors match [CodeMalformed], [CodeManifest], [CodeLimits] or
// [CodeSignature].
func ParseMessage(data []byte) (Message, error) {
	var e envelope
	if err := pktcloud.Unmarshal(data, &e, MaxMessageBytes); err != nil {
		return nil, wrap(CodeMalformed, "a message", err)
	}
	switch e.Type {
	case TypePropose:
		return parseMessage[Propose](e.Body, MaxManifestBytes+MaxTermsBytes+pktcloud.MaxAccountBytes+MaxCredentialBytes+MaxSmallBytes)
	case TypeQuote:
		return parseMessage[Quote](e.Body, market.MaxQuoteBytes+pktcloud.MaxAccountBytes+MaxSmallBytes)
	case TypeCommit:
		return parseMessage[Commit](e.Body, MaxMessageBytes)
	case TypeStatement:
		return parseMessage[StatementMessage](e.Body, MaxStatementBytes+MaxExtEntries*MaxExtValue)
	case TypeVoucher:
		return parseMessage[VoucherMessage](e.Body, 2*settle.MaxVoucherBytes+MaxSmallBytes)
	case TypeDispute:
		return parseMessage[DisputeMessage](e.Body, MaxDisputeBytes+MaxExtEntries*MaxExtValue)
	case TypeClose:
		return parseMessage[Close](e.Body, MaxCloseBytes+MaxExtEntries*MaxExtValue)
	case TypeRefuse:
		return parseMessage[Refuse](e.Body, MaxSmallBytes)
	case TypeAck:
		return parseMessage[Ack](e.Body, MaxSmallBytes)
	case TypeSuspend:
		return parseMessage[Suspend](e.Body, MaxSmallBytes)
	case TypeResume:
		return parseMessage[Resume](e.Body, MaxSmallBytes)
	case TypeCloseRequest:
		return parseMessage[CloseRequest](e.Body, MaxSmallBytes)
	case TypeCloseAck:
		return parseMessage[CloseAck](e.Body, MaxSmallBytes)
	case TypeAttach:
		return parseMessage[Attach](e.Body, MaxSmallBytes)
	case TypeAmend:
		return parseMessage[Amend](e.Body, MaxManifestBytes+MaxAmendmentBytes+MaxExtEntries*MaxExtValue+MaxSmallBytes)
	case TypeAmendAck:
		return parseMessage[AmendAck](e.Body, MaxAmendmentBytes+MaxExtEntries*MaxExtValue)
	case TypeAmendRefuse:
		return parseMessage[AmendRefuse](e.Body, MaxSmallBytes)
	}
	return nil, Refusal(CodeMalformed, "no message has that type")
}

func parseMessage[M Message](data []byte, maxBytes int) (Message, error) {
	m, err := parse[M](data, maxBytes)
	if err != nil {
		return nil, err
	}
	return m, nil
}
