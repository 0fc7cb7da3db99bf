// Package compose makes a [lease.Manifest] of a file that people wrote for
// Compose. It is pure: it reads no file, no variable of this machine and no
// network, runs nothing, and takes a file from a stranger.
//
// Call [Read], which takes files of both forms, or [Convert]. What each key of
// Compose becomes stands in [Tables] and in docs/compose.md; the rules are those
// of spec/services.md [SERVICE-38].
package compose
