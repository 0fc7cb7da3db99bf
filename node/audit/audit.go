package audit

import (
	"bytes"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/market"
	"github.com/pkt-cash/pkt-cloud/settle"
)

// Dirs are what an audit reads: two data directories of nodes and one of a
// chain.
type Dirs struct {
	Provider string
	Tenant   string
	Chain    string
}

// Run audits every lease that either side knows. The error says that something
// could not be read at all; what was read and does not hold is in the report.
func Run(d Dirs) (Report, error) {
	report := Report{Findings: []Finding{}, Leases: []Lease{}}
	ch, err := readChain(d.Chain, &report)
	if err != nil {
		return report, err
	}
	ch.checkScripts(&report)
	report.Height = ch.height
	provider, err := readSide("provider", d.Provider, &report)
	if err != nil {
		return report, err
	}
	tenant, err := readSide("tenant", d.Tenant, &report)
	if err != nil {
		return report, err
	}
	ids := slices.Collect(maps.Keys(provider.leases))
	for id := range tenant.leases {
		if provider.leases[id] == nil {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b pktcloud.ID) int { return bytes.Compare(a[:], b[:]) })
	var cases []*caseFile
	for _, id := range ids {
		c := &caseFile{id: id, provider: provider.leases[id], tenant: tenant.leases[id], report: &report}
		if c.judge() {
			cases = append(cases, c)
		}
	}
	checkPayouts(cases, ch)
	for _, c := range cases {
		report.Leases = append(report.Leases, c.result)
	}
	slices.SortStableFunc(report.Findings, func(a, b Finding) int { return strings.Compare(a.Subject, b.Subject) })
	report.OK = len(report.Findings) == 0
	return report, nil
}

// caseFile is one lease before the audit.
type caseFile struct {
	id               pktcloud.ID
	provider, tenant *journal
	report           *Report

	terms      lease.Terms
	commit     lease.Commit
	channels   []*channel                                   // of the terms, and what it rolled into, link by link
	statements map[uint64]pktcloud.Signed[lease.Statement]  // of both sides
	vouchers   []map[uint64]pktcloud.Signed[settle.Voucher] // of each channel
	segments   []segment                                    // one for the terms, and for each amendment
	result     Lease
}

func (c *caseFile) find(what, format string, args ...any) {
	c.report.add(fmt.Sprintf("%s of lease %s", what, c.id), format, args...)
}

// judge holds one lease against the rules. It returns false for a commit that
// never became a lease.
func (c *caseFile) judge() bool {
	c.result.ID = c.id
	if !c.agreement() {
		return false
	}
	if err := c.openChannel(); err != nil {
		c.find("channel", "does not hold: %v", err)
		return true
	}
	c.merge()
	c.checkAmendments()
	c.checkStatements()
	c.checkVouchers()
	c.checkClose()
	return true
}

// agreement looks whether both signed the same terms, for the manifest and the
// offer that they name.
func (c *caseFile) agreement() bool {
	agreed := false
	for _, j := range []*journal{c.provider, c.tenant} {
		if j == nil || !j.hasTerms {
			continue
		}
		if id, err := j.terms.Terms.ID(); err != nil || id != c.id {
			c.find("terms", "have another id")
			continue
		}
		c.terms = j.terms.Terms
		agreed = agreed || j.terms.Provider != pktcloud.Signature{}
		if j.hasCommit {
			c.commit = j.commit
		}
	}
	if !agreed {
		return false
	}
	if c.provider == nil || !c.provider.hasTerms {
		c.find("terms", "are signed by the provider, who has no record of them")
	}
	if c.tenant == nil || !c.tenant.hasTerms {
		c.find("terms", "are signed by the tenant, who has no record of them")
	}
	c.checkCommit()
	return true
}

func (c *caseFile) checkCommit() {
	for name, j := range map[string]*journal{"provider: commit": c.provider, "tenant: commit": c.tenant} {
		if j == nil || !j.hasCommit {
			c.find(name, "is missing")
			continue
		}
		if m, err := j.commit.Manifest.ID(); err != nil || m != c.terms.Manifest {
			c.find(name, "carries a manifest other than the terms name")
		}
		if p, err := j.commit.Params.ID(); err != nil || p != c.terms.Channel {
			c.find(name, "carries a channel other than the terms name")
		}
		c.checkAccount(name, j.commit.Account)
		c.checkQuote(name, j.commit.Quote)
	}
	for name, j := range map[string]*journal{"provider: offer": c.provider, "tenant: offer": c.tenant} {
		if j == nil || !j.hasOffer {
			if j != nil {
				c.find(name, "is missing or does not hold")
			}
			continue
		}
		if id, err := j.offer.ID(); err != nil || id != c.terms.Offer {
			c.find(name, "is not the one that the terms name")
			continue
		}
		c.checkPrice(name, j.offer.Body)
	}
}

