package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pkt-cash/pkt-cloud/node/audit"
	"github.com/pkt-cash/pkt-cloud/node/internal/leftover"
)

// sweep removes what demos left that were killed.
func (d *demo) sweep(ctx context.Context) error {
	end, cancel := context.WithTimeout(ctx, cleanupPatience)
	defer cancel()
	found, err := leftover.Sweep(end, demoPrefix)
	if err != nil {
		return fmt.Errorf("remove what an earlier demo left: %w", err)
	}
	if len(found) > 0 {
		d.tell("sweep", "removed what a killed demo left: "+strings.Join(found, ", "))
	}
	return nil
}

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
	errs := []error{leftover.Containers(ctx, d.path("provider", "runtime"))}
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
		errs = append(errs, d.run.Close())
		d.tell("keep", "only the directory is left; remove it with: rm -r "+d.dir)
		return errors.Join(errs...)
	}
	errs = append(errs, os.RemoveAll(d.dir), d.run.Close())
	left := append(leftover.What(d.dir), leftover.Groups(d.path("provider", "runtime"))...)
	if _, err := os.Lstat(d.dir); err == nil {
		left = append(left, "directory "+d.dir)
	}
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("left behind: %s", strings.Join(left, ", ")))
	}
	return errors.Join(errs...)
}
