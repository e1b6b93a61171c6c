# Everything here runs on one machine with Go, make, git and openssl. What needs a Kubernetes control
# plane builds one into bin/control-plane, once, or takes it from KUBEBUILDER_ASSETS.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# What a person gives is text, whatever is in it: a recipe takes it from the environment, in quotes, and never as a part
# of its own text, and make expands nothing in it. Otherwise NS='`id`' or NS='$$(shell id)' would run id.
GIVEN := ARCHS BIN CONTAINER_TOOL F FOLLOW FUZZTIME IMAGES IMG_AGENT IMG_WEBHOOK IP_RANGES_DATA KUBECTL LOAD NS OVERLAYS PURGE \
  PUSH RANGES ROTATE SIZE TAIL TIMEOUT
defined = $(filter-out undefined,$(origin $(1)))
$(foreach name,$(GIVEN),$(if $(call defined,$(name)),$(eval override $(name) := $$(value $(name)))))

BIN := bin
PROGRAMS := egress-agent egress-webhook
# AWS's ip-ranges.json for what you try by hand: a file, plain or gzip.
RANGES ?=
RANGES_FLAG = $(if $(value RANGES),--ranges-file "$$RANGES")
FUZZTIME ?= 2s
# The race detector needs a C compiler.
RACE := $(shell command -v "$$(go env CC)" >/dev/null && echo -race)

##@ Build

# Functions aligned to 16 bytes rather than 32 make each program 120 kB smaller.
.PHONY: build
build: ## Build both programs into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -funcalign=16" -buildvcs=auto -o "$$BIN/" ./cmd/...

.PHONY: control-plane
control-plane: ## Build etcd, kube-apiserver, kube-controller-manager and kubectl, once (five to ten minutes)
	@scripts/control-plane.sh "$$BIN/control-plane"

.PHONY: clean
clean: ## Remove what was built, but for the control plane
	cd "$$BIN" 2>/dev/null || exit 0; rm -rf $(PROGRAMS) local bench benchwebhook benchhostile race staticcheck certs images deploy axe page

.PHONY: clean-all
clean-all: ## Remove all that was built
	rm -rf -- "$$BIN"

##@ See it work

.PHONY: demo
demo: build control-plane $(BIN)/local ## The whole story on a local control plane, with the real kubectl
	@"$$BIN/local" "$$BIN/control-plane" scripts/demo.sh

.PHONY: demo-webhook
demo-webhook: build ## Start the webhook and send it a review for each kind of mistake
	@scripts/demo-webhook.sh

.PHONY: run-local
run-local: build ## Run the agent against the cluster of your kubeconfig (KUBECONFIG=; RANGES=, else AWS's own)
	@echo "egress-agent will write NetworkPolicies to the cluster of $${KUBECONFIG:-$$HOME/.kube/config}"
	"$$BIN/egress-agent" --kubeconfig "$${KUBECONFIG:-$$HOME/.kube/config}" $(RANGES_FLAG) --leader-elect=false --http-addr 127.0.0.1:8080

.PHONY: run-webhook-local
run-webhook-local: build ## Run the webhook on https://localhost:8443 with certificates of its own (RANGES=)
	scripts/generate-certs.sh "$$BIN/certs"
	"$$BIN/egress-webhook" --addr 127.0.0.1:8443 --http-addr 127.0.0.1:8081 $(RANGES_FLAG) \
	  --tls-cert-file "$$BIN/certs/tls.crt" --tls-key-file "$$BIN/certs/tls.key"

.PHONY: render
render: build ## Print the NetworkPolicies of policies: make render F=policy.yaml RANGES=ip-ranges.json
	@$(if $(value F),,$(error say which file: make render F=policy.yaml))"$$BIN/egress-agent" render -f "$$F" $(RANGES_FLAG)

.PHONY: validate
validate: build ## Judge policies as the webhook does: make validate F=policy.yaml (RANGES=)
	@$(if $(value F),,$(error say which file: make validate F=policy.yaml))"$$BIN/egress-webhook" validate -f "$$F" $(RANGES_FLAG)

##@ Deploy, to the cluster that kubectl points at

# Where images go, and come from.
IMG_AGENT ?=
IMG_WEBHOOK ?=
CONTAINER_TOOL ?= docker
ARCHS ?= amd64 arm64
# Any of the folders in deploy/components, such as "cert-manager prometheus".
OVERLAYS ?=

