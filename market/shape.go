package market

import (
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
)

func validateKeys(keys ...pktcloud.PublicKey) error {
	for _, k := range keys {
		if err := k.Validate(); err != nil {
			return &Error{Code: CodeMalformed, Detail: "a key of the record", Err: err}
		}
	}
	return nil
}

// validateLifetime bounds both ends before it subtracts, so that no choice of
// times overflows.
func validateLifetime(issued, expires, most int64) error {
	if issued < 0 || expires < 0 || expires <= issued || expires-issued > most {
		return refuse(CodeMalformed, "a life from %d to %d: it ends after it begins and lasts at most %d s", issued, expires, most)
	}
	return nil
}

// validRegion accepts nothing, a country of ISO 3166-1 ("DE") or a
// subdivision of ISO 3166-2 ("DE-BE"), by shape: the lists change.
func validRegion(s string) bool {
	if s == "" {
		return true
	}
	country, sub, hasSub := strings.Cut(s, "-")
	if len(country) != 2 || strings.Trim(country, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return false
	}
	return !hasSub || len(sub) >= 1 && len(sub) <= 3 && strings.Trim(sub, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
}

// inRegion reports whether region lies in want: "DE-BE" lies in "DE", "DE" and
// "DE-BE" in themselves, everything in "".
func inRegion(region, want string) bool {
	return want == "" || region == want || strings.HasPrefix(region, want+"-")
}

func validName(s string) bool {
	return s != "" && len(s) <= MaxName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// printable keeps control characters and spaces other than ' ' out of what is
// shown on terminals.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
