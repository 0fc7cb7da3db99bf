package session

import (
	"context"
	"errors"
	"io"

	"github.com/libp2p/go-libp2p/core/network"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// Limits of the answer to [CommandMetrics].
const (
	MaxMetricsBytes = 128 << 10 // of one service
	MaxPoints       = 720       // of a series
	MaxStep         = 1 << 30   // seconds
	MaxMetric       = 1 << 53   // below which a number is
)

// Metrics is the provider's word on what a service has used over time
// [SESSION-36].
type Metrics struct {
	Version uint64     `cbor:"v"`
	Name    string     `cbor:"name"`
	Run     uint64     `cbor:"run"` // the present or last container; 0: none yet
	Hits    MetricHits `cbor:"hits"`
	Recent  Series     `cbor:"recent"` // the last while in small steps
	Life    Series     `cbor:"life"`   // since the lease began, in steps that grow with it
}

// MetricHits is how often the present run has hit each of its limits.
type MetricHits struct {
	CPU     uint64 `cbor:"cpu"`
	Memory  uint64 `cbor:"memory"`
	Pids    uint64 `cbor:"pids"`
	Disk    uint64 `cbor:"disk"`
	IO      uint64 `cbor:"io"`
	Network uint64 `cbor:"network"`
	OOM     uint64 `cbor:"oom"` // processes killed for memory
}

// Series is a use over time. Its columns are of one length: the points, which
// follow one another without a break. A point of which nothing was seen is a
// gap, and zero in all columns.
type Series struct {
	Begin int64  `cbor:"begin"` // Unix seconds: of the first point
	Step  uint64 `cbor:"step"`  // seconds
	// Seen is how many milliseconds of the step it ran and was looked at.
	Seen []uint64 `cbor:"seen"`
	// CPU and Throttled are milliseconds of processor time: used, and waited for
	// because the limit was used up.
	CPU       []uint64 `cbor:"cpu"`
	Throttled []uint64 `cbor:"throttled"`
	// Memory and Disk are the most bytes that were seen, In and Out bytes to and
	// from the world outside the lease, Hits those of limits other than the
	// processor's.
	Memory []uint64 `cbor:"memory"`
	Disk   []uint64 `cbor:"disk"`
	In     []uint64 `cbor:"in"`
	Out    []uint64 `cbor:"out"`
	Hits   []uint64 `cbor:"hits"`
}

func (s Series) columns() [8][]uint64 {
	return [...][]uint64{s.Seen, s.CPU, s.Throttled, s.Memory, s.Disk, s.In, s.Out, s.Hits}
}

func (s Series) validate() error {
	if s.Begin < 0 || s.Begin >= 1<<40 || s.Step == 0 || s.Step > MaxStep {
		return lease.Refusal(lease.CodeMalformed, "a series of metrics begins in time, and has steps of 1 to %d s", MaxStep)
	}
	for _, c := range s.columns() {
		if len(c) != len(s.Seen) || len(c) > MaxPoints {
			return lease.Refusal(lease.CodeMalformed, "a series of metrics has columns of one length, at most %d", MaxPoints)
		}
		for i, v := range c {
			if v >= MaxMetric || s.Seen[i] > s.Step*1000 || s.Seen[i] == 0 && v != 0 {
				return lease.Refusal(lease.CodeMalformed, "a point of a metric breaks its bounds")
			}
		}
	}
	return nil
}

// Validate checks the answer's shape [SESSION-38]: sums and pictures of it stay
// within bounds.
func (m Metrics) Validate() error {
	if m.Version != HeaderVersion || !lease.ValidServiceName(m.Name) {
		return lease.Refusal(lease.CodeMalformed, "the metrics of a service have version %d and its name", HeaderVersion)
	}
	for _, v := range []uint64{m.Run, m.Hits.CPU, m.Hits.Memory, m.Hits.Pids, m.Hits.Disk, m.Hits.IO, m.Hits.Network, m.Hits.OOM} {
		if v >= MaxMetric {
			return lease.Refusal(lease.CodeMalformed, "a number of the metrics is too large")
		}
	}
	if err := m.Recent.validate(); err != nil {
		return err
	}
	return m.Life.validate()
}

// ParseMetrics decodes and validates the metrics of one service.
func ParseMetrics(data []byte) (Metrics, error) {
	var m Metrics
	if err := pktcloud.Unmarshal(data, &m, MaxMetricsBytes); err != nil {
		return Metrics{}, &lease.Error{Code: lease.CodeMalformed, Detail: "the metrics of a service", Err: err}
	}
	return m, m.Validate()
}

// AppendMetrics appends the encoding of what ParseMetrics reads.
func AppendMetrics(b []byte, m Metrics) ([]byte, error) {
	m.Version = HeaderVersion
	if err := m.Validate(); err != nil {
		return b, err
	}
	enc, err := pktcloud.Marshal(m)
	if err == nil && len(enc) > MaxMetricsBytes {
		err = lease.Refusal(lease.CodeInternal, "the metrics of a service have more than %d bytes", MaxMetricsBytes)
	}
	return append(b, enc...), err
}

func (s *Server) metrics(ctx context.Context, st network.Stream, h Header) error {
	list, err := s.cfg.Workload.Metrics(ctx, h.Lease, h.Service)
	if err != nil {
		return refuse(st, err)
	}
	var all [][]byte
	for _, m := range list {
		b, err := AppendMetrics(nil, m)
		if err != nil {
			return refuse(st, err)
		}
		all = append(all, b)
	}
	if err := writeValue(st, replyTo(nil)); err != nil {
		return err
	}
	for _, b := range all {
		if err := wire.WriteFrame(st, b); err != nil {
			return err
		}
	}
	return st.CloseWrite()
}

// ReadMetrics asks what a lease's services have used: all of them in the
// manifest's order or, with t.Service, that one. Errors are refusals of package
// lease, or of the network; what a provider sends beyond the limits is
// [lease.CodeMalformed].
func ReadMetrics(ctx context.Context, t Target) ([]Metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, replyDeadline)
	defer cancel()
	st, err := begin(ctx, t, Header{Command: CommandMetrics})
	if err != nil {
		return nil, err
	}
	defer st.Reset()                                      //nolint:errcheck // all was read, or it is given up
	stop := context.AfterFunc(ctx, func() { st.Reset() }) //nolint:errcheck // given up
	defer stop()
	return readMetrics(st, t.Service)
}

// readMetrics reads a frame of each service until the end [SESSION-38].
func readMetrics(r io.Reader, service string) ([]Metrics, error) {
	var out []Metrics
	for {
		b, err := wire.ReadFrame(r, MaxMetricsBytes)
		if errors.Is(err, io.EOF) && len(out) > 0 {
			return out, nil
		}
		if errors.Is(err, pktcloud.ErrTooLarge) {
			return nil, &lease.Error{Code: lease.CodeMalformed, Detail: "the metrics of a service", Err: err}
		}
		if err != nil {
			return nil, err
		}
		m, err := ParseMetrics(b)
		if err != nil {
			return nil, err
		}
		if len(out) == lease.MaxServices || service != "" && (m.Name != service || len(out) > 0) {
			return nil, lease.Refusal(lease.CodeMalformed, "metrics of services that were not asked for")
		}
		for _, o := range out {
			if o.Name == m.Name {
				return nil, lease.Refusal(lease.CodeMalformed, "metrics of service %s twice", m.Name)
			}
		}
		out = append(out, m)
	}
}
