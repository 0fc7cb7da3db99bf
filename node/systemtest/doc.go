// Package systemtest holds the tests that run the binary as people do: a
// devnet, a provider and a tenant as processes of their own, real containers,
// a real browser. They carry the build tag system and need root on Linux;
// "make test-system" runs them.
package systemtest
