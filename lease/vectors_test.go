package lease_test

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/settle"
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
		amendWith(func(*lease.Amend) {}),
		lease.AmendAck{Version: 1, Acceptance: seal(providerDevice, goodAcceptance())},
		lease.AmendRefuse{Version: 1, Lease: id, Attempt: 1, Code: lease.CodeCapacity, Text: "no room"},
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
		p.Draft.Manifest, p.Draft.Resources = must(p.Manifest.ID()), p.Manifest.Resources()
	})
}

// threeProposal is a proposal of a lease with three services.
func threeProposal(edit func(*lease.Propose)) lease.Propose {
	return proposeWith(func(p *lease.Propose) {
		p.Manifest = three()
		p.Draft.Manifest, p.Draft.Resources = must(p.Manifest.ID()), p.Manifest.Resources()
		edit(p)
	})
}

func threeWith(edit func(*lease.Manifest)) lease.Propose {
	return threeProposal(func(p *lease.Propose) {
		edit(&p.Manifest)
		p.Draft.Manifest, p.Draft.Resources = must(p.Manifest.ID()), p.Manifest.Resources()
	})
}

// network asks for some of everything.
func network(m *lease.Manifest) {
	m.Services[0].Egress, m.Services[0].Bandwidth = []string{"example.org:443", "*.example.net:*", "192.0.2.0/24:8080"}, 1<<20
	m.Services[0].Publish = []lease.PublishedPort{{Port: 53, Protocol: "tcp"}, {Port: 53, Protocol: "udp"}, {Port: 8080, Protocol: "tcp"}}
	m.Services[2].Egress = []string{"public"}
}

func networked() lease.Manifest {
	m := three()
	network(&m)
	return m
}

// emptyEgress is a proposal whose first service has an egress that is there and
// empty.
func emptyEgress() []byte { return withField("egress", []string{}) }

// withField is a proposal whose first service has another field.
func withField(name string, value any) []byte {
	p := proposeWith(func(*lease.Propose) {})
	body := decoded(must(pktcloud.Marshal(p)))
	m := decoded(body["manifest"])
	var list []cbor.RawMessage
	if err := cbor.Unmarshal(m["services"], &list); err != nil {
		panic(err)
	}
	s := decoded(list[0])
	s[name] = must(pktcloud.Marshal(value))
	list[0] = must(pktcloud.Marshal(s))
	m["services"] = must(pktcloud.Marshal(list))
	body["manifest"] = must(pktcloud.Marshal(m))
	return must(pktcloud.Marshal(map[string]any{"type": "propose", "body": must(pktcloud.Marshal(body))}))
}

// falseEntrypoint is a proposal whose first service spells out that there is
// nothing about the entrypoint.
func falseEntrypoint() []byte {
	return withField("entrypoint", false)
}

func emptyCredentials() []byte {
	body := decoded(must(pktcloud.Marshal(proposeWith(func(*lease.Propose) {}))))
	body["credentials"] = must(pktcloud.Marshal([]string{}))
	return must(pktcloud.Marshal(map[string]any{"type": "propose", "body": must(pktcloud.Marshal(body))}))
}

func credentials() lease.Credentials {
	return lease.Credentials{{Registry: "registry.example:5000", Username: "ann", Password: "secret"}}
}

func decoded(b []byte) map[string]cbor.RawMessage {
	fields := map[string]cbor.RawMessage{}
	if err := cbor.Unmarshal(b, &fields); err != nil {
		panic(err)
	}
	return fields
}

// volumesProposal is a proposal of a database with its volumes, one of which a
// web service reads.
func volumesProposal(edit func(*lease.Propose)) lease.Propose {
	return threeProposal(func(p *lease.Propose) {
		m := &p.Manifest
		m.Services, m.Services[0].Depends = m.Services[:2], nil
		m.Volumes = []lease.Volume{{Name: "data", SizeBytes: 2 << 30}, {Name: "logs", SizeBytes: lease.MinVolumeBytes}}
		m.Services[0].Mounts = []lease.Mount{{Volume: "data", Path: "/data", ReadOnly: true}}
		m.Services[1].Mounts = []lease.Mount{{Volume: "data", Path: "/var/lib/db"}, {Volume: "logs", Path: "/var/log"}}
		p.Draft.Manifest, p.Draft.Resources = must(m.ID()), m.Resources()
		edit(p)
	})
}

