// Command pktcloud is the one binary of PKT Cloud: it runs a node, asks a
// running one, and shows the whole story on one machine.
//
// Begin with "pktcloud demo", or with "pktcloud init" and "pktcloud node". The
// commands keep no rule: each asks the service of a node, by its HTTP API. The
// exit codes are those that "pktcloud help exit-codes" lists.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// exitUsage is the exit code for a command line that cannot be understood, and
// exitInterrupted that of a command that was stopped halfway.
const (
	exitUsage       = 2
	exitInterrupted = 130
)

// errInterrupted means that somebody stopped a command before its end.
var errInterrupted = errors.New("interrupted")

// exitCode ends the command with the exit code of the program that it ran.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// app is what all commands share.
type app struct {
	in       io.Reader
	out, err io.Writer
	dir      string
	json     bool
	running  bool // a command began: errors are its own, no longer of usage
}

// run executes a command line and returns its exit code. An interrupt ends the
// command in order. Further ones change nothing: a terminal or a supervisor may
// send several at once, and what ends in order is bounded in time.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	a := &app{in: in, out: out, err: errOut}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	c, err := root.ExecuteContextC(ctx)
	if err != nil && !a.running {
		return a.reportUsage(c, err)
	}
	return a.report(err)
}

// reportUsage tells of a command line that cannot be understood.
func (a *app) reportUsage(c *cobra.Command, err error) int {
	where := "pktcloud help\" for the commands"
	if c.HasParent() {
		where = c.CommandPath() + " --help\" for what it takes"
	}
	text := err.Error()
	if num, ok := errors.AsType[*strconv.NumError](err); ok { // the library's own words for it
		text, _, _ = strings.Cut(text, ": strconv.")
		text += fmt.Sprintf(": %q is no whole number that fits here", num.Num)
	}
	text = flagsText(text)
	fmt.Fprintf(a.err, "pktcloud: %s\nRun \"%s.\n", text, where)
	return exitUsage
}

// flagsText says what the library says of flags that exclude or need each other.
func flagsText(text string) string {
	group := func(text string) string { // "[file image] …"
		_, list, _ := strings.Cut(text, "[")
		list, _, _ = strings.Cut(list, "]")
		return "--" + strings.ReplaceAll(list, " ", " and --")
	}
	if _, set, ok := strings.Cut(text, "none of the others can be; "); ok {
		return group(set) + " exclude each other"
	}
	if strings.HasPrefix(text, "at least one of the flags in the group ") {
		return "give " + strings.ReplaceAll(group(text), " and ", " or ")
	}
	return text
}

func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	stopped := errors.Is(err, errInterrupted)
	if stopped {
		err = &service.Error{Code: service.CodeConflict, Err: err}
	} else if errors.Is(err, context.Canceled) {
		err = service.Errorf(service.CodeConflict, "interrupted")
	}
	kind := service.CodeOf(err)
	text := strings.TrimSpace(err.Error())
	fmt.Fprintf(a.err, "pktcloud: %s\n", text)
	if a.json {
		a.printJSON(map[string]any{"ok": false, "code": kind, "detail": text}) //nolint:errcheck // nowhere to tell
	}
	if stopped {
		return exitInterrupted
	}
	return kind.Exit()
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "pktcloud",
		Short:         "Rent and offer containers, paid by the second in PKT Cash",
		Version:       node.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("pktcloud {{.Version}}\n")
	root.PersistentFlags().StringVar(&a.dir, "dir", node.DefaultDir(), "data directory (or PKTCLOUD_DIR)")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(
		a.demoCommand(), a.initCommand(), a.restoreCommand(), a.nodeCommand(), a.loginCommand(), a.doctorCommand(), a.versionCommand(),
		a.marketCommand(), a.offerCommand(), a.imageCommand(), a.leaseCommand(), a.deployCommand(), a.schemaCommand(), a.execCommand(),
		a.logsCommand(), a.forwardCommand(), a.sshCommand(), a.sshConfigCommand(), a.sshKnownHostsCommand(), a.ncCommand(),
		a.walletCommand(), a.channelCommand(), a.towerCommand(), a.devnetCommand(), a.auditCommand(), a.workloadCommand(), a.startsCommand(),
		&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodes},
	)
	a.mark(root)
	return root
}

