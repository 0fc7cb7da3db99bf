package session

import (
	"context"

	"github.com/libp2p/go-libp2p/core/network"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/lease"
)

// MaxVolumesBytes bounds the answer to [CommandVolumes].
const MaxVolumesBytes = 4 << 10

// VolumeStatus is the provider's word on how a volume stands [SESSION-30].
type VolumeStatus struct {
	Name      string `cbor:"name"`
	SizeBytes uint64 `cbor:"size"`
	// FreeBytes can still be written; of a volume that no service has mounted,
	// as it was when one last had.
	FreeBytes uint64 `cbor:"free"`
	// Ready is false before it was made, and when it is lost.
	Ready bool `cbor:"ready"`
}

// volumes is the answer to [CommandVolumes].
type volumes struct {
	Version uint64         `cbor:"v"`
	Volumes []VolumeStatus `cbor:"volumes"`
}

// Validate checks the answer's shape: all of it may be shown on a terminal.
func (s volumes) Validate() error {
	if s.Version != HeaderVersion || len(s.Volumes) > lease.MaxVolumes {
		return lease.Refusal(lease.CodeMalformed, "the status of at most %d volumes has version %d", lease.MaxVolumes, HeaderVersion)
	}
	for _, v := range s.Volumes {
		if !lease.ValidServiceName(v.Name) || v.SizeBytes > lease.MaxVolumeBytes || v.FreeBytes > v.SizeBytes || !v.Ready && v.FreeBytes != 0 {
			return lease.Refusal(lease.CodeMalformed, "the status of a volume breaks its bounds")
		}
	}
	return nil
}

// ParseVolumes decodes and validates the answer to [CommandVolumes].
func ParseVolumes(data []byte) ([]VolumeStatus, error) {
	var s volumes
	if err := pktcloud.Unmarshal(data, &s, MaxVolumesBytes); err != nil {
		return nil, &lease.Error{Code: lease.CodeMalformed, Detail: "the status of volumes", Err: err}
	}
	return s.Volumes, s.Validate()
}

// AppendVolumes appends the encoding of what ParseVolumes reads.
func AppendVolumes(b []byte, list []VolumeStatus) ([]byte, error) {
	s := volumes{Version: HeaderVersion, Volumes: list}
	if err := s.Validate(); err != nil {
		return b, err
	}
	enc, err := pktcloud.Marshal(s)
	return append(b, enc...), err
}

func (s *Server) volumes(ctx context.Context, st network.Stream, h Header) error {
	list, err := s.cfg.Workload.Volumes(ctx, h.Lease)
	if err != nil {
		return refuse(st, err)
	}
	b, err := AppendVolumes(nil, list)
	return answer(st, b, err)
}

// Volumes asks how a lease's volumes stand.
func Volumes(ctx context.Context, t Target) ([]VolumeStatus, error) {
	b, err := ask(ctx, t, CommandVolumes, MaxVolumesBytes)
	if err != nil {
		return nil, err
	}
	return ParseVolumes(b)
}
