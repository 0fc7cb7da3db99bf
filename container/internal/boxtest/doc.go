// Package boxtest is what the system tests of the container runtimes have in
// common: a [World], which is a runtime over a store that has one image, and
// checks that each runtime passes. A test begins with [New].
//
// It asks nothing that differs between classes of isolation; that is in the
// tests of container/libcontainer and container/gvisor. What any runtime
// promises is in container/containertest.
package boxtest
