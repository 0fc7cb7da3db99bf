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
	for name, value := range map[string]string{"rapid.checks": "4", "rapid.steps": "30"} {
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}
