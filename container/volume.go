package container

import (
	"context"
	"path"
	"slices"
	"strings"
	"time"
)

// Limits of volumes [CONTAINER-60].
const (
	MaxVolumeName  = 64
	MaxMounts      = 32
	MinVolumeBytes = 300 << 20 // the least that its file system takes
	MaxVolumeBytes = 16 << 40
	VolumeStep     = 1 << 20 // sizes are multiples of it
	// FullVolumeBytes is the free space below which a volume counts as full.
	FullVolumeBytes = 1 << 20
)

// VolumeID names a volume on one machine: the lease that it belongs to, and
// its name there. Containers of other leases cannot name it.
type VolumeID struct {
	Lease, Name string
}

// String returns "lease/name".
func (v VolumeID) String() string { return v.Lease + "/" + v.Name }

// Validate checks both parts. Errors are [CodeInvalidSpec].
func (v VolumeID) Validate() error {
	if err := validateLease(v.Lease); err != nil {
		return err
	}
	return validateVolumeName(v.Name)
}

// VolumeSpec is a volume to make. SizeBytes is that of its file system, the
// system's own tables included, a multiple of [VolumeStep].
type VolumeSpec struct {
	VolumeID
	SizeBytes uint64
}

// Validate checks the shape. Errors are [CodeInvalidSpec].
func (v VolumeSpec) Validate() error {
	if err := v.VolumeID.Validate(); err != nil {
		return err
	}
	if v.SizeBytes < MinVolumeBytes || v.SizeBytes > MaxVolumeBytes || v.SizeBytes%VolumeStep != 0 {
		return invalid("volume %s of %d bytes: not a multiple of %d from %d to %d", v.Name, v.SizeBytes, VolumeStep, MinVolumeBytes, uint64(MaxVolumeBytes))
	}
	return nil
}

// Volume is what is known of a volume.
type Volume struct {
	VolumeSpec
	CreatedAt time.Time
	// FreeBytes can still be written; of a volume that no container has
	// mounted, as it was when one last had.
	FreeBytes uint64
	// Containers name it in their specs, in order of their ids; the volume is
	// in use as long as one does.
	Containers []string
}

// Full reports whether writes fail for want of space, or are about to.
func (v Volume) Full() bool { return v.FreeBytes < FullVolumeBytes }

// Mount puts a volume of the container's lease at a path of its files. A path
// that is not there is made. The root directory of a volume that was never
// mounted takes owner and mode of the directory that it covers, or belongs to
// the container's user where there was none.
type Mount struct {
	Volume   string
	Path     string // absolute and clean; not /, nor /proc, /sys, /dev or below
	ReadOnly bool
}

// Volumes are data that outlive containers. A [Runtime] may implement it. All
// methods may be called from several goroutines at once. What a method has
// returned nil for survives the death of the process and of the machine; an
// interrupted call has done all or nothing, once a Runtime is there again
// [CONTAINER-64].
//
// Errors are *[Error]; a method that fails leaves the volume as it was.
type Volumes interface {
	// CheckVolumes says whether volumes of so many bytes together could be made
	// now: [CodeMissingFeature] when this machine can make none, [CodeDiskFull]
	// when the space is not there. It sets nothing aside.
	CheckVolumes(ctx context.Context, sizeBytes uint64) error
	// CreateVolume makes an empty volume, whose space is set aside on the disk
	// at once: [CodeDiskFull] when it is not there [CONTAINER-62]. It is
	// idempotent; [CodeVolumeConflict] when the volume has another size.
	CreateVolume(ctx context.Context, v VolumeSpec) error
	// GrowVolume makes a volume larger, while containers use it. It is
	// idempotent; [CodeNoVolume], [CodeDiskFull], and [CodeVolumeConflict] for
	// a smaller size than it has [CONTAINER-63].
	GrowVolume(ctx context.Context, v VolumeSpec) error
	// Volumes reports on the volumes of a lease, or with "" on all, in order of
	// lease and name.
	Volumes(ctx context.Context, lease string) ([]Volume, error)
	// RemoveVolume removes a volume for good. It is idempotent, and nil when
	// there is none; [CodeVolumeInUse] while a container that was not
	// destroyed names it.
	RemoveVolume(ctx context.Context, v VolumeID) error
}

