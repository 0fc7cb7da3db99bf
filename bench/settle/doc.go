// Package settle measures channels at scale against what nothing can do
// without: one ECDSA signature, its verification and one sync to the disk. It
// has no code but benchmarks; run them with "make bench RUN=Settle". Each
// prints its ratio, and docs/performance.md says what was measured.
package settle
