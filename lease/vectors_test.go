package lease_test

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/lease"
)

const vectors = "../spec/vectors/lease"

// outcome is the vectors' word for an error.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	return string(lease.CodeOf(err))
}

// envelope encodes a message without its checks.
func envelope(m lease.Message) []byte {
	return must(pktcloud.Marshal(struct {
		Type string `cbor:"type"`
		Body []byte `cbor:"body"`
	}{m.MessageType(), must(pktcloud.Marshal(m))}))
}

func seal[B pktcloud.Body](k pktcloud.PrivateKey, b B) pktcloud.Signed[B] {
	return pktcloud.Signed[B]{Body: b, Sig: pktcloud.Sign(k, b.RecordType(), must(pktcloud.Marshal(b)))}
}

func statement() lease.Statement {
	return lease.Statement{
		Version: 1, Lease: must(commitFor(draft(usual), capacity0).Terms.ID()), Provider: providerDevice.Public(), Sequence: 2,
		To: 5, Due: 5 * perSecond, State: lease.Running, Issued: now0 + 5,
	}
}

func closeRecord() lease.CloseRecord {
	s := statement()
	return lease.CloseRecord{
		Version: 1, Lease: s.Lease, Statement: must(seal(providerDevice, s).ID()), Second: 5, Due: s.Due, Paid: s.Due,
		By: lease.RoleTenant, Reason: lease.ReasonRequested,
	}
}

func dispute() lease.Dispute {
	return lease.Dispute{
		Version: 1, Lease: statement().Lease, Tenant: tenantDevice.Public(), Sequence: 2, Code: lease.CodeProbe, Text: "no answer",
	}
}

// goodMessages has one of each type.
func goodMessages() []lease.Message {
	c := commitFor(draft(usual), capacity0)
	id := must(c.Terms.ID())
	r := closeRecord()
	return []lease.Message{
		lease.Propose{Version: 1, Account: c.Account, Draft: draft(usual), Manifest: manifest()},
		lease.Quote{Version: 1, Quote: c.Quote, Account: account(providerKey, providerDevice)},
		lease.Refuse{Version: 1, Lease: id, Code: lease.CodeCapacity, Text: "no room"},
		c,
		lease.Ack{Version: 1, Lease: id, Signature: must(lease.SignTerms(providerDevice, c.Terms))},
		lease.StatementMessage{Version: 1, Statement: seal(providerDevice, statement())},
		lease.VoucherMessage{Version: 1, Lease: id, Voucher: []byte("voucher")},
		lease.DisputeMessage{Version: 1, Dispute: seal(tenantDevice, dispute())},
		lease.Suspend{Version: 1, Lease: id, Second: 10, GraceSeconds: 20},
		lease.Resume{Version: 1, Lease: id, Second: 10},
		lease.CloseRequest{Version: 1, Lease: id, Reason: lease.ReasonRequested, Text: "done"},
		lease.Close{Version: 1, Record: r, Signature: must(lease.SignClose(tenantDevice, r)), Offer: []byte("offer")},
		lease.CloseAck{Version: 1, Lease: id, Signature: must(lease.SignClose(providerDevice, r)), TxID: make([]byte, 32)},
		lease.Attach{Version: 1, Lease: id, Sequence: 2},
	}
}

func commitWith(edit func(*lease.Commit)) lease.Commit {
	c := commitFor(draft(usual), capacity0)
	edit(&c)
	return c
}

func proposeWith(edit func(*lease.Propose)) lease.Propose {
	p := lease.Propose{Version: 1, Account: account(tenantKey, tenantDevice), Draft: draft(usual), Manifest: manifest()}
	edit(&p)
	return p
}

func draftWith(edit func(*lease.Terms)) lease.Propose {
	return proposeWith(func(p *lease.Propose) { edit(&p.Draft) })
}

