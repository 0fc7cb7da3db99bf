package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/internal/durable"
	"github.com/pkt-cash/pkt-cloud/node"
	"github.com/pkt-cash/pkt-cloud/node/service"
	"github.com/pkt-cash/pkt-cloud/settle"
	"github.com/pkt-cash/pkt-cloud/settle/devnet"
	"github.com/pkt-cash/pkt-cloud/settle/pktchain"
)

const (
	defaultRPC      = "127.0.0.1:7392"
	rpcAddressFile  = "rpc-address"
	defaultInterval = 10 * time.Second
)

func (a *app) devnetCommand() *cobra.Command {
	var dir, rpc string
	var interval time.Duration
	c := &cobra.Command{
		Use: "devnet", Short: "Run a chain for development, with coins worth nothing", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runDevnet(c.Context(), dir, rpc, interval) },
	}
	c.PersistentFlags().StringVar(&dir, "chain-dir", "", "directory of the chain (default devnet in the data directory)")
	c.PersistentPreRun = func(*cobra.Command, []string) {
		if dir == "" {
			dir = filepath.Join(a.dir, "devnet")
		}
	}
	c.Flags().StringVar(&rpc, "rpc", defaultRPC, "loopback address of the RPC")
	c.Flags().DurationVar(&interval, "block-interval", defaultInterval, "time between blocks; 0: on demand only")
	faucet := &cobra.Command{
		Use: "faucet ADDRESS AMOUNT", Short: "Give coins of the running devnet to an address", Args: exactly("ADDRESS", "AMOUNT"),
		RunE: func(c *cobra.Command, args []string) error {
			amount, err := parseMoney(args[1])
			if err != nil {
				return &service.Error{Code: service.CodeInvalid, Err: err}
			}
			txid, err := devnetRPC{dir}.faucet(c.Context(), args[0], amount)
			if err != nil {
				return err
			}
			return a.show(map[string]string{"txid": txid}, func(io.Writer) { a.printf("%s\n", txid) })
		},
	}
	faucet.SetFlagErrorFunc(notNegative("a faucet only gives"))
	c.AddCommand(faucet, &cobra.Command{
		Use: "mine [BLOCKS]", Short: "Mine blocks on the running devnet", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			blocks := 1
			if len(args) == 1 {
				var err error
				if blocks, err = strconv.Atoi(args[0]); err != nil || blocks < 1 {
					return service.Errorf(service.CodeInvalid, "%q is no number of blocks", args[0])
				}
			}
			hashes, err := devnetRPC{dir}.mine(c.Context(), blocks)
			if err != nil {
				return err
			}
			return a.show(map[string]any{"blocks": hashes}, func(io.Writer) { a.printf("%s\n", strings.Join(hashes, "\n")) })
		},
	})
	return c
}

// notNegative tells of an amount below zero, which looks like a flag.
func notNegative(why string) func(*cobra.Command, error) error {
	return func(_ *cobra.Command, err error) error {
		if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
			if text := e.GetSpecifiedShortnames(); text != "" && strings.Trim(text, "0123456789.") == "" {
				return fmt.Errorf("-%s is no amount: %s", text, why)
			}
		}
		return err
	}
}

func (a *app) runDevnet(ctx context.Context, dir, rpc string, interval time.Duration) (err error) {
	if dir, err = filepath.Abs(dir); err != nil { // it is printed for use elsewhere
		return err
	}
	l, err := listenLoopback(rpc, "--rpc")
	if err != nil {
		return err
	}
	defer l.Close()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &service.Error{Code: service.CodeInvalid, Err: err}
	}
	chain, err := devnet.Open(dir, devnet.Config{BlockInterval: interval})
	if err != nil {
		return &service.Error{Code: service.CodeConflict, Err: err}
	}
	defer func() { err = errors.Join(err, chain.Close()) }()
	auth, err := devnet.NewCookie(node.DevnetCookie(dir))
	if err != nil {
		return err
	}
	address := filepath.Join(dir, rpcAddressFile)
	if err := durable.WriteFile(address, []byte(l.Addr().String()+"\n")); err != nil {
		return err
	}
	defer os.Remove(address) //nolint:errcheck // a stale file is found out by the client
	tip, err := chain.Tip(ctx)
	if err != nil {
		return err
	}
	url := "http://" + l.Addr().String()
	if err := a.show(map[string]any{"rpc": url, "cookie": node.DevnetCookie(dir), "height": tip.Height}, func(io.Writer) {
		a.printf("Devnet at block %d.\n  rpc     %s\n  cookie  %s\nFlags for a node: --chain %s --chain-cookie %s\n",
			tip.Height, url, node.DevnetCookie(dir), url, node.DevnetCookie(dir))
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var failed [2]error
	wg.Go(func() { defer cancel(); failed[0] = chain.Serve(ctx, l, auth) })
	wg.Go(func() { defer cancel(); failed[1] = chain.Run(ctx) })
	wg.Wait()
	for i, e := range failed {
		if errors.Is(e, context.Canceled) {
			failed[i] = nil
		}
	}
	return errors.Join(failed[:]...)
}

// devnetRPC asks the devnet that runs on a directory.
type devnetRPC struct{ dir string }

func (d devnetRPC) faucet(ctx context.Context, address string, amount pktcloud.Amount) (txid string, err error) {
	network, _ := pktchain.NetworkOf(node.DefaultNetwork)
	script, err := network.ParseAddress(address)
	if err != nil {
		if refused, ok := errors.AsType[*settle.Error](err); ok {
			err = errors.New(refused.Text)
		}
		return "", &service.Error{Code: service.CodeInvalid, Err: err}
	}
	err = d.call(ctx, &txid, "devnetfaucet", hex.EncodeToString(script), uint64(amount))
	return txid, err
}

func (d devnetRPC) mine(ctx context.Context, blocks int) (hashes []string, err error) {
	err = d.call(ctx, &hashes, "generate", blocks)
	return hashes, err
}

func (d devnetRPC) call(ctx context.Context, result any, method string, params ...any) error {
	address, err := os.ReadFile(filepath.Join(d.dir, rpcAddressFile))
	if err != nil {
		return service.Errorf(service.CodeNoNode, "no devnet runs on %s; start one with \"pktcloud devnet\"", d.dir)
	}
	cookie, err := os.ReadFile(node.DevnetCookie(d.dir))
	if err != nil {
		return &service.Error{Code: service.CodeNoNode, Err: err}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+strings.TrimSpace(string(address)), bytes.NewReader(body))
	if err != nil {
		return err
	}
	user, password, _ := strings.Cut(strings.TrimSpace(string(cookie)), ":")
	r.SetBasicAuth(user, password)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return &service.Error{Code: service.CodeNoNode, Detail: "the devnet does not answer; start it with \"pktcloud devnet\"", Err: err}
	}
	defer answer.Body.Close()
	var reply struct {
		Result json.RawMessage
		Error  *struct{ Message string }
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 16<<20)).Decode(&reply); err != nil {
		return fmt.Errorf("the devnet's answer (%s): %w", answer.Status, err)
	}
	if reply.Error != nil {
		return service.Errorf(service.CodeInvalid, "%s", reply.Error.Message)
	}
	return json.Unmarshal(reply.Result, result)
}
