package market

import (
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

// QuoteVersion is the version of Quote that this package writes.
const QuoteVersion = 1

// Quote is a provider's answer to a draft: this request, at this rate, I would
// take it until Expires [MARKET-8]. The device that the offer names signs it.
type Quote struct {
	Version     uint64             `cbor:"v" json:"v"`
	Provider    pktcloud.PublicKey `cbor:"provider" json:"provider"`
	Device      pktcloud.PublicKey `cbor:"device" json:"device"` // signs
	Offer       pktcloud.ID        `cbor:"offer" json:"offer"`
	Request     pktcloud.ID        `cbor:"request" json:"request"` // id of the draft terms
	Rate        pktcloud.Rate      `cbor:"rate" json:"rate"`
	PayeeDetail []byte             `cbor:"payee" json:"payee"`     // where the rail shall pay, in the rail's form
	Issued      int64              `cbor:"issued" json:"issued"`   // Unix seconds
	Expires     int64              `cbor:"expires" json:"expires"` // Unix seconds, exclusive
	Ext         map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// RecordType returns "quote".
func (Quote) RecordType() string { return "quote" }

// Signer returns the provider's device.
func (q Quote) Signer() pktcloud.PublicKey { return q.Device }

// Validate checks the quote's shape [MARKET-2]. Errors match [CodeMalformed].
func (q Quote) Validate() error {
	if q.Version != QuoteVersion {
		return refuse(CodeMalformed, "quote version %d, want %d", q.Version, QuoteVersion)
	}
	if err := validateKeys(q.Provider, q.Device); err != nil {
		return err
	}
	if q.Offer.IsZero() || q.Request.IsZero() {
		return refuse(CodeMalformed, "a quote names an offer and a request")
	}
	if err := q.Rate.Validate(); err != nil {
		return &Error{Code: CodeMalformed, Detail: "the rate of a quote", Err: err}
	}
	if len(q.PayeeDetail) > MaxPayeeDetail {
		return refuse(CodeMalformed, "a payee detail of %d bytes, at most %d", len(q.PayeeDetail), MaxPayeeDetail)
	}
	return validateLifetime(q.Issued, q.Expires, MaxQuoteLifetimeSeconds)
}

// Answers says whether the quote is the offering provider's answer to request
// and still open at now [MARKET-8]. Errors match [CodeMismatch], [CodeEarly]
// or [CodeExpired].
func (q Quote) Answers(offer pktcloud.Signed[Offer], request pktcloud.ID, now time.Time) error {
	id, err := offer.ID()
	if err != nil {
		return err
	}
	switch {
	case q.Offer != id:
		return refuse(CodeMismatch, "the quote answers offer %s, not %s", q.Offer, id)
	case q.Provider != offer.Body.Provider || q.Device != offer.Body.Device:
		return refuse(CodeMismatch, "the quote is not of the device that the offer names")
	case q.Request != request:
		return refuse(CodeMismatch, "the quote answers another request")
	}
	return admit(q.Issued, q.Expires, now)
}

// ParseQuote decodes and verifies a quote. It reads no clock and knows no
// offer: see [Quote.Answers]. Errors match [CodeMalformed], or those of
// [pktcloud.ParseSigned].
func ParseQuote(data []byte) (pktcloud.Signed[Quote], error) {
	return pktcloud.ParseSigned[Quote](data, MaxQuoteBytes)
}