// mark makes each command note that it began, after all flags were checked.
func (a *app) mark(c *cobra.Command) {
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			a.running = true
			return run(c, args)
		}
	} else if c.HasParent() && c.HasSubCommands() { // help alone would end with 0, whatever was asked for
		c.Args, c.RunE = knownOnly, func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	for _, sub := range c.Commands() {
		a.mark(sub)
	}
}

// knownOnly refuses what is no command of a group, and names those that are.
func knownOnly(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var known []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			known = append(known, sub.Name())
		}
	}
	return fmt.Errorf("unknown command %q; %q has %s", args[0], c.CommandPath(), strings.Join(known, ", "))
}

// exactly takes arguments by their names, which it gives when one is missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return fmt.Errorf("%q is one argument too many", args[len(names)])
		}
		return atLeast(names...)(c, args)
	}
}

// atLeast is like exactly and takes more.
func atLeast(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			lacking, verb := names[len(args):], "is"
			if len(lacking) > 1 {
				verb = "are"
			}
			return fmt.Errorf("%s %s missing", strings.Join(lacking, " and "), verb)
		}
		return nil
	}
}

const exitCodes = `Exit codes:

  0  done
  1  failed; the message says why
  2  the command line or the request cannot be understood
  3  no node runs on the data directory, or its secret is not the right one
  4  the other side refused, or its offer has ended
  5  this machine lacks something; run "pktcloud doctor"
  6  there is no such offer or lease, or a short name fits several
  7  the other side, or the chain, cannot be reached
  8  too little money, or above a limit on money
  9  the services do not run, or not well, or the lease ended ("pktcloud lease create --wait")
 10  the wallet is locked; run "pktcloud wallet unlock"

130  interrupted halfway ("pktcloud demo", "pktcloud lease create")

"pktcloud exec" ends with the exit code of the program that it ran, and with 125
when the program could not be run.`

// printJSON prints one value on one line.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// show prints v as JSON when that was asked for, or else by text.
func (a *app) show(v any, text func(w io.Writer)) error {
	if a.json {
		return a.printJSON(v)
	}
	text(a.out)
	return nil
}

// node returns a client of the running node.
func (a *app) node() (*client.Client, error) { return client.Dial(a.dir) }

// printf prints to standard output; a reader that has left is no error.
func (a *app) printf(format string, args ...any) {
	fmt.Fprintf(a.out, format, args...)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.show(map[string]string{"version": node.Version()}, func(w io.Writer) { fmt.Fprintln(w, "pktcloud", node.Version()) })
		},
	}
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Say what this machine lacks and how to get it", Args: cobra.NoArgs,
		Long: "Doctor looks at this machine, and at the node if one runs on the data directory.\nIt ends with exit code 5 when something is missing that renting or providing needs.",
		RunE: func(c *cobra.Command, _ []string) error {
			report := node.Examine()
			if n, err := a.node(); err == nil {
				defer n.Close()
				if r, err := n.Doctor(c.Context()); err == nil {
					report = r
				}
			}
			err := a.show(report, func(w io.Writer) { printReport(w, report) })
			if err == nil && (!report.OK || !report.Provider) {
				err = exitCode(service.CodeMissing.Exit())
			}
			return err
		},
	}
}

func printReport(w io.Writer, r service.Report) {
	t := newTable(w)
	for _, c := range r.Checks {
		word := "ok"
		if !c.OK {
			word = "MISSING"
		}
		t.row(word, c.Name, c.Detail)
		if c.Remedy != "" {
			t.row("", "", "-> "+c.Remedy)
		}
	}
	t.end()
	switch {
	case r.OK && r.Provider && slices.ContainsFunc(r.Checks, func(c service.Check) bool { return !c.OK && c.Needed == "volumes" }):
		fmt.Fprintln(w, "This machine can rent, and provide all but volumes.")
	case r.OK && r.Provider:
		fmt.Fprintln(w, "This machine can rent and provide.")
	case r.OK:
		fmt.Fprintln(w, "This machine can rent. To provide, it needs what is missing above.")
	default:
		fmt.Fprintln(w, "This machine needs what is missing above.")
	}
}
