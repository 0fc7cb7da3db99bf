//go:build linux && amd64

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// attack is one way out, or to spoil something. run returns nil when it
// succeeded, else why not.
type attack struct {
	Name  string `json:"name"`  // subject/what
	About string `json:"about"` // completes "tries to …"
	// Without names the defences that stop it, each of them by itself: with all
	// taken away it succeeds, which is its positive control, and with all but
	// one it does not.
	Without []string `json:"without"`
	// Also names what its control takes away besides: it stops nothing by
	// itself, but the attack would have nothing to reach.
	Also []string `json:"also,omitempty"`
	// Guest says that the control would harm this machine, or needs what its
	// kernel lacks, so that it belongs into a virtual machine.
	Guest bool `json:"guest,omitempty"`
	// V1 says that it is not tried with control groups of version 2, which have
	// no such thing, or since an emulated processor tells nothing.
	V1 bool `json:"v1,omitempty"`
	// V2 says that its control belongs to both kinds of control groups.
	V2 bool `json:"v2,omitempty"`
	// Asks says that it asks for something impossible, and that to be let in is
	// its success: the thing itself would end or harm the machine.
	Asks bool `json:"asks,omitempty"`
	// Mutant names the seeded violation that is its control in the place of a
	// container without its defences.
	Mutant string `json:"mutant,omitempty"`
	// Unproven tells why it has no control.
	Unproven string `json:"unproven,omitempty"`
	// Outside says that only the machine can judge; run is nil.
	Outside bool `json:"outside,omitempty"`

	// here runs it in the first process, which still has all that it was given.
	here bool
	run  func(*targets) error
}

// targets are what there is to attack, in the variable ATTACK_TARGETS as JSON.
// Each may be missing.
type targets struct {
	Secret    string   // a file of the machine
	Token     string   // what stands in it
	Disk      [2]int   // major and minor of the machine's disk
	Addresses []string // host:port that listen on the machine's network
	Heap      uint64   // where the neighbour keeps its secret
}

func attacks() []attack {
	return slices.Concat(fsAttacks, procAttacks, namespaceAttacks, deviceAttacks, cgroupAttacks, kernelAttacks, netAttacks, exhaustAttacks)
}

const (
	patience   = 20 * time.Second // for one attack
	targetsEnv = "ATTACK_TARGETS"
	exitDid    = 10
	exitCould  = 11
)

func main() {
	mode := "run"
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	var t targets
	if s := os.Getenv(targetsEnv); s != "" {
		if err := json.Unmarshal([]byte(s), &t); err != nil {
			fatal(err)
		}
	}
	switch mode {
	case "run":
		runAll(&t, os.Args[min(2, len(os.Args)):])
	case "one":
		one(&t, os.Args[2])
	case "table":
		fmt.Print(table())
	case "list":
		_ = json.NewEncoder(os.Stdout).Encode(attacks())
	case "neighbour":
		neighbour()
	case "flood":
		flood()
	case "watch":
		watch()
	case "trace":
		traceStart()
	case "wait":
		wait()
	case "outlive":
		outlive()
	case "where":
		where()
	case "put-key":
		putKey()
	case "get-key":
		getKey()
	case "0", "1":
		unfiltered()
	default:
		if part, ok := parts[mode]; ok { // the second process of an attack
			part()
			return
		}
		fatal(fmt.Errorf("no such command: %s", mode))
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "attack:", err)
	os.Exit(2)
}

// runAll tries attacks one after the other, each in a process of its own, since
// some of them cost the process its life.
func runAll(t *targets, names []string) {
	for _, a := range attacks() {
		if a.Outside || len(names) > 0 && !slices.Contains(names, a.Name) {
			continue
		}
		err := error(nil)
		if a.here {
			err = a.run(t)
		} else {
			err = apart(a.Name)
		}
		if err == nil {
			fmt.Printf("%s: SUCCEEDED\n", a.Name)
		} else {
			fmt.Printf("%s: could not: %s\n", a.Name, explain(err))
		}
	}
}

// apart runs one attack in a process of its own.
func apart(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "one", name)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	why := strings.TrimSpace(string(out[max(0, len(out)-300):]))
	switch cmd.ProcessState.ExitCode() {
	case exitDid:
		return nil
	case exitCould:
		return errors.New(why)
	}
	if ctx.Err() != nil {
		return errors.New("did not end")
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Errorf("ended by signal %d (%s)", ws.Signal(), ws.Signal())
	}
	return fmt.Errorf("%w: %s", err, why)
}

// one tries the named attack and tells by its exit code.
func one(t *targets, name string) {
	for _, a := range attacks() {
		if a.Name != name || a.run == nil {
			continue
		}
		if err := a.run(t); err != nil {
			fmt.Println(explain(err))
			os.Exit(exitCould)
		}
		os.Exit(exitDid)
	}
	fatal(fmt.Errorf("no such attack: %s", name))
}

// explain puts the errno's name first.
func explain(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return strings.ReplaceAll(err.Error(), "\n", " ")
	}
	name := errnoNames[errno]
	if name == "" {
		name = fmt.Sprintf("errno %d", int(errno))
	}
	return name + " (" + strings.ReplaceAll(err.Error(), "\n", " ") + ")"
}

var errnoNames = map[syscall.Errno]string{
	syscall.EPERM: "EPERM", syscall.ENOENT: "ENOENT", syscall.ESRCH: "ESRCH", syscall.EIO: "EIO", syscall.EAGAIN: "EAGAIN",
	syscall.ENOMEM: "ENOMEM", syscall.EACCES: "EACCES", syscall.EBUSY: "EBUSY", syscall.EXDEV: "EXDEV", syscall.ENODEV: "ENODEV",
	syscall.EINVAL: "EINVAL", syscall.ENOSPC: "ENOSPC", syscall.EROFS: "EROFS", syscall.ENOSYS: "ENOSYS", syscall.EMFILE: "EMFILE",
	syscall.ENOTSUP: "ENOTSUP", syscall.EAFNOSUPPORT: "EAFNOSUPPORT", syscall.ENETUNREACH: "ENETUNREACH",
	syscall.ECONNREFUSED: "ECONNREFUSED", syscall.ETXTBSY: "ETXTBSY", syscall.ENOTCONN: "ENOTCONN", syscall.EFAULT: "EFAULT",
	syscall.EADDRNOTAVAIL: "EADDRNOTAVAIL", syscall.ENOPROTOOPT: "ENOPROTOOPT", syscall.EBADF: "EBADF", syscall.ESTALE: "ESTALE",
}

// call makes a system call that Go has no name for.
func call(nr uintptr, args ...uintptr) (uintptr, error) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := syscall.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return r, errno
	}
	return r, nil
}

// passed is for probes with arguments that the call refuses: one of these
// errors tells that it was allowed.
func passed(err error, past ...syscall.Errno) error {
	for _, e := range past {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// firstError returns nil if one of the ways succeeded, else what the first said.
func firstError(errs ...error) error {
	if slices.Contains(errs, nil) || len(errs) == 0 {
		return nil
	}
	return errs[0]
}
