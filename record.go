package pktcloud

// Body is the content of a record that one key signs. Implementations are
// values whose fields carry cbor tags.
type Body interface {
	// RecordType names the kind of record in the signed bytes, such as "offer".
	RecordType() string
	// Signer is the key whose signature makes the record valid.
	Signer() PublicKey
	// Validate checks the record's shape, not its signature.
	Validate() error
}

// Signed is a record: a body and the signature of its signer. Its encoding is
//
//	{"body": <body>, "sig": <64 bytes>}
//
// and its id is that of the body alone [ENC-7].
type Signed[B Body] struct {
	Body B         `cbor:"body" json:"body"`
	Sig  Signature `cbor:"sig" json:"sig"`
}

// Seal validates and signs a body. Errors match [ErrRecord], [ErrKey] when the
// key is not the body's signer, or what Validate returns.
func Seal[B Body](key PrivateKey, body B) (Signed[B], error) {
	if err := body.Validate(); err != nil {
		return Signed[B]{}, err
	}
	if key.IsZero() || key.Public() != body.Signer() {
		return Signed[B]{}, ErrKey
	}
	b, err := Marshal(body)
	if err != nil {
		return Signed[B]{}, err
	}
	return Signed[B]{Body: body, Sig: Sign(key, body.RecordType(), b)}, nil
}

// Verify validates the body and checks its signature. It reads no clock: a
// record that has expired still verifies.
func (s Signed[B]) Verify() error {
	if err := s.Body.Validate(); err != nil {
		return err
	}
	b, err := Marshal(s.Body)
	if err != nil {
		return err
	}
	return Verify(s.Body.Signer(), s.Body.RecordType(), b, s.Sig)
}

// ID returns the record's id, that of its body.
func (s Signed[B]) ID() (ID, error) {
	b, err := Marshal(s.Body)
	if err != nil {
		return ID{}, err
	}
	return IDOf(b), nil
}

// Encode returns the record's bytes.
func (s Signed[B]) Encode() ([]byte, error) { return Marshal(s) }

// ParseSigned decodes and verifies a record of at most maxBytes. Errors match
// [ErrEncoding], [ErrTooLarge], [ErrKey], [ErrSignature] or what the body's
// Validate returns.
func ParseSigned[B Body](data []byte, maxBytes int) (Signed[B], error) {
	var s Signed[B]
	if err := Unmarshal(data, &s, maxBytes); err != nil {
		return Signed[B]{}, err
	}
	if err := s.Verify(); err != nil {
		return Signed[B]{}, err
	}
	return s, nil
}
