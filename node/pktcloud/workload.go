package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// demoPage is what the demo's workload serves.
const demoPage = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Hello from a lease</title>
<h1>Hello from a lease</h1>
<p>This page is served by a container that a provider runs and a tenant pays for, interval by interval.</p>
</html>
`

// workloadCommand is what a container runs when this machine has no static
// busybox: this program itself.
func (a *app) workloadCommand() *cobra.Command {
	c := &cobra.Command{Use: "workload", Hidden: true}
	var port int
	serve := &cobra.Command{
		Use: "serve", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.serveDemoPage(c.Context(), port) },
	}
	serve.Flags().IntVar(&port, "port", demoPort, "")
	c.AddCommand(serve, &cobra.Command{
		Use: "cat FILE", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			_, err = a.out.Write(b)
			return err
		},
	})
	return c
}

func (a *app) serveDemoPage(ctx context.Context, port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.printf("%s %s\n", r.Method, r.URL.Path)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, demoPage) //nolint:errcheck // the reader has left
	})}
	stop := context.AfterFunc(ctx, func() { srv.Close() }) //nolint:errcheck // it ends Serve
	defer stop()
	if err := srv.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}
