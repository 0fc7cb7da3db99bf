package settle

import pktcloud "github.com/pkt-cash/pkt-cloud"

// CloseOfferVersion is the version of CloseOffer that this package writes.
const CloseOfferVersion = 1

// CloseOffer is the payer's half of a cooperative close: the payee receives
// exactly Final, the payer what remains less Fee [SETTLE-50]. Signature is the
// rail's own over that transaction; it binds every field, so that the offer
// needs no other signature.
type CloseOffer struct {
	Version   uint64            `cbor:"v" json:"v"`
	Channel   pktcloud.ID       `cbor:"channel" json:"channel"`
	Final     pktcloud.Amount   `cbor:"final" json:"final"`
	Fee       pktcloud.Amount   `cbor:"fee" json:"fee"`
	Signature []byte            `cbor:"sig" json:"sig"`
	Ext       map[string][]byte `cbor:"ext" json:"ext,omitempty"`
}

// Validate checks the offer's shape. Errors match [ErrMalformed].
func (o CloseOffer) Validate() error {
	switch {
	case o.Version != CloseOfferVersion:
		return Refuse(ErrMalformed, "close offer version %d, want %d", o.Version, CloseOfferVersion)
	case o.Final > pktcloud.MaxAmount || o.Fee > pktcloud.MaxAmount:
		return Refuse(ErrMalformed, "an amount of a close offer exceeds the maximum")
	case len(o.Signature) == 0 || len(o.Signature) > MaxProofBytes || len(o.Ext) > MaxExt:
		return Refuse(ErrMalformed, "close offer signature or extensions of a wrong size")
	}
	return nil
}

// Encode returns the offer's bytes.
func (o CloseOffer) Encode() ([]byte, error) { return pktcloud.Marshal(o) }

// ParseCloseOffer decodes and validates a close offer. The rail checks its
// signature. Errors match [ErrMalformed].
func ParseCloseOffer(data []byte) (CloseOffer, error) {
	var o CloseOffer
	if err := pktcloud.Unmarshal(data, &o, MaxCloseOfferBytes); err != nil {
		return CloseOffer{}, Refuse(ErrMalformed, "close offer: %w", err)
	}
	if err := o.Validate(); err != nil {
		return CloseOffer{}, err
	}
	return o, nil
}
