package audit

import (
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
)

// amendedCase is a lease of ten seconds at 1 unit a second, and of ten at 3, as
// both sides have it.
func amendedCase() *caseFile {
	key := func(n byte) pktcloud.PublicKey { return pktcloud.NewPrivateKey([32]byte{31: n}).Public() }
	t := lease.Terms{
		TenantDevice: key(1), ProviderDevice: key(2), Provider: key(3), Rate: 3600,
		Limits: lease.Limits{Credit: 30}, Resources: market.Resources{MilliCPU: 1000},
	}
	id := pktcloud.IDOf([]byte("lease"))
	a := lease.Countersigned{Amendment: pktcloud.Signed[lease.Amendment]{Body: lease.Amendment{
		Lease: id, Tenant: key(1), Revision: 1, Attempt: 2, Rate: 10800, Resources: market.Resources{MilliCPU: 3000}, Limits: lease.Limits{Credit: 60},
	}}}
	a.Acceptance.Body = lease.Acceptance{Lease: id, Provider: key(2), Revision: 1, Attempt: 2, From: 10}
	a.Offer.Body = market.Offer{Provider: key(3), Device: key(2), Prices: market.Prices{CPUPerCoreHour: 3600}}
	statements := map[uint64]pktcloud.Signed[lease.Statement]{}
	for n, s := range []lease.Statement{{}, {To: 10, Due: 10}, {From: 10, To: 20, Due: 40, Ext: map[string][]byte{"revision": []byte("1")}}} {
		s.Lease, s.Provider, s.Sequence = id, key(2), uint64(n+1)
		statements[s.Sequence] = pktcloud.Signed[lease.Statement]{Body: s}
	}
	of := func() *journal {
		return &journal{statements: statements, amendments: map[uint64]lease.Countersigned{1: a}}
	}
	return &caseFile{id: id, terms: t, provider: of(), tenant: of(), statements: statements, report: &Report{}}
}

// TestAmendments: the sum due follows the segments, and each lie about an
// amendment is found.
func TestAmendments(t *testing.T) {
	both := func(edit func(*lease.Countersigned)) func(*caseFile) {
		return func(c *caseFile) {
			for _, j := range []*journal{c.provider, c.tenant} {
				a := j.amendments[1]
				edit(&a)
				j.amendments[1] = a
			}
		}
	}
	for _, x := range []struct {
		name string
		edit func(*caseFile)
		want string // part of the only finding; empty: none
	}{
		{"good", func(*caseFile) {}, ""},
		{"not heard of", func(c *caseFile) { c.tenant.statements, c.tenant.amendments = nil, nil }, ""},
		{"provider lost it", func(c *caseFile) { c.provider.amendments = nil }, "who has no record"},
		{"tenant lost it", func(c *caseFile) { c.tenant.amendments = nil }, "no record of the tenant's"},
		{"two versions", func(c *caseFile) {
			a := c.tenant.amendments[1]
			a.Amendment.Body.TermSeconds = 5
			c.tenant.amendments[1] = a
		}, "differs between the two sides"},
		{"no boundary", both(func(a *lease.Countersigned) { a.Acceptance.Body.From = 9 }), "at which no statement ends"},
		{"another price", both(func(a *lease.Countersigned) { a.Amendment.Body.Resources.MilliCPU = 2000 }), "its offer asks 7200"},
		{"another provider", both(func(a *lease.Countersigned) { a.Offer.Body.Provider = pktcloud.PublicKey{} }), "another provider's offer"},
		{"skipped", both(func(a *lease.Countersigned) { a.Amendment.Body.Revision = 2 }), "says revision 2"},
		{"none", func(c *caseFile) { c.provider.amendments, c.tenant.amendments = nil, nil }, "there are 0"},
	} {
		c := amendedCase()
		x.edit(c)
		c.checkAmendments()
		if x.want == "" {
			c.checkStatements()
		}
		got := c.report.Findings
		if x.want == "" && len(got) != 0 || x.want != "" && (len(got) != 1 || !strings.Contains(got[0].String(), x.want)) {
			t.Errorf("%s: got findings %v, want %q", x.name, got, x.want)
		}
	}
	c := amendedCase()
	c.checkAmendments()
	s := c.statements[3]
	s.Body.Due = 60
	c.statements[3] = s
	c.checkStatements()
	if got := c.report.Findings; len(got) != 1 || !strings.Contains(got[0].String(), "asks 60 units, the terms ask 40") {
		t.Errorf("got findings %v, want the sum due", got)
	}
	if c.result.Revisions != 1 || c.under(0).Credit != 30 || c.under(1).Credit != 60 || c.under(2).Credit != 60 {
		t.Errorf("got %d revisions with limits %v", c.result.Revisions, c.segments)
	}
}
