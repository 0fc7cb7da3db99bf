package wallet_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// TestMain keeps the model of the index, which mines real blocks, to seconds,
// unless the command line says otherwise.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": "6", "rapid.steps": "40"} {
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}
