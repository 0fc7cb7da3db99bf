package web

import (
	"errors"
	"testing"
)

// TestSentence: an error on a page names no command and no flag.
func TestSentence(t *testing.T) {
	for text, want := range map[string]string{
		"too little money": "Too little money.",
		`2 PKT needed; wait for the next block, or send more to an address of "pktcloud wallet address"`: "2 PKT needed; wait for the next block, or send more to an address that the page Wallet shows.",
		`no lease "ab"; list them with "pktcloud lease list"`:                                            `No lease "ab".`,
		"the fee is above the limit; raise --max-fee; or wait":                                           "The fee is above the limit; or wait.",
	} {
		if got := sentence(errors.New(text)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
