//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// boundIO bounds the bytes a second that the container reads from and writes
// to each of the devices that hold the given paths: its own disk and the image
// [CONTAINER-33]. The kernel bounds writes through the page cache on cgroup v2
// only.
func boundIO(res *cgroups.Resources, rate uint64, paths ...string) error {
	if rate == 0 {
		return nil
	}
	var seen []uint64
	for _, path := range paths {
		dev, err := wholeDisk(path)
		if err != nil {
			return fmt.Errorf("find the disk of %s: %w", path, err)
		}
		if dev == 0 || slices.Contains(seen, dev) {
			continue
		}
		seen = append(seen, dev)
		limit := cgroups.NewThrottleDevice(int64(unix.Major(dev)), int64(unix.Minor(dev)), rate)
		res.BlkioThrottleReadBpsDevice = append(res.BlkioThrottleReadBpsDevice, limit)
		res.BlkioThrottleWriteBpsDevice = append(res.BlkioThrottleWriteBpsDevice, limit)
	}
	return nil
}

// wholeDisk returns the device on which a path is, the disk and not its
// partition, which is all that the kernel bounds. It is 0 for what is on no
// device, or on several.
func wholeDisk(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	major, minor := unix.Major(st.Dev), unix.Minor(st.Dev)
	if major == 0 {
		return 0, nil
	}
	dir, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", major, minor))
	if err != nil {
		return 0, err
	}
	if !fileExists(filepath.Join(dir, "partition")) {
		return st.Dev, nil
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "dev"))
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err != nil {
		return 0, err
	}
	return unix.Mkdev(major, minor), nil
}

// checkIO refuses a machine where boundIO has no effect.
func checkIO() error {
	if cgroups.IsCgroup2UnifiedMode() {
		have, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
		if err != nil || !slices.Contains(strings.Fields(string(have)), "io") {
			return &container.Error{Code: container.CodeNoCgroups, Detail: "cgroup v2 has no controller io", Err: err}
		}
		return nil
	}
	_, err := os.Stat(filepath.Join(cgroupRoot, "blkio", "blkio.throttle.read_bps_device"))
	if errors.Is(err, os.ErrNotExist) {
		return &container.Error{Code: container.CodeNoCgroups, Detail: "no cgroup controller blkio"}
	}
	return err
}
