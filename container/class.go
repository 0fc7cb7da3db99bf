package container

// Class is how a container is kept apart from the machine and from others
// [CONTAINER-80]. Offers name the classes that a provider has.
type Class string

// Classes of isolation.
const (
	// ClassUserns shares the machine's kernel, by namespaces and a filter.
	ClassUserns Class = "userns"
	// ClassGVisor answers a container's system calls by a kernel of its own, in
	// a process without rights.
	ClassGVisor Class = "gvisor"
)

// Valid reports whether c is a class, or empty, which leaves it to the runtime.
func (c Class) Valid() bool {
	return c == "" || c == ClassUserns || c == ClassGVisor
}
