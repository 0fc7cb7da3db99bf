package lease_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// goodAmendment is the first amendment of the lease of the vectors: to two cores.
func goodAmendment() lease.Amendment {
	t := commitFor(draft(usual), capacity0).Terms
	s := lease.State{Lease: must(t.ID()), Terms: t}
	return amendment(s, dearer)
}

func goodAcceptance() lease.Acceptance {
	a := goodAmendment()
	return lease.Acceptance{
		Version: 1, Lease: a.Lease, Provider: providerDevice.Public(), Amendment: pktcloud.IDOf(must(pktcloud.Marshal(a))),
		Revision: 1, Attempt: 1, From: 7, Issued: now0 + 7,
	}
}

// amendWith is the good one with a fault, signed again.
func amendWith(edit func(*lease.Amend)) lease.Amend {
	m := lease.Amend{Version: 1, Amendment: pktcloud.Signed[lease.Amendment]{Body: goodAmendment()}, Manifest: larger()}
	edit(&m)
	m.Amendment = seal(tenantDevice, m.Amendment.Body)
	return m
}

func amendFaults() []vector.Case {
	fault := func(name, expect, about string, m lease.Message) vector.Case {
		return vector.New("message-"+name, expect, about).With("message", envelope(m))
	}
	body := func(name, expect, about string, edit func(*lease.Amendment)) vector.Case {
		return fault("amend-"+name, expect, about, amendWith(func(m *lease.Amend) { edit(&m.Amendment.Body) }))
	}
	accept := func(edit func(*lease.Acceptance)) lease.AmendAck {
		a := goodAcceptance()
		edit(&a)
		return lease.AmendAck{Version: 1, Acceptance: seal(providerDevice, a)}
	}
	unsigned := amendWith(func(*lease.Amend) {})
	unsigned.Amendment.Sig = pktcloud.Signature{}
	forged := lease.AmendAck{Version: 1, Acceptance: seal(tenantDevice, goodAcceptance())}
	under := func(revision string) lease.StatementMessage {
		return statementWith(func(s *lease.Statement) { s.Ext = map[string][]byte{"revision": []byte(revision)} })
	}
	return []vector.Case{
		fault("amend-unsigned", "signature", "an amendment without its signature", unsigned),
		fault("amend-manifest-other", "manifest", "a manifest that the amendment does not name", amendWith(func(m *lease.Amend) { m.Manifest = manifest() })),
		fault("amend-manifest-resources", "manifest", "resources that are not those of the manifest",
			amendWith(func(m *lease.Amend) { m.Amendment.Body.Resources.MilliCPU = 1 })),
		body("version", "malformed", "an amendment of version 2", func(a *lease.Amendment) { a.Version = 2 }),
		body("revision-zero", "malformed", "revision 0, which is the terms", func(a *lease.Amendment) { a.Revision = 0 }),
		body("revision-many", "malformed", "revision 257", func(a *lease.Amendment) { a.Revision, a.Attempt = 257, 257 }),
		body("attempt", "malformed", "fewer attempts than revisions", func(a *lease.Amendment) { a.Revision, a.Attempt = 2, 1 }),
		body("attempts", "malformed", "attempt 4097", func(a *lease.Amendment) { a.Attempt = 4097 }),
		body("term-zero", "malformed", "a term of 0 s", func(a *lease.Amendment) { a.TermSeconds = 0 }),
		body("commit-by", "malformed", "no commitBy", func(a *lease.Amendment) { a.CommitBy = 0 }),
		body("hold", "limits", "a hold deposit, which this version does not have", func(a *lease.Amendment) { a.Limits.HoldDeposit = 1 }),
		body("limit-range", "malformed", "a credit beyond the largest amount", func(a *lease.Amendment) { a.Limits.Credit = pktcloud.MaxAmount + 1 }),
		fault("amend-ack-forged", "signature", "an acceptance that the tenant has signed", forged),
		fault("amend-ack-revision", "malformed", "an acceptance of revision 0", accept(func(a *lease.Acceptance) { a.Revision = 0 })),
		fault("amend-ack-nothing", "malformed", "an acceptance that names no amendment", accept(func(a *lease.Acceptance) { a.Amendment = pktcloud.ID{} })),
		fault("amend-refuse-attempt", "malformed", "a refusal of attempt 0", lease.AmendRefuse{Version: 1, Lease: goodAmendment().Lease, Code: lease.CodeCapacity}),
		fault("good-statement-revision", "ok", "a statement under revision 2", under("2")),
		fault("statement-revision-zero", "malformed", "a statement under revision 0, which is said by no entry", under("0")),
		fault("statement-revision-spelling", "malformed", "a revision that is spelled otherwise", under("02")),
		fault("statement-revision-many", "malformed", "a statement under revision 257", under("257")),
	}
}

// TestTariffVectors: what seconds cost over segments.
func TestTariffVectors(t *testing.T) {
	var cases []vector.Case
	for _, c := range []struct {
		name, segments, about string
		seconds, due          uint64
	}{
		{"before", "0:3600 7:7200", "up to the boundary at the first rate", 7, 7},
		{"after", "0:3600 7:7200", "beyond it at the second", 12, 17},
		{"rounded-once", "0:1 1:1 2:1", "three segments of a second are rounded up together", 3, 1},
		{"same-second", "0:3600 5:9000 5:7200", "of two that begin at one second the later one counts", 6, 7},
		{"cheaper", "0:7200 10:1800 20:0", "a rate may fall, and be nothing", 100, 25},
	} {
		cases = append(cases, vector.New("tariff-"+c.name, "ok", c.about).With("segments", c.segments).With("seconds", c.seconds).With("due", c.due))
	}
	found, err := vector.Sync(vectors, "tariff-", cases, *update)
	if err != nil {
		t.Error(err)
	}
	for _, c := range found {
		var tariff lease.Tariff
		for s := range strings.FieldsSeq(c.Value("segments")) {
			from, rate, _ := strings.Cut(s, ":")
			tariff = append(tariff, lease.Segment{From: must(strconv.ParseUint(from, 10, 64)), Rate: pktcloud.Rate(must(strconv.ParseUint(rate, 10, 64)))})
		}
		seconds := must(strconv.ParseUint(c.Value("seconds"), 10, 64))
		due, err := tariff.DueAfter(seconds)
		if err != nil || fmt.Sprint(uint64(due)) != c.Value("due") {
			t.Errorf("%s: got %d, %v, want %s", c.Name, uint64(due), err, c.Value("due"))
		}
		if back := slices.Clone(tariff).SecondsFor(due); back < seconds {
			t.Errorf("%s: %d units pay for %d s, want at least %d", c.Name, uint64(due), back, seconds)
		}
	}
}