func manifestWith(edit func(*lease.Manifest)) lease.Propose {
	return proposeWith(func(p *lease.Propose) {
		edit(&p.Manifest)
		p.Draft.Manifest, p.Draft.Resources = must(p.Manifest.ID()), p.Manifest.Resources
	})
}

func statementWith(edit func(*lease.Statement)) lease.StatementMessage {
	s := statement()
	edit(&s)
	return lease.StatementMessage{Version: 1, Statement: seal(providerDevice, s)}
}

// faulty is a final statement with a fault.
func faulty(code, text string) lease.StatementMessage {
	return statementWith(func(s *lease.Statement) {
		s.State, s.By, s.Reason = lease.Final, lease.RoleProvider, lease.ReasonWorkload
		s.Ext = map[string][]byte{"fault": []byte(code), "fault-text": []byte(text)}
	})
}

func closeWith(edit func(*lease.CloseRecord)) lease.Close {
	r := closeRecord()
	edit(&r)
	return lease.Close{Version: 1, Record: r, Signature: must(lease.SignClose(tenantDevice, r)), Offer: []byte("offer")}
}

func messageFaults() []vector.Case {
	fault := func(name, expect, about string, m lease.Message) vector.Case {
		return vector.New("message-"+name, expect, about).With("message", envelope(m))
	}
	id := statement().Lease
	return []vector.Case{
		fault("version", "malformed", "a message of version 2", lease.Attach{Version: 2, Lease: id}),
		fault("no-lease", "malformed", "a message that names no lease", lease.Attach{Version: 1}),
		vector.New("message-type", "malformed", "no message has that type").With("message", must(pktcloud.Marshal(map[string]any{"type": "greet", "body": []byte{0xa0}}))),
		vector.New("message-trailing", "malformed", "a byte behind the message").With("message", append(envelope(lease.Attach{Version: 1, Lease: id}), 0)),
		fault("draft-with-quote", "malformed", "a draft that names a quote alone", draftWith(func(t *lease.Terms) { t.Quote = id })),
		fault("draft-with-rate", "malformed", "a draft that names a rate", draftWith(func(t *lease.Terms) { t.Rate = 1 })),
		fault("same-device", "malformed", "tenant and provider are one device", draftWith(func(t *lease.Terms) { t.TenantDevice = t.ProviderDevice })),
		fault("weak-key", "malformed", "a device key of small order", draftWith(func(t *lease.Terms) { t.TenantDevice = pktcloud.PublicKey{0: 1} })),
		fault("interval-zero", "malformed", "an interval of 0 s", draftWith(func(t *lease.Terms) { t.IntervalSeconds = 0 })),
		fault("term-zero", "malformed", "a term of 0 s", draftWith(func(t *lease.Terms) { t.TermSeconds = 0 })),
		fault("grace-zero", "malformed", "a grace of 0 s", draftWith(func(t *lease.Terms) { t.GraceSeconds = 0 })),
		fault("grace-long", "malformed", "a grace of an hour and a second", draftWith(func(t *lease.Terms) { t.GraceSeconds = 3601 })),
		fault("hold", "limits", "a hold deposit, which this version does not have", draftWith(func(t *lease.Terms) { t.Limits.HoldDeposit = 1 })),
		fault("limit-range", "malformed", "a credit beyond the largest amount", draftWith(func(t *lease.Terms) { t.Limits.Credit = pktcloud.MaxAmount + 1 })),
		fault("interval-uncovered", "limits", "credit and prepaid are one unit short of an interval's price",
			commitFor(draft(lease.Limits{Credit: 3 * perSecond, Prepaid: 2*perSecond - 1, Unconfirmed: 1}), capacity0)),
		fault("manifest-other", "manifest", "not the manifest of the draft", proposeWith(func(p *lease.Propose) { p.Manifest.Image = "other" })),
		fault("manifest-resources", "manifest", "manifest and draft name different resources", draftWith(func(t *lease.Terms) { t.Resources.MilliCPU++ })),
		fault("image-empty", "manifest", "no image", manifestWith(func(m *lease.Manifest) { m.Image = "" })),
		fault("image-control", "manifest", "an image that steers a terminal", manifestWith(func(m *lease.Manifest) { m.Image = "\x1b[2J" })),
		fault("digest", "manifest", "a digest in upper case", manifestWith(func(m *lease.Manifest) { m.Digest = "sha256:" + strings.Repeat("A", 64) })),
		fault("env", "manifest", "an environment entry without a name", manifestWith(func(m *lease.Manifest) { m.Env = []string{"=x"} })),
		fault("arg-zero-byte", "manifest", "a zero byte in an argument", manifestWith(func(m *lease.Manifest) { m.Args = []string{"a\x00"} })),
		fault("port", "manifest", "port 65536", manifestWith(func(m *lease.Manifest) { m.Port = 65536 })),
		fault("probe-path", "manifest", "a probe without a slash", manifestWith(func(m *lease.Manifest) { m.Probe.HTTPPath = "x" })),
		fault("no-memory", "manifest", "a service without memory", manifestWith(func(m *lease.Manifest) { m.Resources.MemoryBytes = 0 })),
		fault("commit-draft", "malformed", "a commit of a draft", commitWith(func(c *lease.Commit) { c.Terms = c.Terms.Draft() })),
		fault("commit-other-channel", "channel", "a channel that the terms do not name", commitWith(func(c *lease.Commit) { c.Params.Capacity++ })),
		fault("commit-unconfirmed", "channel", "terms and channel differ in the unconfirmed limit", commitWith(func(c *lease.Commit) {
			c.Params.Unconfirmed--
			c.Terms.Channel = must(c.Params.ID())
		})),
		fault("commit-shared-voucher", "channel", "a first voucher over a channel that is open already", commitWith(func(c *lease.Commit) {
			c.Funding, c.Voucher = nil, []byte("voucher")
		})),
		fault("statement-other-key", "signature", "a statement signed by the tenant", lease.StatementMessage{Version: 1, Statement: seal(tenantDevice, statement())}),
		fault("statement-backwards", "malformed", "a statement that ends before it begins", statementWith(func(s *lease.Statement) { s.From = 6 })),
		fault("statement-sequence", "malformed", "a statement with the sequence 0", statementWith(func(s *lease.Statement) { s.Sequence = 0 })),
		fault("statement-reason", "malformed", "a reason before the end", statementWith(func(s *lease.Statement) { s.Reason = lease.ReasonTerm })),
		fault("statement-no-reason", "malformed", "a final statement without a reason", statementWith(func(s *lease.Statement) { s.State = lease.Final })),
		fault("statement-fault-list", "malformed", "a fault that is not on the list", faulty("whim", "no")),
		fault("statement-fault-alone", "malformed", "a fault without a text", statementWith(func(s *lease.Statement) {
			s.State, s.By, s.Reason, s.Ext = lease.Final, lease.RoleProvider, lease.ReasonWorkload, map[string][]byte{"fault": []byte("image")}
		})),
		fault("statement-fault-empty", "malformed", "a fault with an empty text", faulty("image", "")),
		fault("statement-fault-long", "malformed", "a fault with a text of 257 bytes", faulty("image", strings.Repeat("a", 257))),
		fault("statement-fault-control", "malformed", "a fault that steers a terminal", faulty("image", "\x1b[2J")),
		fault("statement-fault-utf8", "malformed", "a fault that writes from right to left", faulty("image", "a\u202eb")),
		fault("statement-fault-reason", "malformed", "a fault of a lease that ended with its term", statementWith(func(s *lease.Statement) {
			s.State, s.By, s.Reason, s.Ext = lease.Final, lease.RoleProvider, lease.ReasonTerm, map[string][]byte{"fault": []byte("exit"), "fault-text": []byte("no")}
		})),
		fault("close-fault-control", "malformed", "a close record with a fault that steers a terminal", closeWith(func(r *lease.CloseRecord) {
			r.By, r.Reason, r.Ext = lease.RoleProvider, lease.ReasonWorkload, map[string][]byte{"fault": []byte("exit"), "fault-text": []byte("\r")}
		})),
		fault("dispute-other-key", "signature", "a dispute signed by the provider", lease.DisputeMessage{Version: 1, Dispute: seal(providerDevice, dispute())}),
		fault("close-reason", "malformed", "a reason that is not on the list", lease.CloseRequest{Version: 1, Lease: id, Reason: "whim"}),
		fault("close-txid", "malformed", "a transaction id of 31 bytes", lease.CloseAck{Version: 1, Lease: id, TxID: make([]byte, 31)}),
		fault("refuse-text-control", "malformed", "a text that steers a terminal", lease.Refuse{Version: 1, Code: "x", Text: "\x1b[2J"}),
		fault("refuse-text", "malformed", "a text of 257 bytes", lease.Refuse{Version: 1, Code: "x", Text: strings.Repeat("a", 257)}),
	}
}

