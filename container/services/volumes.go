package services

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pkt-cash/pkt-cloud/container"
)

// VolumeStatus is how a volume of a set stands.
type VolumeStatus struct {
	Volume
	// Ready is false before it was made, and when it is lost; FreeBytes is
	// then 0.
	Ready     bool
	FreeBytes uint64
}

// Volumes reports on the volumes of a set, in its order;
// [container.CodeNotFound] when there is no such set.
func (m *Manager) Volumes(ctx context.Context, id string) ([]VolumeStatus, error) {
	r, err := m.find(id)
	if err != nil || len(r.set.Volumes) == 0 {
		return nil, err
	}
	have, err := m.cfg.Runtime.(container.Volumes).Volumes(ctx, id) //nolint:forcetypeassert // Begin saw to it
	if err != nil {
		return nil, err
	}
	var out []VolumeStatus
	for i, v := range r.sizes().Volumes {
		row := VolumeStatus{Volume: v}
		at := slices.IndexFunc(have, func(h container.Volume) bool { return h.VolumeID == r.set.volume(i).VolumeID })
		if at >= 0 {
			row.Ready, row.FreeBytes = true, have[at].FreeBytes
		}
		out = append(out, row)
	}
	return out, nil
}

// make makes the volumes of a set, those that are there already excepted
// [SERVICE-28].
func (r *runner) make(ctx context.Context) Event {
	runtime, ok := r.m.cfg.Runtime.(container.Volumes)
	err := error(&container.Error{Code: container.CodeMissingFeature, Detail: "this runtime has no volumes"})
	for i, v := range r.set.Volumes {
		if ok {
			err = runtime.CreateVolume(ctx, r.set.volume(i))
		}
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return nil // whoever goes on with the set begins again, or removes them
		}
		r.m.cfg.Log.Warn("services: a volume could not be made", "set", r.set.ID, "volume", v.Name, "error", err)
		e := Unmade{Code: container.CodeRuntime, Text: fmt.Sprintf("the machine could not make volume %s", v.Name)}
		switch {
		case errors.Is(err, container.CodeDiskFull):
			e = Unmade{Code: container.CodeDiskFull, Text: fmt.Sprintf("the machine's disk has no room for volume %s of %d bytes", v.Name, v.SizeBytes)}
		case errors.Is(err, container.CodeMissingFeature):
			e = Unmade{Code: container.CodeMissingFeature, Text: "the machine cannot make volumes"}
		}
		return e
	}
	return Made{}
}

// removeVolumes removes all that belongs to the set, whether it was made or
// not, and what an earlier runtime left of it.
func (r *runner) removeVolumes(ctx context.Context) error {
	runtime, ok := r.m.cfg.Runtime.(container.Volumes)
	if !ok && len(r.set.Volumes) > 0 {
		return &container.Error{Code: container.CodeMissingFeature, Detail: "this runtime has no volumes"}
	}
	for i := range r.set.Volumes {
		if err := runtime.RemoveVolume(ctx, r.set.volume(i).VolumeID); err != nil {
			return err
		}
	}
	return nil
}
