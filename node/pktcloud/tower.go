package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

func (a *app) towerCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "tower", Short: "What keeps the channels safe while this node is away",
		Long: `A tower keeps transactions that end this node's channels, and broadcasts them
when their time comes while the node is away. Name towers with "pktcloud node
--tower"; be one for others with "pktcloud node --serve-tower".`,
	}
	for _, sub := range []struct {
		use, short string
		ask        func(ctx context.Context, n *client.Client) (service.TowerReport, error)
	}{
		{"list", "How each tower is supplied, and what this node keeps for others", func(ctx context.Context, n *client.Client) (service.TowerReport, error) { return n.Towers(ctx) }},
		{"deposit", "Bring all towers up to date now, whatever --deposit-every says", func(ctx context.Context, n *client.Client) (service.TowerReport, error) { return n.Deposit(ctx) }},
	} {
		c.AddCommand(&cobra.Command{
			Use: sub.use, Short: sub.short, Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				n, err := a.node()
				if err != nil {
					return err
				}
				defer n.Close()
				r, err := sub.ask(c.Context(), n)
				if err != nil {
					return err
				}
				return a.show(r, func(w io.Writer) { a.showTowers(w, r) })
			},
		})
	}
	return c
}

// showed says what a tower gave back of this phrase.
func showed(s service.TowerSupply) string {
	switch {
	case !s.Told:
		return "not yet"
	case s.Bad > 0:
		return fmt.Sprintf("%d, and %d that do not hold", s.Kept, s.Bad)
	}
	return fmt.Sprint(s.Kept)
}

func (a *app) showTowers(w io.Writer, r service.TowerReport) {
	if len(r.Towers) == 0 {
		a.printf("No tower keeps this node's channels; name one with \"pktcloud node --tower\".\n")
	} else {
		t := newTable(w)
		t.row("TOWER", "HAS", "LACKS", "SHOWED", "PROBLEM")
		for _, s := range r.Towers {
			t.row(s.Address, s.Receipts, s.Missing, showed(s), s.Problem)
		}
		t.end()
	}
	for _, id := range r.Undeposited {
		a.printf("Nothing newer of channel %s could be deposited: its tenant is not connected, or what was earned is not worth the fee.\n", short(id))
	}
	if k := r.Kept; k != nil {
		a.printf("For others: %d deposits with %s, %d sent and not yet mined, %d of ended channels.\n", k.Deposits, byteText(k.Bytes), k.Sent, k.Ended)
	}
}
