package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

// answerRows is how many transactions or coins one answer of the node is asked
// for at most.
const answerRows = 10_000

// maxLabel is how many bytes a label has at most.
const maxLabel = 256

func (a *app) walletCommand() *cobra.Command {
	c := &cobra.Command{Use: "wallet", Short: "The money: balance, payments, history, keys"}
	c.AddCommand(
		a.asking("balance", "What the wallet holds", a.balance),
		a.addressCommand(), a.sendCommand(), a.bumpCommand(), a.historyCommand(),
		a.asking("coins", "The coins, the largest first", a.coins),
		a.freezeCommand("freeze", "Keep the wallet from spending a coin", true),
		a.freezeCommand("unfreeze", "Let the wallet spend a coin again", false),
		a.labelCommand(), a.importCommand(), a.accountsCommand(),
	)
	c.AddCommand(a.lockCommands()...)
	return c
}

// asking is a command without arguments that asks the running node.
func (a *app) asking(name, about string, do func(ctx context.Context, n *client.Client) error) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: about, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withNode(c, do)
		},
	}
}

func (a *app) withNode(c *cobra.Command, do func(ctx context.Context, n *client.Client) error) error {
	n, err := a.node()
	if err != nil {
		return err
	}
	defer n.Close()
	return do(c.Context(), n)
}

func (a *app) balance(ctx context.Context, n *client.Client) error {
	b, err := n.WalletBalance(ctx)
	if err != nil {
		return err
	}
	return a.show(b, func(w io.Writer) {
		t := newTable(w)
		t.row("spendable", b.Spendable)
		t.row("unconfirmed", b.Unconfirmed)
		t.row("reserved", b.Reserved)
		if b.Frozen > 0 {
			t.row("frozen", b.Frozen)
		}
		t.row("block", b.Height)
		if b.Locked {
			t.row("locked", "yes; nothing is paid until \"pktcloud wallet unlock\"")
		}
		t.end()
	})
}

func (a *app) addressCommand() *cobra.Command {
	var r service.AddressRequest
	c := a.asking("address", "A fresh address to receive on", func(ctx context.Context, n *client.Client) error {
		address, err := n.WalletAddress(ctx, r)
		if err != nil {
			return err
		}
		return a.show(address, func(io.Writer) { a.printf("%s\n", address.Address) })
	})
	c.Flags().Uint32Var(&r.Account, "account", 0, "number of the account")
	c.Flags().StringVar(&r.Label, "label", "", "text kept beside the address")
	return c
}

// feeFlags choose and limit a fee.
type feeFlags struct {
	rate uint64
	most money
}

func (f *feeFlags) add(c *cobra.Command) {
	f.most = 1 << 20
	c.Flags().Uint64Var(&f.rate, "fee-rate", 0, "base units per 1000 virtual bytes (default what the chain asks)")
	c.Flags().Var(&f.most, "max-fee", "fee that is not to be exceeded")
}

