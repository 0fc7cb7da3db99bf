// Package session carries exec, logs and TCP forwarding to a lease's workload:
// the protocol /pktcloud/session/1 over libp2p. A provider serves it with
// [NewServer]; a tenant calls [Exec], [Logs] and [Dial].
//
// The package runs nothing itself: the workload is behind the interface
// [Workload]. The rules are those of spec/session.md.
package session
