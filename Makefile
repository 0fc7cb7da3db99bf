# PKT Cloud. `make demo` and `make test` are the two to begin with.

GO           ?= go
LINT_VERSION := v2.15.0
LINT         := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
FUZZTIME     ?= 10s
RUN          ?= .

# Builds carry the commit where git can be asked, and work where it cannot.
ifneq ($(shell git rev-parse HEAD >/dev/null 2>&1 && echo yes),yes)
export GOFLAGS := $(GOFLAGS) -buildvcs=false
endif

.PHONY: help demo test test-unit test-system lint fmt vet mutants bench fuzz soak build tenants light

help:
	@echo 'make demo         the whole story on this machine: devnet, provider, tenant, a real container'
	@echo 'make test         vet and all tests that need no root (a few minutes)'
	@echo 'make test-system  the tests with real processes, containers, chain nodes and a browser; as root'
	@echo 'make lint         golangci-lint, formatting; make fmt repairs what it can'
	@echo 'make mutants      break each invariant on purpose, and the channel core in 1,800 ways; RUN=part of a name'
	@echo 'make fuzz         every fuzz target; FUZZTIME=10s RUN=part of a name'
	@echo 'make soak         many containers, and a million steps of channel managers and towers, for a long time; as root'
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
	$(GO) build -trimpath -o bin/pktcloud ./node/pktcloud

test:
	@scripts/setup test
	@$(MAKE) --no-print-directory vet test-unit

vet:
	$(GO) vet ./...

test-unit:
	@$(GO) run ./internal/tools/gotest -race -shuffle=on -timeout 10m ./...

test-system:
	@[ "$$(id -u)" = 0 ] || { echo 'make test-system makes containers and cgroups: please run it as root'; exit 1; }
	@scripts/setup system
	@$(MAKE) --no-print-directory build
	@$(GO) run ./internal/tools/gotest -each -capabilities .ci/capabilities -doctor 'bin/pktcloud doctor --json' -tagged system -p 1 -timeout 30m

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