func (a *app) sendCommand() *cobra.Command {
	var r service.PaymentRequest
	var fee feeFlags
	var plan, yes bool
	c := &cobra.Command{
		Use: "send ADDRESS AMOUNT", Short: "Pay; AMOUNT is such as \"0.25\" or \"all\"", Args: exactly("ADDRESS", "AMOUNT"),
		Long: "Send says what a payment costs and what stays, asks, and pays. Without a terminal\nit pays only with --yes. A fee above --max-fee is refused.",
		RunE: func(c *cobra.Command, args []string) (err error) {
			r.Address, r.FeeRate, r.MaxFee, r.All = args[0], pktcloud.Amount(fee.rate), pktcloud.Amount(fee.most), args[1] == "all"
			if !r.All {
				if r.Amount, err = parseMoney(args[1]); err != nil {
					return &service.Error{Code: service.CodeInvalid, Err: err}
				}
			}
			return a.withNode(c, func(ctx context.Context, n *client.Client) error { return a.send(ctx, n, r, plan, yes) })
		},
	}
	fee.add(c)
	c.SetFlagErrorFunc(notNegative("a wallet only pays"))
	g := c.Flags()
	g.Uint32Var(&r.Account, "account", 0, "number of the account that pays")
	g.StringArrayVar(&r.Coins, "coin", nil, "coin to spend, of \"pktcloud wallet coins\"; these and no others")
	g.StringVar(&r.Label, "label", "", "text kept beside the payment")
	g.StringVar(&r.Once, "once", "", "word of yours: a second payment with it is not made")
	g.BoolVar(&plan, "plan", false, "only say what it would cost")
	g.BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) send(ctx context.Context, n *client.Client, r service.PaymentRequest, plan, yes bool) error {
	p, err := n.WalletPlan(ctx, r)
	if err != nil {
		return err
	}
	if p.Fee > r.MaxFee {
		return service.Errorf(service.CodeMoney, "the fee is above the limit: it would be %s, the limit is %s; raise --max-fee", p.Fee, r.MaxFee)
	}
	if plan {
		return a.show(p, func(w io.Writer) { printPlan(w, p) })
	}
	if !yes {
		printPlan(a.err, p)
		if err := a.confirm("Pay this? [y/N] "); err != nil {
			return err
		}
	}
	paid, err := n.WalletSend(ctx, r)
	if err != nil {
		return err
	}
	return a.showPayment(paid)
}

func printPlan(w io.Writer, p service.Plan) {
	t := newTable(w)
	t.row("to", p.Address)
	t.row("amount", p.Amount)
	t.row("fee", p.Fee)
	t.row("left", p.Left)
	t.end()
}

func (a *app) showPayment(p service.Payment) error {
	return a.show(p, func(w io.Writer) {
		fmt.Fprintln(w, p.TxID)
		if p.Stored {
			fmt.Fprintln(a.err, "The chain cannot be reached. The payment is stored and goes out by itself; do not send it again.")
		}
	})
}

// confirm asks a person. Where there is none, only a flag may say yes.
func (a *app) confirm(question string) error {
	return a.ask(question, "nothing was paid. Give --yes to pay without a question, or --plan to see the cost")
}

// ask asks a person. Where there is none it says what was not done, and which flags
// there are; the first sentence is what a person who says no is told.
func (a *app) ask(question, otherwise string) error {
	in, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return service.Errorf(service.CodeInvalid, "no terminal to ask; %s", otherwise)
	}
	fmt.Fprint(a.err, question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err != nil || answer != "y" && answer != "yes" {
		nothing, _, _ := strings.Cut(otherwise, ". ")
		return service.Errorf(service.CodeConflict, "%s", nothing)
	}
	return nil
}

func (a *app) bumpCommand() *cobra.Command {
	var fee feeFlags
	c := &cobra.Command{
		Use: "bump TXID", Short: "Raise the fee of a payment that waits for a block", Args: exactly("TXID"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withNode(c, func(ctx context.Context, n *client.Client) error {
				p, err := n.WalletReplace(ctx, service.ReplaceRequest{TxID: args[0], FeeRate: pktcloud.Amount(fee.rate), MaxFee: pktcloud.Amount(fee.most)})
				if err != nil {
					return err
				}
				return a.showPayment(p)
			})
		},
	}
	fee.add(c)
	return c
}

func (a *app) historyCommand() *cobra.Command {
	var limit int
	var csv bool
	c := a.asking("history", "Transactions, newest first", func(ctx context.Context, n *client.Client) error {
		moves, err := readHistory(ctx, n, limit)
		switch {
		case err != nil:
			return err
		case csv:
			return service.WriteHistory(a.out, moves)
		}
		return a.show(moves, func(w io.Writer) { printHistory(w, moves) })
	})
	c.Flags().IntVar(&limit, "limit", 0, "at most so many (default all)")
	c.Flags().BoolVar(&csv, "csv", false, "print CSV, for a spreadsheet")
	return c
}

