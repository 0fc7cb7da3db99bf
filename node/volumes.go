package node

import (
	"context"
	"errors"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/services"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/session"
)

func volumesOf(m lease.Manifest) (out []services.Volume) {
	for _, v := range m.Volumes {
		out = append(out, services.Volume{Name: v.Name, SizeBytes: v.SizeBytes})
	}
	return out
}

// canVolumes says whether this machine can make volumes at all, if not always now
// [MARKET-28].
func canVolumes(ctx context.Context, runtime container.Runtime) bool {
	r, ok := runtime.(container.Volumes)
	if !ok {
		return false
	}
	err := r.CheckVolumes(ctx, container.MinVolumeBytes)
	return err == nil || errors.Is(err, container.CodeDiskFull)
}

// admitVolumes refuses a lease whose volumes this machine cannot make, or not
// now [SERVICE-27].
func (w *workload) admitVolumes(ctx context.Context, m lease.Manifest) error {
	if len(m.Volumes) == 0 {
		return nil
	}
	err := error(container.CodeMissingFeature)
	if r, ok := w.runtime.(container.Volumes); ok {
		err = r.CheckVolumes(ctx, m.VolumeBytes())
	}
	if err == nil {
		return nil
	}
	w.log.Info("a lease asks for volumes that cannot be made", "bytes", m.VolumeBytes(), "error", err)
	if errors.Is(err, container.CodeDiskFull) {
		return lease.Refusal(lease.CodeCapacity, "the provider's disk has no room for volumes of %d MiB now; ask for less or choose another offer", m.VolumeBytes()>>20)
	}
	return lease.Refusal(lease.CodeCapacity, "this provider cannot make volumes; choose another offer, or a lease without volumes")
}

// Volumes implements session.Workload.
func (w *workload) Volumes(ctx context.Context, id pktcloud.ID) ([]session.VolumeStatus, error) {
	list, err := w.sets.Volumes(ctx, id.Hex())
	switch {
	case errors.Is(err, container.CodeNotFound):
		return nil, lease.Refusal(lease.CodePhase, "the lease has no volumes now")
	case err != nil:
		w.log.Warn("the volumes of a lease", "lease", id, "error", err)
		return nil, lease.Refusal(lease.CodeInternal, "the volumes cannot be looked at now")
	}
	var out []session.VolumeStatus
	for _, v := range list {
		out = append(out, session.VolumeStatus{Name: v.Name, SizeBytes: v.SizeBytes, FreeBytes: min(v.FreeBytes, v.SizeBytes), Ready: v.Ready})
	}
	return out, nil
}
