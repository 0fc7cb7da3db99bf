// Attack is a hostile tenant: a program to run inside a lease, which tries the
// known ways out of a container and the known ways to spoil it for others. It
// does no harm where an attack succeeds: it writes back what it read, probes
// calls with arguments that they refuse, and bounds every bomb.
//
//	attack run [name…]   tries all or the named attacks, one line for each
//	attack list          prints the attacks as JSON
//	attack table         prints them as docs/security.md has them
//	attack neighbour     is the lease next door: a secret in memory, a shared
//	                     segment and a socket, all for the attacks to find
//	attack flood         writes more to its output than a log may keep
//	attack watch         waits for a program that is just being started
//	attack trace         waits for one, too, and makes it call what it may not
//	attack outlive       does nothing, and does not end with its monitor
//	attack where         tells whether its working directory is outside
//	attack wait          does nothing
//
// A line says "could not" and why, or "SUCCEEDED". The program is static, has
// no dependencies and judges itself; what only the machine can judge is judged
// by the system test of container/libcontainer, which also runs it with each
// defence taken away. The table in docs/security.md is made from its list.
package main
