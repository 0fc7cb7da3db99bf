package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/keystore"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// maxSecret bounds a file or a line that holds a secret.
const maxSecret = 4 << 10

func (a *app) initCommand() *cobra.Command {
	var phraseFile, passphraseFile, passwordFile string
	var unattended bool
	var birthday uint64
	c := &cobra.Command{
		Use: "init", Short: "Make a data directory with a new identity and wallet", Args: cobra.NoArgs,
		Long: `Init makes the keystore of a data directory and prints, once, the phrase that
restores everything: identity, wallet, channels. With --phrase-file it restores
one instead. Secrets are read from files or from the terminal, never from the
command line.`,
		RunE: func(*cobra.Command, []string) error {
			config := node.InitConfig{Dir: a.dir, Unattended: unattended}
			if err := a.noKeystore(); err != nil {
				return err
			}
			config.Birthday = birthday
			if birthday > 0 && phraseFile == "" {
				return service.Errorf(service.CodeInvalid, "--birthday belongs to a phrase that is restored; give --phrase-file too")
			}
			if phraseFile != "" {
				text, err := a.readSecret("--phrase-file", phraseFile)
				if err != nil {
					return err
				}
				if config.Phrase, err = keystore.ReadPhrase(text); err != nil {
					return &service.Error{Code: service.CodeInvalid, Err: err}
				}
			}
			phrase, err := a.makeKeystore(config, passphraseFile, passwordFile)
			if err != nil {
				return err
			}
			return a.showPhrase(phrase, phraseFile != "")
		},
	}
	f := c.Flags()
	f.StringVar(&phraseFile, "phrase-file", "", "restore the phrase in this file")
	f.Uint64Var(&birthday, "birthday", 0, "a block at which the restored phrase had no money yet; older ones are not searched")
	f.StringVar(&passphraseFile, "passphrase-file", "", "the optional BIP39 passphrase, the first line of this file")
	f.StringVar(&passwordFile, "password-file", "", "the password that encrypts the keystore, the first line of this file")
	f.BoolVar(&unattended, "unattended", false, "leave a random password in the data directory, so that the node starts by itself;\nwhoever can read the directory then has the money")
	c.MarkFlagsMutuallyExclusive("unattended", "password-file")
	return c
}

// noKeystore refuses a directory that has a keystore, before anything is asked.
func (a *app) noKeystore() error {
	if _, err := os.Lstat(keystoreIn(a.dir)); err == nil {
		return service.Errorf(service.CodeConflict, "%s holds a keystore already; choose another directory with --dir", a.dir)
	}
	return nil
}

// makeKeystore makes a keystore with secrets from files or from the terminal.
func (a *app) makeKeystore(config node.InitConfig, passphraseFile, passwordFile string) (phrase keystore.Phrase, err error) {
	if passphraseFile != "" {
		if config.Passphrase, err = a.readSecret("--passphrase-file", passphraseFile); err != nil {
			return phrase, err
		}
	}
	switch {
	case config.Unattended:
	case passwordFile != "":
		config.Password, err = a.readSecret("--password-file", passwordFile)
	default:
		if config.Password, err = a.newPassword(); errors.Is(err, errNoTerminal) {
			err = service.Errorf(service.CodeInvalid, "%v, or --unattended", errNoTerminal)
		}
	}
	if err != nil {
		return phrase, err
	}
	return node.Init(config)
}

