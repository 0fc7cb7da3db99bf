// Command mutants breaks the tree on purpose, one line at a time, and demands
// that a test notices. The mutants stand in testdata/mutants.txt files, blocks
// parted by blank lines:
//
//	name: voucher-may-shrink
//	file: settle/channel.go
//	old: if v.Total < c.Paid {
//	new: if false {
//	test: ./settle -run TestChannelModel
//
// old occurs exactly once in the file. The test is arguments of go test. A
// mutant that does not compile proves nothing and counts as broken.
//
// Besides, it sweeps over the channel core: every change that the operators of
// package operators can make there must be noticed too, or stand in a
// survivors.txt with the reason why no test can notice it. docs/mutants.md says
// how to read its table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	pattern := flags.String("run", ".", "only mutants whose name matches this `regexp`; of a sweep, file, function, operator and change")
	workers := flags.Int("j", 2, "how many at once")
	timeout := flags.Duration("timeout", 3*time.Minute, "how long a test may take; one that hangs has noticed")
	tags := flags.String("tags", "", "build `tags` of all tests")
	if err := flags.Parse(args); err != nil {
		return err
	}
	filter, err := regexp.Compile(*pattern)
	if err != nil {
		return err
	}
	all, err := readMutants(os.DirFS("."))
	if err != nil {
		return err
	}
	var chosen []mutant
	for _, m := range all {
		if filter.MatchString(m.Name) {
			chosen = append(chosen, m)
		}
	}
	if *workers < 1 {
		return errors.New("-j must be at least 1")
	}
	var faults []error
	tried := len(chosen) > 0
	for _, s := range sweeps {
		some, err := s.run(ctx, filter, *workers)
		tried = tried || some
		faults = append(faults, err)
	}
	if !tried {
		return fmt.Errorf("no mutant matches %q", *pattern)
	}
	if len(chosen) > 0 && ctx.Err() == nil {
		results, err := tryAll(ctx, chosen, *workers, trial{timeout: *timeout, tags: *tags})
		if err == nil {
			err = report(results)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// tryAll tries the mutants, each worker in its own copy of the tree.
func tryAll(ctx context.Context, chosen []mutant, workers int, t trial) ([]result, error) {
	temp, err := os.MkdirTemp("", "pktcloud-mutants-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp) //nolint:errcheck // a temporary folder
	var copies []string
	for i := range min(workers, len(chosen)) {
		dir := fmt.Sprintf("%s/%d", temp, i)
		if err := copyTree(os.DirFS("."), dir); err != nil {
			return nil, fmt.Errorf("copying the tree: %w", err)
		}
		copies = append(copies, dir)
	}

	results := make([]result, len(chosen))
	next := make(chan int)
	var wg sync.WaitGroup
	var printing sync.Mutex
	for _, dir := range copies {
		wg.Go(func() {
			for i := range next {
				results[i] = t.try(ctx, dir, chosen[i])
				if ctx.Err() != nil {
					continue // interrupted: no verdict
				}
				printing.Lock()
				fmt.Printf("%-8s %s (%.1f s)\n", results[i].verdict, chosen[i].Name, results[i].took.Seconds())
				printing.Unlock()
			}
		})
	}
	for i := range chosen {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	return results, ctx.Err()
}

// report prints the table and returns an error that names what was not caught.
func report(results []result) error {
	var survived, broken []string
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nmutant\tfile\tverdict\tseconds\ttest")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%s\t%s\t%.1f\t%s\n", r.Name, r.File, r.verdict, r.took.Seconds(), r.Test)
		switch r.verdict {
		case caught:
		case survives:
			survived = append(survived, r.Name)
		case unusable:
			broken = append(broken, r.Name)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		if r.verdict != caught {
			fmt.Printf("\n%s (%s): %s\n", r.Name, r.list, r.detail)
		}
	}
	fmt.Printf("\n%d mutants: %d caught, %d survive, %d broken\n", len(results), len(results)-len(survived)-len(broken), len(survived), len(broken))
	if len(survived)+len(broken) > 0 {
		return fmt.Errorf("not caught: %s", strings.Join(append(survived, broken...), ", "))
	}
	return nil
}