func (c *caseFile) checkAccount(name string, account []byte) {
	c.report.Checked.Signatures++
	a, err := pktcloud.ParseAccount(account)
	switch {
	case err != nil:
		c.find(name, "carries an account record that does not hold: %v", err)
	case a.Body.Identity != c.terms.Tenant || !slices.ContainsFunc(a.Body.Devices, func(d pktcloud.Device) bool { return d.Key == c.terms.TenantDevice }):
		c.find(name, "carries an account record that does not list the tenant's device")
	}
}

func (c *caseFile) checkQuote(name string, quote []byte) {
	c.report.Checked.Signatures++
	q, err := market.ParseQuote(quote)
	if err != nil {
		c.find(name, "carries a quote that does not hold: %v", err)
		return
	}
	if id, err := q.ID(); err != nil || id != c.terms.Quote || q.Body.Device != c.terms.ProviderDevice || q.Body.Rate != c.terms.Rate {
		c.find(name, "carries a quote other than the terms answer")
	}
}

// checkPrice computes the rate of the terms from the offer's prices, rounded
// up once.
func (c *caseFile) checkPrice(name string, o market.Offer) {
	if rate := price(o, c.terms.Resources); rate.Cmp(new(big.Int).SetUint64(uint64(c.terms.Rate))) != 0 {
		c.find(name, "prices these resources at %s units an hour, the terms say %d", rate, uint64(c.terms.Rate))
	}
	if o.Provider != c.terms.Provider || o.Device != c.terms.ProviderDevice {
		c.find(name, "is of another provider")
	}
}

// price is what an offer asks for resources an hour.
func price(o market.Offer, r market.Resources) *big.Int {
	num := func(v uint64) *big.Int { return new(big.Int).SetUint64(v) }
	gib := num(1 << 30)
	sum := new(big.Rat)
	add := func(price pktcloud.Rate, amount, unit *big.Int) {
		part := new(big.Rat).SetFrac(new(big.Int).Mul(num(uint64(price)), amount), unit)
		sum.Add(sum, part)
	}
	add(o.Prices.CPUPerCoreHour, num(r.MilliCPU), num(1000))
	add(o.Prices.MemoryPerGiBHour, num(r.MemoryBytes), gib)
	add(o.Prices.DiskPerGiBHour, num(r.DiskBytes), gib)
	return ceil(sum.Num(), sum.Denom())
}

func ceil(num, den *big.Int) *big.Int {
	quo, rem := new(big.Int).QuoRem(num, den, new(big.Int))
	if rem.Sign() > 0 {
		quo.Add(quo, big.NewInt(1))
	}
	return quo
}

func (c *caseFile) openChannel() error {
	first, err := newChannel(c.commit.Params)
	if err != nil {
		return err
	}
	c.channels = []*channel{first}
	for n := uint64(1); ; n++ { // either side knows of a roll first, and may end before the other does
		var next *channel
		for name, j := range map[string]*journal{"provider": c.provider, "tenant": c.tenant} {
			if j == nil {
				continue
			}
			p, ok := j.successors[n]
			if !ok {
				continue
			}
			to, err := newChannel(p)
			switch {
			case err != nil:
				return err
			case next != nil && next.id != to.id:
				c.find(fmt.Sprintf("%s: successor %d", name, n), "is another channel than the other side's")
			case p.Payer != first.params.Payer || p.Payee != first.params.Payee || p.Capacity < first.params.Capacity:
				c.find(fmt.Sprintf("%s: successor %d", name, n), "is of other sides, or less than the channel")
			}
			next = to
		}
		if next == nil {
			return nil
		}
		c.channels = append(c.channels, next)
	}
}