func (a *app) restoreCommand() *cobra.Command {
	var passphraseFile, passwordFile string
	var config node.InitConfig
	c := &cobra.Command{
		Use: "restore", Short: "Make a data directory from a recovery phrase", Args: cobra.NoArgs,
		Long: `Restore asks for the recovery phrase on the terminal, or reads it as one line
from standard input, and makes a data directory for it. It is never taken from
the command line, where others could see it.

The node that runs on it next finds the phrase's coins and channels on the
chain. Money in a channel comes back by itself once the channel expires; "wallet
history" says when. A provider names its towers again, with "pktcloud node
--tower": they give back the channels that it earned by, and "channel list" shows
them. Let one machine alone use a phrase.`,
		RunE: func(*cobra.Command, []string) error {
			config.Dir = a.dir
			if err := a.noKeystore(); err != nil {
				return err
			}
			text, err := a.readPhrase()
			if err != nil {
				return err
			}
			if config.Phrase, err = keystore.ReadPhrase(text); err != nil {
				return &service.Error{Code: service.CodeInvalid, Err: err}
			}
			phrase, err := a.makeKeystore(config, passphraseFile, passwordFile)
			if err != nil {
				return err
			}
			return a.showPhrase(phrase, true)
		},
	}
	f := c.Flags()
	f.Uint64Var(&config.Birthday, "birthday", 0, "a block at which the phrase had no money yet; older ones are not searched")
	f.StringVar(&passphraseFile, "passphrase-file", "", "the optional BIP39 passphrase, the first line of this file")
	f.StringVar(&passwordFile, "password-file", "", "the password that encrypts the keystore, the first line of this file")
	f.BoolVar(&config.Unattended, "unattended", false, "leave a random password in the data directory, so that the node starts by itself;\nwhoever can read the directory then has the money")
	c.MarkFlagsMutuallyExclusive("unattended", "password-file")
	return c
}

// readPhrase asks for a phrase without showing it, or reads a line of input.
func (a *app) readPhrase() (string, error) {
	if in, ok := a.in.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		return a.askPassword("Recovery phrase, its words in order (they are not shown): ")
	}
	return firstLine(a.in)
}

func (a *app) showPhrase(phrase keystore.Phrase, restored bool) error {
	result := map[string]any{"ok": true, "dir": a.dir, "restored": restored}
	if !restored {
		result["phrase"] = strings.Join(phrase.Reveal(), " ")
	}
	return a.show(result, func(w io.Writer) {
		if restored {
			a.printf("Restored into %s. Next, so that it finds coins and channels on the chain, with the --chain flags\nand the --bootstrap of before:\n\n  pktcloud node --dir %s\n\n", a.dir, a.dir)
			a.printf("Whoever provided adds --provider, and --tower for each tower of before: they have what it earned.\n")
			return
		}
		a.printf("Write these words down, in order, on paper. They are shown this once.\nWhoever has them has the money; without them it is lost with this machine.\n\n")
		i := 0
		for line := range slices.Chunk(phrase.Reveal(), 6) {
			for _, word := range line {
				i++
				a.printf("  %2d %-9s", i, word)
			}
			a.printf("\n")
		}
		a.printf("\nThe keystore is in %s. Next, once a chain runs (\"pktcloud devnet\" is one for trying out\nand prints the flags that name it):\n\n  pktcloud node --dir %s\n\nTo rent out this machine, add --provider. Give the other commands --dir %s too, or set PKTCLOUD_DIR.\n", a.dir, a.dir, a.dir)
	})
}

// readSecret returns the first line of the file that a flag names. It warns of
// one that others can read, and takes it: secrets that are mounted into a
// container often are like that.
func (a *app) readSecret(flag, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", &service.Error{Code: service.CodeInvalid, Detail: flag, Err: err}
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && runtime.GOOS != "windows" && info.Mode().IsRegular() && info.Mode()&0o077 != 0 {
		fmt.Fprintf(a.err, "pktcloud: others on this machine may read %s (mode %04o); to keep it a secret: chmod 600 %s\n", path, info.Mode().Perm(), path)
	}
	return firstLine(f)
}

func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxSecret)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", &service.Error{Code: service.CodeInvalid, Err: err}
	}
	return strings.TrimRight(line, "\r\n"), nil
}

var errNoTerminal = errors.New("no terminal to ask for the password; give --password-file")

func (a *app) askPassword(prompt string) (string, error) {
	in, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", &service.Error{Code: service.CodeInvalid, Err: errNoTerminal}
	}
	fmt.Fprint(a.err, prompt)
	b, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(a.err)
	return string(b), err
}

func (a *app) newPassword() (string, error) {
	first, err := a.askPassword("Password for the keystore: ")
	if err != nil {
		return "", err
	}
	again, err := a.askPassword("Once more: ")
	if err != nil {
		return "", err
	}
	if first != again || first == "" {
		return "", service.Errorf(service.CodeInvalid, "the two are not the same, or empty; nothing was made")
	}
	return first, nil
}

func keystoreIn(dir string) string { return filepath.Join(dir, "keystore.age") }

// passwordBeside is where an unattended keystore has its password.
func passwordBeside(dir string) string { return filepath.Join(dir, "password") }
