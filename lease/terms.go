package lease

import (
	"math"
	"math/bits"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
)

// TermsVersion is the version of Terms that this package writes.
const TermsVersion = 1

// Terms are the agreed text; their id is the lease's id [LEASE-4]. The two
// devices sign everything after the agreement; account records tie them to
// their identities.
type Terms struct {
	Version         uint64             `cbor:"v" json:"v"`
	Tenant          pktcloud.PublicKey `cbor:"tenant" json:"tenant"`
	Provider        pktcloud.PublicKey `cbor:"provider" json:"provider"`
	TenantDevice    pktcloud.PublicKey `cbor:"tenant_device" json:"tenant_device"`
	ProviderDevice  pktcloud.PublicKey `cbor:"provider_device" json:"provider_device"`
	Offer           pktcloud.ID        `cbor:"offer" json:"offer"`
	Quote           pktcloud.ID        `cbor:"quote" json:"quote"` // zero in a draft
	Resources       market.Resources   `cbor:"resources" json:"resources"`
	Manifest        pktcloud.ID        `cbor:"manifest" json:"manifest"`
	Rate            pktcloud.Rate      `cbor:"rate" json:"rate"` // zero in a draft
	IntervalSeconds uint64             `cbor:"interval" json:"interval"`
	Limits          Limits             `cbor:"limits" json:"limits"`
	GraceSeconds    uint64             `cbor:"grace" json:"grace"`         // from the freeze to the close; also the wait for a lost peer's close
	TermSeconds     uint64             `cbor:"term" json:"term"`           // of service
	NoticeSeconds   uint64             `cbor:"notice" json:"notice"`       // before a provider that has another reason closes
	CommitBy        int64              `cbor:"commit_by" json:"commit_by"` // Unix seconds on the provider's clock, exclusive; zero in a draft
	Channel         pktcloud.ID        `cbor:"channel" json:"channel"`     // zero in a draft
	Nonce           [16]byte           `cbor:"nonce" json:"nonce"`
	Ext             map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// Limits bound what each side risks [LEASE-12]. Zero means none.
type Limits struct {
	Credit      pktcloud.Amount `cbor:"credit" json:"credit"`           // service not yet paid: the provider's risk
	Prepaid     pktcloud.Amount `cbor:"prepaid" json:"prepaid"`         // payment beyond accepted service: the tenant's
	Unconfirmed pktcloud.Amount `cbor:"unconfirmed" json:"unconfirmed"` // payment on funding below the agreed depth: the provider's
	HoldDeposit pktcloud.Amount `cbor:"hold" json:"hold"`               // storage prepaid; not in this version, must be zero
}

// ID returns the lease's id.
func (t Terms) ID() (pktcloud.ID, error) { return idOf(t) }

// Draft returns the terms as they were proposed, before the provider's quote
// and the channel. The draft's id is the request that a quote answers.
func (t Terms) Draft() Terms {
	t.Quote, t.Channel, t.Rate, t.CommitBy = pktcloud.ID{}, pktcloud.ID{}, 0, 0
	return t
}

// IsDraft reports whether quote and channel are missing.
func (t Terms) IsDraft() bool { return t.Quote.IsZero() && t.Channel.IsZero() }

// Validate checks the shape of terms or of a draft [LEASE-4]. Errors match
// [CodeMalformed] or [CodeLimits].
func (t Terms) Validate() error {
	if t.Version != TermsVersion {
		return Refusal(CodeMalformed, "terms version %d, want %d", t.Version, TermsVersion)
	}
	for _, k := range []pktcloud.PublicKey{t.Tenant, t.Provider, t.TenantDevice, t.ProviderDevice} {
		if err := k.Validate(); err != nil {
			return wrap(CodeMalformed, "a key of the terms", err)
		}
	}
	if t.TenantDevice == t.ProviderDevice {
		return Refusal(CodeMalformed, "a device makes no lease with itself")
	}
	if t.Offer.IsZero() || t.Manifest.IsZero() || t.Quote.IsZero() != t.Channel.IsZero() {
		return Refusal(CodeMalformed, "terms name an offer, a manifest and, unless a draft, a quote and a channel")
	}
	if t.IsDraft() != (t.CommitBy == 0) || t.CommitBy < 0 || t.IsDraft() && t.Rate != 0 {
		return Refusal(CodeMalformed, "a draft has no rate and no commitBy, terms have a commitBy after 1970")
	}
	if err := wrap(CodeMalformed, "resources", t.Resources.Validate()); err != nil {
		return err
	}
	if err := t.validateTimes(); err != nil {
		return err
	}
	if err := t.validateLimits(); err != nil {
		return err
	}
	return validateExt(CodeMalformed, t.Ext)
}

func (t Terms) validateTimes() error {
	switch {
	case t.IntervalSeconds == 0 || t.IntervalSeconds > MaxIntervalSeconds:
		return Refusal(CodeMalformed, "an interval of %d s; it is 1 to %d", t.IntervalSeconds, MaxIntervalSeconds)
	case t.TermSeconds == 0 || t.TermSeconds > MaxTermSeconds:
		return Refusal(CodeMalformed, "a term of %d s; it is 1 to %d", t.TermSeconds, MaxTermSeconds)
	case t.GraceSeconds == 0 || t.GraceSeconds > MaxGraceSeconds || t.NoticeSeconds > MaxNoticeSeconds:
		return Refusal(CodeMalformed, "a grace of 1 to %d s, a notice of at most %d", MaxGraceSeconds, MaxNoticeSeconds)
	}
	return nil
}

// validateLimits wants credit and prepaid together to cover the price of one
// interval: otherwise nothing is ever served long enough to be paid [LEASE-12].
func (t Terms) validateLimits() error {
	l := t.Limits
	for _, a := range []pktcloud.Amount{l.Credit, l.Prepaid, l.Unconfirmed, pktcloud.Amount(t.Rate)} {
		if err := wrap(CodeMalformed, "a limit", a.Validate()); err != nil {
			return err
		}
	}
	if l.HoldDeposit != 0 {
		return Refusal(CodeLimits, "hold deposits are not part of this version; set the limit to zero")
	}
	price, err := t.DueAfter(t.IntervalSeconds)
	if err != nil {
		return err
	}
	if l.Credit+l.Prepaid < price {
		return Refusal(CodeLimits, "credit %s and prepaid %s together do not cover one interval of %d s, which costs %s; raise one or shorten the interval",
			l.Credit, l.Prepaid, t.IntervalSeconds, price)
	}
	if _, err := t.DueAfter(t.TermSeconds); err != nil {
		return err
	}
	return nil
}

// DueAfter returns what is owed after a number of seconds served since the
// start. Both sides compute every due with this function [LEASE-10]. Errors
// match [CodeMalformed] for more than a channel could ever pay.
func (t Terms) DueAfter(seconds uint64) (pktcloud.Amount, error) {
	a, err := t.Rate.For(seconds)
	return a, wrap(CodeMalformed, "the amount due", err)
}

// SecondsFor is the inverse: the most seconds of service whose due is at most
// amount.
func (t Terms) SecondsFor(amount pktcloud.Amount) uint64 {
	hi, lo := bits.Mul64(uint64(amount), pktcloud.SecondsPerHour)
	if hi >= uint64(t.Rate) {
		return math.MaxUint64
	}
	seconds, _ := bits.Div64(hi, lo, uint64(t.Rate))
	return seconds
}

// SignTerms returns a party's signature over terms [LEASE-5].
func SignTerms(key pktcloud.PrivateKey, t Terms) (pktcloud.Signature, error) {
	b, err := pktcloud.Marshal(t)
	if err != nil {
		return pktcloud.Signature{}, err
	}
	return pktcloud.Sign(key, recordTerms, b), nil
}

// Verify checks the signature of role over the terms [LEASE-5]. Errors match
// [CodeSignature].
func (t Terms) Verify(role Role, sig pktcloud.Signature) error {
	b, err := pktcloud.Marshal(t)
	if err != nil {
		return err
	}
	return wrap(CodeSignature, "the terms", pktcloud.Verify(t.device(role), recordTerms, b, sig))
}

// recordTerms and recordClose name what two devices sign beside the body.
const (
	recordTerms = "lease-terms"
	recordClose = "lease-close"
)

func (t Terms) device(role Role) pktcloud.PublicKey {
	if role == RoleProvider {
		return t.ProviderDevice
	}
	return t.TenantDevice
}

// ParseTerms decodes and validates terms or a draft.
func ParseTerms(data []byte) (Terms, error) { return parse[Terms](data, MaxTermsBytes) }
