package peer_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// TestMain lets the stories run side by side: they mostly wait. More of them at
// once would not be in time to pay each second for what they have on two processors.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	os.Exit(m.Run())
}
