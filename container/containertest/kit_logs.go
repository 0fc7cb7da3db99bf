package containertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pkt-cash/pkt-cloud/container"
)

func (k *kit) readLogs(ctx context.Context, id string, o container.LogOptions) ([]container.LogLine, error) {
	r, err := k.rt.Logs(ctx, id, o)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	var out []container.LogLine
	for line := range bytes.Lines(b) {
		l, perr := container.ParseLogLine(line)
		if perr != nil {
			return nil, perr
		}
		out = append(out, l)
	}
	return out, err
}

func (k *kit) logs(ctx context.Context) error {
	// Following ends with the container, and has read all by then.
	lines, err := k.readLogs(ctx, gone, container.LogOptions{})
	streams := map[string]container.Stream{}
	for _, l := range lines {
		streams[string(l.Text)] = l.Stream
	}
	if err == nil && (len(lines) != 2 || streams["out"] != container.Stdout || streams["err"] != container.Stderr) {
		err = fmt.Errorf("got %v, want out and err", lines)
	}
	return err
}

func (k *kit) logsOrder(ctx context.Context) error {
	lines, err := k.readLogs(ctx, trapped, container.LogOptions{})
	if err == nil && (len(lines) < 2 || string(lines[0].Text) != "ready" || lines[0].Time.After(lines[1].Time)) {
		err = fmt.Errorf("got %v, want \"ready\" first", lines)
	}
	return err
}

func (k *kit) logsEnd(ctx context.Context) error {
	return soon("reading the log of a running container", func() error {
		_, err := k.readLogs(ctx, serving, container.LogOptions{})
		return err
	})
}

func (k *kit) logsFollow(ctx context.Context) error {
	const id = "kit-follow"
	if err := k.rt.Start(ctx, k.spec(id, k.f.Late(0))); err != nil {
		return err
	}
	if err := soon("following one that exits", func() error {
		_, err := k.readLogs(ctx, id, container.LogOptions{Follow: true})
		return err
	}); err != nil {
		return err
	}
	if err := k.is(ctx, id, container.Exited); err != nil {
		return fmt.Errorf("following ended too soon: %w", err)
	}
	if err := k.rt.Destroy(ctx, id); err != nil {
		return err
	}
	if err := k.begin(ctx, id, k.f.Serve, "serving"); err != nil {
		return err
	}
	r, err := k.rt.Logs(ctx, id, container.LogOptions{Follow: true})
	if err != nil {
		return err
	}
	defer r.Close()
	if err := k.rt.Destroy(ctx, id); err != nil {
		return err
	}
	return soon("following one that was destroyed", func() error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
}

func (k *kit) logsCtx(ctx context.Context) error {
	brief, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	err := soon("following beyond ctx", func() error {
		_, err := k.readLogs(brief, serving, container.LogOptions{Follow: true})
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("got %w, want the end of ctx", err)
	}
	return nil
}

func (k *kit) logsSince(ctx context.Context) error {
	all, err := k.readLogs(ctx, trapped, container.LogOptions{})
	if err != nil || len(all) < 2 {
		return fmt.Errorf("got %v, %w", all, err)
	}
	last := all[len(all)-1].Time
	some, err := k.readLogs(ctx, trapped, container.LogOptions{Since: last})
	if err != nil || len(some) == 0 || some[0].Time.Before(last) || len(some) >= len(all) {
		return fmt.Errorf("since the time of the last of %d lines: got %v, %w", len(all), some, err)
	}
	return nil
}

func (k *kit) logsTail(ctx context.Context) error {
	all, err := k.readLogs(ctx, trapped, container.LogOptions{})
	if err != nil || len(all) < 2 {
		return fmt.Errorf("got %v, %w", all, err)
	}
	tail, err := k.readLogs(ctx, trapped, container.LogOptions{Tail: 1})
	if err != nil || len(tail) != 1 || !tail[0].Time.Equal(all[len(all)-1].Time) {
		return fmt.Errorf("the last line: got %v, %w", tail, err)
	}
	return nil
}
