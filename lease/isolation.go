package lease

import (
	"maps"
	"slices"
	"strings"

	"github.com/pkt-cash/pkt-cloud/market"
)

// extIsolation is the entry of a manifest's ext that demands a class.
const extIsolation = "isolation"

// Isolation returns the class of isolation that the manifest demands, empty
// for any [LEASE-34].
func (m Manifest) Isolation() string { return string(m.Ext[extIsolation]) }

// Demand sets the class that the manifest demands; empty takes any. The
// manifest's ext is replaced, not changed.
func (m *Manifest) Demand(class string) {
	ext := map[string][]byte{}
	maps.Copy(ext, m.Ext)
	delete(ext, extIsolation)
	if class != "" {
		ext[extIsolation] = []byte(class)
	}
	m.Ext = ext
	if len(ext) == 0 {
		m.Ext = nil
	}
}

// CheckIsolation says whether an offer has the class that a manifest demands
// [LEASE-34]. Errors match [CodeOffer] and [market.CodeIsolation].
func CheckIsolation(o market.Offer, m Manifest) error {
	want := m.Isolation()
	if want == "" || slices.Contains(o.Isolation, want) {
		return nil
	}
	return &Error{
		Code: CodeOffer, Detail: "the lease demands isolation " + want + ", the offer has " + strings.Join(o.Isolation, " and ") + "; choose another offer",
		Err: market.CodeIsolation,
	}
}

func validateIsolation(ext map[string][]byte) error {
	class, ok := ext[extIsolation]
	if ok && (len(class) == 0 || len(class) > market.MaxName || strings.Trim(string(class), "abcdefghijklmnopqrstuvwxyz0123456789-") != "") {
		return Refusal(CodeManifest, "a class of isolation is a name of 1 to %d of a-z 0-9 -", market.MaxName)
	}
	return nil
}
