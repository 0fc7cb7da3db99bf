package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

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
		})
	return c
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
	t.row("channel", c.ID)
	t.row("you are", c.Role)
	if !c.Peer.IsZero() {
		t.row("other side", c.Peer)
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
