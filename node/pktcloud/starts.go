package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/container/libcontainer"
)

// startsCommand runs containers by request, for bench/container: what a node
// that runs already costs and waits for, in this very binary. Each line of
// standard input is a request, answered by a line of JSON:
//
//	run N    N containers at once of a program that ends, until all are gone
//	hold N   N more containers of one that waits
//	drop     end those
func (a *app) startsCommand() *cobra.Command {
	var ref, ids string
	c := &cobra.Command{
		Use: "measure-starts", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := openStarts(c.Context(), a.dir, ids, ref)
			if err != nil {
				return err
			}
			return errors.Join(s.serve(c.Context(), a), s.close())
		},
	}
	c.Flags().StringVar(&ref, "image", "", "")
	c.Flags().StringVar(&ids, "ids", "", "")
	return c
}

// starts is a runtime and the containers that wait in it.
type starts struct {
	store   *image.Store
	runtime *libcontainer.Runtime
	image   container.Image
	next    int
	held    []string
	standby standby
}

// startsCost is what one request took. CPU is of this process, of all that it
// started and that ended, and of what stands by to make monitors.
type startsCost struct {
	Containers int   `json:"containers"`
	Held       int   `json:"held"`
	StartUS    int64 `json:"start_us"` // all run
	ExitUS     int64 `json:"exit_us"`  // all were seen to have ended
	WallUS     int64 `json:"wall_us"`  // all are gone
	CPUUS      int64 `json:"cpu_us"`
	SelfUS     int64 `json:"self_us"` // of that, by this process
}

func openStarts(ctx context.Context, dir, ids, ref string) (*starts, error) {
	lateTimers()
	s := &starts{}
	var err error
	if s.store, err = image.Open(image.Config{Dir: filepath.Join(dir, "images"), Local: true}); err != nil {
		return nil, err
	}
	if s.runtime, err = libcontainer.New(libcontainer.Config{Dir: filepath.Join(dir, "run"), IDs: ids, Images: s.store, Monitor: monitorProgram}); err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	if s.image, err = s.runtime.Pull(ctx, ref, container.PullOptions{}); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *starts) close() error { return errors.Join(s.runtime.Close(), s.store.Close()) }

func (s *starts) serve(ctx context.Context, a *app) error {
	lines := bufio.NewScanner(a.in)
	for lines.Scan() {
		var op string
		var n int
		if _, err := fmt.Sscan(lines.Text(), &op, &n); err != nil && op != "drop" {
			return fmt.Errorf("%q is no request", lines.Text())
		}
		cost, err := s.do(ctx, op, n)
		if err == nil {
			err = json.NewEncoder(a.out).Encode(cost)
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

func (s *starts) do(ctx context.Context, op string, n int) (startsCost, error) {
	standing := s.standby.cpuTime()
	cpu, self, err := cpuTime()
	if err != nil {
		return startsCost{}, err
	}
	begun, cost := time.Now(), startsCost{Containers: n}
	switch op {
	case "run":
		err = s.run(ctx, n, &cost, begun)
	case "hold":
		var more []string
		more, err = s.start(ctx, n, []string{"/bin/sleep", "100000"})
		s.held = append(s.held, more...)
	case "drop":
		err = s.each(s.held, func(id string) error { return s.runtime.Destroy(ctx, id) })
		s.held = nil
	default:
		err = fmt.Errorf("%q is no request", op)
	}
	cost.Held, cost.WallUS = len(s.held), time.Since(begun).Microseconds()
	if err != nil {
		return cost, err
	}
	if op == "run" && len(s.held) == 0 {
		if err := s.standby.childrenGone(); err != nil {
			return cost, err
		}
	}
	after, selfAfter, err := cpuTime()
	cost.CPUUS, cost.SelfUS = (after - cpu + s.standby.cpuTime() - standing).Microseconds(), (selfAfter - self).Microseconds()
	return cost, err
}

// run is the life of n containers, from the first Start until nothing is left.
func (s *starts) run(ctx context.Context, n int, cost *startsCost, begun time.Time) error {
	ids, err := s.start(ctx, n, []string{"/bin/true"})
	if err != nil {
		return err
	}
	cost.StartUS = time.Since(begun).Microseconds()
	err = s.each(ids, func(id string) error { return s.ended(ctx, id) })
	if err != nil {
		return err
	}
	cost.ExitUS = time.Since(begun).Microseconds()
	return s.each(ids, func(id string) error { return s.runtime.Destroy(ctx, id) })
}

func (s *starts) start(ctx context.Context, n int, args []string) ([]string, error) {
	var ids []string
	for range n {
		s.next++
		ids = append(ids, fmt.Sprintf("c%d", s.next))
	}
	return ids, s.each(ids, func(id string) error {
		return s.runtime.Start(ctx, container.Spec{ID: id, Image: s.image.Digest, Args: args, Limits: container.SmallLimits()})
	})
}

// each calls f for all ids at once.
func (s *starts) each(ids []string, f func(id string) error) error {
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() { errs[i] = f(id) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// ended waits until a container's program has ended, and ended well.
func (s *starts) ended(ctx context.Context, id string) error {
	st, err := s.runtime.Wait(ctx, id)
	if err == nil && (st.State != container.Exited || st.ExitCode != 0) {
		err = fmt.Errorf("%s is %s, with code %d", id, st.State, st.ExitCode)
	}
	return err
}
