package lease

import (
	"bytes"
	"slices"
	"strconv"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
)

// AmendmentVersion is the version of Amendment and Acceptance that this package
// writes.
const AmendmentVersion = 1

// Amendment is a change of a lease's terms that the tenant proposes and signs
// [AMEND-1]. It names all that may change, also what stays as it is. It stands
// once the provider has signed an [Acceptance] of it.
type Amendment struct {
	Version     uint64             `cbor:"v" json:"v"`
	Lease       pktcloud.ID        `cbor:"lease" json:"lease"`
	Tenant      pktcloud.PublicKey `cbor:"tenant" json:"tenant"`     // device, signs
	Revision    uint64             `cbor:"revision" json:"revision"` // 1 for the first that stands
	Attempt     uint64             `cbor:"attempt" json:"attempt"`   // counts what the tenant proposed, refused ones too
	Offer       pktcloud.ID        `cbor:"offer" json:"offer"`       // whose prices make the rate
	Resources   market.Resources   `cbor:"resources" json:"resources"`
	Manifest    pktcloud.ID        `cbor:"manifest" json:"manifest"`
	Rate        pktcloud.Rate      `cbor:"rate" json:"rate"`
	Limits      Limits             `cbor:"limits" json:"limits"`
	TermSeconds uint64             `cbor:"term" json:"term"`           // of service, from the start of the lease
	CommitBy    int64              `cbor:"commit_by" json:"commit_by"` // Unix seconds on the provider's clock, exclusive
	Ext         map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// RecordType returns "lease-amendment".
func (Amendment) RecordType() string { return "lease-amendment" }

// Signer returns the tenant's device.
func (a Amendment) Signer() pktcloud.PublicKey { return a.Tenant }

// IsZero reports whether there is no amendment.
func (a Amendment) IsZero() bool { return a.Version == 0 }

// Validate checks the amendment's shape [AMEND-1]. Errors match [CodeMalformed]
// or [CodeLimits].
func (a Amendment) Validate() error {
	if a.Version != AmendmentVersion {
		return Refusal(CodeMalformed, "amendment version %d, want %d", a.Version, AmendmentVersion)
	}
	if err := a.Tenant.Validate(); err != nil {
		return wrap(CodeMalformed, "the tenant's device", err)
	}
	switch {
	case a.Lease.IsZero() || a.Offer.IsZero() || a.Manifest.IsZero():
		return Refusal(CodeMalformed, "an amendment names a lease, an offer and a manifest")
	case a.Revision == 0 || a.Revision > MaxRevisions || a.Attempt < a.Revision || a.Attempt > MaxAttempts:
		return Refusal(CodeMalformed, "revision %d in attempt %d; a lease has at most %d revisions in %d attempts", a.Revision, a.Attempt, MaxRevisions, MaxAttempts)
	case a.TermSeconds == 0 || a.TermSeconds > MaxTermSeconds:
		return Refusal(CodeMalformed, "a term of %d s; it is 1 to %d", a.TermSeconds, MaxTermSeconds)
	case a.CommitBy <= 0:
		return Refusal(CodeMalformed, "an amendment has a commitBy after 1970")
	case a.Limits.HoldDeposit != 0:
		return Refusal(CodeLimits, "hold deposits are not part of this version; set the limit to zero")
	}
	for _, m := range []pktcloud.Amount{a.Limits.Credit, a.Limits.Prepaid, a.Limits.Unconfirmed, pktcloud.Amount(a.Rate)} {
		if err := wrap(CodeMalformed, "a limit", m.Validate()); err != nil {
			return err
		}
	}
	if err := wrap(CodeMalformed, "resources", a.Resources.Validate()); err != nil {
		return err
	}
	return validateExt(CodeMalformed, a.Ext)
}

// ParseAmendment decodes and verifies an amendment.
func ParseAmendment(data []byte) (pktcloud.Signed[Amendment], error) {
	return parseSigned[Amendment](data, MaxAmendmentBytes)
}

// Amended returns terms with what an amendment changes. They are no terms that
// anybody signed: their id is not the lease's.
func (t Terms) Amended(a Amendment) Terms {
	t.Offer, t.Resources, t.Manifest, t.Rate = a.Offer, a.Resources, a.Manifest, a.Rate
	t.Limits, t.TermSeconds = a.Limits, a.TermSeconds
	return t
}

// Acceptance is the provider's signature under an amendment, and the second of
// service from which it counts [AMEND-7].
type Acceptance struct {
	Version   uint64             `cbor:"v" json:"v"`
	Lease     pktcloud.ID        `cbor:"lease" json:"lease"`
	Provider  pktcloud.PublicKey `cbor:"provider" json:"provider"`   // device, signs
	Amendment pktcloud.ID        `cbor:"amendment" json:"amendment"` // the record's id
	Revision  uint64             `cbor:"revision" json:"revision"`   // the amendment's
	Attempt   uint64             `cbor:"attempt" json:"attempt"`     // likewise
	From      uint64             `cbor:"from" json:"from"`           // second of service: where a statement ended
	Issued    int64              `cbor:"issued" json:"issued"`       // Unix seconds, for people
	Ext       map[string][]byte  `cbor:"ext" json:"ext,omitempty"`
}

// RecordType returns "lease-acceptance".
func (Acceptance) RecordType() string { return "lease-acceptance" }

// Signer returns the provider's device.
func (a Acceptance) Signer() pktcloud.PublicKey { return a.Provider }

// Validate checks the acceptance's shape. Errors match [CodeMalformed].
func (a Acceptance) Validate() error {
	if a.Version != AmendmentVersion {
		return Refusal(CodeMalformed, "acceptance version %d, want %d", a.Version, AmendmentVersion)
	}
	if err := a.Provider.Validate(); err != nil {
		return wrap(CodeMalformed, "the provider's device", err)
	}
	if a.Lease.IsZero() || a.Amendment.IsZero() || a.Revision == 0 || a.Revision > MaxRevisions ||
		a.Attempt < a.Revision || a.Attempt > MaxAttempts || a.Issued < 0 {
		return Refusal(CodeMalformed, "an acceptance names a lease, an amendment, its revision and attempt")
	}
	return validateExt(CodeMalformed, a.Ext)
}

// ParseAcceptance decodes and verifies an acceptance.
func ParseAcceptance(data []byte) (pktcloud.Signed[Acceptance], error) {
	return parseSigned[Acceptance](data, MaxAmendmentBytes)
}

// Of says whether the acceptance is of an amendment. Errors match [CodeQuote].
func (a Acceptance) Of(m Amendment) error {
	id, err := idOf(m)
	if err != nil {
		return err
	}
	if a.Amendment != id || a.Lease != m.Lease || a.Revision != m.Revision || a.Attempt != m.Attempt {
		return Refusal(CodeQuote, "the acceptance is of another amendment")
	}
	return nil
}

// Countersigned is an amendment as a journal keeps it: with both signatures, the
// manifest that it names, and the offer that made its rate.
type Countersigned struct {
	Version    uint64                        `cbor:"v"`
	Amendment  pktcloud.Signed[Amendment]    `cbor:"amendment"`
	Acceptance pktcloud.Signed[Acceptance]   `cbor:"acceptance"`
	Manifest   Manifest                      `cbor:"manifest"`
	Offer      pktcloud.Signed[market.Offer] `cbor:"offer"`
}

// Validate checks the shape, the signatures, and that the parts belong together.
func (c Countersigned) Validate() error {
	if err := validateVersion(c.Version); err != nil {
		return err
	}
	for _, err := range []error{c.Amendment.Verify(), c.Acceptance.Verify(), c.Offer.Verify()} {
		if err != nil {
			return asRefusal(err)
		}
	}
	if id, err := c.Offer.ID(); err != nil || id != c.Amendment.Body.Offer {
		return Refusal(CodeOffer, "the offer is not the one that the amendment names")
	}
	if err := validateAmended(c.Manifest, c.Amendment.Body); err != nil {
		return err
	}
	return c.Acceptance.Body.Of(c.Amendment.Body)
}

// ParseCountersigned decodes a journaled amendment and verifies its signatures.
func ParseCountersigned(data []byte) (Countersigned, error) {
	return parse[Countersigned](data, MaxMessageBytes)
}

// validateAmended holds a manifest to the amendment that names it.
func validateAmended(m Manifest, a Amendment) error {
	return validateManifest(m, Terms{Manifest: a.Manifest, Resources: a.Resources})
}

// CheckAmendment says whether an offer allows an amendment of standing terms,
// and whether nothing else of the manifest changes than sizes [AMEND-3]
// [AMEND-4]. Both sides call it. It does not judge room, time or money:
// [State.Step]. Errors match [CodeOffer], [CodePrice], [CodeLimits] or
// [CodeManifest].
func CheckAmendment(o pktcloud.Signed[market.Offer], standing Terms, was, m Manifest, a Amendment) error {
	id, err := o.ID()
	if err != nil {
		return err
	}
	b := o.Body
	if id != a.Offer || b.Provider != standing.Provider || b.Device != standing.ProviderDevice {
		return Refusal(CodeOffer, "the offer is another one, or of another provider or device")
	}
	rate, err := b.Rate(a.Resources)
	if err != nil {
		return wrap(CodePrice, "the price", err)
	}
	credit, err := rate.For(b.Limits.MaxCreditSeconds)
	next := standing.Amended(a)
	switch {
	case err != nil:
		return wrap(CodePrice, "the price", err)
	case a.Rate != rate:
		return Refusal(CodePrice, "a rate of %s an hour, the offer asks %s", pktcloud.Amount(a.Rate), pktcloud.Amount(rate))
	case a.Limits.Credit > credit:
		return Refusal(CodeLimits, "a credit of %s, the offer gives at most %s", a.Limits.Credit, credit)
	case a.Limits.Unconfirmed != standing.Limits.Unconfirmed:
		return Refusal(CodeLimits, "the unconfirmed limit is the channel's; it does not change")
	case standing.IntervalSeconds < b.Limits.MinIntervalSeconds:
		return Refusal(CodeLimits, "an interval of %d s, the offer wants at least %d", standing.IntervalSeconds, b.Limits.MinIntervalSeconds)
	case a.TermSeconds != standing.TermSeconds && (a.TermSeconds < b.MinTermSeconds || a.TermSeconds > b.MaxTermSeconds):
		return Refusal(CodeLimits, "a term of %s, offered are %s to %s", timeText(a.TermSeconds), timeText(b.MinTermSeconds), timeText(b.MaxTermSeconds))
	}
	if err := next.validateLimits(); err != nil {
		return err
	}
	if err := CheckResize(was, m); err != nil {
		return err
	}
	x, errX := pktcloud.Marshal(standing)
	y, errY := pktcloud.Marshal(next)
	if errX == nil && errY == nil && bytes.Equal(x, y) {
		return Refusal(CodeMalformed, "the amendment changes nothing")
	}
	return nil
}

// CheckResize says whether a manifest is another one but for its sizes: the
// resources of services, and volumes and disks that may grow [AMEND-4]. Errors
// match [CodeManifest].
func CheckResize(was, m Manifest) error {
	if len(was.Services) != len(m.Services) || len(was.Volumes) != len(m.Volumes) {
		return Refusal(CodeManifest, "an amendment adds or removes no service and no volume; make a new lease for that")
	}
	like := m
	like.Services, like.Volumes = slices.Clone(m.Services), slices.Clone(m.Volumes)
	for i, s := range was.Services {
		if m.Services[i].Resources.DiskBytes < s.Resources.DiskBytes {
			return Refusal(CodeManifest, "the disk of service %s would shrink; disks grow only", s.Name)
		}
		like.Services[i].Resources = s.Resources
	}
	for i, v := range was.Volumes {
		if m.Volumes[i].SizeBytes < v.SizeBytes {
			return Refusal(CodeManifest, "volume %s would shrink; volumes grow only", v.Name)
		}
		like.Volumes[i].SizeBytes = v.SizeBytes
	}
	x, errX := like.ID()
	y, errY := was.ID()
	if errX != nil || errY != nil || x != y {
		return Refusal(CodeManifest, "an amendment changes only sizes: cpu, memory, disk and volumes; make a new lease for another image or command")
	}
	return nil
}

// extRevision is the entry of a statement's ext that names the revision under
// which it was issued [AMEND-10].
const extRevision = "revision"

// Revision returns the revision under which a statement was issued, 0 for the
// terms as they were agreed.
func (s Statement) Revision() uint64 {
	n, err := strconv.ParseUint(string(s.Ext[extRevision]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func validateRevision(ext map[string][]byte) error {
	text, ok := ext[extRevision]
	if !ok {
		return nil
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil || n == 0 || n > MaxRevisions || strconv.FormatUint(n, 10) != string(text) {
		return Refusal(CodeMalformed, "a statement names a revision from 1 to %d", MaxRevisions)
	}
	return nil
}

// underRevision adds the entry to a statement's ext.
func underRevision(ext map[string][]byte, revision uint64) map[string][]byte {
	if revision == 0 {
		return ext
	}
	if ext == nil {
		ext = map[string][]byte{}
	}
	ext[extRevision] = strconv.AppendUint(nil, revision, 10)
	return ext
}
