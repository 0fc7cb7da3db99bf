package service

import "github.com/pkt-cash/pkt-cloud/lease"

// VolumesOf returns the volumes of a manifest, with who mounts each where.
func VolumesOf(m lease.Manifest) (out []LeaseVolume) {
	for _, v := range m.Volumes {
		row := LeaseVolume{Name: v.Name, Size: v.SizeBytes, Mounts: []LeaseMount{}}
		for _, s := range m.Services {
			for _, o := range s.Mounts {
				if o.Volume == v.Name {
					row.Mounts = append(row.Mounts, LeaseMount{Service: s.Name, Path: o.Path, ReadOnly: o.ReadOnly})
				}
			}
		}
		out = append(out, row)
	}
	return out
}
