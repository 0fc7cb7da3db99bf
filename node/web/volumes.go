package web

import (
	"context"

	"github.com/pkt-cash/pkt-cloud/node/service"
)

// volumesOf asks how a lease's volumes stand: nil when it has none, or nobody
// says.
func (w *Web) volumesOf(ctx context.Context, l service.Lease) []service.VolumeStanding {
	if len(l.Volumes) == 0 || l.Phase != "active" && l.Phase != "suspended" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, servicesTimeout)
	defer cancel()
	list, err := w.svc.LeaseVolumes(ctx, l.ID.String())
	if err != nil {
		w.log.Debug("the volumes of a lease", "lease", l.Label, "error", err)
		return nil
	}
	return list
}
