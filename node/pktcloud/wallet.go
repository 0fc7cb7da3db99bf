package main

import (
	"io"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) walletCommand() *cobra.Command {
	c := &cobra.Command{Use: "wallet", Short: "The money"}
	c.AddCommand(&cobra.Command{
		Use: "balance", Short: "What the wallet holds", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			b, err := n.WalletBalance(c.Context())
			if err != nil {
				return err
			}
			return a.show(b, func(w io.Writer) {
				t := newTable(w)
				t.row("spendable", b.Spendable)
				t.row("unconfirmed", b.Unconfirmed)
				t.row("reserved", b.Reserved)
				t.row("block", b.Height)
				t.end()
			})
		},
	}, &cobra.Command{
		Use: "address", Short: "A fresh address to receive on", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			address, err := n.WalletAddress(c.Context())
			if err != nil {
				return err
			}
			return a.show(address, func(io.Writer) { a.printf("%s\n", address.Address) })
		},
	}, &cobra.Command{
		Use: "history", Short: "What the leases moved, newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			moves, err := n.WalletHistory(c.Context())
			if err != nil {
				return err
			}
			return a.show(moves, func(w io.Writer) {
				t := newTable(w)
				for _, m := range moves {
					t.row(time.Unix(m.Time, 0).Format(time.DateTime), m.Note, "+"+m.Received.String(), "-"+m.Sent.String(), m.TxID)
				}
				t.end()
			})
		},
	})
	return c
}
