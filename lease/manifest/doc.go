// Package manifest reads what people write about the services of a lease, and
// makes a [lease.Manifest] of it. It runs nothing and asks nobody.
//
// Call [Read]. The form is that of spec/services.md.
package manifest
