// Package netlab gives a test of the system tier a network of its own, to which
// another one is the whole internet. A test begins with [Alone], and then makes
// the other one with [New]. Both need root.
package netlab
