package peer_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// TestMain lets the stories run side by side: they mostly wait.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "24"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	os.Exit(m.Run())
}
