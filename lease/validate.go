package lease

import (
	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// The shapes of the messages, in the order of message.go [LEASE-2].

func validateHead(version uint64, id pktcloud.ID) error {
	if version != MessageVersion {
		return Refusal(CodeMalformed, "message version %d, want %d", version, MessageVersion)
	}
	if id.IsZero() {
		return Refusal(CodeMalformed, "the message names no lease")
	}
	return nil
}

func validateVersion(version uint64) error {
	if version != MessageVersion {
		return Refusal(CodeMalformed, "message version %d, want %d", version, MessageVersion)
	}
	return nil
}

func validateBlob(what string, b []byte, least, most int) error {
	if len(b) < least || len(b) > most {
		return Refusal(CodeMalformed, "%s of %d bytes, want %d to %d", what, len(b), least, most)
	}
	return nil
}

// validateManifest also holds the manifest to its own size, which a field of a
// message would otherwise not bound.
func validateManifest(m Manifest, t Terms) error {
	if err := m.Validate(); err != nil {
		return err
	}
	b, err := pktcloud.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > MaxManifestBytes {
		return Refusal(CodeManifest, "a manifest of %d bytes, at most %d", len(b), MaxManifestBytes)
	}
	if pktcloud.IDOf(b) != t.Manifest {
		return Refusal(CodeManifest, "the manifest is not the one that the terms name")
	}
	if m.Resources() != t.Resources {
		return Refusal(CodeManifest, "manifest and terms name different resources")
	}
	return nil
}

// Validate checks the message's shape [LEASE-2].
func (m Propose) Validate() error {
	if err := validateVersion(m.Version); err != nil {
		return err
	}
	if err := validateBlob("an account", m.Account, 1, pktcloud.MaxAccountBytes); err != nil {
		return err
	}
	if err := m.Draft.Validate(); err != nil {
		return err
	}
	if !m.Draft.IsDraft() {
		return Refusal(CodeMalformed, "a proposal holds a draft, without quote and channel")
	}
	if err := m.Credentials.Validate(); err != nil {
		return err
	}
	return validateManifest(m.Manifest, m.Draft)
}

// Validate checks the message's shape [LEASE-2].
func (m Quote) Validate() error {
	if err := validateVersion(m.Version); err != nil {
		return err
	}
	if err := validateBlob("a quote", m.Quote, 1, market.MaxQuoteBytes); err != nil {
		return err
	}
	return validateBlob("an account", m.Account, 1, pktcloud.MaxAccountBytes)
}

// Validate checks the message's shape [LEASE-2].
func (m Refuse) Validate() error {
	if err := validateVersion(m.Version); err != nil {
		return err
	}
	return validateReason(m.Code, m.Text)
}

// Validate checks the message's shape [LEASE-2], and that its parts belong
// together as far as no key, clock or chain is needed.
func (m Commit) Validate() error {
	if err := validateVersion(m.Version); err != nil {
		return err
	}
	if err := validateBlob("an account", m.Account, 1, pktcloud.MaxAccountBytes); err != nil {
		return err
	}
	if err := validateBlob("a quote", m.Quote, 1, market.MaxQuoteBytes); err != nil {
		return err
	}
	if err := validateBlob("a funding transaction", m.Funding, 0, MaxFundingBytes); err != nil {
		return err
	}
	if err := validateBlob("a voucher", m.Voucher, 0, settle.MaxVoucherBytes); err != nil {
		return err
	}
	if err := m.Credentials.Validate(); err != nil {
		return err
	}
	if err := m.Terms.Validate(); err != nil {
		return err
	}
	if m.Terms.IsDraft() {
		return Refusal(CodeMalformed, "a commit holds whole terms, with quote and channel")
	}
	if err := validateManifest(m.Manifest, m.Terms); err != nil {
		return err
	}
	return m.validateChannel()
}

// validateChannel wants the channel of the terms to be this one, between the
// two devices [LEASE-7].
func (m Commit) validateChannel() error {
	if err := m.Params.Validate(); err != nil {
		return wrap(CodeChannel, "the channel's parameters", err)
	}
	id, err := m.Params.ID()
	if err != nil {
		return err
	}
	t := m.Terms
	if id != t.Channel || m.Params.Payer != t.TenantDevice || m.Params.Payee != t.ProviderDevice {
		return Refusal(CodeChannel, "the channel is not the one that the terms name, between the two devices")
	}
	if len(m.Funding) == 0 { // [LEASE-17]
		if len(m.Voucher) != 0 {
			return Refusal(CodeChannel, "an open channel has had its first voucher")
		}
		return nil
	}
	if m.Params.Unconfirmed != t.Limits.Unconfirmed {
		return Refusal(CodeChannel, "terms and channel have different unconfirmed limits")
	}
	return nil
}

// Validate checks the message's shape [LEASE-2].
func (m Ack) Validate() error { return validateHead(m.Version, m.Lease) }

// Validate checks the message's shape and signature [LEASE-2].
func (m StatementMessage) Validate() error {
	if err := validateVersion(m.Version); err != nil {
		return err
	}
	return asRefusal(m.Statement.Verify())
}

// Validate checks the message's shape [LEASE-2].
func (m VoucherMessage) Validate() error {
	if err := validateHead(m.Version, m.Lease); err != nil {
		return err
	}
	if err := validateBlob("the predecessor's voucher", m.Predecessor, 0, settle.MaxVoucherBytes); err != nil {
		return err
	}
	return validateBlob("a voucher", m.Voucher, 1, settle.MaxVoucherBytes)
}

// Validate checks the message's shape and signature [LEASE-2].
func (m DisputeMessage) Validate() error {
	if err := validateVersion(m.Version); err != nil {
		return err
	}
	return asRefusal(m.Dispute.Verify())
}

// Validate checks the message's shape [LEASE-2].
func (m Suspend) Validate() error { return validateHead(m.Version, m.Lease) }

// Validate checks the message's shape [LEASE-2].
func (m Resume) Validate() error { return validateHead(m.Version, m.Lease) }

// Validate checks the message's shape [LEASE-2].
func (m CloseRequest) Validate() error {
	if err := validateHead(m.Version, m.Lease); err != nil {
		return err
	}
	if !m.Reason.Valid() {
		return Refusal(CodeMalformed, "the reason is not on the list")
	}
	return validateReason(Code(m.Reason), m.Text)
}

// Validate checks the message's shape [LEASE-2].
func (m Close) Validate() error {
	if err := validateVersion(m.Version); err != nil {
		return err
	}
	if err := m.Record.Validate(); err != nil {
		return err
	}
	return validateBlob("a close offer", m.Offer, 0, settle.MaxCloseOfferBytes)
}

// Validate checks the message's shape [LEASE-2].
func (m CloseAck) Validate() error {
	if err := validateHead(m.Version, m.Lease); err != nil {
		return err
	}
	if len(m.TxID) != 0 && len(m.TxID) != 32 {
		return Refusal(CodeMalformed, "a transaction id of %d bytes, want none or 32", len(m.TxID))
	}
	return nil
}

// Validate checks the message's shape [LEASE-2].
func (m Attach) Validate() error { return validateHead(m.Version, m.Lease) }

// Validate checks the message's shape and signature, and that the manifest is
// the one that the amendment names [AMEND-1].
func (m Amend) Validate() error {
	if err := validateVersion(m.Version); err != nil {
		return err
	}
	if err := asRefusal(m.Amendment.Verify()); err != nil {
		return err
	}
	return validateAmended(m.Manifest, m.Amendment.Body)
}

// Validate checks the message's shape and signature [AMEND-7].
func (m AmendAck) Validate() error {
	if err := validateVersion(m.Version); err != nil {
		return err
	}
	return asRefusal(m.Acceptance.Verify())
}

// Validate checks the message's shape [AMEND-8].
func (m AmendRefuse) Validate() error {
	if err := validateHead(m.Version, m.Lease); err != nil {
		return err
	}
	if m.Attempt == 0 || m.Attempt > MaxAttempts {
		return Refusal(CodeMalformed, "attempt %d; a lease has at most %d", m.Attempt, MaxAttempts)
	}
	return validateReason(m.Code, m.Text)
}
