package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pkt-cash/pkt-cloud/node/api"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// exitNotRun is the exit code of exec when the program could not be run.
const exitNotRun = 125

func (a *app) execCommand() *cobra.Command {
	var tty bool
	var env []string
	c := &cobra.Command{
		Use: "exec [flags] LEASE[/SERVICE] [-t] [--] PROGRAM [ARGUMENT...]", Short: "Run a program in a lease", Args: execArguments,
		Long: `Exec runs a program in a lease. What is typed reaches it, and with -t it has a
terminal, as an interactive shell wants:

  pktcloud exec LEASE -t sh
  pktcloud exec LEASE/db sh -c 'ls -l /var'

Flags of this command stand before the program; what stands behind its name is
the program's own.`,
		RunE: func(c *cobra.Command, args []string) error {
			if helpAsked(c) {
				return c.Help()
			}
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			r := service.ExecRequest{Args: c.Flags().Args(), Env: env, TTY: tty} // those behind LEASE
			code, err := a.exec(c.Context(), n, args[0], r)
			if err != nil {
				a.report(err)
				return exitCode(exitNotRun)
			}
			if code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&tty, "tty", "t", false, "give the program a terminal")
	c.Flags().BoolP("interactive", "i", true, "pass on what is typed; it always is, and -it is taken as others have it")
	c.Flags().StringArrayVar(&env, "env", nil, "NAME=value")
	c.Flags().SetInterspersed(false)
	return c
}

// execArguments reads flags behind LEASE too, up to the program: what follows
// that is the program's own.
func execArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return atLeast("LEASE", "PROGRAM")(c, args)
	}
	if err := c.Flags().Parse(args[1:]); err != nil {
		return err
	}
	if helpAsked(c) {
		return nil
	}
	return atLeast("LEASE", "PROGRAM")(c, append(args[:1:1], c.Flags().Args()...))
}

func helpAsked(c *cobra.Command) bool {
	help, err := c.Flags().GetBool("help")
	return err == nil && help
}

// exec runs a program; a terminal is put into raw mode meanwhile.
func (a *app) exec(ctx context.Context, n *client.Client, lease string, r service.ExecRequest) (int, error) {
	said := &heard{w: a.err}
	s := service.Streams{Stdin: a.in, Stdout: a.out, Stderr: said}
	in, ok := a.in.(*os.File)
	if !r.TTY || !ok || !term.IsTerminal(int(in.Fd())) {
		code, err := n.Exec(ctx, lease, r, s)
		if why := exitReason(code); err == nil && why != "" && !said.any && !r.TTY {
			fmt.Fprintf(a.err, "pktcloud: exit code %d: %q %s\n", code, r.Args[0], why)
		}
		return code, err
	}
	fd := int(in.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return 0, err
	}
	defer term.Restore(fd, state) //nolint:errcheck // nothing is left to do
	size := func() service.Size {
		cols, rows, err := term.GetSize(fd)
		if err != nil {
			return service.Size{Cols: 80, Rows: 24}
		}
		return service.Size{Cols: uint16(cols), Rows: uint16(rows)}
	}
	last := size()
	r.Cols, r.Rows = last.Cols, last.Rows
	r.Env = append(r.Env, "TERM="+os.Getenv("TERM"))
	sizes := make(chan service.Size)
	s.Resize = sizes
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { watchSize(ctx, last, size, sizes) })
	return n.Exec(ctx, lease, r, s)
}

// heard knows whether anything was written.
type heard struct {
	w   io.Writer
	any bool
}

func (h *heard) Write(b []byte) (int, error) {
	h.any = h.any || len(b) > 0
	return h.w.Write(b)
}

// exitReason is what the exit codes mean with which the start of a program
// fails. A program may end with them too, but seldom without a word.
func exitReason(code int) string {
	switch code {
	case 126:
		return "cannot be run in the image; look at its permissions"
	case 127:
		return "is no program in the image; look at its name and path"
	}
	return ""
}

