package lease

import pktcloud "github.com/pkt-cash/pkt-cloud"

// SignedTerms is the agreement as a journal keeps it. Provider is zero until
// the provider has acknowledged.
type SignedTerms struct {
	Version  uint64             `cbor:"v"`
	Terms    Terms              `cbor:"terms"`
	Tenant   pktcloud.Signature `cbor:"tenant"`
	Provider pktcloud.Signature `cbor:"provider"`
}

// Validate checks the shape and the signatures that are there.
func (s SignedTerms) Validate() error {
	if err := validateVersion(s.Version); err != nil {
		return err
	}
	if err := s.Terms.Validate(); err != nil {
		return err
	}
	if err := s.Terms.Verify(RoleTenant, s.Tenant); err != nil {
		return err
	}
	if s.Provider == (pktcloud.Signature{}) {
		return nil
	}
	return s.Terms.Verify(RoleProvider, s.Provider)
}

// ParseSignedTerms decodes a journaled agreement and verifies its signatures.
func ParseSignedTerms(data []byte) (SignedTerms, error) {
	return parse[SignedTerms](data, 2*MaxTermsBytes)
}

// SignedClose is a close record as a journal keeps it. A signature that is
// missing is zero; the devices are those of the terms.
type SignedClose struct {
	Version  uint64             `cbor:"v"`
	Record   CloseRecord        `cbor:"record"`
	Tenant   pktcloud.Signature `cbor:"tenant"`
	Provider pktcloud.Signature `cbor:"provider"`
}

// Validate checks the shape. Verify the signatures with [CloseRecord.Verify].
func (s SignedClose) Validate() error {
	if err := validateVersion(s.Version); err != nil {
		return err
	}
	return s.Record.Validate()
}

// ParseSignedClose decodes a journaled close record.
func ParseSignedClose(data []byte) (SignedClose, error) {
	return parse[SignedClose](data, 2*MaxCloseBytes)
}