// Snapshots copy volumes. A [Runtime] with [Volumes] may implement it.
type Snapshots interface {
	// Snapshot shows the volumes of one lease as they all were at one moment,
	// between two instructions of the programs that write to them: these are
	// held for that moment [CONTAINER-66]. It takes none of the volumes' space.
	// [CodeNoVolume]; [CodeDiskFull] when the machine could not hold the
	// snapshot if every byte of the volumes changed.
	Snapshot(ctx context.Context, lease string, names ...string) (Snapshot, error)
	// RestoreVolume makes a volume out of a tree, whole or not at all
	// [CONTAINER-68]. [CodeVolumeConflict] when there is one of that name,
	// [CodeVolumeFull] when the tree does not fit, [CodeBadTree] when it is
	// not one; and what the tree's Walk returned.
	RestoreVolume(ctx context.Context, v VolumeSpec, from Tree) error
}

// Snapshot is a read-only view of volumes. The caller closes it. It ends with
// the process that took it.
type Snapshot interface {
	// Tree returns the files of a volume, until Close. [CodeNoVolume] for one
	// that the snapshot does not have.
	Tree(name string) (Tree, error)
	// Taken is when the programs were held, and Pause for how long.
	Taken() time.Time
	Pause() time.Duration
	Close() error
}

// LocalTree is a [Tree] that may also be read through a directory of this
// process, with the ids of [Entry].
type LocalTree interface {
	Tree
	Dir() string
}

func validateLease(lease string) error {
	if err := ValidateID(lease); err != nil {
		return invalid("lease %.140q is not 1 to %d of a-z 0-9 . _ - beginning with a letter or digit", lease, MaxIDBytes)
	}
	return nil
}

func validateVolumeName(name string) error {
	if len(name) > MaxVolumeName || ValidateID(name) != nil {
		return invalid("volume name %.80q is not 1 to %d of a-z 0-9 . _ - beginning with a letter or digit", name, MaxVolumeName)
	}
	return nil
}

// validateMounts checks what of a [Spec] is about volumes.
func (s Spec) validateMounts() error {
	if s.Lease != "" || len(s.Volumes) > 0 {
		if err := validateLease(s.Lease); err != nil {
			return err
		}
	}
	if len(s.Volumes) > MaxMounts {
		return invalid("%d volumes, at most %d", len(s.Volumes), MaxMounts)
	}
	for i, m := range s.Volumes {
		if err := validateVolumeName(m.Volume); err != nil {
			return err
		}
		if len(m.Path) > MaxPathBytes || !path.IsAbs(m.Path) || path.Clean(m.Path) != m.Path || !plainText(m.Path) || !MountablePath(m.Path) {
			return invalid("path %.80q of volume %s is not absolute and clean, of at most %d bytes, and outside /proc, /sys and /dev", m.Path, m.Volume, MaxPathBytes)
		}
		for _, o := range s.Volumes[:i] {
			if within(m.Path, o.Path) || within(o.Path, m.Path) || o.Volume == m.Volume {
				return invalid("volume %s at %.80q and volume %s at %.80q are the same, or one is within the other", o.Volume, o.Path, m.Volume, m.Path)
			}
		}
	}
	return nil
}

// MountablePath reports whether a volume may be at a path, which is absolute
// and clean: not over all files, nor where the kernel's own are.
func MountablePath(p string) bool {
	return p != "/" && !slices.ContainsFunc([]string{"/proc", "/sys", "/dev"}, func(dir string) bool { return within(p, dir) })
}

// within reports whether p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