func volumesWith(edit func(*lease.Manifest)) lease.Propose {
	return volumesProposal(func(p *lease.Propose) {
		edit(&p.Manifest)
		p.Draft.Manifest, p.Draft.Resources = must(p.Manifest.ID()), p.Manifest.Resources()
	})
}

// emptyVolumes is a proposal whose manifest has volumes and none of them.
func emptyVolumes() []byte {
	var fields map[string]any
	p := proposeWith(func(*lease.Propose) {})
	if err := pktcloud.Unmarshal(must(pktcloud.Marshal(p)), &fields, lease.MaxMessageBytes); err != nil {
		panic(err)
	}
	message := func() []byte {
		return must(pktcloud.Marshal(map[string]any{"type": p.MessageType(), "body": must(pktcloud.Marshal(fields))}))
	}
	must(lease.ParseMessage(message()))                   // without them it is good
	fields["manifest"].(map[any]any)["volumes"] = []any{} //nolint:forcetypeassert // made right above
	return message()
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

// rollingVoucher is a payment while the channel of the lease rolls.
func rollingVoucher(predecessor []byte) lease.VoucherMessage {
	return lease.VoucherMessage{Version: 1, Lease: statement().Lease, Voucher: []byte("voucher"), Predecessor: predecessor}
}

func messageFaults() []vector.Case {
	fault := func(name, expect, about string, m lease.Message) vector.Case {
		return vector.New("message-"+name, expect, about).With("message", envelope(m))
	}
	id := statement().Lease
	return []vector.Case{
		fault("version", "malformed", "a message of version 2", lease.Attach{Version: 2, Lease: id}),
		fault("no-lease", "malformed", "a message that names no lease", lease.Attach{Version: 1}),
		fault("good-voucher-rolling", "ok", "a voucher with that of the channel that rolls into its own", rollingVoucher([]byte("predecessor"))),
		fault("voucher-predecessor-long", "malformed", "a predecessor's voucher that is too long", rollingVoucher(make([]byte, settle.MaxVoucherBytes+1))),
		vector.New("message-voucher-predecessor-empty", "malformed", "a predecessor's voucher that is there and empty").With("message", must(pktcloud.Marshal(map[string]any{
			"type": "voucher", "body": must(pktcloud.Marshal(map[string]any{"v": uint64(1), "lease": statement().Lease, "voucher": []byte("voucher"), "predecessor": []byte{}})),
		}))),
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
		fault("manifest-other", "manifest", "not the manifest of the draft", proposeWith(func(p *lease.Propose) { p.Manifest.Services[0].Image = "other" })),
		fault("manifest-resources", "manifest", "manifest and draft name different resources", draftWith(func(t *lease.Terms) { t.Resources.MilliCPU++ })),
		fault("image-empty", "manifest", "no image", manifestWith(func(m *lease.Manifest) { m.Services[0].Image = "" })),
		fault("image-control", "manifest", "an image that steers a terminal", manifestWith(func(m *lease.Manifest) { m.Services[0].Image = "\x1b[2J" })),
		fault("digest", "manifest", "a digest in upper case", manifestWith(func(m *lease.Manifest) { m.Services[0].Digest = "sha256:" + strings.Repeat("A", 64) })),
		fault("env", "manifest", "an environment entry without a name", manifestWith(func(m *lease.Manifest) { m.Services[0].Env = []string{"=x"} })),
		fault("arg-zero-byte", "manifest", "a zero byte in an argument", manifestWith(func(m *lease.Manifest) { m.Services[0].Args = []string{"a\x00"} })),
		fault("port", "manifest", "port 65536", manifestWith(func(m *lease.Manifest) { m.Services[0].Ports = []uint64{65536} })),
		fault("probe-path", "manifest", "a probe without a slash", manifestWith(func(m *lease.Manifest) { m.Probe.HTTPPath = "x" })),
		fault("probe-port", "manifest", "a probe of a port that the service does not have", manifestWith(func(m *lease.Manifest) { m.Probe.Port = 81 })),
		fault("probe-service", "manifest", "a probe of no service", manifestWith(func(m *lease.Manifest) { m.Probe.Service = "" })),
		fault("probe-job", "manifest", "a probe of a job beside a service", threeWith(func(m *lease.Manifest) { m.Probe = lease.Probe{Service: "migrate"} })),
		fault("services-none", "manifest", "no services", manifestWith(func(m *lease.Manifest) { m.Services = nil })),
		fault("services-many", "manifest", "17 services", manifestWith(func(m *lease.Manifest) {
			for i := range lease.MaxServices {
				s := m.Services[0]
				s.Name = "s" + strconv.Itoa(i)
				m.Services = append(m.Services, s)
			}
		})),
		fault("service-name", "manifest", "a service's name in upper case", threeWith(func(m *lease.Manifest) { m.Services[2].Name = "Migrate" })),
		fault("service-name-twice", "manifest", "two services of one name", threeWith(func(m *lease.Manifest) { m.Services[2].Name = "db" })),
		fault("service-ports-order", "manifest", "ports that do not ascend", threeWith(func(m *lease.Manifest) { m.Services[1].Ports = []uint64{9187, 5432} })),
		fault("service-user", "manifest", "a user that steers a terminal", threeWith(func(m *lease.Manifest) { m.Services[1].User = "\x1b[2J" })),
		fault("service-workdir", "manifest", "a working directory that leads up", threeWith(func(m *lease.Manifest) { m.Services[1].WorkDir = "/a/../../b" })),
		fault("service-stop", "manifest", "301 s to end by itself", threeWith(func(m *lease.Manifest) { m.Services[1].Stop = 301 })),
		fault("depends-unknown", "manifest", "a service waits for one that is not there", threeWith(func(m *lease.Manifest) { m.Services[0].Depends[0].Service = "cache" })),
		fault("depends-circle", "manifest", "two services wait for each other", threeWith(func(m *lease.Manifest) {
			m.Services[1].Depends = []lease.Dependency{{Service: "web", When: lease.WhenStarted}}
		})),
		fault("depends-twice", "manifest", "a service waits for another one twice", threeWith(func(m *lease.Manifest) { m.Services[0].Depends[1] = m.Services[0].Depends[0] })),
		fault("depends-unchecked", "manifest", "a service waits for the health of one without a check", threeWith(func(m *lease.Manifest) { m.Services[1].Health = lease.Health{} })),
		fault("depends-job-started", "manifest", "a service waits until a job is started", threeWith(func(m *lease.Manifest) { m.Services[0].Depends[1].When = lease.WhenStarted })),
		fault("health-interval", "manifest", "a health check without an interval", threeWith(func(m *lease.Manifest) { m.Services[1].Health.Interval = 0 })),
		fault("health-field", "manifest", "a TCP check with a path", threeWith(func(m *lease.Manifest) { m.Services[1].Health.Path = "/" })),
		fault("health-word", "manifest", "no such check", threeWith(func(m *lease.Manifest) { m.Services[1].Health.Check = "icmp" })),
		fault("restart-word", "manifest", "no such restart policy", threeWith(func(m *lease.Manifest) { m.Services[1].Restart.Policy = "" })),
		fault("restart-max", "manifest", "a number of restarts of what always restarts", threeWith(func(m *lease.Manifest) { m.Services[1].Restart.Max = 1 })),
		fault("job-always", "manifest", "a job that always restarts", threeWith(func(m *lease.Manifest) { m.Services[2].Restart = lease.Restart{Policy: lease.RestartAlways} })),
		fault("job-port", "manifest", "a job with a port", threeWith(func(m *lease.Manifest) { m.Services[2].Ports = []uint64{80} })),
		fault("good-propose-entrypoint", "ok", "arguments behind the image's entrypoint, and the entrypoint without any", threeWith(func(m *lease.Manifest) {
			m.Services[0].Args, m.Services[0].Entrypoint = []string{"--verbose"}, true
			m.Services[1].Args, m.Services[1].Entrypoint = nil, true
		})),
		vector.New("message-entrypoint-false", "malformed", "an entrypoint that is false, which is left out").With("message", falseEntrypoint()),
		fault("egress-place", "manifest", "a place without a port", threeWith(func(m *lease.Manifest) { m.Services[0].Egress = []string{"example.org"} })),
		fault("egress-spelling", "manifest", "a place in upper case", threeWith(func(m *lease.Manifest) { m.Services[0].Egress = []string{"Example.org:443"} })),
		fault("egress-twice", "manifest", "a place stands twice", threeWith(func(m *lease.Manifest) {
			m.Services[0].Egress = []string{"example.org:443", "example.org:443"}
		})),
		fault("egress-both", "manifest", "all of the internet and a place", threeWith(func(m *lease.Manifest) {
			m.Services[0].Egress = []string{"public", "example.org:443"}
		})),
		fault("egress-many", "manifest", "65 places", threeWith(func(m *lease.Manifest) {
			for i := range lease.MaxEgress + 1 {
				m.Services[0].Egress = append(m.Services[0].Egress, fmt.Sprintf("192.0.2.%d:443", i))
			}
		})),
		fault("publish-zero", "manifest", "port 0 is published", threeWith(func(m *lease.Manifest) { m.Services[0].Publish = []lease.PublishedPort{{Port: 0, Protocol: "tcp"}} })),
		fault("publish-large", "manifest", "port 65536 is published", threeWith(func(m *lease.Manifest) {
			m.Services[0].Publish = []lease.PublishedPort{{Port: 65536, Protocol: "tcp"}}
		})),
		fault("publish-protocol", "manifest", "a port is published over SCTP", threeWith(func(m *lease.Manifest) {
			m.Services[0].Publish = []lease.PublishedPort{{Port: 80, Protocol: "sctp"}}
		})),
		fault("publish-order", "manifest", "published ports do not ascend", threeWith(func(m *lease.Manifest) {
			m.Services[0].Publish = []lease.PublishedPort{{Port: 53, Protocol: "udp"}, {Port: 53, Protocol: "tcp"}}
		})),
		fault("publish-twice", "manifest", "a port is published twice", threeWith(func(m *lease.Manifest) {
			m.Services[0].Publish = []lease.PublishedPort{{Port: 53, Protocol: "udp"}, {Port: 53, Protocol: "udp"}}
		})),
		fault("publish-many", "manifest", "17 published ports", threeWith(func(m *lease.Manifest) {
			for i := range lease.MaxPublish + 1 {
				m.Services[0].Publish = append(m.Services[0].Publish, lease.PublishedPort{Port: uint64(1000 + i), Protocol: "tcp"})
			}
		})),
		fault("job-publish", "manifest", "a job publishes a port", threeWith(func(m *lease.Manifest) { m.Services[2].Publish = []lease.PublishedPort{{Port: 80, Protocol: "tcp"}} })),
		fault("bandwidth-small", "manifest", "1023 bytes a second", threeWith(func(m *lease.Manifest) { m.Services[0].Egress, m.Services[0].Bandwidth = []string{"public"}, 1023 })),
		fault("bandwidth-alone", "manifest", "a bandwidth without anything to bound", threeWith(func(m *lease.Manifest) { m.Services[0].Bandwidth = 1 << 20 })),
		fault("good-propose-credentials", "ok", "a proposal with a registry's credentials", proposeWith(func(p *lease.Propose) { p.Credentials = credentials() })),
		fault("good-commit-credentials", "ok", "a commit with a registry's credentials", commitWith(func(c *lease.Commit) { c.Credentials = credentials() })),
		vector.New("message-credentials-empty", "malformed", "no credentials, which are left out").With("message", emptyCredentials()),
		fault("credentials-many", "malformed", "credentials of five registries", proposeWith(func(p *lease.Propose) {
			for i := range lease.MaxCredentials + 1 {
				p.Credentials = append(p.Credentials, lease.Credential{Registry: "r" + strconv.Itoa(i), Password: "x"})
			}
		})),
		fault("credentials-order", "malformed", "two credentials of one registry", proposeWith(func(p *lease.Propose) { p.Credentials = append(credentials(), credentials()...) })),
		fault("credentials-registry", "malformed", "a registry with a space", commitWith(func(c *lease.Commit) { c.Credentials = lease.Credentials{{Registry: "a b", Password: "x"}} })),
		fault("credentials-password", "malformed", "no password", proposeWith(func(p *lease.Propose) { p.Credentials = lease.Credentials{{Registry: "a"}} })),
		fault("credentials-password-long", "malformed", "a password of 4097 bytes", proposeWith(func(p *lease.Propose) {
			p.Credentials = lease.Credentials{{Registry: "a", Password: lease.Secret(strings.Repeat("x", lease.MaxRegistryPassword+1))}}
		})),
		fault("credentials-user-long", "malformed", "a user of 257 bytes", proposeWith(func(p *lease.Propose) {
			p.Credentials = lease.Credentials{{Registry: "a", Username: strings.Repeat("x", lease.MaxRegistryUser+1), Password: "x"}}
		})),
		fault("good-propose-network", "ok", "a proposal that asks for a network", threeWith(network)),
		vector.New("message-egress-empty", "malformed", "an egress of no places, which is left out").With("message", emptyEgress()),
		fault("services-resources", "manifest", "the terms have the resources of one service alone", threeProposal(func(p *lease.Propose) { p.Draft.Resources = p.Manifest.Services[0].Resources })),
		fault("good-isolation", "ok", "a manifest that demands a class of isolation", manifestWith(func(m *lease.Manifest) { m.Demand("gvisor") })),
		fault("isolation", "manifest", "a class that is no name", manifestWith(func(m *lease.Manifest) { m.Demand("Strong one") })),
		fault("isolation-empty", "manifest", "a class that is there and empty", manifestWith(func(m *lease.Manifest) { m.Ext = map[string][]byte{"isolation": {}} })),
		fault("no-memory", "manifest", "a service without memory", manifestWith(func(m *lease.Manifest) { m.Services[0].Resources.MemoryBytes = 0 })),
		fault("service-cpu-small", "manifest", "a service with 9 thousandths of a core", manifestWith(func(m *lease.Manifest) { m.Services[0].Resources.MilliCPU = lease.MinMilliCPU - 1 })),
		fault("service-memory-small", "manifest", "a service with a byte less than 16 MiB of memory", manifestWith(func(m *lease.Manifest) { m.Services[0].Resources.MemoryBytes = lease.MinMemoryBytes - 1 })),
		fault("service-disk-small", "manifest", "a service with a byte less than 4 MiB of disk", manifestWith(func(m *lease.Manifest) { m.Services[0].Resources.DiskBytes = lease.MinDiskBytes - 1 })),
		fault("good-service-disk-least", "ok", "a service with 4 MiB of disk", manifestWith(func(m *lease.Manifest) { m.Services[0].Resources.DiskBytes = lease.MinDiskBytes })),
		fault("good-propose-volumes", "ok", "two services with two volumes, one of them read-only in one service", volumesWith(func(*lease.Manifest) {})),
		fault("volumes-resources", "manifest", "the terms do not have the disk of the volumes", volumesProposal(func(p *lease.Propose) { p.Draft.Resources.DiskBytes -= p.Manifest.VolumeBytes() })),
		fault("volumes-many", "manifest", "17 volumes", volumesWith(func(m *lease.Manifest) {
			for i := range lease.MaxVolumes - 1 {
				m.Volumes = append(m.Volumes, lease.Volume{Name: "v" + strconv.Itoa(i), SizeBytes: lease.MinVolumeBytes})
				m.Services[i%2].Mounts = append(m.Services[i%2].Mounts, lease.Mount{Volume: "v" + strconv.Itoa(i), Path: "/v" + strconv.Itoa(i)})
			}
		})),
		fault("volumes-name", "manifest", "a volume's name that leads up", volumesWith(func(m *lease.Manifest) {
			m.Volumes[1].Name, m.Services[1].Mounts[1].Volume = "../logs", "../logs"
		})),
		fault("volumes-name-twice", "manifest", "two volumes of one name", volumesWith(func(m *lease.Manifest) { m.Volumes = append(m.Volumes, m.Volumes[1]) })),
		fault("volumes-small", "manifest", "a volume smaller than its file system", volumesWith(func(m *lease.Manifest) { m.Volumes[0].SizeBytes = lease.MinVolumeBytes - lease.VolumeStep })),
		fault("volumes-large", "manifest", "a volume of 16 TiB and a MiB", volumesWith(func(m *lease.Manifest) { m.Volumes[0].SizeBytes = lease.MaxVolumeBytes + lease.VolumeStep })),
		fault("volumes-step", "manifest", "a size that is not whole MiB", volumesWith(func(m *lease.Manifest) { m.Volumes[0].SizeBytes++ })),
		fault("volumes-unused", "manifest", "a volume that no service mounts", volumesWith(func(m *lease.Manifest) { m.Services[1].Mounts = m.Services[1].Mounts[:1] })),
		vector.New("message-volumes-empty", "malformed", "volumes that are there and none").With("message", emptyVolumes()),
		fault("mounts-unknown", "manifest", "a mount of a volume that is not there", volumesWith(func(m *lease.Manifest) { m.Services[0].Mounts[0].Volume = "other" })),
		fault("mounts-many", "manifest", "17 mounts of a service", volumesWith(func(m *lease.Manifest) {
			for i := range lease.MaxMounts {
				m.Services[0].Mounts = append(m.Services[0].Mounts, lease.Mount{Volume: "v" + strconv.Itoa(i), Path: "/v" + strconv.Itoa(i)})
			}
		})),
		fault("mounts-twice", "manifest", "a volume at two places of one service", volumesWith(func(m *lease.Manifest) { m.Services[1].Mounts[1].Volume = "data" })),
		fault("mounts-within", "manifest", "a mount within another one", volumesWith(func(m *lease.Manifest) { m.Services[1].Mounts[1].Path = "/var/lib/db/logs" })),
		fault("mounts-root", "manifest", "a mount over all files", volumesWith(func(m *lease.Manifest) { m.Services[0].Mounts[0].Path = "/" })),
		fault("mounts-proc", "manifest", "a mount below /proc", volumesWith(func(m *lease.Manifest) { m.Services[0].Mounts[0].Path = "/proc/sys" })),
		fault("mounts-dev", "manifest", "a mount over /dev", volumesWith(func(m *lease.Manifest) { m.Services[0].Mounts[0].Path = "/dev" })),
		fault("mounts-relative", "manifest", "a mount at no absolute path", volumesWith(func(m *lease.Manifest) { m.Services[0].Mounts[0].Path = "data" })),
		fault("mounts-up", "manifest", "a mount at a path that leads up", volumesWith(func(m *lease.Manifest) { m.Services[0].Mounts[0].Path = "/a/../proc" })),
		fault("mounts-long", "manifest", "a mount at a path of 1025 bytes", volumesWith(func(m *lease.Manifest) { m.Services[0].Mounts[0].Path = "/" + strings.Repeat("a", lease.MaxPath) })),
		fault("mounts-control", "manifest", "a mount at a path that steers a terminal", volumesWith(func(m *lease.Manifest) { m.Services[0].Mounts[0].Path = "/\x1b[2J" })),
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
	cases = append(cases, vector.New("message-good-fault-done", "ok", "a final statement of a lease of jobs that are all done").
		With("message", envelope(faulty("done", "all jobs have ended with exit code 0"))))
	cases = append(cases, vector.New("message-good-commit-shared", "ok", "a commit that is paid over an open channel, whatever its unconfirmed limit").
		With("message", envelope(commitWith(func(c *lease.Commit) {
			c.Funding, c.Voucher = nil, nil
			c.Params.Unconfirmed--
			c.Terms.Channel = must(c.Params.ID())
		}))))
	cases = append(cases, vector.New("message-good-propose-three", "ok", "a proposal of a lease with three services").
		With("message", envelope(threeProposal(func(*lease.Propose) {}))).With("manifest", must(three().ID())))
	cases = append(cases, amendFaults()...)
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
		judge("revision", "sequence", "it was issued under a revision whose acceptance is missing", "good", func(s *lease.Statement) { s.Ext = map[string][]byte{"revision": []byte("1")} }),
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
