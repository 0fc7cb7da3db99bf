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
		Use: "audit --provider DIR --tenant DIR --chain DIR", Short: "Check leases from outside: records, signatures, scripts, sums",
		Long: `Audit reads the data directories of a provider and a tenant and the raw blocks
of a devnet, verifies every signature and script again, and computes anew what
was due, what was paid and what each side had at risk. It changes nothing.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r, err := audit.Run(dirs)
			if err != nil {
				return &service.Error{Code: service.CodeInvalid, Err: err}
			}
			if err := a.show(r, func(w io.Writer) { printAudit(w, r) }); err != nil {
				return err
			}
			if !r.OK {
				return fmt.Errorf("the audit found %d things that do not hold", len(r.Findings))
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&dirs.Provider, "provider", "", "data directory of the provider")
	f.StringVar(&dirs.Tenant, "tenant", "", "data directory of the tenant")
	f.StringVar(&dirs.Chain, "chain", "", "directory of the chain")
	for _, name := range []string{"provider", "tenant", "chain"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // a flag of this command
		}
	}
	return c
}

func printAudit(w io.Writer, r audit.Report) {
	fmt.Fprintf(w, "Chain to block %d: %d scripts run. Records: %d statements, %d vouchers, %d signatures.\n",
		r.Height, r.Checked.Scripts, r.Checked.Statements, r.Checked.Vouchers, r.Checked.Signatures)
	for _, l := range r.Leases {
		fmt.Fprintf(w, "Lease %s\n  served   %d s in %d intervals\n  due      %s\n  paid     %s\n  claimed  %s on the chain, fee %s\n  at risk  at most %s served and not paid, %s paid and not served\n",
			l.ID, l.Seconds, l.Intervals, pktcloud.Amount(l.Due), pktcloud.Amount(l.Paid), pktcloud.Amount(l.Claimed), pktcloud.Amount(l.Fees),
			pktcloud.Amount(l.MaxCredit), pktcloud.Amount(l.MaxPrepaid))
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "FOUND  %s\n", f)
	}
	if r.OK {
		fmt.Fprintln(w, "Nothing found that does not hold.")
	}
}
