//go:build system && linux && cgo && amd64

package libcontainer

import (
	"context"
	"path/filepath"
	"time"
)

// BeginDestroy does the first part of a Destroy, as one that is interrupted.
func (r *Runtime) BeginDestroy(ctx context.Context, id string) error {
	_, done, err := call(ctx, filepath.Join(r.boxes, id), request{Op: opStop})
	if err == nil {
		defer done()
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if _, alive, _ := monitorAlive(filepath.Join(r.boxes, id)); !alive {
				break
			}
		}
	}
	return err
}
