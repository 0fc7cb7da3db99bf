// Package sshd lets the SSH clients that people have into leases: shells,
// programs, terminals and forwarded ports go through the node's own sessions.
//
// There is no listener and there are no passwords. A client starts the server
// as its ProxyCommand and speaks with it over a pipe, so whoever may use the
// node's files may enter, and nobody else. The host key is the node's, and a
// client that was told of it notices another one. It is a server as RFC 4252
// to 4254 describe it, less agents, X11 and listening on the far side.
package sshd
