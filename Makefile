# Every target with a ## sentence shows up in `make help`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export CGO_ENABLED ?= 0
export GOFLAGS ?= -buildvcs=false -trimpath
export GOTOOLCHAIN ?= local

GO        ?= go
TOOL      := $(GO) tool -modfile=hack/tools.mod
LINT      := bin/golangci-lint
CLUSTER   := $(GO) run ./hack/cmd/cluster
RUN       ?= .
BENCH     ?= .
BENCHTIME ?= 3x
FUZZTIME  ?= 60s
TIMEOUT   ?= 40m

.PHONY: help
help: ## This text
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Cluster, servers, install, and the recipe played through to verified evidence
	@$(GO) run ./hack/cmd/demo

.PHONY: test
test: unit ciliumpolicy integration ## Unit, envtest, Cilium's policy library, and integration on kind; not fuzz, soak and bench

.PHONY: unit
unit: ## Unit, kernel and API-server tests; no cluster needed
	@testenv="$$($(CLUSTER) testenv)"; eval "$$testenv"; \
	 $(GO) test -count=1 -p 3 -timeout $(TIMEOUT) ./...

.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZTIME, all beside one another
	@GO='$(GO)' hack/fuzz.sh $(FUZZTIME)

.PHONY: ciliumpolicy
ciliumpolicy: ## Cilium's own policy library on the deny-all policy; minutes when nothing is cached
	@cd hack/ciliumpolicy && $(GO) test -count=1 -vet=off -gcflags='all=-N -l' -ldflags='-s -w' ./...

.PHONY: integration
integration: cluster ## Integration tests on the cluster that is up, or brought up; RUN=<regexp> runs some
	@$(CLUSTER) install
	@testenv="$$($(CLUSTER) testenv)"; eval "$$testenv"; export FORENSICS_ENV="$$($(CLUSTER) env)"; \
	 $(GO) test -tags integration -count=1 -v -timeout $(TIMEOUT) -run '$(RUN)' ./integration

.PHONY: soak
soak: cluster ## What takes minutes by nature: crash matrices, outages and trees of any size
	@testenv="$$($(CLUSTER) testenv)"; eval "$$testenv"; \
	 $(GO) test -tags soak -count=1 -v -timeout 30m -run '$(RUN)' ./nodeagent/internal/archive
	@$(CLUSTER) install
	@testenv="$$($(CLUSTER) testenv)"; eval "$$testenv"; export FORENSICS_ENV="$$($(CLUSTER) env)"; \
	 $(GO) test -tags integration,soak -count=1 -v -timeout 120m -run '$(RUN)' ./integration

.PHONY: bench
bench: cluster ## Benchmarks in Go's format; BENCH=<regexp> runs some
	@$(CLUSTER) install
	@testenv="$$($(CLUSTER) testenv)"; eval "$$testenv"; export FORENSICS_ENV="$$($(CLUSTER) env)"; \
	 $(GO) test -p 1 -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -timeout $(TIMEOUT) ./nodeagent/... ./controller/... ./webhook/... ./internal/...; \
	 $(GO) test -p 1 -tags integration -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -timeout $(TIMEOUT) ./integration/...

.PHONY: lint
lint: $(LINT) ## golangci-lint, which checks meaning, and gofumpt
	@$(LINT) run ./...

$(LINT): hack/tools.mod hack/tools.sum
	@mkdir -p bin
	@$(GO) build -modfile=hack/tools.mod -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: generate
generate: ## Deepcopy, CRDs, RBAC and eBPF objects (clang-14 and libbpf-dev for the last)
	@$(TOOL) controller-gen object paths=./api/...
	@$(TOOL) controller-gen crd:crdVersions=v1 paths=./api/... output:crd:dir=manifests/crds
	@$(GO) generate ./...

.PHONY: verify
verify: generate ## Generated code, go.mod and formatting are what they should be, or the diff
	@$(GO) mod tidy
	@$(TOOL) gofumpt -l -w $$(git ls-files '*.go' | grep -v zz_generated)
	@git diff --exit-code
	@new="$$(git ls-files --others --exclude-standard)"; test -z "$$new" || { echo "not in git: $$new"; exit 1; }

.PHONY: images
images: ## Build the three images and push them to the cluster's registry
	@$(CLUSTER) images

.PHONY: cluster
cluster: ## The kind cluster, built from source where no image can be pulled
	@$(CLUSTER) up

.PHONY: clean
clean: ## Delete the cluster and stop the engine if it was started here; built artefacts stay cached
	@$(CLUSTER) down