func TestMessageVectors(t *testing.T) {
	cases := append(messageFaults(), vector.New("message-good-fault", "ok", "a final statement that says why the workload did not start").
		With("message", envelope(faulty("program", "nosuchprog: no such file or directory"))))
	cases = append(cases, vector.New("message-good-commit-shared", "ok", "a commit that is paid over an open channel, whatever its unconfirmed limit").
		With("message", envelope(commitWith(func(c *lease.Commit) {
			c.Funding, c.Voucher = nil, nil
			c.Params.Unconfirmed--
			c.Terms.Channel = must(c.Params.ID())
		}))))
	for _, m := range goodMessages() {
		c := vector.New("message-good-"+m.MessageType(), "ok", "a good "+m.MessageType()).With("message", must(lease.AppendMessage(nil, m)))
		if c0, ok := m.(lease.Commit); ok {
			c = c.With("lease", must(c0.Terms.ID()))
		}
		cases = append(cases, c)
	}
	found, err := vector.Sync(vectors, "message-", cases, *update)
	if err != nil {
		t.Error(err)
	}
	for _, c := range found {
		m, err := lease.ParseMessage(c.Bytes("message"))
		if got := outcome(err); got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if err == nil && !bytes.Equal(must(lease.AppendMessage(nil, m)), c.Bytes("message")) {
			t.Errorf("%s: got another encoding", c.Name)
		}
	}
}

