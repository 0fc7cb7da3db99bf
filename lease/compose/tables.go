package compose

import "strings"

// Verdict says what becomes of a key of Compose.
type Verdict string

// Verdicts [SERVICE-38].
const (
	Maps         Verdict = "maps"         // it means here what it means there, as far as Text says
	Approximated Verdict = "approximated" // it is left out, or comes near: a warning says so
	Refused      Verdict = "refused"      // the file is refused, with what to do instead
)

// Row says what becomes of a key, and of all below it that has no row.
type Row struct {
	Key     string // such as "services.*.image"; * stands for a name
	Verdict Verdict
	Text    string // what it becomes, what is to be known, or what to do instead
}

// Tables returns all rows, in the order of the documents.
func Tables() []Row { return append([]Row(nil), rows...) }

const (
	service = "services.*."
	own     = "it says how the machine is divided, which is the provider's to say"
)

// rows has each key of Compose once; those below a key that is refused or left
// out as a whole need none.
var rows = func() []Row {
	var out []Row
	add := func(v Verdict, prefix, text string, keys ...string) {
		for _, k := range keys {
			out = append(out, Row{prefix + k, v, text})
		}
	}
	add(Maps, "", "the services of the lease; `_`, `.` and upper case in names become `-` and lower case, with a warning", "services")
	add(Maps, "", "the volumes of the lease; `_`, `.` and upper case in names become `-` and lower case", "volumes")
	add(Maps, "", "nothing: every version is read alike, and a lease has a label of its own", "version", "name")
	add(Approximated, "", "a lease has one private network in which all services reach each other by name; one network, or none, is the same, several are one", "networks")
	add(Refused, "", "put what it includes into this file", "include")
	add(Refused, "", "leases have no models; run one as a service", "models")
	add(Refused, "", "write it as a service that another one waits for with condition: service_completed_successfully", "jobs")
	add(Refused, "", "secrets sealed to the lease do not exist yet; put the value into `environment`, where the provider can read it, or into a volume", "secrets")
	add(Refused, "", "put the file into the image, or write it to a volume from a service that ends", "configs")

	add(Maps, service, "the image", "image")
	add(Maps, service, "the arguments; the image's entrypoint stays", "command")
	add(Maps, service, "the program; the image's own arguments are dropped, as Compose has it", "entrypoint")
	add(Maps, service, "the environment; of a name without a value the value is that of --variables, never that of this machine", "environment")
	add(Maps, service, "the user, as `name`, `uid`, `name:group` or `uid:gid`", "user")
	add(Maps, service, "the working directory", "working_dir")
	add(Maps, service, "ports that other services and the tenant reach", "expose")
	add(Maps, service, "published ports: the provider chooses address and number outside. A host address of 127.0.0.1 publishes nothing: the tenant reaches the port through the tunnel",
		"ports", "ports.target", "ports.host_ip", "ports.protocol")
	add(Maps, service, "`http` makes the tenant's probe ask over HTTP", "ports.app_protocol")
	add(Maps, service, "nothing: a name of the port alone", "ports.name")
	add(Approximated, service, "the provider chooses the number outside, this one where it is free; it is the lease's as long as the lease lives", "ports.published")
	add(Approximated, service, "a published port is an address of the provider, whatever the mode", "ports.mode")
	add(Maps, service, "what it waits for", "depends_on", "depends_on.*.condition", "depends_on.*.required")
	add(Approximated, service, "a service is not started again with what it waits for", "depends_on.*.restart")
	add(Maps, service, "how the provider looks whether the service is healthy; one that stays unhealthy is started again",
		"healthcheck", "healthcheck.test", "healthcheck.interval", "healthcheck.timeout", "healthcheck.retries", "healthcheck.start_period", "healthcheck.disable")
	add(Approximated, service, "until a service is healthy for the first time it is looked at once a second", "healthcheck.start_interval")
	add(Maps, service, "`always` and `unless-stopped` are always; without it the lease ends with the service, with a warning, unless the service is one that ends", "restart")
	add(Maps, service, "the time to end by itself, in whole seconds, at most 5m", "stop_grace_period")
	add(Maps, service, "cores", "cpus", "deploy.resources.limits.cpus")
	add(Maps, service, "memory; there is no swap", "mem_limit", "deploy.resources.limits.memory")
	add(Maps, service, "what stands below it", "deploy", "deploy.resources", "deploy.resources.limits", "deploy.resources.reservations", "deploy.restart_policy")
	add(Maps, service, "the limit where there is none; what is reserved and what is the most are one here", "deploy.resources.reservations.cpus", "deploy.resources.reservations.memory", "mem_reservation")
	add(Maps, service, "the restart policy, over that of `restart`", "deploy.restart_policy.condition", "deploy.restart_policy.max_attempts")
	add(Approximated, service, "restarts wait half a second, then twice as long each time, up to a minute", "deploy.restart_policy.delay", "deploy.restart_policy.window")
	add(Maps, service, "1; more are refused", "deploy.replicas", "scale")
	add(Maps, service, "`replicated`; another one is refused", "deploy.mode")
	add(Maps, service, "a service with profiles is left out unless --profile names one", "profiles")
	add(Maps, service, "named volumes. Host paths are refused, other than the machine's clock (`/etc/localtime`, `/etc/timezone`), which is left out with a warning",
		"volumes", "volumes.type", "volumes.source", "volumes.target", "volumes.read_only", "volumes.volume")
	add(Approximated, service, "an empty volume takes owner and mode of what it covers in the image, and not its files", "volumes.volume.nocopy")
	add(Approximated, service, "labels have no meaning here", "volumes.volume.labels")
	add(Refused, service, "mount the whole volume", "volumes.volume.subpath")
	add(Approximated, service, "the volume is one of the provider's", "volumes.consistency")
	add(Approximated, service, "what is written there is on the service's own disk", "volumes.tmpfs", "tmpfs")
	add(Refused, service, "a lease sees none of this machine's files; make it a named volume, or put the files into the image", "volumes.bind", "volumes_from")
	add(Refused, service, "put its files into the service's image", "volumes.image")
	add(Maps, service, "nothing: a lease has one private network in which services reach each other by name", "networks", "networks.*.priority", "networks.*.gw_priority")
	add(Maps, service, "the service's own name; another one is refused: write the service's name where it is used", "networks.*.aliases", "links")
	add(Approximated, service, "the provider gives addresses", "networks.*.ipv4_address", "networks.*.ipv6_address", "networks.*.link_local_ips", "networks.*.mac_address", "mac_address")
	add(Approximated, service, "the private network has no options", "networks.*.driver_opts", "networks.*.interface_name")
	add(Approximated, service, "a service is found by its own name", "networks.*.use_service_name_alias", "container_name", "hostname", "domainname")
	add(Maps, service, "`bridge` and `default` are the private network; others are refused, see `x-pktcloud` for what a service connects to", "network_mode")
	add(Maps, service, "the image is pulled and not built where there is an `image`, with a warning; else it is refused: build it, push it to a registry and name it", "build")
	add(Maps, service, "false; true is refused: a container has no rights on the provider's machine", "privileged")
	add(Maps, service, "`no-new-privileges` holds always; others are refused: the provider's filters hold", "security_opt")

	add(Approximated, service, "the image's own stop signal is sent", "stop_signal")
	add(Approximated, service, "a container has fewer capabilities than Compose gives in any case", "cap_drop")
	add(Approximated, service, "the first process is the program itself", "init")
	add(Approximated, service, "no terminal is attached; `pktcloud exec -t` opens one", "tty", "stdin_open", "attach")
	add(Approximated, service, "the service's files can be written to, on a disk of its own", "read_only")
	add(Approximated, service, "labels have no meaning here, to a proxy that reads them neither; publish the port", "labels", "annotations", "label_file", "deploy.labels")
	add(Approximated, service, "logs are kept by the provider and read with `pktcloud logs`", "logging")
	add(Approximated, service, "an image is pulled once, when the lease begins", "pull_policy", "pull_refresh_after")
	add(Approximated, service, "the image for the provider's architecture is run", "platform")
	add(Approximated, service, "the provider's own bounds hold", "pids_limit", "deploy.resources.limits.pids", "ulimits", "shm_size", "storage_opt", "umask")
	add(Approximated, service, "the provider's kernel has settings of its own", "sysctls")
	add(Approximated, service, "names are looked up by the provider, where `egress` lets the service connect to them", "dns", "dns_opt", "dns_search")
	add(Approximated, service, "`cpus` alone says how much of a processor it has", "cpu_count", "cpu_percent", "cpu_shares", "cpu_quota", "cpu_period", "cpu_rt_period", "cpu_rt_runtime", "cpuset")
	add(Approximated, service, "the memory limit alone counts, and there is no swap", "mem_swappiness", "memswap_limit", "oom_kill_disable", "oom_score_adj")
	add(Approximated, service, "the disk is shared by the provider's rules", "blkio_config")
	add(Approximated, service, "a lease has one of each service, and is changed as a whole", "deploy.update_config", "deploy.rollback_config", "deploy.placement", "deploy.endpoint_mode")
	add(Approximated, service, "it is for those who write the program", "develop")
	add(Approximated, service, "`class: gvisor` in `x-pktcloud` at the top asks for a kernel of its own", "runtime")

	add(Refused, service, "a container gets no more rights; run a program that needs none", "cap_add", "device_cgroup_rules", "use_api_socket", "credential_spec", "group_add")
	add(Refused, service, "no device of a provider's machine can be had", "devices", "gpus", "deploy.resources.reservations.devices", "deploy.resources.reservations.generic_resources")
	add(Refused, service, own, "cgroup", "cgroup_parent", "ipc", "isolation", "pid", "userns_mode", "uts")
	add(Refused, service, "nobody reads files of this machine; write the variables into `environment`, or give them with --variables for the ${…} of the file", "env_file")
	add(Refused, service, "write the keys of the other service here, or share them by an anchor: `<<: *name`", "extends")
	add(Refused, service, "a lease reaches its own services by name, and others by `egress` in `x-pktcloud`", "external_links", "extra_hosts")
	add(Refused, service, "put it into the command, or into a service that ends and that this one waits for", "post_start", "pre_start", "pre_stop")
	add(Refused, service, "leases have no models; run one as a service", "models")
	add(Refused, service, "name an image", "provider")
	add(Refused, service, "secrets sealed to the lease do not exist yet; put the value into `environment`, where the provider can read it, or into a volume", "secrets")
	add(Refused, service, "put the file into the image, or write it to a volume from a service that ends", "configs")

	const volume = "volumes.*."
	add(Maps, volume, "nothing: a volume belongs to its lease", "name")
	add(Maps, volume, "`local`; another one is refused", "driver")
	add(Maps, volume, "`size` is the volume's size, such as 5g; other options are refused: a volume is one of the provider's", "driver_opts")
	add(Approximated, volume, "labels have no meaning here", "labels")
	add(Refused, volume, "a lease begins with empty volumes; leave `external` out, and copy the data in while it runs", "external")
	return out
}()

var byKey = func() map[string]Row {
	m := map[string]Row{}
	for _, r := range rows {
		m[r.Key] = r
	}
	return m
}()

// judge is the row of a key: its own, or that of the key above it by whose verdict
// all below it goes. ok is false where no row has it.
func judge(key string) (r Row, ok bool) {
	if r, ok = byKey[key]; ok {
		return r, true
	}
	for above := key; ; {
		i := strings.LastIndexByte(above, '.')
		if i < 0 {
			return Row{}, false
		}
		above = above[:i]
		if r, ok = byKey[above]; ok {
			return r, r.Verdict != Maps || whole[above]
		}
	}
}

// whole are keys that map, whose values are judged where they are converted.
var whole = map[string]bool{
	service + "build": true, service + "environment": true, service + "security_opt": true, service + "links": true,
	"volumes.*.driver_opts": true,
}
