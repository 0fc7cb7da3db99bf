package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/client"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

func (a *app) channelCommand() *cobra.Command {
	c := &cobra.Command{Use: "channel", Short: "The payment channels behind the leases"}
	c.AddCommand(
		a.asking("list", "List all channels, newest first", func(ctx context.Context, n *client.Client) error {
			channels, err := n.Channels(ctx)
			if err != nil {
				return err
			}
			return a.show(channels, func(w io.Writer) { printChannels(w, channels) })
		}),
		&cobra.Command{
			Use: "show CHANNEL", Short: "Tell a channel's life", Args: exactly("CHANNEL"),
			RunE: func(c *cobra.Command, args []string) error {
				return a.withNode(c, func(ctx context.Context, n *client.Client) error {
					v, err := n.Channel(ctx, args[0])
					if err != nil {
						return err
					}
					return a.show(v, func(w io.Writer) { printChannel(w, v) })
				})
			},
		},
		&cobra.Command{
			Use: "close CHANNEL", Short: "Close a channel that came back with the phrase", Args: exactly("CHANNEL"),
			Long: `Close ends, together with its other side, a channel that you paid by and that
came back with the recovery phrase, once the other side has shown it. Its money
then need not wait for the channel's end. Other channels close with their lease.`,
			RunE: func(c *cobra.Command, args []string) error {
				return a.withNode(c, func(ctx context.Context, n *client.Client) error {
					v, err := n.CloseChannel(ctx, args[0])
					if err != nil {
						return err
					}
					return a.show(v, func(w io.Writer) { printChannel(w, v) })
				})
			},
		}, a.rollCommand())
	return c
}

func (a *app) rollCommand() *cobra.Command {
	var add, most money = 0, 1 << 20
	var extend period
	var plan, yes bool
	c := &cobra.Command{
		Use: "roll CHANNEL [--add PKT] [--extend TIME]", Short: "Add money or time to a channel", Args: exactly("CHANNEL"),
		Long: `Roll adds money or time to a channel that you pay by, without a close: one
transaction turns it into another channel, in which what was paid is paid already.
The leases on it go on meanwhile. It says what that costs, asks, and asks the
provider; without a terminal it goes on only with --yes.

A channel ends at a block, not at a time, and blocks may come faster than they
should. So --extend counts one for each 45 seconds: where they come once a minute,
7d adds 13441 blocks, which take nine days. What is not paid comes back when the
last lease ends, not only then.`,
		RunE: func(c *cobra.Command, args []string) error {
			if extend > service.MaxExtendDays*24*3600 {
				return service.Errorf(service.CodeInvalid, "--extend takes at most %dd; a channel can be extended again later", service.MaxExtendDays)
			}
			r := service.RollRequest{Add: pktcloud.Amount(add), ExtendSeconds: uint64(extend), MaxFee: pktcloud.Amount(most)}
			return a.withNode(c, func(ctx context.Context, n *client.Client) error { return a.roll(ctx, n, args[0], r, plan, yes) })
		},
	}
	g := c.Flags()
	g.Var(&add, "add", "money from the wallet")
	g.Var(&extend, "extend", "time by which the channel ends later, at least, such as 12h or 7d; at most 366d")
	g.Var(&most, "max-fee", "fee that is not to be exceeded")
	g.BoolVar(&plan, "plan", false, "only say what it would cost")
	g.BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) roll(ctx context.Context, n *client.Client, channel string, r service.RollRequest, plan, yes bool) error {
	r.Plan = true
	p, err := n.RollChannel(ctx, channel, r)
	if err != nil {
		return err
	}
	if p.Fee > r.MaxFee {
		return service.Errorf(service.CodeMoney, "the fee is above the limit: it would be %s, the limit is %s; raise --max-fee", p.Fee, r.MaxFee)
	}
	if plan {
		return a.show(p, func(w io.Writer) { printRoll(w, p, "") })
	}
	if !yes {
		printRoll(a.err, p, "")
		if err := a.confirm("Add this? [y/N] "); err != nil {
			return err
		}
	}
	r.Plan = false
	done, err := n.RollChannel(ctx, channel, r)
	if err != nil {
		return err
	}
	return a.show(done, func(w io.Writer) {
		if done.Into == "" {
			fmt.Fprintln(w, "The provider has not answered yet; the node asks again by itself.")
			return
		}
		label := done.Into
		if v, err := n.Channel(ctx, done.Into); err == nil {
			label = v.Label
		}
		printRoll(w, done, label)
	})
}

// printRoll shows a roll that is planned, or one that goes on as channel into.
func printRoll(w io.Writer, r service.Roll, into string) {
	t := newTable(w)
	if into != "" {
		t.row("goes on as", into)
	}
	t.row("added", r.Added)
	t.row("fee", r.Fee)
	t.row("new capacity", r.Capacity)
	t.row("ends", rollEnd(r))
	t.row("waits for", counted(r.Depth, "confirmation")+"; until then payments are signed for both channels")
	if r.Fee > 0 { // not one that was under way already
		t.row("left in the wallet", r.Left)
	}
	t.end()
	if r.Added > 0 && r.Added < r.Fee {
		fmt.Fprintln(w, "Mind: the fee is more than what is added.")
	}
}

// rollEnd says when the channel then ends.
func rollEnd(r service.Roll) string {
	text := fmt.Sprintf("at block %d", r.Expiry)
	switch days := float64(r.Seconds) / (24 * 3600); {
	case r.Seconds == 0:
		return text
	case days < 2:
		return fmt.Sprintf("%s (in about %s)", text, counted(max(r.Seconds/3600, 1), "hour"))
	default:
		return fmt.Sprintf("%s (in about %.0f days)", text, days)
	}
}

func printChannels(w io.Writer, channels []service.ChannelView) {
	if len(channels) == 0 {
		fmt.Fprintln(w, "No channel yet; a lease opens one. Those that a recovery phrase brought back are in \"pktcloud wallet history\".")
		return
	}
	t := newTable(w)
	t.row("CHANNEL", "PHASE", "ROLE", "CAPACITY", "PAID", "ENDS AT BLOCK", "LEASES")
	for _, c := range channels {
		t.row(c.Label, c.Phase, c.Role, c.Capacity, c.Paid, c.Expiry, strings.Join(c.Leases, " "))
	}
	t.end()
}

func printChannel(w io.Writer, c service.ChannelView) {
	fmt.Fprintln(w, c.Now)
	t := newTable(w)
	t.row("channel", c.Label)
	t.row("id", c.ID)
	t.row("you are", c.Role)
	if !c.Peer.IsZero() {
		t.row("other side's device", c.Peer)
	}
	if c.FromLabel != "" {
		t.row("went on from", c.FromLabel)
	}
	if c.IntoLabel != "" {
		t.row("goes on as", c.IntoLabel)
	}
	t.row("capacity", c.Capacity)
	t.row("reserve", c.Reserve)
	t.row("paid", c.Paid)
	t.row("left", c.Left)
	t.row("at risk now", fmt.Sprintf("%s, never more than %s", c.AtRisk, c.Limit))
	t.end()
	for _, s := range c.Steps {
		mark := map[string]string{"done": "x", "now": ">", "ahead": " "}[s.State]
		fmt.Fprintf(w, "[%s] %s: %s\n", mark, s.Name, s.Text)
	}
}