func readHistory(ctx context.Context, n *client.Client, limit int) ([]service.Movement, error) {
	all := []service.Movement{}
	for {
		q := service.HistoryQuery{Skip: len(all), Limit: answerRows}
		if limit > 0 {
			q.Limit = min(q.Limit, limit-len(all))
		}
		more, err := n.WalletHistory(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
		if len(more) < q.Limit || len(all) == limit {
			return all, nil
		}
	}
}

func printHistory(w io.Writer, moves []service.Movement) {
	if len(moves) == 0 {
		fmt.Fprintln(w, "Nothing yet.")
		return
	}
	t := newTable(w)
	t.row("TIME", "WHAT", "AMOUNT", "FEE", "TRANSACTION", "LABEL")
	for _, m := range moves {
		when := "waits for a block"
		if m.Time > 0 {
			when = time.Unix(m.Time, 0).Format(time.DateTime)
		}
		amount := "+" + m.Received.String()
		if m.Sent > 0 {
			amount = "-" + m.Sent.String()
		}
		t.row(when, strings.TrimSuffix(m.Note, "."), amount, m.Fee, m.TxID, m.Label)
	}
	t.end()
}

func (a *app) coins(ctx context.Context, n *client.Client) error {
	coins := []service.Coin{}
	for {
		more, err := n.WalletCoins(ctx, service.CoinQuery{Skip: len(coins), Limit: answerRows})
		if err != nil {
			return err
		}
		if coins = append(coins, more...); len(more) < answerRows {
			break
		}
	}
	return a.show(coins, func(w io.Writer) {
		if len(coins) == 0 {
			fmt.Fprintln(w, "No coin yet.")
			return
		}
		t := newTable(w)
		t.row("AMOUNT", "STATE", "ADDRESS", "LABEL", "COIN")
		for _, c := range coins {
			t.row(c.Amount, c.State, c.Address, c.Label, c.Coin)
		}
		t.end()
	})
}

func (a *app) freezeCommand(name, about string, frozen bool) *cobra.Command {
	return &cobra.Command{
		Use: name + " COIN", Short: about, Args: exactly("COIN"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withNode(c, func(ctx context.Context, n *client.Client) error {
				r, err := n.WalletFreeze(ctx, service.FreezeRequest{Coin: args[0], Frozen: frozen})
				if err != nil {
					return err
				}
				return a.show(r, func(io.Writer) {})
			})
		},
	}
}

func (a *app) labelCommand() *cobra.Command {
	return &cobra.Command{
		Use: "label ADDRESS|TXID TEXT", Short: "Keep a text beside an address or a transaction; \"\" removes it", Args: exactly("ADDRESS|TXID", "TEXT"),
		RunE: func(c *cobra.Command, args []string) error {
			r := service.LabelRequest{Address: args[0], Label: args[1]}
			if len(r.Label) > maxLabel {
				return service.Errorf(service.CodeInvalid, "a label is one line of at most %d bytes; this one has %d", maxLabel, len(r.Label))
			}
			if strings.Trim(args[0], "0123456789abcdef") == "" {
				r.Address, r.TxID = "", args[0]
			}
			return a.withNode(c, func(ctx context.Context, n *client.Client) error {
				r, err := n.WalletLabel(ctx, r)
				if err != nil {
					return err
				}
				return a.show(r, func(io.Writer) {})
			})
		},
	}
}

func (a *app) importCommand() *cobra.Command {
	var fee feeFlags
	var plan bool
	c := &cobra.Command{
		Use: "import", Short: "Sweep the coins of a private key from another wallet into this one", Args: cobra.NoArgs,
		Long: `Import reads a private key in wallet import format from standard input, one line,
and pays all that it holds to this wallet. The key is not kept: the recovery phrase
alone restores what was swept.`,
		RunE: func(c *cobra.Command, _ []string) error {
			key, err := a.readKey()
			if err != nil {
				return err
			}
			return a.withNode(c, func(ctx context.Context, n *client.Client) error {
				s, err := n.WalletSweep(ctx, service.SweepRequest{Key: key, FeeRate: pktcloud.Amount(fee.rate), MaxFee: pktcloud.Amount(fee.most), Plan: plan})
				if err != nil {
					return err
				}
				return a.show(s, func(w io.Writer) { printSweep(w, s) })
			})
		},
	}
	fee.add(c)
	c.Flags().BoolVar(&plan, "plan", false, "only say what it would take")
	return c
}

// readKey reads a private key, unseen where there is a terminal.
func (a *app) readKey() (string, error) {
	if in, ok := a.in.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		return a.askPassword("Private key: ")
	}
	return firstLine(a.in)
}