.PHONY: images
images: ## Build both images (CONTAINER_TOOL=docker|podman|buildah IMG_AGENT= IMG_WEBHOOK= ARCHS="amd64 arm64" PUSH=1)
	@scripts/images.sh

.PHONY: preflight
preflight: ## Say whether the cluster has what the programs need; changes nothing
	@scripts/preflight.sh

.PHONY: webhook-full-deploy
webhook-full-deploy: $(if $(value IMAGES),images) ## All of it, until a bad policy is refused (IMG_AGENT= IMG_WEBHOOK= OVERLAYS=, IMAGES=1 builds them first)
	@scripts/deploy.sh all

.PHONY: deploy
deploy: ## The agent (IMG_AGENT=; left out, the image that runs)
	@scripts/deploy.sh agent

.PHONY: webhook-deploy
webhook-deploy: ## The webhook, until a bad policy is refused (IMG_WEBHOOK=; left out, the image that runs)
	@scripts/deploy.sh webhook

.PHONY: certs
certs: ## See that the webhook's certificate is good for 30 days (ROTATE=1: make a new one in any case)
	@scripts/certs.sh

.PHONY: tenant-onboard
tenant-onboard: ## Protect a tenant's namespace: make tenant-onboard NS=tenant-a
	@scripts/deploy.sh onboard "$${NS:-}"

.PHONY: status
status: ## Say what runs, which ranges and certificate it uses, and who opted in
	@scripts/deploy.sh status

.PHONY: logs
logs: ## The programs' last log lines (TAIL=50 FOLLOW=1)
	@scripts/deploy.sh logs

.PHONY: restart
restart: ## Restart both programs, one Pod after the other
	@scripts/deploy.sh restart

.PHONY: webhook-undeploy
webhook-undeploy: ## Remove the webhook: policies are stored unchecked
	@scripts/deploy.sh remove-webhook

.PHONY: undeploy
undeploy: ## Remove both programs; the tenants' NetworkPolicies stay (PURGE=1: go too)
	@scripts/deploy.sh remove

##@ Check

# In parallel: one computes while another waits.
.PHONY: test
test: build control-plane ## Unit tests with the race detector, fixtures, fuzzing, and end to end (under five minutes)
	@$(MAKE) --no-print-directory -j3 --output-sync=line e2e-packages test-unit fuzz

.PHONY: test-unit
test-unit: ## Unit tests with the race detector, and fixtures
	$(if $(RACE),,@echo "no C compiler found: the tests run without the race detector")
	go test $(RACE) ./...

.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZTIME (2s)
	@scripts/fuzz.sh

.PHONY: e2e
e2e: build control-plane ## The built programs from scripts and against a real control plane; the Markdown files; the schema
	@$(MAKE) --no-print-directory e2e-packages

# Three packages at a time, the longest first, each with a control plane of its own. Without E2E_ALL they skip tests that
# take minutes. Packages with a target of their own are left out. No prerequisites, so that make starts this target first:
# test and e2e have built the programs.
E2E_APART := /(faults|page|deployed)
.PHONY: e2e-packages
e2e-packages:
	cd scripts/e2e && go test -count=1 -p 3 ./agent ./deploy ./hostile ./webhook $$(go list ./... | grep -vE '$(E2E_APART)')

.PHONY: test-all
test-all: test-faults test-hostile ## The agent, with the race detector, through every fault, without each of its rights, and to every alert; both programs under attack; each fuzz target for ten seconds (half an hour)
	$(LONG) ./deploy
	@FUZZTIME=10s scripts/fuzz.sh

# Each fault ends with a minute without writes. So three packages run in parallel, each with a control plane of its own.
# feed is the shortest and starts last.
LONG := cd scripts/e2e && E2E_ALL=1 E2E_BIN="$$BIN/race" go test -count=1 -timeout 30m
.PHONY: test-faults
test-faults: build control-plane ## The agent, with the race detector, through every fault (under ten minutes)
	go build $(RACE) -o "$$BIN/race/" ./cmd/...
	$(LONG) -p 3 ./faults/process ./faults/cluster ./faults/network ./faults/feed

# Without the race detector, which multiplies a program's memory. It runs in the package's folder, because only there go
# test prints the table of measurements without -v.
.PHONY: test-hostile
test-hostile: build control-plane ## Both programs, within the memory of their Pods, under every attack of a tenant or a Pod (six minutes)
	cd scripts/e2e/hostile && E2E_ALL=1 go test -count=1 -timeout 30m