// judgements are what a tenant that accepted 5 s, 12 s after it sent the
// commit, says of a third statement.
func judgements() []vector.Case {
	judge := func(name, expect, about string, verdict string, edit func(*lease.Statement)) vector.Case {
		s := statement()
		s.Sequence, s.From, s.To, s.Due = 3, 5, 10, 10*perSecond
		edit(&s)
		return vector.New("judge-"+name, expect, about).With("statement", must(seal(providerDevice, s).Encode())).With("verdict", verdict)
	}
	none := func(*lease.Statement) {}
	return []vector.Case{
		judge("good", "ok", "the next interval, and the probes agreed", "good", none),
		judge("blind", "ok", "no probe looked, within what the credit bounds", "blind", none),
		judge("bad", "probe", "a probe disagreed", "bad", none),
		judge("too-blind", "probe", "no probe looked at more than the credit's worth", "blind", func(s *lease.Statement) { s.To, s.Due = 16, 16*perSecond }),
		judge("gap", "sequence", "it begins after the last second accepted", "good", func(s *lease.Statement) { s.From = 6 }),
		judge("overlap", "sequence", "it begins before the last second accepted", "good", func(s *lease.Statement) { s.From = 4 }),
		judge("due", "due", "a unit too much", "good", func(s *lease.Statement) { s.Due++ }),
		judge("due-less", "due", "a unit too little", "good", func(s *lease.Statement) { s.Due-- }),
		judge("one-interval-ahead", "ok", "one interval more than have passed", "good", func(s *lease.Statement) { s.To, s.Due = 17, 17*perSecond }),
		judge("ahead", "ahead", "a second more than that", "good", func(s *lease.Statement) { s.To, s.Due = 18, 18*perSecond }),
		judge("skipped", "sequence", "a statement is missing before this one", "good", func(s *lease.Statement) { s.Sequence = 4 }),
		judge("other-lease", "unknown", "a statement of another lease", "good", func(s *lease.Statement) { s.Lease = pktcloud.IDOf([]byte("other")) }),
	}
}

