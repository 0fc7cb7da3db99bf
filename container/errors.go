package container

import "errors"

// Code classifies a refusal; the codes are the refusal table of
// spec/container.md. A Code is an error, so that errors.Is(err, CodeNotFound)
// tells what happened.
type Code string

// Codes of [Error].
const (
	CodeInvalidSpec     Code = "invalid-spec"
	CodeUnknownImage    Code = "unknown-image"
	CodeRegistry        Code = "registry"
	CodeForbiddenHost   Code = "forbidden-host"
	CodeBadImage        Code = "bad-image"
	CodeDigestMismatch  Code = "digest-mismatch"
	CodeWrongArch       Code = "wrong-architecture"
	CodeTooLarge        Code = "too-large"
	CodeNotFound        Code = "no-such-container"
	CodeConflict        Code = "conflict"
	CodeInUse           Code = "in-use"
	CodeNotRunning      Code = "not-running"
	CodeDoesNotFit      Code = "does-not-fit"
	CodeProgram         Code = "program"
	CodePortRefused     Code = "port-refused"
	CodePortTaken       Code = "port-taken"
	CodePortForbidden   Code = "port-forbidden"
	CodeDiskFull        Code = "disk-full"
	CodeCapacity        Code = "capacity"
	CodeNoVolume        Code = "no-such-volume"
	CodeVolumeConflict  Code = "volume-conflict"
	CodeVolumeInUse     Code = "volume-in-use"
	CodeVolumeFull      Code = "volume-full"
	CodeBadTree         Code = "bad-tree"
	CodeNoCgroups       Code = "no-cgroups"
	CodeNotRoot         Code = "not-root"
	CodeUnsupported     Code = "unsupported-platform"
	CodeMissingFeature  Code = "missing-feature"
	CodeNoClass         Code = "no-such-class"
	CodeRuntime         Code = "runtime"
	codeUnknownSentence      = "the container runtime failed"
)

var sentences = map[Code]string{
	CodeInvalidSpec:    "the container's specification is not acceptable; correct the manifest",
	CodeUnknownImage:   "there is no such image; check the reference",
	CodeRegistry:       "the registry could not be used; check its address, your network and the credentials",
	CodeForbiddenHost:  "the address is not on the public internet; the provider's owner can allow it in the configuration",
	CodeBadImage:       "the image is malformed; build or push it again",
	CodeDigestMismatch: "the image's bytes are not those that its digest names; do not use this source",
	CodeWrongArch:      "the image has no variant for this machine's architecture; choose another image or another provider",
	CodeTooLarge:       "the image is larger than this provider accepts; use a smaller one or ask for a higher limit",
	CodeNotFound:       "there is no such container",
	CodeConflict:       "a container of this id was started from another specification; destroy it first",
	CodeInUse:          "another process uses this directory; stop it, or choose another directory",
	CodeNotRunning:     "the container is not running; look at its exit code and logs",
	CodeDoesNotFit:     "the container uses more than the new limits allow; free some of it first, or ask for more",
	CodeProgram:        "the program could not be started; check the command, its path and its permissions in the image",
	CodePortRefused:    "nothing listens on that port inside the container; check that the service is up and listens on 127.0.0.1 or 0.0.0.0",
	CodePortTaken:      "something else on the provider's machine uses that port; publish another",
	CodePortForbidden:  "the provider's owner does not let tenants publish that address and port; choose one that is offered",
	CodeDiskFull:       "the disk is full; free some space and try again",
	CodeCapacity:       "no room for another container; destroy one first",
	CodeNoVolume:       "there is no such volume; create it first",
	CodeVolumeConflict: "the volume has another size, or holds data already; volumes only grow, and are restored under a new name",
	CodeVolumeInUse:    "a container still has this volume; destroy the container first",
	CodeVolumeFull:     "the volume is full; let it grow, or remove files",
	CodeBadTree:        "the files cannot be kept as they are: a path is too long, or what should be restored is damaged or of another kind",
	CodeNoCgroups:      "control groups are missing, so limits could not be kept; mount cgroup v2 (or v1 with cpu, memory and pids) at /sys/fs/cgroup",
	CodeNotRoot:        "running containers needs root; start the provider as root, or only rent",
	CodeUnsupported:    "this build cannot run containers; use the Linux build with cgo on a provider",
	CodeMissingFeature: "this machine lacks something that containers need",
	CodeNoClass:        "this provider does not isolate containers so; choose an offer that names the class",
	CodeRuntime:        codeUnknownSentence,
}

// Error returns the code's sentence.
func (c Code) Error() string {
	if s, ok := sentences[c]; ok {
		return s
	}
	return codeUnknownSentence
}

// Error is a refusal: a class and what it was about. Err, if not nil, is the
// cause.
type Error struct {
	Code   Code
	Detail string
	Err    error
}

// Error returns the detail, the cause and the code's sentence.
func (e *Error) Error() string {
	s := e.Code.Error()
	if e.Err != nil {
		s = e.Err.Error() + ": " + s
	}
	if e.Detail != "" {
		s = e.Detail + ": " + s
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the error's code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Wrap returns err as an *[Error] of the given code, unless it is one already.
// A nil err stays nil.
func Wrap(code Code, detail string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return &Error{Code: code, Detail: detail, Err: err}
}
