// Package image keeps container images: it pulls them from a registry, an OCI
// layout or a docker archive, verifies every byte against its digest, unpacks
// them within bounds, and builds small ones from files.
//
// Start with [Open] and [Store.Pull]. A [Store] is what container/libcontainer
// asks for images; the package starts no containers. As root, layers are
// unpacked by a child process without privileges, which is this binary run
// again: this package's init function notices that and never returns. The
// rules are those of spec/container.md.
package image