func TestJudgeVectors(t *testing.T) {
	found, err := vector.Sync(vectors, "judge-", judgements(), *update)
	if err != nil {
		t.Error(err)
	}
	verdicts := map[string]lease.Verdict{"good": lease.Good, "bad": lease.Bad, "blind": lease.Blind}
	for _, c := range found {
		tenant, _ := active(t, usual)
		first := statement()
		tenant = stepOK(t, tenant, lease.Judged{Statement: seal(providerDevice, first), Verdict: lease.Good}, lease.Now{Unix: now0 + 5, Uptime: 5})
		st, err := lease.ParseStatement(c.Bytes("statement"))
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		next, effects, err := tenant.Step(lease.Judged{Statement: st, Verdict: verdicts[c.Value("verdict")]}, lease.Now{Unix: now0 + 12, Uptime: 12})
		got := outcome(err)
		for _, e := range effects {
			if o, ok := e.(lease.Object); ok {
				got = string(o.Dispute.Code)
				if o.Dispute.Accepted != 5 || next.Due != tenant.Due {
					t.Errorf("%s: got %d s accepted and %d units due, want what was accepted before", c.Name, o.Dispute.Accepted, uint64(next.Due))
				}
			}
		}
		if got != c.Value("expect") {
			t.Errorf("%s: got %s, want %s", c.Name, got, c.Value("expect"))
		}
	}
}

func TestDueVectors(t *testing.T) {
	var cases []vector.Case
	for _, c := range []struct {
		name          string
		rate, seconds uint64
		due           uint64
	}{
		{"nothing", 3600, 0, 0},
		{"exact", 3600, 5, 5},
		{"rounded-up", 1, 1, 1},
		{"rounded-once", 1, 3601, 2},
		{"large", 1 << 60, 7200, 1 << 61},
	} {
		cases = append(cases, vector.New("due-"+c.name, "ok", fmt.Sprintf("%d s at %d units an hour", c.seconds, c.rate)).
			With("rate", c.rate).With("seconds", c.seconds).With("due", c.due))
	}
	found, err := vector.Sync(vectors, "due-", cases, *update)
	if err != nil {
		t.Error(err)
	}
	for _, c := range found {
		terms := lease.Terms{Rate: pktcloud.Rate(must(strconv.ParseUint(c.Value("rate"), 10, 64)))}
		seconds := must(strconv.ParseUint(c.Value("seconds"), 10, 64))
		due, err := terms.DueAfter(seconds)
		if err != nil || fmt.Sprint(uint64(due)) != c.Value("due") {
			t.Errorf("%s: got %d, %v, want %s", c.Name, uint64(due), err, c.Value("due"))
		}
		if back := terms.SecondsFor(due); back < seconds {
			t.Errorf("%s: %d units pay for %d s, want at least %d", c.Name, uint64(due), back, seconds)
		}
	}
}

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
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseManifest(b)) }, must(pktcloud.Marshal(manifest())))
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

func FuzzParseState(f *testing.F) {
	s, _ := active(f, usual)
	fuzzParse(f, func(b []byte) ([]byte, error) { return encoded(lease.ParseState(b)) }, must(s.Encode()))
}
