package container

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Spec is one container to run [CONTAINER-1]. It carries no host path, no
// capability, no device and no namespace choice: what isolates a container is
// not for the tenant to say.
type Spec struct {
	// ID names the container on this machine: a-z, 0-9, '.', '_' and '-', at most
	// [MaxIDBytes], beginning with a letter or digit.
	ID string
	// Image is the digest that Pull returned, "sha256:…".
	Image string
	// Args is the command line; empty means the image's own.
	Args []string
	// Entrypoint puts Args behind the image's entrypoint, in place of the image's
	// own arguments, also where Args is empty [CONTAINER-120].
	Entrypoint bool `json:",omitzero"`
	// Env is added to the image's own, "NAME=value"; the last one counts.
	Env []string
	// WorkDir and User replace those of the image when not empty. User is
	// "name", "uid", "name:group" or "uid:gid".
	WorkDir string
	User    string
	// Hostname is empty for the id's beginning, or a DNS label.
	Hostname string
	Limits   Limits
	// Lease is what the container's volumes belong to, of the same form as ID;
	// empty only without volumes.
	Lease string
	// Volumes are mounted in it; [CodeNoVolume] when one is not there.
	Volumes []Mount
	Network Network
	// Class is the isolation that the tenant demands; empty takes the runtime's
	// own.
	Class Class
}

// Limits bound what a container may use. Each must be stated [CONTAINER-3].
type Limits struct {
	// MilliCPU is in thousandths of one processor.
	MilliCPU uint64
	// MemoryBytes bounds memory, the kernel's buffers for it included. There
	// is no swap.
	MemoryBytes uint64
	// DiskBytes is the size of the writable layer's file system.
	DiskBytes uint64
	// Pids bounds processes and threads.
	Pids uint64
}

// Validate checks the shape of a spec. Errors are [CodeInvalidSpec] and name
// the field.
func (s Spec) Validate() error {
	if err := ValidateID(s.ID); err != nil {
		return err
	}
	if !ValidDigest(s.Image) {
		return invalid("image %.80q is no digest of the form sha256:<64 hex digits>", s.Image)
	}
	if err := validateArgs(s.Args); err != nil {
		return err
	}
	if err := validateEnv(s.Env); err != nil {
		return err
	}
	if err := validateWorkDir(s.WorkDir); err != nil {
		return err
	}
	if len(s.User) > MaxUserBytes || !plainText(s.User) || strings.Count(s.User, ":") > 1 {
		return invalid("user %.80q is neither name, uid, name:group nor uid:gid", s.User)
	}
	if s.Hostname != "" && !isLabel(s.Hostname) {
		return invalid("hostname %.80q is no DNS label of at most %d characters", s.Hostname, MaxHostname)
	}
	if err := s.validateMounts(); err != nil {
		return err
	}
	if err := s.Network.Validate(); err != nil {
		return err
	}
	if !s.Class.Valid() {
		return invalid("class %.80q is neither %s nor %s", s.Class, ClassUserns, ClassGVisor)
	}
	return s.Limits.Validate()
}

// CommandLine is what runs: the program and its arguments [CONTAINER-120]. Empty:
// neither the specification nor the image names a program.
func (s Spec) CommandLine(img Image) []string {
	switch {
	case s.Entrypoint:
		return slices.Concat(img.Args[:min(max(img.Entrypoint, 0), len(img.Args))], s.Args)
	case len(s.Args) == 0:
		return img.Args
	}
	return s.Args
}

// Equal reports whether two specs ask for the same.
func (s Spec) Equal(o Spec) bool {
	return s.ID == o.ID && s.Image == o.Image && slices.Equal(s.Args, o.Args) && s.Entrypoint == o.Entrypoint && slices.Equal(s.Env, o.Env) &&
		s.WorkDir == o.WorkDir && s.User == o.User && s.Hostname == o.Hostname && s.Limits == o.Limits && s.Class == o.Class &&
		s.Lease == o.Lease && slices.Equal(s.Volumes, o.Volumes) && s.Network.Equal(o.Network)
}

