// Package netstack is the way out of a group of containers, and the way in to
// the ports that it publishes: a TCP/IP stack in an ordinary process. It reads
// the group's packets from a TUN device, ends each connection, judges where it
// wants to go, and opens one of its own to there. So the machine's own network
// needs neither addresses nor rules for containers, and their packets are
// parsed by a process that may do nothing else.
//
// A packet passes through three goroutines here, and each wakes the next: a
// process of one connection is fastest with GOMAXPROCS=1.
//
// Start with [New] over the link that [OpenTUN] returns. The package makes no
// device and no namespace: that is container/libcontainer, which runs it in a
// process of its own for each group. The rules are those of spec/container.md,
// section Network.
package netstack
