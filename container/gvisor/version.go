package gvisor

// Version is the version of the module gvisor.dev/gvisor that this package is
// tested with.
const Version = "v0.0.0-20250523182742-eede7a881b20"