// watchSize asks now and then; a signal for it exists on some systems only.
func watchSize(ctx context.Context, last service.Size, size func() service.Size, sizes chan<- service.Size) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := size()
		if now == last {
			continue
		}
		last = now
		select {
		case sizes <- now:
		case <-ctx.Done():
			return
		}
	}
}

func (a *app) logsCommand() *cobra.Command {
	var r service.LogRequest
	var since period
	c := &cobra.Command{
		Use: "logs LEASE[/SERVICE]", Short: "Print what a lease's services have written", Args: exactly("LEASE"),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			if since > 0 {
				r.Since = time.Now().Add(-time.Duration(since) * time.Second)
			}
			if !a.json {
				return n.Logs(c.Context(), args[0], r, a.out)
			}
			w := &jsonLines{app: a}
			return n.Logs(c.Context(), args[0], r, w)
		},
	}
	f := c.Flags()
	f.BoolVarP(&r.Follow, "follow", "f", false, "go on with new lines")
	f.IntVarP(&r.Tail, "tail", "n", 0, "the last lines only")
	f.Var(&since, "since", "lines of this last while, such as 10m or 1d")
	return c
}

// jsonLines turns log lines into JSON objects.
type jsonLines struct {
	app  *app
	part string
}

func (j *jsonLines) Write(b []byte) (int, error) {
	j.part += string(b)
	for {
		line, rest, ok := strings.Cut(j.part, "\n")
		if !ok {
			return len(b), nil
		}
		j.part = rest
		fields := strings.SplitN(line, " ", 3)
		if len(fields) < 3 {
			continue
		}
		if err := j.app.printJSON(map[string]string{"time": fields[0], "stream": fields[1], "text": fields[2]}); err != nil {
			return 0, err
		}
	}
}

func (a *app) forwardCommand() *cobra.Command {
	return &cobra.Command{
		Use: "forward LEASE[/SERVICE] [LOCAL:]PORT", Short: "Listen on this machine and connect to a port of a lease", Args: exactly("LEASE", "[LOCAL:]PORT"),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			local, remote, err := parsePorts(args[1])
			if err != nil {
				return err
			}
			name, _, _ := strings.Cut(args[0], "/")
			lease, err := n.Lease(c.Context(), name)
			if err != nil {
				return err
			}
			if lease.Phase == "closed" || lease.Phase == "refused" {
				return service.Errorf(service.CodeNotRunning, "the lease is %s", lease.Phase)
			}
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(local))))
			if err != nil {
				return &service.Error{Code: service.CodeConflict, Detail: "choose another local port, LOCAL:PORT", Err: err}
			}
			if err := a.show(map[string]string{"listening": l.Addr().String()}, func(io.Writer) {
				a.printf("http://%s goes to port %d of %s until interrupted.\n", l.Addr(), remote, args[0])
			}); err != nil {
				return err
			}
			return a.acceptForward(c.Context(), l, func(ctx context.Context) (net.Conn, error) { return n.Forward(ctx, args[0], remote) })
		},
	}
}

func parsePorts(text string) (local, remote uint16, err error) {
	first, second, two := strings.Cut(text, ":")
	if !two {
		second = first
		first = "0"
	}
	l, err1 := strconv.ParseUint(first, 10, 16)
	r, err2 := strconv.ParseUint(second, 10, 16)
	if err1 != nil || err2 != nil || r == 0 {
		return 0, 0, service.Errorf(service.CodeInvalid, "%q is neither PORT nor LOCAL:PORT", text)
	}
	return uint16(l), uint16(r), nil
}

func (a *app) acceptForward(ctx context.Context, l net.Listener, dial func(context.Context) (net.Conn, error)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer conn.Close()
			target, err := dial(ctx)
			if err != nil {
				fmt.Fprintf(a.err, "pktcloud: %v\n", err)
				return
			}
			defer target.Close()
			end := context.AfterFunc(ctx, func() { conn.Close(); target.Close() })
			defer end()
			api.Splice(conn, conn, target)
		})
	}
}
