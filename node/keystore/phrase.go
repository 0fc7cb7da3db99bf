package keystore

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tyler-smith/go-bip39"
	"golang.org/x/text/unicode/norm"
)

// Words of a phrase that this package makes, and the fewer that it accepts as
// well.
const (
	NewPhraseWords = 24
	shortWords     = 12
	pktwalletWords = 15
)

// ErrPhrase marks text that is no recovery phrase of this program.
var ErrPhrase = errors.New("not a recovery phrase")

// Phrase is a BIP39 recovery phrase in English. Whoever knows it owns
// everything that it restores, so it prints as "recovery phrase": only
// [Phrase.Reveal] gives the words.
type Phrase struct {
	words []string
}

// NewPhrase makes a phrase of 24 words from 32 bytes of random.
func NewPhrase(random io.Reader) (Phrase, error) {
	var entropy [32]byte
	if _, err := io.ReadFull(random, entropy[:]); err != nil {
		return Phrase{}, fmt.Errorf("keystore: make a phrase: %w", err)
	}
	text, err := bip39.NewMnemonic(entropy[:])
	if err != nil {
		return Phrase{}, fmt.Errorf("keystore: make a phrase: %w", err)
	}
	return Phrase{words: strings.Fields(text)}, nil
}

// ReadPhrase reads a phrase that a person typed: any case, any white space.
// Errors match [ErrPhrase] and say which word is wrong, where that can be
// known; they repeat no word but an unknown one.
func ReadPhrase(text string) (Phrase, error) {
	words := strings.Fields(strings.ToLower(text))
	switch len(words) {
	case NewPhraseWords, shortWords:
	case pktwalletWords:
		return Phrase{}, fmt.Errorf("%w: 15 words are the phrase of pktwallet, which is not BIP39; "+
			"it opens in pktwallet only, from where single keys can be exported and imported here", ErrPhrase)
	default:
		return Phrase{}, fmt.Errorf("%w: %d words; a phrase has %d, or %d", ErrPhrase, len(words), NewPhraseWords, shortWords)
	}
	for i, w := range words {
		if _, known := bip39.GetWordIndex(w); !known {
			return Phrase{}, fmt.Errorf("%w: word %d, %q, is not on the list%s", ErrPhrase, i+1, w, suggestion(w))
		}
	}
	if !checksumFits(words) {
		return Phrase{}, fmt.Errorf("%w: each word is on the list but the checksum is wrong%s", ErrPhrase, swapped(words))
	}
	return Phrase{words: words}, nil
}

func checksumFits(words []string) bool {
	_, err := bip39.EntropyFromMnemonic(strings.Join(words, " "))
	return err == nil
}

// suggestion names the word that begins like w: four letters tell all words of
// the list apart.
func suggestion(w string) string {
	for n := min(len(w), 4); n >= 3; n-- {
		for _, known := range bip39.GetWordList() {
			if strings.HasPrefix(known, w[:n]) {
				return fmt.Sprintf("; did you mean %q?", known)
			}
		}
	}
	return ""
}

// swapped says which two neighbours to look at, if exchanging just one pair
// mends the checksum. A short checksum would make that a guess.
func swapped(words []string) string {
	const otherwise = ": one is not the word that was written down, or two are exchanged"
	if len(words) != NewPhraseWords {
		return otherwise
	}
	found := -1
	for i := range len(words) - 1 {
		try := slices.Clone(words)
		try[i], try[i+1] = try[i+1], try[i]
		if words[i] != words[i+1] && checksumFits(try) {
			if found >= 0 {
				return otherwise
			}
			found = i
		}
	}
	if found < 0 {
		return otherwise
	}
	return fmt.Sprintf(": words %d and %d may be exchanged", found+1, found+2)
}

// IsZero reports whether there is no phrase.
func (p Phrase) IsZero() bool { return len(p.words) == 0 }

// Reveal returns the words, to be shown to the owner and to nobody else.
func (p Phrase) Reveal() []string { return slices.Clone(p.words) }

// Seed returns the 64-byte BIP39 seed of the phrase and an optional
// passphrase, from which all keys come [ID-8]. Every passphrase gives a seed,
// so a mistyped one gives other keys and no error.
func (p Phrase) Seed(passphrase string) []byte {
	return bip39.NewSeed(strings.Join(p.words, " "), norm.NFKD.String(passphrase))
}

// String keeps the words out of logs.
func (p Phrase) String() string { return "recovery phrase" }

// GoString keeps the words out of %#v.
func (p Phrase) GoString() string { return p.String() }

// Format keeps the words out of every other verb.
func (p Phrase) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// MarshalText refuses: a phrase in JSON is a mistake.
func (p Phrase) MarshalText() ([]byte, error) {
	return nil, errors.New("keystore: a recovery phrase is not to be encoded")
}
