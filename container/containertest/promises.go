package containertest

import (
	"context"
)

// Promise is one thing that container's comments promise of a runtime, and
// that [TestRuntime] checks. The error of TestRuntime begins with its name.
type Promise struct {
	Name string
	// Of is the method or type whose comment says it; "Runtime" is the
	// interface's own. Says are its words there.
	Of, Says string

	check func(*kit, context.Context) error
}

// Promises lists what [TestRuntime] checks, in its order.
func Promises() []Promise { return promises }

var promises = []Promise{
	{"pull", "Pull", "Pull brings an image into the store", (*kit).pull},
	{"pull-idempotent", "Pull", "It is idempotent,", (*kit).pullAgain},
	{"pull-verifies", "Pull", "and verifies it.", (*kit).pullBad},
	{"pull-atomic", "Pull", "and atomic: an image is in the store whole or not at all [CONTAINER-10].", (*kit).pullPart},
	{"pull-bytes", "PullOptions", "MaxBytes bounds the compressed size", (*kit).pullLarge},
	{"pull-progress", "PullOptions", "Progress, if not nil, is called now and then", (*kit).pullProgress},

	{"start", "Start", "Start makes and starts a container.", (*kit).start},
	{"status", "Status", "Status reports on one container.", (*kit).status},
	{"start-idempotent", "Start", "It is idempotent by Spec.ID: nil when a container was already started from an equal spec,", (*kit).startAgain},
	{"start-conflict", "Start", "[CodeConflict] when it was started from another [CONTAINER-4].", (*kit).startOther},
	{"start-entrypoint", "Start", "What runs is [Spec.CommandLine] of the image: Args stand for the whole of the image's own, and with Entrypoint for its arguments alone [CONTAINER-120].", (*kit).startEntrypoint},
	{"failure-changes-nothing", "Runtime", "A method that fails leaves the container as it was,", (*kit).unchanged},
	{"failed-start", "Runtime", "and a failed Start leaves nothing.", (*kit).startFails},
	{"start-interrupted", "Start", "An interrupted Start is begun anew by the next one.", (*kit).startInterrupted},
	{"start-after-exit", "Start", "even if it has exited since;", (*kit).startExited},
	{"typed-errors", "Runtime", "Errors are *[Error], or those of ctx; match a [Code] with errors.Is.", (*kit).typed},
	{"not-found", "Runtime", "About a container that is not there all but Destroy say [CodeNotFound].", (*kit).notFound},
	{"list", "List", "List reports on all containers,", (*kit).list},
	{"list-order", "List", "ordered by id.", (*kit).listOrder},

	{"dial", "Dial", "Dial connects to 127.0.0.1:port inside the container's own network,", (*kit).dial},
	{"dial-refused", "Dial", "[CodePortRefused] when nothing listens there.", (*kit).dialRefused},
	{"exec", "Exec", "Exec runs a program inside a running container", (*kit).exec},
	{"exec-code", "Exec", "and returns its exit code: 128 + n when signal n ended it,", (*kit).execCode},
	{"exec-missing", "Exec", "126 or 127 when it could not be started.", (*kit).execMissing},
	{"exec-output", "Exec", "It returns after the program has ended and its output was written.", (*kit).execOutput},
	{"exec-limits", "Exec", "under the same limits and filters,", (*kit).execLimits},
	{"exec-files", "ExecSpec", "With Files, and neither Args nor TTY, the program is a file server of the runtime's own, which speaks SFTP on Stdin and Stdout; [CodeMissingFeature] where the runtime has none for the container.", (*kit).execFiles},
	{"exec-ctx", "Exec", "When ctx ends the program is killed and the error is ctx.Err().", (*kit).execAbandoned},
	{"no-waiting", "Runtime", "and calls about different containers do not wait for each other.", (*kit).noWaiting},
	{"turns", "Runtime", "calls that change one container take their turn,", (*kit).turns},

	{"pause", "Pause", "Pause freezes all processes of a running container,", (*kit).pause},
	{"exec-paused", "Exec", "A paused container refuses it, [CodeNotRunning].", (*kit).execPaused},
	{"resume", "Pause", "and Resume thaws them.", (*kit).resume},
	{"pause-idempotent", "Pause", "Both are idempotent;", (*kit).pauseAgain},
	{"pause-exited", "Pause", "[CodeNotRunning] for one that has exited.", (*kit).pauseExited},

	{"signal", "Signal", "Signal sends a signal to the first process of a container,", (*kit).signal},
	{"signal-paused", "Signal", "which acts on it once it is not paused;", (*kit).signalPaused},
	{"signal-unhandled", "Signal", "A signal that the program does not handle does nothing, other than SIGKILL and SIGSTOP: so it is with first processes.", (*kit).signalUnhandled},
	{"signal-invalid", "Signal", "[CodeInvalidSpec] for what is no signal.", (*kit).signalInvalid},

	{"logs", "Logs", "Logs returns lines in the form of [AppendLogLine],", (*kit).logs},
	{"logs-order", "Logs", "oldest first.", (*kit).logsOrder},
	{"logs-end", "Logs", "The reader ends at the newest line", (*kit).logsEnd},
	{"logs-follow", "Logs", "or, with Follow, when the container is destroyed or has exited and all was read.", (*kit).logsFollow},
	{"logs-ctx", "Logs", "The caller closes it; ctx bounds the whole reading.", (*kit).logsCtx},
	{"logs-since", "LogOptions", "Since is inclusive,", (*kit).logsSince},
	{"logs-tail", "LogOptions", "Tail is a number of lines before following,", (*kit).logsTail},

	{"signal-exited", "Signal", "[CodeNotRunning] for one that has exited,", (*kit).signalExited},
	{"signal-kill-paused", "Signal", "SIGKILL ends also a paused one.", (*kit).signalKill},
	{"stop-ctx", "Stop", "When ctx ends first, the error is ctx.Err() and there is no SIGKILL.", (*kit).stopCtx},
	{"stop-term", "Stop", "SIGTERM unless the image names another,", (*kit).stopTerm},
	{"stop", "Stop", "Stop ends a container: it sends the image's stop signal,", (*kit).stop},
	{"stop-kill", "Stop", "and SIGKILL if there is no end within grace.", (*kit).stopKill},
	{"stop-thaws", "Stop", "It thaws a paused one for that,", (*kit).stopThaws},
	{"stop-returns", "Stop", "and returns once the container has exited;", (*kit).stopReturns},
	{"stop-exited", "Stop", "nil for one that already has [CONTAINER-71].", (*kit).stopExited},
	{"stop-alone", "Stop", "No other call waits for a Stop.", (*kit).stopAlone},

	{"update", "Update", "Update changes the limits of a container while it runs or is paused,", (*kit).update},
	{"update-spec", "Update", "They are those of its spec from then on.", (*kit).updateSpec},
	{"update-fit", "Update", "[CodeDoesNotFit] when it uses more than a new limit, or the disk would shrink;", (*kit).updateFit},
	{"update-whole", "Update", "all of them or none [CONTAINER-73].", (*kit).updateWhole},
	{"update-exited", "Update", "[CodeNotRunning] for one that has exited.", (*kit).updateExited},

	{"usage", "Usage", "Usage reports what a container has used,", (*kit).usage},
	{"usage-hits", "Usage", "and how often it hit each of its limits.", (*kit).usageHits},
	{"usage-stays", "Usage", "The last numbers of one that has exited stay.", (*kit).usageStays},
	{"end-exit", "EndExit", "the program ended by itself, with Status.ExitCode.", (*kit).endExit},
	{"end-signal", "EndSignal", "a signal ended it, from whomever: Status.ExitCode less 128.", (*kit).endSignal},
	{"end-oom", "EndOOM", "the kernel killed it for memory.", (*kit).endOOM},

	{"survives", "Runtime", "What a method has returned nil for survives the death of the calling process: a new Runtime over the same directory finds the same containers [CONTAINER-6].", (*kit).survives},
	{"exit-code-known", "Status", "The exit code of a container that ended while no Runtime was looking is known all the same.", (*kit).exitKnown},
	{"destroy", "Destroy", "Destroy kills a container", (*kit).destroy},
	{"destroy-idempotent", "Destroy", "It is idempotent, and nil when there is no such container [CONTAINER-7].", (*kit).destroyAgain},
	{"at-once", "Runtime", "All methods may be called from several goroutines at once;", (*kit).many},
	{"destroy-removes", "Destroy", "and removes all that belongs to it: processes, mounts, cgroups, devices, files.", (*kit).nothingLeft},
}
