package lease

import (
	"path"
	"slices"
	"strings"

	"github.com/pkt-cash/pkt-cloud/market"
)

// Volume is a disk of a lease that outlives the runs of its services, and ends
// with the lease [SERVICE-25].
type Volume struct {
	Name      string `cbor:"name" json:"name"` // unique in the lease, formed as a service's
	SizeBytes uint64 `cbor:"size" json:"size"` // of its file system, whose own tables are part of it
}

// Mount puts a volume of the lease at a path of a service's files.
type Mount struct {
	Volume   string `cbor:"volume" json:"volume"`
	Path     string `cbor:"path" json:"path"` // absolute and clean
	ReadOnly bool   `cbor:"ro" json:"ro,omitempty"`
}

// VolumeBytes is the sum of the volumes, which is part of the lease's disk
// [SERVICE-26]. The manifest has been validated.
func (m Manifest) VolumeBytes() (sum uint64) {
	for _, v := range m.Volumes {
		sum += v.SizeBytes
	}
	return sum
}

// CheckVolumes says whether an offer has volumes for a manifest that needs some
// [SERVICE-36]. Both sides call it. Errors match [CodeCapacity].
func CheckVolumes(o market.Offer, m Manifest) error {
	if len(m.Volumes) > 0 && !o.Volumes {
		return Refusal(CodeCapacity, "this provider cannot make volumes; choose another offer, or a lease without volumes")
	}
	return nil
}

// validateVolumes checks the volumes, and that services mount them.
func (m Manifest) validateVolumes() error {
	if len(m.Volumes) > MaxVolumes {
		return Refusal(CodeManifest, "a lease has at most %d volumes", MaxVolumes)
	}
	known := func(name string) int {
		return slices.IndexFunc(m.Volumes, func(v Volume) bool { return v.Name == name })
	}
	for i, v := range m.Volumes {
		if !ValidServiceName(v.Name) || known(v.Name) != i {
			return Refusal(CodeManifest, "the name of volume %d is not 1 to %d of a-z, 0-9 and '-', with a letter or digit at both ends, or another one has it", i, MaxServiceName)
		}
		if v.SizeBytes < MinVolumeBytes || v.SizeBytes > MaxVolumeBytes || v.SizeBytes%VolumeStep != 0 {
			return Refusal(CodeManifest, "volume %s has %s; a size is whole MiB, from %d MiB to %d TiB", v.Name, bytesText(v.SizeBytes), MinVolumeBytes>>20, uint64(MaxVolumeBytes)>>40)
		}
		if !slices.ContainsFunc(m.Services, func(s Service) bool {
			return slices.ContainsFunc(s.Mounts, func(o Mount) bool { return o.Volume == v.Name })
		}) {
			return Refusal(CodeManifest, "no service mounts volume %s", v.Name)
		}
	}
	for _, s := range m.Services {
		for _, o := range s.Mounts {
			if known(o.Volume) < 0 {
				return Refusal(CodeManifest, "service %s mounts volume %.40q, which is not there", s.Name, o.Volume)
			}
		}
	}
	return nil
}

// validateMounts checks what one service mounts, volumes apart.
func (s Service) validateMounts() error {
	if len(s.Mounts) > MaxMounts {
		return Refusal(CodeManifest, "a service mounts at most %d volumes", MaxMounts)
	}
	for i, m := range s.Mounts {
		if len(m.Path) > MaxPath || !path.IsAbs(m.Path) || path.Clean(m.Path) != m.Path || !printable(m.Path) {
			return Refusal(CodeManifest, "the path %.80q of a mount is not absolute and clean, of at most %d printable bytes", m.Path, MaxPath)
		}
		if m.Path == "/" || slices.ContainsFunc([]string{"/proc", "/sys", "/dev"}, func(dir string) bool { return within(m.Path, dir) }) {
			return Refusal(CodeManifest, "no volume may be at %.80s: not over all files, nor at or below /proc, /sys and /dev", m.Path)
		}
		for _, o := range s.Mounts[:i] {
			if o.Volume == m.Volume || within(o.Path, m.Path) || within(m.Path, o.Path) {
				return Refusal(CodeManifest, "mounts %.80s and %.80s are of one volume, or one is within the other", o.Path, m.Path)
			}
		}
	}
	return nil
}

// within reports whether p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
