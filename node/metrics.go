package node

import (
	"context"
	"errors"
	"strings"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/services"
	"github.com/pkt-cash/pkt-cloud/lease"
	"github.com/pkt-cash/pkt-cloud/lease/session"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// Metrics implements session.Workload.
func (w *workload) Metrics(_ context.Context, id pktcloud.ID, name string) ([]session.Metrics, error) {
	list, err := w.sets.Metrics(id.Hex(), name)
	if errors.Is(err, container.CodeNotFound) {
		if _, gone := w.sets.Status(id.Hex()); gone != nil {
			return nil, lease.Refusal(lease.CodePhase, "the lease has no services now")
		}
		return nil, lease.Refusal(lease.CodeUnknown, "there is no service %.40q in this lease", name)
	}
	if err != nil {
		return nil, err
	}
	var out []session.Metrics
	for _, m := range list {
		out = append(out, session.Metrics{
			Version: session.HeaderVersion, Name: m.Service, Run: m.Run,
			Hits: session.MetricHits{
				CPU: cut(m.Hits.CPU), Memory: cut(m.Hits.Memory), Pids: cut(m.Hits.Pids), Disk: cut(m.Hits.Disk), IO: cut(m.Hits.IO),
				Network: cut(m.Hits.Network), OOM: cut(m.OOMKills),
			},
			Recent: columns(m.Recent), Life: columns(m.Life),
		})
	}
	return out, nil
}

// cut keeps a number below what the protocol carries.
func cut(v uint64) uint64 { return min(v, session.MaxMetric-1) }

func columns(s services.Series) session.Series {
	out := session.Series{Step: max(uint64(s.Step.Seconds()), 1)}
	if len(s.Points) > 0 {
		out.Begin = s.Begin(0).Unix()
	}
	for _, p := range s.Points {
		out.Seen = append(out.Seen, p.Seen)
		out.CPU = append(out.CPU, cut(p.CPU))
		out.Throttled = append(out.Throttled, cut(p.Throttled))
		out.Memory = append(out.Memory, cut(p.MemoryBytes))
		out.Disk = append(out.Disk, cut(p.DiskBytes))
		out.In = append(out.In, cut(p.BytesIn))
		out.Out = append(out.Out, cut(p.BytesOut))
		out.Hits = append(out.Hits, cut(p.Hits))
	}
	return out
}

// LeaseMetrics says what a lease's services have used over time: by its
// provider's word, or at the provider itself.
func (n *Node) LeaseMetrics(ctx context.Context, name string) ([]service.Metrics, error) {
	name, part, named := strings.Cut(name, "/")
	v, err := n.find(name)
	if err != nil {
		return nil, err
	}
	if _, err := v.Manifest.Service(part); err != nil || named && part == "" {
		return nil, service.Errorf(service.CodeNotFound, "lease %s has no service %q; \"pktcloud lease services %s\" shows those that it has", name, part, name)
	}
	var list []session.Metrics
	if v.Role == lease.RoleProvider {
		list, err = n.work.Metrics(ctx, v.ID, part)
	} else {
		list, err = session.ReadMetrics(ctx, session.Target{Host: n.host, Provider: v.Terms.ProviderDevice, Lease: v.ID, Service: part})
	}
	if err != nil {
		return nil, translate(err)
	}
	out := []service.Metrics{}
	for _, m := range list {
		s, err := v.Manifest.Service(m.Name)
		if err != nil {
			return nil, service.Errorf(service.CodeUnreachable, "the provider tells of a service that the lease does not have")
		}
		out = append(out, service.Metrics{
			Service: m.Name, Runs: m.Run, MilliCPU: s.Resources.MilliCPU, Memory: s.Resources.MemoryBytes, Disk: s.Resources.DiskBytes,
			Hits: service.MetricHits(m.Hits), Recent: uses(m.Recent), Life: uses(m.Life),
		})
	}
	return out, nil
}

func uses(s session.Series) service.Uses {
	out := service.Uses{Begin: s.Begin, Step: s.Step, Points: []service.Use{}}
	for i := range s.Seen {
		out.Points = append(out.Points, service.Use{
			Seen: s.Seen[i], CPU: s.CPU[i], Throttled: s.Throttled[i], Memory: s.Memory[i], Disk: s.Disk[i], In: s.In[i], Out: s.Out[i], Hits: s.Hits[i],
		})
	}
	return out
}
