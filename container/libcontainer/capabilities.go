package libcontainer

// capabilities are what a container's root keeps, within its own user
// namespace and filter [CONTAINER-22]. The seccomp filter is compiled for
// exactly these.
var capabilities = []string{
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_NET_BIND_SERVICE",
	"CAP_SETGID",
	"CAP_SETUID",
}
