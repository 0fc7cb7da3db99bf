//go:build cgo && amd64

package libcontainer

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// self is the program that runs.
const self = "/proc/self/exe"

// program is what monitors are: a file in memory that nothing can change or,
// without a file, the program that runs [CONTAINER-85].
type program struct{ file *os.File }

// openProgram takes the program's bytes; none stand for this program.
func openProgram(image []byte) (program, error) {
	if len(image) == 0 {
		return program{}, nil
	}
	f, err := sealed("pktcloud-monitor", image)
	return program{file: f}, err
}

// path is for a child that is about to execute it.
func (p program) path() string {
	if p.file == nil {
		return self
	}
	return fmt.Sprintf("/proc/self/fd/%d", p.file.Fd())
}

func (p program) close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// sealed returns an executable file in memory, open for reading, that nobody
// can change.
func sealed(name string, image []byte) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	w := os.NewFile(uintptr(fd), name)
	defer w.Close()
	if _, err := w.Write(image); err != nil {
		return nil, err
	}
	if err := w.Chmod(0o555); err != nil {
		return nil, err
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	// A file that is open for writing cannot be executed.
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}
