package lease

import (
	"fmt"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/market"
)

// CheckDraft says whether an offer allows a draft, and at which rate: room,
// interval, credit, term, and the unconfirmed limit on its rail [LEASE-7]. Both
// sides call it. Errors match [CodeCapacity], [CodeLimits], [CodeOffer] or
// [CodePrice].
func CheckDraft(o market.Offer, draft Terms, rail string) (pktcloud.Rate, error) {
	if draft.Provider != o.Provider || draft.ProviderDevice != o.Device {
		return 0, Refusal(CodeOffer, "the offer is of another provider or device")
	}
	if !o.Fits(draft.Resources) {
		return 0, Refusal(CodeCapacity, "the offer has no room for that much; ask for less or choose another offer")
	}
	rate, err := o.Rate(draft.Resources)
	if err != nil {
		return 0, wrap(CodePrice, "the price", err)
	}
	r, ok := o.Rail(rail)
	if !ok {
		return 0, Refusal(CodeChannel, "the offer is not paid over %q", rail)
	}
	credit, err := rate.For(o.Limits.MaxCreditSeconds)
	switch {
	case err != nil:
		return 0, wrap(CodePrice, "the price", err)
	case draft.IntervalSeconds < o.Limits.MinIntervalSeconds:
		return 0, Refusal(CodeLimits, "an interval of %d s, the offer wants at least %d", draft.IntervalSeconds, o.Limits.MinIntervalSeconds)
	case draft.Limits.Credit > credit:
		return 0, Refusal(CodeLimits, "a credit of %s, the offer gives at most %s", draft.Limits.Credit, credit)
	case draft.Limits.Unconfirmed > r.MaxUnconfirmed:
		return 0, Refusal(CodeLimits, "unconfirmed payments of %s, the offer takes at most %s", draft.Limits.Unconfirmed, r.MaxUnconfirmed)
	case draft.TermSeconds < o.MinTermSeconds || draft.TermSeconds > o.MaxTermSeconds:
		return 0, Refusal(CodeLimits, "a term of %s, offered are %s to %s", timeText(draft.TermSeconds), timeText(o.MinTermSeconds), timeText(o.MaxTermSeconds))
	}
	priced := draft
	priced.Rate = rate
	return rate, priced.validateLimits()
}

// CheckAccount says whether an account record lets device act for identity at
// now. Errors match [CodeSignature].
func CheckAccount(account []byte, identity, device pktcloud.PublicKey, now time.Time) error {
	a, err := pktcloud.ParseAccount(account)
	if err != nil {
		return wrap(CodeSignature, "the account record", err)
	}
	if a.Body.Identity != identity {
		return Refusal(CodeSignature, "the account record is not of %s", identity)
	}
	return wrap(CodeSignature, "the account record", a.Body.Allows(device, now))
}

// CheckCommit says whether a commit answers a quote of the provider's own: the
// quote is signed by its device, the draft is the one quoted, rate and commitBy
// are the quote's, and the tenant's signature and account hold [LEASE-7]. What
// it does not judge: whether the offer still allows it, [CheckDraft], and
// whether commitBy has passed, [NewProvider]. Errors match [CodeQuote],
// [CodePrice], [CodeSignature] or those of the commit's shape.
func CheckCommit(c Commit, own pktcloud.PublicKey, now time.Time) (pktcloud.Signed[market.Quote], error) {
	var none pktcloud.Signed[market.Quote]
	if err := c.Validate(); err != nil {
		return none, err
	}
	q, err := market.ParseQuote(c.Quote)
	if err != nil {
		return none, wrap(CodeQuote, "the quote", err)
	}
	if err := CheckQuote(q, c.Terms); err != nil {
		return none, err
	}
	if q.Body.Device != own || c.Terms.ProviderDevice != own {
		return none, Refusal(CodeQuote, "the quote is not mine")
	}
	if err := c.Terms.Verify(RoleTenant, c.Signature); err != nil {
		return none, err
	}
	return q, CheckAccount(c.Account, c.Terms.Tenant, c.Terms.TenantDevice, now)
}

// CheckQuote says whether terms are those that a quote answers. Errors match
// [CodeQuote] or [CodePrice].
func CheckQuote(q pktcloud.Signed[market.Quote], t Terms) error {
	id, err := q.ID()
	if err != nil {
		return err
	}
	request, err := t.Draft().ID()
	if err != nil {
		return err
	}
	b := q.Body
	switch {
	case t.Quote != id || b.Request != request || b.Offer != t.Offer:
		return Refusal(CodeQuote, "the quote answers another draft")
	case b.Provider != t.Provider || b.Device != t.ProviderDevice:
		return Refusal(CodeQuote, "the quote is of another provider or device")
	case b.Rate != t.Rate:
		return Refusal(CodePrice, "a rate of %s an hour, quoted was %s", pktcloud.Amount(t.Rate), pktcloud.Amount(b.Rate))
	case b.Expires != t.CommitBy:
		return Refusal(CodeQuote, "commitBy is %d, the quote ends at %d", t.CommitBy, b.Expires)
	}
	return nil
}

// timeText is a time in the largest unit that leaves it whole.
func timeText(seconds uint64) string {
	for _, u := range []struct {
		seconds uint64
		name    string
	}{{24 * 3600, "d"}, {3600, "h"}, {60, "min"}} {
		if seconds != 0 && seconds%u.seconds == 0 {
			return fmt.Sprintf("%d %s", seconds/u.seconds, u.name)
		}
	}
	return fmt.Sprintf("%d s", seconds)
}
