package manifest

import _ "embed"

// Schema is the JSON Schema of files that [Read] reads: for editors, and for
// whoever makes such files by a program [SERVICE-41]. What it allows Read may
// refuse still, since a schema does not see what services say of each other; what
// it refuses Read refuses too, but for a word that is there twice or merged.
//
//go:embed schema.json
var Schema []byte
