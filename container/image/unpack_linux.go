package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pkt-cash/pkt-cloud/container"
)

// How a process of this binary knows that it is to unpack a layer, which lies
// on its standard input, into the directory on descriptor 3.
const (
	unpackArg = "pktcloud-unpack"
	unpackEnv = "PKTCLOUD_UNPACK"
)

// outcome is what the child answers on standard output.
type outcome struct {
	Used   usage
	Code   container.Code
	Detail string
}

func init() {
	if len(os.Args) == 1 && os.Args[0] == unpackArg && os.Getenv(unpackEnv) != "" {
		os.Exit(unpackMain(os.Getenv(unpackEnv)))
	}
}

// unpackMain unpacks as root of a user namespace that owns nothing but the
// directory, which becomes its whole file system.
func unpackMain(text string) int {
	var out outcome
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = errors.Join(unix.Fchdir(3), unix.Close(3), unix.Chroot("."), unix.Chdir("/"))
	}
	unix.Umask(0)
	switch {
	case err != nil:
	case j.Merge > 0:
		out.Used, err = mergeInherited(j.Merge)
	default:
		out.Used, err = unpackLayer(context.Background(), os.Stdin, "/", j)
	}
	if err != nil {
		out.Code, out.Detail = container.CodeRuntime, err.Error()
		if e := (*container.Error)(nil); errors.As(err, &e) {
			out.Code, out.Detail = e.Code, e.Detail
			if e.Err != nil {
				out.Detail += ": " + e.Err.Error()
			}
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return 1
	}
	return 0
}

// sandboxed reports whether layers are unpacked in a child.
func sandboxed() bool { return os.Geteuid() == 0 }

// makeRoot makes the directory that becomes an image's root.
func makeRoot(path string, firstID uint32) (*os.File, error) {
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o755); err != nil { // whatever the umask
		return nil, err
	}
	if sandboxed() {
		if err := os.Chown(path, int(firstID), int(firstID)); err != nil {
			return nil, err
		}
	}
	return os.Open(path)
}

// unpack unpacks a layer into root.
func (s *Store) unpack(ctx context.Context, layer, root *os.File, j job) (usage, error) {
	if !sandboxed() {
		return unpackLayer(ctx, layer, root.Name(), j)
	}
	j.SameOwner = true
	used, err := s.child(ctx, j, layer, root)
	if err == nil && (used.Bytes > j.Bounds.Bytes || used.Files > j.Bounds.Files) {
		return usage{}, errors.New("the unpacking child used more than it was given")
	}
	return used, err
}

// merge makes the tree of layers in root.
func (s *Store) merge(ctx context.Context, root *os.File, layers []*os.File) (usage, error) {
	if !sandboxed() {
		return mergeLayers(root, layers)
	}
	return s.child(ctx, job{Merge: len(layers)}, nil, append([]*os.File{root}, layers...)...)
}

// mergeInherited merges the layers whose directories lie on the descriptors
// after the root's.
func mergeInherited(n int) (usage, error) {
	root, err := os.Open("/")
	if err != nil {
		return usage{}, err
	}
	defer root.Close()
	var layers []*os.File
	for i := range n {
		layers = append(layers, os.NewFile(uintptr(4+i), "layer"))
	}
	return mergeLayers(root, layers)
}

// child runs this binary without rights, with files on descriptors from 3 on.
func (s *Store) child(ctx context.Context, j job, stdin *os.File, files ...*os.File) (usage, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return usage{}, err
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(s.firstID), Size: maxID + 1}}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{unpackArg}
	cmd.Env = []string{unpackEnv + "=" + string(text), "GORACE=atexit_sleep_ms=0"}
	cmd.Dir = "/"
	if stdin != nil {
		cmd.Stdin = stdin
	}
	cmd.ExtraFiles = files
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &capped{b: &stdout}, &capped{b: &stderr}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWUTS,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: false,
		Credential: &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
		Setsid:     true,
		Pdeathsig:  unix.SIGKILL, // or it would unpack on when this process is killed
	}
	runtime.LockOSThread() // the child dies with the thread that started it
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return usage{}, fmt.Errorf("the unpacking child: %w: %.300s", err, stderr.Bytes())
	}
	var out outcome
	if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
		return usage{}, fmt.Errorf("the unpacking child: %w: %.300s", err, stderr.Bytes())
	}
	if out.Code != "" {
		return usage{}, &container.Error{Code: out.Code, Detail: out.Detail}
	}
	return out.Used, nil
}

// capped keeps the beginning of what a child says.
type capped struct{ b *bytes.Buffer }

// Write never fails.
func (c *capped) Write(p []byte) (int, error) {
	c.b.Write(p[:min(len(p), max(0, 64<<10-c.b.Len()))])
	return len(p), nil
}

// systemCode tells this machine's failures from the image's.
func systemCode(err error) (container.Code, bool) {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return container.CodeDiskFull, true
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EROFS), errors.Is(err, unix.ENOMEM):
		return container.CodeRuntime, true
	}
	return "", false
}

// lockFile takes a lock. It waits a moment: a process that was killed just
// while it started a child holds the lock until that child has begun.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(2 * time.Second)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return nil, errors.Join(err, f.Close())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// syncTree makes all files below dir durable.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// freeBytes returns what the file system of a directory has left.
func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}
