package services

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/pkt-cash/pkt-cloud/container"
)

const (
	maxAnswer = 64 << 10 // bytes read of an HTTP answer
	maxOutput = 4 << 10  // kept of a command's output
	maxText   = 200      // bytes of a sentence
)

// check looks at a service's health [SERVICE-9].
func (r *runner) check(ctx context.Context, a Action) Looked {
	spec := r.set.Services[a.Service]
	ctx, cancel := context.WithTimeout(ctx, spec.Health.Timeout)
	defer cancel()
	id := Container(r.set.ID, spec.Name, a.Run)
	var err error
	switch spec.Health.Check {
	case CheckCommand:
		err = r.checkCommand(ctx, id, spec.Health)
	case CheckHTTP:
		err = r.checkHTTP(ctx, id, spec.Health)
	case CheckTCP:
		var c net.Conn
		if c, err = r.m.cfg.Runtime.Dial(ctx, id, spec.Health.Port); err == nil {
			c.Close()
		}
	case CheckNone:
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("no answer within %s", spec.Health.Timeout)
	}
	e := Looked{Service: a.Service, Run: a.Run, OK: err == nil}
	if err != nil {
		e.Text = clip(told(err))
	}
	return e
}

// told leaves out what is of this machine.
func told(err error) string {
	if e, ok := errors.AsType[*container.Error](err); ok {
		return e.Code.Error()
	}
	return err.Error()
}

func (r *runner) checkCommand(ctx context.Context, id string, h Health) error {
	out := &tail{most: maxOutput}
	code, err := r.m.cfg.Runtime.Exec(ctx, id, container.ExecSpec{Args: h.Command, Stdout: out, Stderr: out})
	if err == nil && code != 0 {
		err = fmt.Errorf("the check ended with exit code %d: %s", code, bytes.TrimSpace(out.b))
	}
	return err
}

func (r *runner) checkHTTP(ctx context.Context, id string, h Health) error {
	conn, err := r.m.cfg.Runtime.Dial(ctx, id, h.Port)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+h.Path, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "pktcloud-health")
	req.Close = true
	if err := req.Write(conn); err != nil {
		return errors.New("the connection was closed")
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), req)
	if err != nil {
		return errors.New("no answer that is HTTP")
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	most int
	b    []byte
	cut  bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if more := len(t.b) - t.most; more > 0 {
		t.b, t.cut = t.b[more:], true
	}
	return len(p), nil
}

// clip makes a text of a container one that a terminal shows as it is.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxText)]
}
