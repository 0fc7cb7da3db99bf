package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/node/sshd"
)

// sshSuffix ends the host names of leases in SSH.
const sshSuffix = ".pktcloud"

// sshHost is the host name of LEASE or LEASE/SERVICE: LEASE.pktcloud, or
// SERVICE.LEASE.pktcloud.
func sshHost(name string) string {
	lease, part, named := strings.Cut(name, "/")
	if named {
		lease = part + "." + lease
	}
	return lease + sshSuffix
}

// sshName is LEASE or LEASE/SERVICE of a host name.
func sshName(host string) string {
	name, ok := strings.CutSuffix(host, sshSuffix)
	if !ok {
		return host
	}
	if part, lease, named := strings.Cut(name, "."); named {
		return lease + "/" + part
	}
	return name
}

// sshOptions is how an SSH client reaches leases: by this program, without a
// listener, and with the node's own key.
func (a *app) sshOptions() ([][2]string, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(a.dir)
	if err != nil {
		return nil, err
	}
	with := func(command, token string) string {
		quoted := []string{sshQuote(program), command, "--dir", sshQuote(dir), token}
		return strings.Join(quoted, " ")
	}
	return [][2]string{
		{"ProxyCommand", with("nc", "%h")},
		{"KnownHostsCommand", with("ssh-known-hosts", "%H")},
		{"GlobalKnownHostsFile", "none"},
		{"UserKnownHostsFile", "none"},
		{"StrictHostKeyChecking", "yes"},
		{"User", sshd.User},
	}, nil
}

// sshQuote quotes a path for a shell and for the configuration of SSH, in which
// a percent sign begins a token.
func sshQuote(path string) string {
	path = strings.ReplaceAll(path, "%", "%%")
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

func (a *app) sshCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "ssh LEASE[/SERVICE] [ARGUMENT...]", Short: "Enter a lease with this machine's SSH client", Args: atLeast("LEASE"),
		Long: `Ssh runs this machine's ssh, told how to reach a lease. What stands behind the
lease is for ssh: options of its own, and the program to run.

  pktcloud ssh LEASE
  pktcloud ssh LEASE/db ls -l /var
  pktcloud ssh LEASE -N -L 8080:localhost:80

For scp, sftp, rsync and editors, "pktcloud ssh-config" prints the same as a part of
ssh's configuration.`,
		RunE: func(c *cobra.Command, args []string) error {
			program, err := exec.LookPath("ssh")
			if err != nil {
				return &service.Error{Code: service.CodeNotFound, Detail: "install OpenSSH's client, or use \"pktcloud exec LEASE -t sh\"", Err: err}
			}
			options, err := a.sshOptions()
			if err != nil {
				return err
			}
			var line []string
			for _, o := range options {
				line = append(line, "-o", o[0]+"="+o[1])
			}
			line = append(line, sshHost(args[0]))
			client := exec.CommandContext(c.Context(), program, append(line, args[1:]...)...)
			client.Stdin, client.Stdout, client.Stderr = a.in, a.out, a.err
			client.Cancel = func() error { return client.Process.Signal(syscall.SIGTERM) } // it puts the terminal back
			err = client.Run()
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
				return exitCode(exit.ExitCode())
			}
			return err
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}

func (a *app) sshConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ssh-config", Short: "Print a part of ssh's configuration by which it reaches leases", Args: cobra.NoArgs,
		Long: `Ssh-config prints what ssh, scp, sftp, rsync and editors need to reach the leases
of this node, for ~/.ssh/config:

  pktcloud ssh-config >> ~/.ssh/config
  ssh LEASE.pktcloud
  scp -r site SERVICE.LEASE.pktcloud:/srv/

Connections go through this program: nothing listens, and no key is needed.`,
		RunE: func(*cobra.Command, []string) error {
			options, err := a.sshOptions()
			if err != nil {
				return err
			}
			values := map[string]string{"Host": "*" + sshSuffix}
			for _, o := range options {
				values[o[0]] = o[1]
			}
			return a.show(values, func(w io.Writer) {
				fmt.Fprintf(w, "Host *%s\n", sshSuffix)
				for _, o := range options {
					fmt.Fprintf(w, "    %s %s\n", o[0], o[1])
				}
			})
		},
	}
}

// sshKnownHostsCommand is what an SSH client asks for a lease's host key.
func (a *app) sshKnownHostsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ssh-known-hosts HOST", Short: "Print the line by which ssh knows a lease", Args: exactly("HOST"), Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := sshd.HostKey(a.dir)
			if err != nil {
				return err
			}
			a.printf("%s %s", args[0], ssh.MarshalAuthorizedKey(key.PublicKey()))
			return nil
		},
	}
}

// ncCommand is the program that an SSH client reaches a lease by.
func (a *app) ncCommand() *cobra.Command {
	return &cobra.Command{
		Use: "nc HOST", Short: "Speak SSH for a lease on standard input and output", Args: exactly("HOST"),
		Long: `Nc is for ssh's ProxyCommand: an SSH server for one lease on standard input and
output. HOST is LEASE.pktcloud, SERVICE.LEASE.pktcloud, LEASE or LEASE/SERVICE.`,
		RunE: func(c *cobra.Command, args []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			name := sshName(args[0])
			lease, _, _ := strings.Cut(name, "/")
			if _, err := n.Lease(c.Context(), lease); err != nil { // said before anything else
				return err
			}
			key, err := sshd.HostKey(a.dir)
			if err != nil {
				return err
			}
			return sshd.Serve(c.Context(), newStdio(a.in, a.out), sshd.Config{Name: name, HostKey: key, Sessions: n})
		},
	}
}

// stdio is standard input and output as one connection.
type stdio struct {
	*io.PipeReader
	io.Writer
}

// newStdio begins to read in. Reading it cannot be interrupted, so that goes on
// by itself until the process ends.
func newStdio(in io.Reader, out io.Writer) stdio {
	r, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, in)
		w.CloseWithError(err)
	}()
	return stdio{r, out}
}
