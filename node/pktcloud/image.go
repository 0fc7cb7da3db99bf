package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pkt-cash/pkt-cloud/container/image"
	"github.com/pkt-cash/pkt-cloud/node/service"
)

func (a *app) imageCommand() *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "The images of this provider"}
	c.AddCommand(a.imageListCommand(), a.imagePruneCommand(), &cobra.Command{
		Use: "pull REF", Short: "Bring an image here ahead of the first lease", Args: exactly("REF"),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			pulled, err := n.PullImage(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(pulled, func(io.Writer) { a.printf("%s\n", pulled.Digest) })
		},
	})
	return c
}

func (a *app) imageListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "The images that are here, the last used first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			store, err := n.Images(c.Context())
			if err != nil {
				return err
			}
			return a.show(store, func(w io.Writer) {
				printImages(w, store)
			})
		},
	}
}

func (a *app) imagePruneCommand() *cobra.Command {
	var unused period
	c := &cobra.Command{
		Use: "prune", Short: "Remove images that no lease uses", Args: cobra.NoArgs,
		Long: `Prune removes images that no container was started from and that were not used
for a while, layers that no image has, and what half-finished downloads left.
What was used in the last ten minutes stays. Images that containers were started
from stay always. A provider that runs full does the same by itself.`,
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := a.node()
			if err != nil {
				return err
			}
			defer n.Close()
			p, err := n.PruneImages(c.Context(), time.Duration(unused)*time.Second)
			if err != nil {
				return err
			}
			return a.show(p, func(io.Writer) {
				a.printf("%s removed, %s freed\n", counted(uint64(len(p.Digests)), "image"), byteText(p.FreedBytes))
				if left, err := n.Images(c.Context()); err == nil {
					for _, line := range kept(left, time.Duration(unused)*time.Second, time.Now()) {
						a.printf("%s\n", line)
					}
				}
			})
		},
	}
	c.Flags().Var(&unused, "unused-for", "time without use, such as 24h (default any)")
	return c
}

func printImages(w io.Writer, s service.ImageStore) {
	if len(s.Images) > 0 {
		t := newTable(w)
		t.row("DIGEST", "IMAGE", "UNPACKED", "LAYERS", "USE", "LAST USED")
		for _, i := range s.Images {
			use := "unused"
			if i.InUse {
				use = "in use"
			}
			t.row(i.Digest[:min(len(i.Digest), digestShown)], imageName(i.Ref), byteText(i.UnpackedBytes), i.Layers, use, time.Unix(i.LastUsed, 0).UTC().Format(time.RFC3339))
		}
		t.end()
	}
	fmt.Fprintf(w, "%s of %s taken\n", byteText(s.UsedBytes), byteText(s.MaxBytes))
	if s.UsedBytes > s.MaxBytes {
		fmt.Fprintln(w, "That is more than --image-space allows: images that leases use stay; the others go before the next one is fetched.")
	}
}

// digestShown is how much of a digest tells images apart: "sha256:" and twelve
// digits.
const digestShown = 19

// imageName is a reference without the digest behind it, which has a column of
// its own.
func imageName(ref string) string {
	name, _, _ := strings.Cut(ref, "@")
	return name
}

// kept says why images stay that a prune did not remove.
func kept(s service.ImageStore, asked time.Duration, now time.Time) []string {
	var used, recent, young uint64
	for _, i := range s.Images {
		age := now.Sub(time.Unix(i.LastUsed, 0))
		switch {
		case i.InUse:
			used++
		case age < image.HoldSeconds*time.Second:
			recent++
		case age < asked:
			young++
		}
	}
	var lines []string
	for _, k := range []struct {
		n   uint64
		why string
	}{
		{used, "a container was started from it"},
		{recent, fmt.Sprintf("used within the last %d minutes", image.HoldSeconds/60)},
		{young, "used within the time that --unused-for says"},
	} {
		if k.n > 0 {
			lines = append(lines, fmt.Sprintf("%s kept: %s", counted(k.n, "image"), k.why))
		}
	}
	return lines
}
