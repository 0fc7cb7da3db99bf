package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/audit"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

func (a *app) auditCommand() *cobra.Command {
	var dirs audit.Dirs
	c := &cobra.Command{
		Use: "audit --provider DIR --tenant DIR --chain DIR", Short: "Check leases from outside, by both sides' records and the blocks", Args: cobra.NoArgs,
		Long: `Audit reads the data directories of a provider and of a tenant and the raw blocks
of a devnet, verifies every signature and script again, and computes anew what
was due, paid, at risk and paid out. Stop the nodes first. It ends with exit
code 1 when something does not hold.`,
		RunE: func(*cobra.Command, []string) error {
			report, err := audit.Run(dirs)
			if err != nil {
				return &service.Error{Code: service.CodeInvalid, Detail: "the audit cannot read everything", Err: err}
			}
			if err := a.show(report, func(w io.Writer) { printAudit(w, report) }); err != nil {
				return err
			}
			if !report.OK {
				return exitCode(1)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&dirs.Provider, "provider", "", "data directory of the provider")
	f.StringVar(&dirs.Tenant, "tenant", "", "data directory of the tenant")
	f.StringVar(&dirs.Chain, "chain", "", "directory of the devnet")
	for _, name := range []string{"provider", "tenant", "chain"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // a flag of this command
		}
	}
	return c
}

func printAudit(w io.Writer, r audit.Report) {
	t := newTable(w)
	t.row("LEASE", "SECONDS", "DUE", "PAID", "CLAIMED", "FEES", "MOST CREDIT", "MOST PREPAID", "REASON")
	for _, l := range r.Leases {
		pkt := func(units uint64) pktcloud.Amount { return pktcloud.Amount(units) }
		t.row(l.ID.Hex()[:8], l.Seconds, pkt(l.Due), pkt(l.Paid), pkt(l.Claimed), pkt(l.Fees), pkt(l.MaxCredit), pkt(l.MaxPrepaid), orDash(l.Reason))
	}
	t.end()
	fmt.Fprintf(w, "%d signatures, %d scripts, %d statements, %d vouchers, %d blocks verified again.\n",
		r.Checked.Signatures, r.Checked.Scripts, r.Checked.Statements, r.Checked.Vouchers, r.Checked.Blocks)
	for _, f := range r.Findings {
		fmt.Fprintln(w, "WRONG:", f)
	}
	if r.OK {
		fmt.Fprintln(w, "Nothing is wrong.")
	}
}
