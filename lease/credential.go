package lease

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// Secret is text that is shown to nobody: printed, logged or written as JSON it is
// "(secret)". The lease's own encoding carries it.
type Secret string

const hidden = "(secret)"

// String returns "(secret)".
func (Secret) String() string { return hidden }

// GoString returns "(secret)".
func (Secret) GoString() string { return hidden }

// MarshalText returns "(secret)".
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Credential lets a provider pull the images of one lease from a registry.
type Credential struct {
	Registry string `cbor:"registry" json:"registry"` // host, and port where it is not 443
	Username string `cbor:"user" json:"user"`
	Password Secret `cbor:"password" json:"password"`
}

// Credentials are those that a tenant gives with a proposal and a commit, beside
// what is signed and hashed, ascending by registry [LEASE-41].
type Credentials []Credential

// Validate checks the shape [LEASE-41]. Errors match [CodeMalformed], and say
// nothing of what is in it.
func (c Credentials) Validate() error {
	if len(c) > MaxCredentials {
		return Refusal(CodeMalformed, "credentials of %d registries, at most %d", len(c), MaxCredentials)
	}
	for i, v := range c {
		if !graphic(v.Registry) || len(v.Registry) > MaxRegistry || i > 0 && c[i-1].Registry >= v.Registry {
			return Refusal(CodeMalformed, "credentials name registries of 1 to %d printable bytes, ascending, each once", MaxRegistry)
		}
		if len(v.Username) > MaxRegistryUser || !utf8.ValidString(v.Username) {
			return Refusal(CodeMalformed, "a registry's user has at most %d bytes of UTF-8", MaxRegistryUser)
		}
		if len(v.Password) == 0 || len(v.Password) > MaxRegistryPassword || !utf8.ValidString(string(v.Password)) {
			return Refusal(CodeMalformed, "a registry's password has 1 to %d bytes of UTF-8", MaxRegistryPassword)
		}
	}
	return nil
}

// For returns the credential for a registry; the zero value, of which the password
// is empty, where there is none.
func (c Credentials) For(registry string) Credential {
	i, ok := slices.BinarySearchFunc(c, registry, func(v Credential, r string) int { return cmp.Compare(v.Registry, r) })
	if !ok {
		return Credential{}
	}
	return c[i]
}

// graphic reports whether s is visible ASCII, and not empty.
func graphic(s string) bool {
	for _, b := range []byte(s) {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return s != ""
}