// merge joins the statements and vouchers of both sides; where both have one,
// it must be the same.
func (c *caseFile) merge() {
	c.statements = map[uint64]pktcloud.Signed[lease.Statement]{}
	for range c.channels {
		c.vouchers = append(c.vouchers, map[uint64]pktcloud.Signed[settle.Voucher]{})
	}
	for _, j := range []*journal{c.provider, c.tenant} {
		if j == nil {
			continue
		}
		for n, s := range j.statements {
			if o, ok := c.statements[n]; ok && o.Sig != s.Sig {
				c.find(fmt.Sprintf("statement %d", n), "differs between the two sides")
			}
			c.statements[n] = s
		}
		for i, of := range c.channels {
			row := j.vouchers
			if i > 0 {
				row = j.rolled[of.id]
			}
			for n, v := range row {
				if o, ok := c.vouchers[i][n]; ok && o.Sig != v.Sig {
					c.find(voucherName(i, n), "differs between the two sides")
				}
				c.vouchers[i][n] = v
			}
		}
		for id := range j.rolled {
			if !slices.ContainsFunc(c.channels, func(of *channel) bool { return of.id == id }) {
				c.find("vouchers of channel "+id.String(), "are of none that its own rolled into")
			}
		}
	}
}

// voucherName names a voucher of a lease's n-th channel.
func voucherName(channel int, n uint64) string {
	if channel == 0 {
		return fmt.Sprintf("voucher %d", n)
	}
	return fmt.Sprintf("voucher %d of successor %d", n, channel)
}

// checkStatements follows the provider's word from the first to the last.
func (c *caseFile) checkStatements() {
	var end uint64
	for n := uint64(1); n <= uint64(len(c.statements)); n++ {
		name := fmt.Sprintf("statement %d", n)
		s, ok := c.statements[n]
		if !ok {
			c.find(name, "is missing")
			continue
		}
		b := s.Body
		if b.Lease != c.id || b.Provider != c.terms.ProviderDevice {
			c.find(name, "is of another lease or device")
		}
		if b.From > end || b.To < b.From {
			c.find(name, "covers seconds %d to %d after %d", b.From, b.To, end)
		}
		if want := c.due(b.To); want.Cmp(new(big.Int).SetUint64(uint64(b.Due))) != 0 {
			c.find(name, "asks %d units, the terms ask %s", uint64(b.Due), want)
		}
		if b.To > b.From {
			c.result.Intervals++
		}
		end = b.To
		c.result.Seconds, c.result.Due = b.To, uint64(b.Due)
	}
}

// checkVouchers follows the payments: signed by the payer's device and by the
// spender's key, growing, each within the limits beside the statement that it
// answers.
func (c *caseFile) checkVouchers() {
	byID := map[pktcloud.ID]lease.Statement{}
	for _, s := range c.statements {
		if id, err := s.ID(); err == nil {
			byID[id] = s.Body
		}
	}
	paidAt := map[uint64]uint64{} // after answering statement n
	for i, of := range c.channels {
		var before uint64 // each channel's own row: while one rolls, both are paid
		for _, n := range slices.Sorted(maps.Keys(c.vouchers[i])) {
			name := voucherName(i, n)
			b := c.vouchers[i][n].Body
			if b.Channel != of.id || b.Payer != c.terms.TenantDevice {
				c.find(name, "is of another channel or device")
				continue
			}
			if err := of.verifyVoucher(uint64(b.Total), b.Proof); err != nil {
				c.find(name, "%v", err)
			}
			c.report.Checked.Signatures++
			var sum uint64
			for _, e := range b.Entries {
				sum += uint64(e.Cumulative)
				if e.Lease == c.id {
					if uint64(e.Cumulative) < before {
						c.find(name, "pays %d units, less than the %d before", uint64(e.Cumulative), before)
					}
					before = uint64(e.Cumulative)
					c.checkEntry(name, e, byID, paidAt)
				}
			}
			if sum != uint64(b.Total) {
				c.find(name, "has entries of %d units and a total of %d", sum, uint64(b.Total))
			}
		}
	}
	c.exposures(paidAt)
}

func (c *caseFile) checkEntry(name string, e settle.Entry, byID map[pktcloud.ID]lease.Statement, paidAt map[uint64]uint64) {
	paid := uint64(e.Cumulative)
	c.result.Paid = max(c.result.Paid, paid)
	var due, sequence, revision uint64
	if e.Statement != c.id { // the first voucher may name the lease itself
		s, ok := byID[e.Statement]
		if !ok {
			c.find(name, "answers a statement that neither side has")
			return
		}
		due, sequence, revision = uint64(s.Due), s.Sequence, s.Revision()
	}
	paidAt[sequence] = max(paidAt[sequence], paid)
	if ahead := paid - min(due, paid); ahead > 0 {
		c.result.MaxPrepaid = max(c.result.MaxPrepaid, ahead)
		limit := uint64(max(c.under(revision).Prepaid, c.under(revision+1).Prepaid)) // the statement may be the last before an amendment
		if ahead > limit {
			c.find(name, "pays %d units ahead, the limit is %d", ahead, limit)
		}
	}
}

