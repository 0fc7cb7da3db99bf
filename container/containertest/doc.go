// Package containertest helps to test what uses a container.Runtime and what
// implements one: [Twin] is a Runtime in memory whose programs are Go
// functions, and [TestRuntime] checks any Runtime against the interface's
// promises. The rules are those of spec/container.md.
package containertest
