package lease_test

import (
	"bytes"
	"errors"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// fuzzParse asserts that what parse accepts is the one encoding of a value.
func fuzzParse(f *testing.F, parse func([]byte) (encoded []byte, err error), seeds ...[]byte) {
	f.Helper()
	for _, s := range seeds {
		if len(s) > 0 {
			f.Add(s)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		again, err := parse(data)
		if err != nil {
			if _, ok := errors.AsType[*lease.Error](err); !ok {
				t.Fatalf("error %v has no code", err)
			}
			return
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("got %x again from %x", again, data)
		}
	})
}

func encoded[T any](v T, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return pktcloud.Marshal(v)
}

func FuzzParseMessage(f *testing.F) {
	var seeds [][]byte
	for _, c := range must(vector.Load(vectors, "message-")) {
		seeds = append(seeds, c.Bytes("message"))
	}
	fuzzParse(f, func(b []byte) ([]byte, error) {
		m, err := lease.ParseMessage(b)
		if err != nil {
			return nil, err
		}
		return lease.AppendMessage(nil, m)
	}, seeds...)
}

func FuzzParseManifest(f *testing.F) {
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseManifest(b)) },
		must(pktcloud.Marshal(manifest())), must(pktcloud.Marshal(networked())), must(pktcloud.Marshal(volumesProposal(func(*lease.Propose) {}).Manifest)))
}

func FuzzParseTerms(f *testing.F) {
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseTerms(b)) },
		must(pktcloud.Marshal(draft(usual))), must(pktcloud.Marshal(commitFor(draft(usual), capacity0).Terms)))
}

func FuzzParseStatement(f *testing.F) {
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseStatement(b)) }, must(seal(providerDevice, statement()).Encode()))
}

func FuzzParseDispute(f *testing.F) {
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseDispute(b)) }, must(seal(tenantDevice, dispute()).Encode()))
}

func FuzzParseCloseRecord(f *testing.F) {
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseCloseRecord(b)) }, must(pktcloud.Marshal(closeRecord())))
}

func FuzzParseSignedTerms(f *testing.F) {
	c := commitFor(draft(usual), capacity0)
	s := lease.SignedTerms{Version: 1, Terms: c.Terms, Tenant: c.Signature, Provider: must(lease.SignTerms(providerDevice, c.Terms))}
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseSignedTerms(b)) }, must(pktcloud.Marshal(s)))
}

func FuzzParseSignedClose(f *testing.F) {
	s := lease.SignedClose{Version: 1, Record: closeRecord()}
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseSignedClose(b)) }, must(pktcloud.Marshal(s)))
}

func FuzzParseAmendment(f *testing.F) {
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseAmendment(b)) },
		must(amendWith(func(*lease.Amend) {}).Amendment.Encode()))
}

func FuzzParseAcceptance(f *testing.F) {
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseAcceptance(b)) }, must(seal(providerDevice, goodAcceptance()).Encode()))
}

func FuzzParseCountersigned(f *testing.F) {
	m := amendWith(func(*lease.Amend) {})
	c := lease.Countersigned{Version: 1, Amendment: m.Amendment, Acceptance: seal(providerDevice, goodAcceptance()), Manifest: m.Manifest, Offer: offer()}
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseCountersigned(b)) }, must(pktcloud.Marshal(c)))
}

func FuzzParseState(f *testing.F) {
	s, _ := active(f, usual)
	amended := s
	a := amendment(s, dearer)
	amended.Present, amended.Revision, amended.Attempt, amended.Segments = a, 1, 2, []lease.Segment{{From: 3, Rate: a.Rate}}
	amended.Proposal = amendment(amended, func(a *lease.Amendment) { a.Attempt = 2 })
	if err := amended.Check(); err != nil {
		f.Fatal(err)
	}
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseState(b)) }, must(s.Encode()), must(amended.Encode()))
}