// exposures finds the most that was served and not paid: the due of each
// statement less what had been paid in answer to those before it.
func (c *caseFile) exposures(paidAt map[uint64]uint64) {
	paid := paidAt[0]
	for n := uint64(1); n <= uint64(len(c.statements)); n++ {
		s := c.statements[n].Body
		if due := uint64(s.Due); due > paid {
			c.result.MaxCredit = max(c.result.MaxCredit, due-paid)
			if limit := uint64(c.under(s.Revision()).Credit); due-paid > limit {
				c.find("credit", "reached %d units at statement %d, the limit is %d", due-paid, n, limit)
			}
		}
		paid = max(paid, paidAt[n])
	}
}

// checkClose compares the close records with what came before.
func (c *caseFile) checkClose() {
	for name, j := range map[string]*journal{"provider: close record": c.provider, "tenant: close record": c.tenant} {
		if j == nil || !j.hasClose {
			continue
		}
		r := j.closing.Record
		signed := 0
		for _, s := range []struct {
			device pktcloud.PublicKey
			sig    pktcloud.Signature
		}{{c.terms.TenantDevice, j.closing.Tenant}, {c.terms.ProviderDevice, j.closing.Provider}} {
			if s.sig == (pktcloud.Signature{}) {
				continue
			}
			signed++
			c.report.Checked.Signatures++
			if err := r.Verify(s.device, s.sig); err != nil {
				c.find(name, "does not hold: %v", err)
			}
		}
		if signed == 0 {
			c.find(name, "is signed by nobody")
		}
		if r.Lease != c.id || uint64(r.Paid) < c.result.Paid || uint64(r.Due) > c.result.Due {
			c.find(name, "says due %d and paid %d units, the records say %d and %d", uint64(r.Due), uint64(r.Paid), c.result.Due, c.result.Paid)
		}
		c.result.Paid = max(c.result.Paid, uint64(r.Paid))
		c.result.Reason = string(r.Reason)
	}
}

// checkPayouts compares the chain with the records: what the provider got for
// the leases of a channel is what they paid, to the unit.
func checkPayouts(cases []*caseFile, ch *chain) {
	next := map[pktcloud.ID]*channel{} // what one lease knows of a roll holds for all
	for _, c := range cases {
		for i, to := range c.channels {
			if i > 0 {
				next[c.channels[i-1].id] = to
			}
		}
	}
	channels := map[pktcloud.ID][]*caseFile{}
	last := map[pktcloud.ID]*channel{}
	path := map[pktcloud.ID][]*channel{} // the channels that rolled into one another, by the last
	fees := feeSum{}
	for _, c := range cases {
		if len(c.channels) == 0 {
			continue
		}
		at := c.channels[0]
		way := []*channel{at}
		for to := next[at.id]; to != nil && ch.rolled(at, to); to = next[at.id] {
			at, way = to, append(way, to)
		}
		if len(way) > len(path[at.id]) { // a lease that began later knows less of it
			path[at.id] = way
		}
		channels[at.id], last[at.id] = append(channels[at.id], c), at
	}
	for id, leases := range channels {
		first := leases[0]
		end := last[id].settlement(ch, fmt.Sprintf("channel of lease %s", first.id), first.report)
		if !end.known {
			continue
		}
		var paid uint64
		for _, c := range leases {
			paid += c.result.Paid
		}
		switch {
		case end.refund && paid > 0:
			first.find("payout", "went back to the tenant, who had paid %d units", paid)
		case !end.refund && end.claimed != paid:
			first.find("payout", "is %d units, paid were %d", end.claimed, paid)
		}
		left := end.claimed
		first.result.Fees = fees.of(path[id], ch)
		for i, c := range leases { // each its own, the last what differs
			c.result.Settled, c.result.Claimed = true, min(left, c.result.Paid)
			if left -= c.result.Claimed; i == len(leases)-1 {
				c.result.Claimed += left
			}
		}
	}
}
