package session

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/wire"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// MaxServicesBytes bounds the answer to [CommandServices].
const MaxServicesBytes = 32 << 10

// ServiceStatus is the provider's word on how a service stands [SESSION-10].
type ServiceStatus struct {
	Name    string `cbor:"name"`
	Phase   string `cbor:"phase"` // as in spec/services.md
	Job     bool   `cbor:"job"`
	Health  string `cbor:"health"` // starting, healthy, unhealthy; empty: no check, or it does not run
	Runs    uint64 `cbor:"runs"`   // containers that it has had; one more than its restarts
	Looping bool   `cbor:"looping"`
	// Ended says that a run has ended; Exit is the exit code of the last one that
	// did, 255 when it was lost.
	Ended     bool   `cbor:"ended"`
	Exit      uint64 `cbor:"exit"`
	OOMKilled bool   `cbor:"oom"`
	Since     int64  `cbor:"since"` // Unix seconds: in this phase
	Text      string `cbor:"text"`  // why it does not run, or is not healthy
	// CPUMillis is processor time that the present container has used,
	// MemoryBytes what it has now; zero when not known.
	CPUMillis   uint64 `cbor:"cpu"`
	MemoryBytes uint64 `cbor:"memory"`
	// Network is what it has of the world outside its lease; nil: nothing.
	Network *ServiceNetwork `cbor:"network,omitempty"`
}

// ServiceNetwork is a service's network with the world outside its lease
// [SERVICE-22].
type ServiceNetwork struct {
	// BytesIn and BytesOut are what the present container received from there,
	// and sent; Refused the connections and datagrams that nothing let through,
	// Open the connections that there are.
	BytesIn   uint64      `cbor:"in"`
	BytesOut  uint64      `cbor:"out"`
	Refused   uint64      `cbor:"refused"`
	Open      uint64      `cbor:"open"`
	Published []Published `cbor:"published"`
}

// Published is a port of a service and where it is outside: an address and port
// such as "203.0.113.9:20017" or "[2001:db8::1]:20017".
type Published struct {
	Port     uint64 `cbor:"port"`
	Protocol string `cbor:"protocol"`
	Address  string `cbor:"address"`
}

func (n *ServiceNetwork) valid() bool {
	if n == nil {
		return true
	}
	return len(n.Published) <= lease.MaxPublish && !slices.ContainsFunc(n.Published, func(p Published) bool {
		at, err := netip.ParseAddrPort(p.Address)
		return err != nil || at.String() != p.Address || at.Addr().Zone() != "" || at.Port() == 0 || p.Port == 0 || p.Port > 65535 || p.Protocol != lease.TCP && p.Protocol != lease.UDP
	})
}

// services is the answer to [CommandServices].
type services struct {
	Version  uint64          `cbor:"v"`
	Services []ServiceStatus `cbor:"services"`
}

var (
	phases  = []string{"waiting", "starting", "running", "stopping", "backoff", "done", "failed", "stopped"}
	healths = []string{"", "starting", "healthy", "unhealthy"}
)

// Validate checks the answer's shape: all of it may be shown on a terminal.
func (s services) Validate() error {
	if s.Version != HeaderVersion || len(s.Services) == 0 || len(s.Services) > lease.MaxServices {
		return lease.Refusal(lease.CodeMalformed, "the status of 1 to %d services has version %d", lease.MaxServices, HeaderVersion)
	}
	for _, v := range s.Services {
		if !lease.ValidServiceName(v.Name) || !slices.Contains(phases, v.Phase) || !slices.Contains(healths, v.Health) || v.Exit > 255 || !v.Network.valid() ||
			len(v.Text) > lease.MaxText || strings.ContainsFunc(v.Text, func(r rune) bool { return r < ' ' || r > '~' }) {
			return lease.Refusal(lease.CodeMalformed, "the status of a service breaks its bounds")
		}
	}
	return nil
}

// ParseServices decodes and validates the answer to [CommandServices].
func ParseServices(data []byte) ([]ServiceStatus, error) {
	var s services
	if err := pktcloud.Unmarshal(data, &s, MaxServicesBytes); err != nil {
		return nil, &lease.Error{Code: lease.CodeMalformed, Detail: "the status of services", Err: err}
	}
	return s.Services, s.Validate()
}

// AppendServices appends the encoding of what ParseServices reads.
func AppendServices(b []byte, list []ServiceStatus) ([]byte, error) {
	s := services{Version: HeaderVersion, Services: list}
	if err := s.Validate(); err != nil {
		return b, err
	}
	enc, err := pktcloud.Marshal(s)
	return append(b, enc...), err
}

func (s *Server) services(ctx context.Context, st network.Stream, h Header) error {
	list, err := s.cfg.Workload.Services(ctx, h.Lease)
	if err != nil {
		return refuse(st, err)
	}
	b, err := AppendServices(nil, list)
	return answer(st, b, err)
}

// answer sends what a command of one answer has to say, or why it has none.
func answer(st network.Stream, b []byte, err error) error {
	if err != nil {
		return refuse(st, err)
	}
	if err := writeValue(st, replyTo(nil)); err != nil {
		return err
	}
	if err := wire.WriteFrame(st, b); err != nil {
		return err
	}
	return st.CloseWrite()
}

// Services asks how a lease's services stand.
func Services(ctx context.Context, t Target) ([]ServiceStatus, error) {
	b, err := ask(ctx, t, CommandServices, MaxServicesBytes)
	if err != nil {
		return nil, err
	}
	return ParseServices(b)
}

// ask returns the answer of at most so many bytes to a command about the whole
// lease.
func ask(ctx context.Context, t Target, c Command, most int) ([]byte, error) {
	t.Service = ""
	ctx, cancel := context.WithTimeout(ctx, replyDeadline)
	defer cancel()
	st, err := begin(ctx, t, Header{Command: c})
	if err != nil {
		return nil, err
	}
	defer st.Reset()                                      //nolint:errcheck // all was read, or it is given up
	stop := context.AfterFunc(ctx, func() { st.Reset() }) //nolint:errcheck // given up
	defer stop()
	return wire.ReadFrame(st, most)
}
