// Package container measures containers against the tools that people know:
// starts, starts at once and waiting containers against crun and runc on the
// same bundle, and unpacking against tar. It has no code but benchmarks, which
// need root; run them with "make bench RUN=Container" after "make build".
// docs/performance.md says what was measured.
package container
