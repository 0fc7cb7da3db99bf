package session_test

import (
	"bytes"
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/vector"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/session"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectors = "../../spec/vectors/session"

func marshal(v any) []byte {
	b, err := pktcloud.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func headerCases() []vector.Case {
	header := func(name, expect, about string, h session.Header) vector.Case {
		if h.Version == 0 {
			h.Version = 1
		}
		h.Lease = leaseID
		return vector.New("header-"+name, expect, about).With("header", marshal(h))
	}
	exec := session.Header{Command: session.CommandExec, Service: "web", Args: []string{"sh", "-c", "id"}, Env: []string{"A=b"}, WorkDir: "/", TTY: true, Size: session.Size{Cols: 80, Rows: 24}}
	noArgs, zero := exec, exec
	noArgs.Args = nil
	zero.Args = []string{"a\x00b"}
	return []vector.Case{
		header("exec", "ok", "a shell on a terminal", exec),
		header("logs", "ok", "the last ten lines and what follows", session.Header{Command: session.CommandLogs, Follow: true, Tail: 10}),
		header("forward", "ok", "port 8080", session.Header{Command: session.CommandForward, Service: "web", Port: 8080}),
		header("files", "ok", "the files of a service", session.Header{Command: session.CommandFiles, Service: "web"}),
		header("files-args", "malformed", "files, and a program", session.Header{Command: session.CommandFiles, Service: "web", Args: []string{"sh"}}),
		header("files-service", "malformed", "the files of no service", session.Header{Command: session.CommandFiles}),
		header("version", "malformed", "version 2", session.Header{Version: 2, Command: session.CommandForward, Service: "web", Port: 1}),
		header("no-lease", "malformed", "no lease", session.Header{}),
		header("command", "malformed", "a command that there is not", session.Header{Command: "copy"}),
		header("exec-no-args", "malformed", "exec of nothing", noArgs),
		header("exec-zero-byte", "malformed", "a zero byte in an argument", zero),
		header("forward-port-zero", "malformed", "port 0", session.Header{Command: session.CommandForward, Service: "web"}),
		header("forward-port-large", "malformed", "port 65536", session.Header{Command: session.CommandForward, Service: "web", Port: 65536}),
		header("logs-tail", "malformed", "more last lines than the limit", session.Header{Command: session.CommandLogs, Tail: session.MaxTail + 1}),
		header("logs-service", "ok", "the log of one service", session.Header{Command: session.CommandLogs, Service: "db"}),
		header("services", "ok", "how the services stand", session.Header{Command: session.CommandServices}),
		header("services-named", "malformed", "how one service stands", session.Header{Command: session.CommandServices, Service: "web"}),
		header("metrics", "ok", "what the services have used", session.Header{Command: session.CommandMetrics}),
		header("metrics-service", "ok", "what one service has used", session.Header{Command: session.CommandMetrics, Service: "db"}),
		header("metrics-tail", "malformed", "the last metrics", session.Header{Command: session.CommandMetrics, Tail: 1}),
		header("volumes", "ok", "how the volumes stand", session.Header{Command: session.CommandVolumes}),
		header("volumes-named", "malformed", "how the volumes of one service stand", session.Header{Command: session.CommandVolumes, Service: "web"}),
		header("forward-service", "malformed", "a port of no service", session.Header{Command: session.CommandForward, Port: 80}),
		header("service-name", "malformed", "a service's name that steers a terminal", session.Header{Command: session.CommandLogs, Service: "\x1b[2J"}),
		header("foreign-field", "malformed", "logs with a port", session.Header{Command: session.CommandLogs, Port: 1}),
	}
}

func TestHeaderVectors(t *testing.T) {
	found, err := vector.Sync(vectors, "header-", headerCases(), *update)
	if err != nil {
		t.Error(err)
	}
	for _, c := range found {
		h, err := session.ParseHeader(c.Bytes("header"))
		got := "ok"
		if err != nil {
			got = string(lease.CodeOf(err))
		}
		if got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if err == nil && !bytes.Equal(marshal(h), c.Bytes("header")) {
			t.Errorf("%s: got another encoding", c.Name)
		}
	}
}

func TestReplyBounds(t *testing.T) {
	for _, r := range []session.Reply{{Version: 2}, {Version: 1, Code: lease.Code(strings.Repeat("a", 33))}, {Version: 1, Text: strings.Repeat("a", lease.MaxText+1)}} {
		if _, err := session.ParseReply(marshal(r)); !errors.Is(err, lease.CodeMalformed) {
			t.Errorf("got %v for %+v, want malformed", err, r)
		}
	}
}

func status(edit func(*session.ServiceStatus)) []byte {
	s := session.ServiceStatus{
		Name: "db", Phase: "backoff", Health: "", Runs: 4, Looping: true, Ended: true, Exit: 137, OOMKilled: true, Since: 1_800_000_000,
		Text: "ended with exit code 137, out of memory",
	}
	edit(&s)
	return marshal(map[string]any{"v": uint64(1), "services": []session.ServiceStatus{s}})
}

func networked(edit func(*session.ServiceNetwork)) func(*session.ServiceStatus) {
	return func(s *session.ServiceStatus) {
		s.Network = &session.ServiceNetwork{BytesIn: 1000, BytesOut: 20, Refused: 3, Open: 1, Published: []session.Published{
			{Port: 8080, Protocol: "tcp", Address: "203.0.113.9:20017"}, {Port: 53, Protocol: "udp", Address: "[2001:db8::1]:53"},
		}}
		edit(s.Network)
	}
}

func statusCases() []vector.Case {
	c := func(name, expect, about string, b []byte) vector.Case {
		return vector.New("services-"+name, expect, about).With("services", b)
	}
	return []vector.Case{
		c("good", "ok", "a database in a crash loop", status(func(*session.ServiceStatus) {})),
		c("name", "malformed", "a name in upper case", status(func(s *session.ServiceStatus) { s.Name = "DB" })),
		c("phase", "malformed", "a phase that there is not", status(func(s *session.ServiceStatus) { s.Phase = "asleep" })),
		c("health", "malformed", "a health that there is not", status(func(s *session.ServiceStatus) { s.Health = "fine" })),
		c("exit", "malformed", "exit code 256", status(func(s *session.ServiceStatus) { s.Exit = 256 })),
		c("text", "malformed", "a text that steers a terminal", status(func(s *session.ServiceStatus) { s.Text = "\x1b[2J" })),
		c("network", "ok", "a service with a network", status(networked(func(*session.ServiceNetwork) {}))),
		c("network-quiet", "ok", "a service with a network and no published ports", status(networked(func(n *session.ServiceNetwork) { *n = session.ServiceNetwork{} }))),
		c("network-address", "malformed", "a published port at no address", status(networked(func(n *session.ServiceNetwork) { n.Published[0].Address = "example.org:80" }))),
		c("network-zero", "malformed", "a published port at port 0", status(networked(func(n *session.ServiceNetwork) { n.Published[0].Address = "203.0.113.9:0" }))),
		c("network-spelling", "malformed", "an address in another spelling", status(networked(func(n *session.ServiceNetwork) { n.Published[1].Address = "[2001:DB8::1]:53" }))),
		c("network-port", "malformed", "a published port 65536", status(networked(func(n *session.ServiceNetwork) { n.Published[0].Port = 65536 }))),
		c("network-protocol", "malformed", "a port that is published over SCTP", status(networked(func(n *session.ServiceNetwork) { n.Published[0].Protocol = "sctp" }))),
		c("network-many", "malformed", "17 published ports", status(networked(func(n *session.ServiceNetwork) {
			for len(n.Published) <= lease.MaxPublish {
				n.Published = append(n.Published, n.Published[0])
			}
		}))),
		c("none", "malformed", "no services", marshal(map[string]any{"v": uint64(1), "services": []session.ServiceStatus{}})),
	}
}

// TestServicesVectors [SESSION-10].
func TestServicesVectors(t *testing.T) {
	found, err := vector.Sync(vectors, "services-", statusCases(), *update)
	if err != nil {
		t.Error(err)
	}
	for _, c := range found {
		list, err := session.ParseServices(c.Bytes("services"))
		got := "ok"
		if err != nil {
			got = string(lease.CodeOf(err))
		}
		if got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if again, e := session.AppendServices(nil, list); err == nil && (e != nil || !bytes.Equal(again, c.Bytes("services"))) {
			t.Errorf("%s: got another encoding, %v", c.Name, e)
		}
	}
}

func FuzzParseServices(f *testing.F) {
	for _, c := range statusCases() {
		f.Add(c.Bytes("services"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := session.ParseServices(data)
		if err != nil {
			return
		}
		if again, err := session.AppendServices(nil, list); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("got %x, %v again from %x", again, err, data)
		}
	})
}

// metricsOf is a service that ran in the first and the third minute.
func metricsOf(edit func(*session.Metrics)) session.Metrics {
	m := session.Metrics{
		Version: 1, Name: "db", Run: 2, Hits: session.MetricHits{CPU: 40, Memory: 3, OOM: 1},
		Recent: session.Series{
			Begin: 1_800_000_000, Step: 10, Seen: []uint64{9_500}, CPU: []uint64{4_750}, Throttled: []uint64{1_200}, Memory: []uint64{64 << 20},
			Disk: []uint64{5 << 20}, In: []uint64{1500}, Out: []uint64{64_000}, Hits: []uint64{2},
		},
		Life: session.Series{
			Begin: 1_799_999_940, Step: 60, Seen: []uint64{59_000, 0, 60_000}, CPU: []uint64{29_500, 0, 30_000}, Throttled: []uint64{0, 0, 1_200},
			Memory: []uint64{64 << 20, 0, 63 << 20}, Disk: []uint64{5 << 20, 0, 5 << 20}, In: []uint64{0, 0, 1500}, Out: []uint64{0, 0, 64_000}, Hits: []uint64{0, 0, 3},
		},
	}
	edit(&m)
	return m
}

func metricsCases() []vector.Case {
	c := func(name, expect, about string, edit func(*session.Metrics)) vector.Case {
		return vector.New("metrics-"+name, expect, about).With("metrics", marshal(metricsOf(edit)))
	}
	long := func(n int) (s session.Series) {
		s = session.Series{Begin: 1_800_000_000, Step: 10}
		for _, column := range []*[]uint64{&s.Seen, &s.CPU, &s.Throttled, &s.Memory, &s.Disk, &s.In, &s.Out, &s.Hits} {
			*column = make([]uint64, n)
		}
		return s
	}
	return []vector.Case{
		c("good", "ok", "a service that ran in the first and the third minute", func(*session.Metrics) {}),
		c("empty", "ok", "a service that has not begun", func(m *session.Metrics) { m.Run, m.Hits, m.Recent, m.Life = 0, session.MetricHits{}, long(0), long(0) }),
		c("version", "malformed", "version 2", func(m *session.Metrics) { m.Version = 2 }),
		c("name", "malformed", "a name that steers a terminal", func(m *session.Metrics) { m.Name = "\x1b[2J" }),
		c("run", "malformed", "a number of 2^53", func(m *session.Metrics) { m.Run = session.MaxMetric }),
		c("hits", "malformed", "hits of 2^53", func(m *session.Metrics) { m.Hits.IO = session.MaxMetric }),
		c("step-zero", "malformed", "steps of no time", func(m *session.Metrics) { m.Life.Step = 0 }),
		c("step-large", "malformed", "steps beyond the limit", func(m *session.Metrics) { m.Life.Step = session.MaxStep + 1 }),
		c("begin", "malformed", "a beginning before 1970", func(m *session.Metrics) { m.Recent.Begin = -1 }),
		c("begin-late", "malformed", "a beginning in 2^40 s", func(m *session.Metrics) { m.Recent.Begin = 1 << 40 }),
		c("column", "malformed", "columns of two lengths", func(m *session.Metrics) { m.Recent.Out = []uint64{1, 2} }),
		c("seen", "malformed", "more seen than the step has", func(m *session.Metrics) { m.Recent.Seen[0] = 10_001 }),
		c("gap", "malformed", "memory in a gap", func(m *session.Metrics) { m.Life.Memory[1] = 1 }),
		c("value", "malformed", "a value of 2^53", func(m *session.Metrics) { m.Recent.CPU[0] = session.MaxMetric }),
		c("points", "malformed", "721 points", func(m *session.Metrics) { m.Recent = long(session.MaxPoints + 1) }),
	}
}

// TestMetricsVectors [SESSION-38].
func TestMetricsVectors(t *testing.T) {
	found, err := vector.Sync(vectors, "metrics-", metricsCases(), *update)
	if err != nil {
		t.Error(err)
	}
	for _, c := range found {
		m, err := session.ParseMetrics(c.Bytes("metrics"))
		got := "ok"
		if err != nil {
			got = string(lease.CodeOf(err))
		}
		if got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if again, e := session.AppendMetrics(nil, m); err == nil && (e != nil || !bytes.Equal(again, c.Bytes("metrics"))) {
			t.Errorf("%s: got another encoding, %v", c.Name, e)
		}
	}
}

// TestLargestMetrics: what a provider may keep fits into the answer.
func TestLargestMetrics(t *testing.T) {
	m := metricsOf(func(*session.Metrics) {})
	for _, s := range []*session.Series{&m.Recent, &m.Life} {
		s.Step = session.MaxStep
		for _, column := range []*[]uint64{&s.Seen, &s.CPU, &s.Throttled, &s.Memory, &s.Disk, &s.In, &s.Out, &s.Hits} {
			*column = slices.Repeat([]uint64{session.MaxMetric - 1}, session.MaxPoints)
		}
		s.Seen = slices.Repeat([]uint64{session.MaxStep * 1000}, session.MaxPoints)
	}
	b, err := session.AppendMetrics(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.ParseMetrics(b); err != nil {
		t.Errorf("%d bytes: %v", len(b), err)
	}
}

func FuzzParseMetrics(f *testing.F) {
	for _, c := range metricsCases() {
		f.Add(c.Bytes("metrics"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := session.ParseMetrics(data)
		if err != nil {
			return
		}
		if again, err := session.AppendMetrics(nil, m); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("got %x, %v again from %x", again, err, data)
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	for _, c := range headerCases() {
		f.Add(c.Bytes("header"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := session.ParseHeader(data)
		if err != nil {
			return
		}
		if again := marshal(h); !bytes.Equal(again, data) {
			t.Fatalf("got %x again from %x", again, data)
		}
	})
}

func FuzzParseReply(f *testing.F) {
	f.Add(marshal(session.Reply{Version: 1, Code: lease.CodePhase, Text: "suspended"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := session.ParseReply(data)
		if err != nil {
			return
		}
		if again := marshal(r); !bytes.Equal(again, data) {
			t.Fatalf("got %x again from %x", again, data)
		}
	})
}

func volumeStatus(edit func(*session.VolumeStatus)) []byte {
	v := session.VolumeStatus{Name: "data", SizeBytes: 2 << 30, FreeBytes: 1 << 30, Ready: true}
	edit(&v)
	return marshal(map[string]any{"v": uint64(1), "volumes": []session.VolumeStatus{v}})
}

func volumeCases() []vector.Case {
	c := func(name, expect, about string, b []byte) vector.Case {
		return vector.New("volumes-"+name, expect, about).With("volumes", b)
	}
	return []vector.Case{
		c("good", "ok", "a volume that is half full", volumeStatus(func(*session.VolumeStatus) {})),
		c("none", "ok", "a lease without volumes", marshal(map[string]any{"v": uint64(1), "volumes": []session.VolumeStatus{}})),
		c("lost", "ok", "a volume that is lost", volumeStatus(func(v *session.VolumeStatus) { v.Ready, v.FreeBytes = false, 0 })),
		c("name", "malformed", "a name that steers a terminal", volumeStatus(func(v *session.VolumeStatus) { v.Name = "\x1b[2J" })),
		c("free", "malformed", "more free than there is", volumeStatus(func(v *session.VolumeStatus) { v.FreeBytes = 2<<30 + 1 })),
		c("lost-free", "malformed", "free space of a volume that is lost", volumeStatus(func(v *session.VolumeStatus) { v.Ready = false })),
		c("size", "malformed", "17 TiB", volumeStatus(func(v *session.VolumeStatus) { v.SizeBytes = 17 << 40 })),
		c("version", "malformed", "version 2", marshal(map[string]any{"v": uint64(2), "volumes": []session.VolumeStatus{}})),
		c("many", "malformed", "17 volumes", marshal(map[string]any{"v": uint64(1), "volumes": slices.Repeat([]session.VolumeStatus{{Name: "data"}}, lease.MaxVolumes+1)})),
	}
}

// TestVolumesVectors [SESSION-30].
func TestVolumesVectors(t *testing.T) {
	found, err := vector.Sync(vectors, "volumes-", volumeCases(), *update)
	if err != nil {
		t.Error(err)
	}
	for _, c := range found {
		list, err := session.ParseVolumes(c.Bytes("volumes"))
		got := "ok"
		if err != nil {
			got = string(lease.CodeOf(err))
		}
		if got != c.Value("expect") {
			t.Errorf("%s: got %s (%v), want %s", c.Name, got, err, c.Value("expect"))
		}
		if again, e := session.AppendVolumes(nil, list); err == nil && (e != nil || !bytes.Equal(again, c.Bytes("volumes"))) {
			t.Errorf("%s: got another encoding, %v", c.Name, e)
		}
	}
}

func FuzzParseVolumes(f *testing.F) {
	for _, c := range volumeCases() {
		f.Add(c.Bytes("volumes"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := session.ParseVolumes(data)
		if err != nil {
			return
		}
		if again, err := session.AppendVolumes(nil, list); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("got %x, %v again from %x", again, err, data)
		}
	})
}
