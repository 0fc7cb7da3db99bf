//go:build linux && amd64

package main

// The defences that controls take away, by the names in the table. A
// capability is one by its own name.
const (
	ownUsers     = "user namespace"
	sharedUsers  = "a user namespace for each lease"
	ownProcesses = "process namespace"
	ownIPC       = "IPC namespace"
	ownNetwork   = "network namespace"
	ownCgroups   = "control group namespace"
	filter       = "system call filter"
	noNew        = "no new privileges"
	noSuid       = "nosuid root"
	noDev        = "nodev root"
	masked       = "masked paths"
	readOnly     = "read-only paths"
	deviceRules  = "device rules"
	fewDevices   = "standard devices only"
	noMachine    = "no directory of the machine"
	noFiles      = "no descriptors passed on"
	sealedShim   = "sealed first program"
	readShim     = "first program for reading alone"
	hiddenShim   = "first program that nobody inside may look at"
	pidsLimit    = "process limit"
	memoryLimit  = "memory limit"
	socketLimit  = "socket memory limit"
	cpuLimit     = "processor limit"
	diskLimit    = "disk limit"
	ptyLimit     = "terminal limit"
	coreLimit    = "core limit"
	logCap       = "log cap"
	resolved     = "paths resolved inside the root"
	noSetuid     = "setuid taken off images"
	noInherited  = "no inheritable capabilities"
	noMagicDir   = "no kernel's links to the working directory"
)

const (
	capAdmin   = "CAP_SYS_ADMIN"
	capChroot  = "CAP_SYS_CHROOT"
	capSetfcap = "CAP_SETFCAP"
	capSearch  = "CAP_DAC_READ_SEARCH"
	capRawIO   = "CAP_SYS_RAWIO"
	capSyslog  = "CAP_SYSLOG"
	capMknod   = "CAP_MKNOD"
	capModule  = "CAP_SYS_MODULE"
	capBoot    = "CAP_SYS_BOOT"
	capTime    = "CAP_SYS_TIME"
	capNice    = "CAP_SYS_NICE"
	capNetRaw  = "CAP_NET_RAW"
	capNet     = "CAP_NET_ADMIN"
	capRes     = "CAP_SYS_RESOURCE"
)
