# make help lists the targets. Needed: Go, Node with npm, make; for the browser
# test, Chromium. Every other tool is pinned in go.mod or web/package-lock.json.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
# Two cores gain nothing from it, and the output would be mixed.
.NOTPARALLEL:

GO ?= go
# ARGS goes to the program that a target starts: make run ARGS="--test-mode".
ARGS ?=
# How long each fuzz target runs (in executions, 50000x, or in time, 60s), how
# many kills and seeds the long tests take. At the end of a time go test may report
# its own deadline as a failure, so CI counts executions.
FUZZ_TIME ?= 50000x
KILLS ?= 2000
SEEDS ?= 1000
SEED ?=
ROUNDS ?= 1
HOLD ?= 5s
SOCKETS ?= 5000
FAULT ?=
BASE ?= HEAD~1
CHROMIUM ?= $(firstword $(wildcard /usr/bin/chromium /usr/bin/chromium-browser /usr/bin/google-chrome))

BIN := bin/hubbub
WEB_DEPS := web/node_modules/.package-lock.json
WEB_BUNDLE := web/dist/index.html
WEB_SOURCES := $(shell find web \( -path web/node_modules -o -path web/dist -o -path web/test \) -prune -o -type f ! -name '*.go' -print)
GO_DIRS := bench cmd internal test web/embed.go

# CI runs the same tests under the race detector and in random order, never twice.
GO_TEST := $(GO) test -timeout 15m
ifeq ($(CI),true)
GO_TEST := $(GO) test -race -shuffle=on -timeout 30m
endif

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: run
run: build ## build everything and start the server (ARGS="--test-mode")
	exec $(BIN) serve $(ARGS)

.PHONY: build
build: web ## build the web app and bin/hubbub
	$(GO) build -o $(BIN) ./cmd/hubbub

.PHONY: web
web: $(WEB_BUNDLE) ## build the web app, if its sources changed

$(WEB_DEPS): web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	touch $@

# The placeholder keeps the Go side buildable without npm; a build removes it.
$(WEB_BUNDLE): $(WEB_DEPS) $(WEB_SOURCES)
	cd web && npm run build
	touch $@ web/dist/.gitkeep

.PHONY: test
test: vet web-test sdk browser go-test ## run all tests (CI=true: with the race detector, nothing skipped)

.PHONY: vet
vet:
	$(GO) vet ./...

.PHONY: go-test
go-test:
	$(GO_TEST) ./...

.PHONY: web-test
web-test: $(WEB_DEPS)
	cd web && npm run typecheck
	cd web && npm test

.PHONY: sdk
sdk: build ## let two clients of matrix-js-sdk chat through the server
	cd web && HUBBUB_TEST_BINARY="$(CURDIR)/$(BIN)" npm run sdk

.PHONY: browser
browser: build ## run the browser test alone
	@if [ -x "$(CHROMIUM)" ]; then \
		cd web && CHROMIUM="$(CHROMIUM)" HUBBUB_TEST_BINARY="$(CURDIR)/$(BIN)" npm run e2e; \
	elif [ "$${CI:-}" = true ]; then \
		echo "FAIL: browser test: no Chromium; install it or set CHROMIUM" >&2; exit 1; \
	else \
		echo "SKIP: browser test: no Chromium; install it or set CHROMIUM to run it"; \
	fi

.PHONY: lint
lint: vet ## check format, static analysis, layers and sizes
	@unformatted="$$($(GO) tool gofumpt -l $(GO_DIRS))"; \
		[ -z "$$unformatted" ] || { echo "run make fmt; not formatted:"; echo "$$unformatted"; exit 1; } >&2
	$(GO) tool staticcheck ./...
	@# In CI these tests run with all the others.
	[ "$${CI:-}" = true ] || $(GO) test ./internal/lint/...

.PHONY: fmt
fmt: ## format the Go files
	$(GO) tool gofumpt -l -w $(GO_DIRS)

.PHONY: gen
gen: ## write the generated files anew
	$(GO) generate ./...

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZ_TIME
	@for dir in $$(grep -rlE --include='*_test.go' '^func Fuzz' cmd internal test | xargs -r dirname | sort -u); do \
		for target in $$($(GO) test -list '^Fuzz' "./$$dir" | grep '^Fuzz'); do \
			echo "fuzz $$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_TIME) "./$$dir"; \
		done; \
	done

.PHONY: bench
bench: build ## measure a server under load (ARGS="--help")
	$(BIN) bench $(ARGS)

# named runs the tests whose names begin with $(1), and refuses to run none.
define named
	@dirs="$$(grep -rlE --include='*_test.go' '^func $(1)' cmd internal test | xargs -r dirname | sort -u | sed 's|^|./|')"; \
		[ -n "$$dirs" ] || { echo "no test begins with $(1)" >&2; exit 1; }; \
		$(2) $(GO) test -count=1 -timeout 0 -v -run '^$(1)' $$dirs
endef

# The hot functions: what a message costs on its way from the request to the member.
HOT := ^Benchmark(Send|Join|Allow|Canonical|Seal|AppendPDU|ParsePDU|Call|Router|BuildMessage|AuthorizeMessage|Message)$$
# Left out: what waits for a disk, takes long to set up, or says the same again.
HOT_SKIP := /(pebble|members=1000|members=10000|version_[1-9]$$|version_1[01])
HOT_DIRS := ./internal/room ./internal/ratelimit ./internal/event ./internal/api ./internal/roomstate ./internal/pushrules
HOT_FLAGS = -run '^$$' -bench '$(HOT)' -skip '$(HOT_SKIP)' -benchmem

.PHONY: allocs
allocs: ## check that the hot functions allocate no more than bench/allocs.tsv says
	$(GO) test $(HOT_FLAGS) -benchtime=2000x $(HOT_DIRS) | $(GO) run ./bench/allocs bench/allocs.tsv

.PHONY: allocs-write
allocs-write: ## write bench/allocs.tsv anew
	$(GO) test $(HOT_FLAGS) -benchtime=2000x $(HOT_DIRS) | $(GO) run ./bench/allocs -write bench/allocs.tsv

.PHONY: benchstat
benchstat: ## compare the hot functions with those of BASE (times are information, no more)
	GO="$(GO)" bench/benchstat "$(BASE)" $(HOT_FLAGS) -benchtime=100ms -count=6 $(HOT_DIRS)

.PHONY: torture
torture: ## kill the real server KILLS times and check what it promised
	$(call named,TestTorture,HUBBUB_TEST_KILLS=$(KILLS))

.PHONY: chaos
chaos: ## ROUNDS of all faults on three nodes, each fault for HOLD (FAULT="part of a name")
	$(call named,TestChaos,HUBBUB_TEST_CHAOS_ROUNDS=$(ROUNDS) HUBBUB_TEST_CHAOS_HOLD=$(HOLD) HUBBUB_TEST_CHAOS_SOCKETS=$(SOCKETS) HUBBUB_TEST_CHAOS_FAULT="$(FAULT)")

.PHONY: sim
sim: ## simulate SEEDS runs with faults, or one again and again (SEED=n)
	$(call named,TestSim,HUBBUB_TEST_SEEDS=$(SEEDS) $(if $(SEED),GOMAXPROCS=1 HUBBUB_TEST_SEED=$(SEED)))

.PHONY: integration
integration: ## run the tests that need services from outside
	$(call named,TestIntegration,)

.PHONY: ci
ci: ## run what CI runs
	.ci/run

.PHONY: clean
clean: ## remove what was built
	rm -rf bin web/dist/* web/node_modules
	touch web/dist/.gitkeep
