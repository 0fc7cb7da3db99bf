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
// mutant that does not compile proves nothing and counts as broken, and so does
// one whose test fails without it. A test that does not end in time notices
// nothing either, unless the block has the line "hangs: yes".
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
	"io"
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
	timeout := flags.Duration("timeout", 3*time.Minute, "how long a test may take")
	tags := flags.String("tags", "", "build `tags` of all tests")
	check := flags.Bool("baseline", true, "first run each test without a mutant: it must pass")
	verbose := flags.Bool("v", false, "show how each mutant was noticed")
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
		t := trial{timeout: *timeout, tags: *tags}
		if *check {
			t.healthy = new(baseline)
		}
		results, err := tryAll(ctx, chosen, *workers, t, *verbose)
		if err == nil {
			err = report(os.Stdout, results)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// tryAll tries the mutants, each worker in its own copy of the tree.
func tryAll(ctx context.Context, chosen []mutant, workers int, t trial, verbose bool) ([]result, error) {
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
				fmt.Printf("%-9s %s (%.1f s)\n", results[i].verdict, chosen[i].Name, results[i].took.Seconds())
				if verbose {
					fmt.Println(results[i].detail)
				}
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

// report prints the table and returns an error that names what was not noticed.
func report(w io.Writer, results []result) error {
	counts := map[verdict]int{}
	var missed []string
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nmutant\tfile\tverdict\tseconds\ttest")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%s\t%s\t%.1f\t%s\n", r.Name, r.File, r.verdict, r.took.Seconds(), r.Test)
		counts[r.verdict]++
		if !r.verdict.noticed() {
			missed = append(missed, r.Name)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		if !r.verdict.noticed() {
			fmt.Fprintf(w, "\n%s (%s): %s\n", r.Name, r.list, r.detail)
		}
	}
	fmt.Fprintf(w, "\n%d mutants: %d caught, %d timed out as they may, %d timed out, %d survive, %d broken\n",
		len(results), counts[caught], counts[hung], counts[tookLong], counts[survives], counts[unusable])
	if len(missed) > 0 {
		return fmt.Errorf("not noticed: %s", strings.Join(missed, ", "))
	}
	return nil
}
