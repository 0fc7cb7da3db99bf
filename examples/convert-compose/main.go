// Convert-compose says what a compose.yaml is as a lease: its services, and what of
// the file means something else there.
package main

import (
	_ "embed"
	"fmt"
	"log"

	"github.com/pkt-cash/pkt-cloud/lease/compose"
)

//go:embed compose.yaml
var file []byte

func main() {
	m, warnings, err := compose.Convert(file, compose.Options{Variables: map[string]string{"DB_PASSWORD": "secret"}})
	if err != nil {
		log.Fatal(err) // each fault has its line
	}
	for _, s := range m.Services {
		fmt.Printf("%s: %s, %d MiB of memory, waits for %d, publishes %d\n", s.Name, s.Image, s.Resources.MemoryBytes>>20, len(s.Depends), len(s.Publish))
	}
	for _, w := range warnings {
		fmt.Println(w)
	}
}