# The accessibility checks of the page. The browser runs them without a network.
AXE := axe/node_modules/axe-core/axe.min.js
.PHONY: test-page
test-page: build ## The page of egress-agent status in a real browser: search, accessibility, no network (needs Chromium and npm)
	test -f "$$BIN/$(AXE)" || npm install --no-save --no-audit --no-fund --prefix "$$BIN/axe" axe-core@4.14.1
	cd scripts/e2e && AXE="$$(realpath "../../$$BIN/$(AXE)")" go test -count=1 ./page

# LOAD is a command that brings images to the nodes, as a registry would. It gets their names, as in
# "kind load docker-image".
LOAD ?= docker push
.PHONY: test-deployed
test-deployed: ## README's "Deploy", and updates under load, on the cluster that kubectl points at: an empty one (LOAD=, five minutes)
	cd scripts/e2e && DEPLOYED=1 go test -count=1 -timeout 30m -v ./deployed

.PHONY: bench
bench: build control-plane ## Benchmarks, each with its floor (IP_RANGES_DATA= the folder with AWS's real ip-ranges.json)
	go test -run '^$$' -bench . -benchmem ./pkg/...
	cd scripts/e2e && go test -run '^$$' -bench . -benchtime 10x ./agent

# small takes two minutes, full 15 minutes.
SIZE ?= small
NEED_RANGES = $(if $(value IP_RANGES_DATA),,$(error set IP_RANGES_DATA to a folder with the ip-ranges.json of AWS))
.PHONY: bench-agent
bench-agent: build control-plane ## The agent at scale, against a bare client (SIZE=small or full; IP_RANGES_DATA=)
	cd scripts/e2e && go build -o "../../$$BIN/bench" ./bench
	@$(NEED_RANGES)"$$BIN/bench" --size "$$SIZE" --ranges "$$IP_RANGES_DATA/ip-ranges.json"

.PHONY: bench-webhook
bench-webhook: build ## The webhook against the least that a webhook can do (IP_RANGES_DATA=)
	cd scripts/e2e && go build -o "../../$$BIN/benchwebhook" ./benchwebhook
	@$(NEED_RANGES)"$$BIN/benchwebhook" --ranges "$$IP_RANGES_DATA/ip-ranges.json"

.PHONY: bench-hostile
bench-hostile: build control-plane ## What the worst policies cost both programs, within the memory of their Pods (IP_RANGES_DATA=, else made-up ranges)
	cd scripts/e2e && go build -o "../../$$BIN/benchhostile" ./benchhostile
	@"$$BIN/benchhostile"

.PHONY: lint
lint: $(BIN)/staticcheck ## gofmt, go vet, staticcheck, shellcheck, and the webhook's imports
	@test -z "$$(gofmt -l cmd pkg scripts)" || { echo "not formatted, run make fmt:"; gofmt -l cmd pkg scripts; exit 1; }
	go vet ./...
	"$$BIN/staticcheck" ./...
	cd scripts/e2e && go vet ./... && "../../$$BIN/staticcheck" ./...
	shellcheck -x scripts/*.sh .ci/run
	@imports=$$(go list -deps ./cmd/egress-webhook); \
	  ! grep '^k8s.io/client-go' <<<"$$imports" || { echo "egress-webhook must not import client-go"; exit 1; }

.PHONY: fmt
fmt: ## Format all Go code
	gofmt -w cmd pkg scripts

.PHONY: tidy-check
tidy-check: ## Fail where go.mod or go.sum is not tidy
	go mod tidy -diff
	cd scripts/e2e && go mod tidy -diff

.PHONY: golden
golden: build control-plane ## Rewrite the goldens; read the difference before you commit it
	UPDATE_GOLDEN=1 go test ./...
	cd scripts/e2e && UPDATE_GOLDEN=1 go test -count=1 ./...

# What has a default by now is given to the recipes, too.
$(foreach name,$(GIVEN),$(if $(call defined,$(name)),$(eval export $(name))))

##@ Help

.PHONY: help
help: ## Show this
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: $(BIN)/local $(BIN)/staticcheck
$(BIN)/local:
	cd scripts/e2e && go build -o "../../$$BIN/local" ./local
$(BIN)/staticcheck:
	cd scripts/e2e && go build -o "../../$$BIN/staticcheck" honnef.co/go/tools/cmd/staticcheck
