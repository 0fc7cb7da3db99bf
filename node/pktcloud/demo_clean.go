package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
	"github.com/pkt-cash/pkt-cloud/node/audit"
)

// stopAll ends the processes; what they wrote is then at rest.
func (d *demo) stopAll() error {
	var errs []error
	for _, name := range []string{"tenant", "provider", "tenant init", "provider init", "chain"} {
		errs = append(errs, d.family.stop(name))
	}
	d.family.close()
	return errors.Join(errs...)
}

// audit checks the lease from outside, over both data directories and the
// blocks.
func (d *demo) audit() error {
	r, err := audit.Run(audit.Dirs{Provider: d.path("provider"), Tenant: d.path("tenant"), Chain: d.path("chain")})
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if !r.OK {
		return fmt.Errorf("the audit found: %s", r.Findings[0])
	}
	d.result.Audit = "ok"
	d.tell("audit", fmt.Sprintf("%d signatures and %d scripts verified again over both directories and %d blocks: nothing wrong",
		r.Checked.Signatures, r.Checked.Scripts, r.Checked.Blocks))
	return nil
}

// cleanup destroys the containers and removes the directories, in whatever
// state they are. All processes have ended.
func (d *demo) cleanup(ctx context.Context) error {
	errs := []error{d.destroyContainers(ctx)}
	if d.registry != nil {
		d.registry.close()
	}
	if d.tenant != nil {
		d.tenant.Close()
	}
	if d.provider != nil {
		d.provider.Close()
	}
	if d.o.keep {
		d.tell("keep", "only the directory is left; remove it with: rm -r "+d.dir)
		return errors.Join(errs...)
	}
	errs = append(errs, os.RemoveAll(d.dir))
	if left := leftBehind(d.dir); len(left) > 0 {
		errs = append(errs, fmt.Errorf("left behind: %s", strings.Join(left, ", ")))
	}
	return errors.Join(errs...)
}

// destroyContainers ends what outlives a provider on purpose.
func (d *demo) destroyContainers(ctx context.Context) error {
	dir := d.path("provider", "runtime")
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	r, err := libcontainer.New(libcontainer.Config{Dir: dir})
	if err != nil {
		return err
	}
	list, err := r.List(ctx)
	for _, s := range list {
		err = errors.Join(err, r.Destroy(ctx, s.ID))
	}
	return errors.Join(err, r.Close())
}

// leftBehind looks for what belongs to a directory: itself, mounts, loop
// devices, control groups and processes.
func leftBehind(dir string) []string {
	var left []string
	if _, err := os.Lstat(dir); err == nil {
		left = append(left, "directory "+dir)
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil && strings.Contains(string(b), dir) {
		left = append(left, "a mount in "+dir)
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		if b, err := os.ReadFile(l); err == nil && strings.Contains(string(b), dir) {
			left = append(left, "loop device "+strings.Split(l, "/")[3])
		}
	}
	sum := sha256.Sum256([]byte(filepath.Join(dir, "provider", "runtime")))
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/pktcloud-" + hex.EncodeToString(sum[:4]))
	left = append(left, groups...)
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		if b, err := os.ReadFile(l); err == nil && strings.Contains(string(b), dir) {
			left = append(left, "process "+strings.Split(l, "/")[2])
		}
	}
	return left
}