func printSweep(w io.Writer, s service.Sweep) {
	t := newTable(w)
	t.row("coins", s.Coins)
	t.row("amount", s.Amount)
	t.row("fee", s.Fee)
	if s.TxID != "" {
		t.row("transaction", s.TxID)
	}
	t.end()
	if s.More {
		fmt.Fprintln(w, "The key holds more coins than one transaction takes: import it again once this one is confirmed.")
	}
}

func (a *app) accountsCommand() *cobra.Command {
	c := a.asking("accounts", "The accounts and what they hold", func(ctx context.Context, n *client.Client) error {
		accounts, err := n.WalletAccounts(ctx)
		if err != nil {
			return err
		}
		return a.show(accounts, func(w io.Writer) {
			t := newTable(w)
			t.row("ACCOUNT", "NAME", "SPENDABLE", "UNCONFIRMED", "RESERVED", "FROZEN")
			for _, x := range accounts {
				t.row(x.Number, x.Name, x.Spendable, x.Unconfirmed, x.Reserved, x.Frozen)
			}
			t.end()
		})
	})
	c.AddCommand(&cobra.Command{
		Use: "add NAME", Short: "Make the next account", Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withNode(c, func(ctx context.Context, n *client.Client) error {
				x, err := n.WalletAddAccount(ctx, service.AccountRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return a.show(x, func(w io.Writer) { fmt.Fprintln(w, x.Number) })
			})
		},
	})
	return c
}

func (a *app) lockCommands() []*cobra.Command {
	show := func(s service.LockState, err error) error {
		if err != nil {
			return err
		}
		return a.show(s, func(w io.Writer) {
			if s.Locked {
				fmt.Fprintln(w, "locked")
			} else {
				fmt.Fprintln(w, "unlocked")
			}
		})
	}
	var file, newFile string
	secret := func(file, prompt string) (string, error) {
		if file != "" {
			return a.readSecret("--password-file", file)
		}
		return a.askPassword(prompt)
	}
	unlock := a.asking("unlock", "Let the wallet pay again", func(ctx context.Context, n *client.Client) error {
		if b, err := n.WalletBalance(ctx); err == nil && !b.Locked {
			fmt.Fprintln(a.err, "The wallet was not locked; no password was needed.")
			return show(n.WalletUnlock(ctx, service.UnlockRequest{}))
		}
		password, err := secret(file, "Password of the keystore: ")
		if err != nil {
			return err
		}
		return show(n.WalletUnlock(ctx, service.UnlockRequest{Password: password}))
	})
	unlock.Flags().StringVar(&file, "password-file", "", "password of the keystore, the first line of this file")
	password := a.asking("password", "Change the password of the keystore", func(ctx context.Context, n *client.Client) (err error) {
		r := service.PasswordRequest{}
		if _, e := os.Stat(passwordBeside(a.dir)); e != nil { // an unattended keystore has its own there
			if r.Old, err = secret(file, "Password of the keystore: "); err != nil {
				return err
			}
		}
		if newFile != "" {
			r.New, err = a.readSecret("--new-password-file", newFile)
		} else {
			r.New, err = a.newPassword()
		}
		if err != nil {
			return err
		}
		return show(n.WalletPassword(ctx, r))
	})
	password.Aliases = []string{"passphrase"}
	password.Flags().StringVar(&file, "password-file", "", "the present password, the first line of this file")
	password.Flags().StringVar(&newFile, "new-password-file", "", "the new password, the first line of this file")
	lock := a.asking("lock", "Let the wallet pay nothing until it is unlocked", func(ctx context.Context, n *client.Client) error {
		return show(n.WalletLock(ctx))
	})
	return []*cobra.Command{lock, unlock, password}
}