// SmallLimits are enough for a small program: for examples and tests.
func SmallLimits() Limits {
	return Limits{MilliCPU: 1000, MemoryBytes: 64 << 20, DiskBytes: 16 << 20, Pids: 64}
}

// Validate checks that each limit is stated and within what a machine can
// keep. Errors are [CodeInvalidSpec].
func (l Limits) Validate() error {
	for _, c := range []struct {
		name          string
		got, min, max uint64
	}{
		{"milli-cpu", l.MilliCPU, MinMilliCPU, MaxMilliCPU},
		{"memory bytes", l.MemoryBytes, MinMemory, MaxMemory},
		{"disk bytes", l.DiskBytes, MinDisk, MaxDisk},
		{"pids", l.Pids, MinPids, MaxPids},
	} {
		if c.got < c.min || c.got > c.max {
			return invalid("limit %d %s is outside %d to %d", c.got, c.name, c.min, c.max)
		}
	}
	return nil
}

// Validate checks the shape of a program to execute. Errors are
// [CodeInvalidSpec].
func (e ExecSpec) Validate() error {
	if e.Files && (len(e.Args) > 0 || e.TTY) {
		return invalid("files are served without arguments and without a terminal")
	}
	if len(e.Args) == 0 && !e.Files {
		return invalid("no program to execute")
	}
	if err := validateArgs(e.Args); err != nil {
		return err
	}
	if err := validateEnv(e.Env); err != nil {
		return err
	}
	return validateWorkDir(e.WorkDir)
}

// ValidateID checks a container's id. Errors are [CodeInvalidSpec].
func ValidateID(id string) error {
	ok := id != "" && len(id) <= MaxIDBytes && isAlnum(id[0])
	for i := 0; ok && i < len(id); i++ {
		ok = isAlnum(id[i]) || strings.IndexByte("._-", id[i]) >= 0
	}
	if !ok {
		return invalid("id %.140q is not 1 to %d of a-z 0-9 . _ - beginning with a letter or digit", id, MaxIDBytes)
	}
	return nil
}

// ValidDigest reports whether s is "sha256:" and 64 lower-case hex digits.
func ValidDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

func validateArgs(args []string) error {
	if len(args) > MaxArgs {
		return invalid("%d arguments, at most %d", len(args), MaxArgs)
	}
	total := 0
	for i, a := range args {
		total += len(a) + 1
		if strings.IndexByte(a, 0) >= 0 || !utf8.ValidString(a) || total > MaxArgBytes {
			return invalid("argument %d contains a zero byte or no UTF-8, or all exceed %d bytes", i, MaxArgBytes)
		}
	}
	if len(args) > 0 && args[0] == "" {
		return invalid("the program's name is empty")
	}
	return nil
}

func validateEnv(env []string) error {
	if len(env) > MaxEnv {
		return invalid("%d variables, at most %d", len(env), MaxEnv)
	}
	total := 0
	for i, v := range env {
		total += len(v) + 1
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" || strings.IndexByte(v, 0) >= 0 || !utf8.ValidString(v) || total > MaxEnvBytes {
			return invalid("variable %d is not NAME=value, contains a zero byte or no UTF-8, or all exceed %d bytes", i, MaxEnvBytes)
		}
	}
	return nil
}

func validateWorkDir(dir string) error {
	if dir == "" {
		return nil
	}
	if len(dir) > MaxPathBytes || dir[0] != '/' || !plainText(dir) || slices.Contains(strings.Split(dir, "/"), "..") {
		return invalid("working directory %.80q is no absolute path without \"..\" of at most %d bytes", dir, MaxPathBytes)
	}
	return nil
}

// plainText refuses control characters and bytes that are not UTF-8.
func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func isLabel(s string) bool {
	ok := len(s) <= MaxHostname && isAlnum(s[0]) && isAlnum(s[len(s)-1])
	for i := 0; ok && i < len(s); i++ {
		ok = isAlnum(s[i]) || s[i] == '-'
	}
	return ok
}

func isAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func invalid(format string, args ...any) error {
	return &Error{Code: CodeInvalidSpec, Detail: fmt.Sprintf(format, args...)}
}
