# PKT Cloud. `make demo` and `make test` are the two to begin with.

GO           ?= go
LINT_VERSION := v2.15.0
LINT         := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
FUZZTIME     ?= 10s
RUN          ?= .

# The race detector, but not within the arithmetic of signatures and passwords:
# it has no goroutines, and takes ten times as long when it is watched.
RACE := -race '-gcflags=github.com/decred/dcrd/dcrec/secp256k1/v4/...=-race=false' '-gcflags=crypto/internal/fips140/...=-race=false' '-gcflags=golang.org/x/crypto/scrypt=-race=false'

# Builds carry the commit where git can be asked, and work where it cannot.
ifneq ($(shell git rev-parse HEAD >/dev/null 2>&1 && echo yes),yes)
export GOFLAGS := $(GOFLAGS) -buildvcs=false
endif

.PHONY: help demo test test-unit test-system runsc test-cgroup2 lint fmt vet mutants bench fuzz soak build monitor tenants light

help:
	@echo 'make demo         the whole story on this machine: devnet, provider, tenant, a real container'
	@echo 'make test         vet and all tests that need no root (a few minutes)'
	@echo 'make test-system  the tests with real processes, containers, chain nodes and a browser; as root'
	@echo 'make runsc        the program of gVisor, for the tests of that class, into the cache of this user'
	@echo 'make test-cgroup2 limits and user namespaces of containers in a virtual machine with pure cgroup v2'
	@echo 'make attacks      the table of what a hostile tenant can try; as root also each attack and its control'
	@echo 'make lint         golangci-lint, formatting; make fmt repairs what it can'
	@echo 'make mutants      break each invariant on purpose, and the channel core in 1,800 ways; RUN=part of a name'
	@echo 'make fuzz         every fuzz target; FUZZTIME=10s RUN=part of a name'
	@echo 'make soak         many containers, a thousand that end in every way, and a million steps of channel managers and towers, for a long time; as root'
	@echo 'make bench        all benchmarks'
	@echo 'make build        bin/pktcloud'
	@echo 'make tenants      the tenant for macOS, Windows, arm64 and without cgo'
	@echo 'make light        what embedding one package costs, against the limits committed'

demo:
	@scripts/setup demo
	@$(MAKE) --no-print-directory build
	bin/pktcloud demo

build:
	@[ -x bin/pktcloud ] || echo 'building bin/pktcloud: the first time this takes some minutes, without a word'
	@$(MAKE) --no-print-directory monitor
	$(GO) build -trimpath -tags 'monitor files' -o bin/pktcloud ./node/pktcloud

# What bin/pktcloud carries, the monitors of containers and what serves their files: static where this machine's C library can be.
MONITOR := $(GO) build -trimpath -tags 'netgo osusergo' -o node/pktcloud/monitor.bin

monitor:
	$(MONITOR) -ldflags '-s -w -linkmode external -extldflags -static' ./container/libcontainer/monitor 2>/dev/null || \
		$(MONITOR) -ldflags '-s -w' ./container/libcontainer/monitor
	$(GO) build -trimpath -tags 'netgo osusergo' -ldflags '-s -w' -o node/pktcloud/files.bin ./container/libcontainer/fileserver

test:
	@scripts/setup test
	@$(MAKE) --no-print-directory vet test-unit

vet:
	$(GO) vet ./...

# Twice as many packages at once as there are processors: some wait more than they work.
test-unit:
	@$(GO) run ./internal/tools/gotest $(RACE) -p $$((2 * $$(getconf _NPROCESSORS_ONLN))) -shuffle=on -timeout 15m ./...

# Three worlds at once where tests allow it: these wait more than they work.
test-system:
	@[ "$$(id -u)" = 0 ] || { echo 'make test-system makes containers and cgroups: please run it as root'; exit 1; }
	@scripts/setup system
	@$(MAKE) --no-print-directory build runsc
	@$(GO) run ./internal/tools/gotest -each -capabilities .ci/capabilities -doctor 'bin/pktcloud doctor --json' -tagged system -p 1 -parallel 3 -timeout 30m

runsc:
	@scripts/runsc

# The guest is emulated, so it needs neither root nor KVM. What it runs of the driver are the
# tests of what the kernel does for it.
GUEST_TESTS := ^Test(Kit|Isolation|User|OwnIDs|Limits|Ends|Update|UpdateDisk|Cgroup.*|Devices|Tmpfs|FrozenFromOutside|MonitorKilled|NodeKilled)$$

test-cgroup2:
	@scripts/setup cgroup2
	$(GO) build -o bin/guest ./internal/tools/guest
	@$(GO) run ./internal/tools/gotest -each -capabilities .ci/capabilities-cgroup2 -tags guest -count=1 -timeout 5m ./internal/tools/guest
	@$(GO) run ./internal/tools/gotest -each -capabilities .ci/capabilities-cgroup2 -tags system -count=1 -timeout 15m \
		-exec '$(CURDIR)/bin/guest run -v -timeout 14m --' -run '$(GUEST_TESTS)' ./container/libcontainer
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/attack ./container/attack
	@$(GO) run ./internal/tools/gotest -each -capabilities .ci/capabilities-cgroup2 -tags system -count=1 -timeout 15m \
		-exec '$(CURDIR)/bin/guest run -v -timeout 14m -modules af_alg -with $(CURDIR)/bin/attack=/attack -env PKTCLOUD_TEST_ATTACK=/attack --' \
		-run '^TestAttacks$$' ./container/libcontainer

.PHONY: attacks
attacks:
	@$(GO) run ./container/attack table
	@[ "$$(id -u)" != 0 ] || { scripts/setup system && $(GO) test -v -tags system -count=1 -timeout 20m -run '^TestAttacks$$' ./container/libcontainer; }

soak:
	@[ "$$(id -u)" = 0 ] || { echo 'make soak makes containers and cgroups: please run it as root'; exit 1; }
	@scripts/setup system
	@$(GO) run ./internal/tools/gotest -logs -tagged soak -p 1 -timeout 60m

lint:
	@scripts/setup lint
	$(LINT) run ./...
	$(LINT) fmt --diff

fmt: # also what linters can repair by themselves
	$(LINT) run --fix ./... || true
	$(LINT) fmt

mutants:
	@$(GO) run ./internal/tools/mutants -run '$(RUN)' -j 2

bench:
	$(GO) test -run '^$$' -bench '$(RUN)' -benchmem ./...

fuzz:
	@scripts/fuzz '$(FUZZTIME)' '$(RUN)'

tenants:
	CGO_ENABLED=0 GOOS=linux $(GO) build -o bin/tenant/ ./node/pktcloud
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 $(GO) build -o bin/tenant/arm64/ ./node/pktcloud
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) build -o bin/tenant/darwin/ ./node/pktcloud
	CGO_ENABLED=0 GOOS=windows $(GO) build -o bin/tenant/windows/ ./node/pktcloud

light:
	@$(GO) run ./internal/tools/light
