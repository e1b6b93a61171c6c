# Every target runs on one machine with Go, make, git and openssl. Targets that need a Kubernetes control plane download
# or build one into bin/control-plane, once, or take it from KUBEBUILDER_ASSETS.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The variables that a user may set. Their values are plain text: make does not expand them, and a recipe reads them from
# the environment, in quotes, never as part of its own text. Otherwise NS='`id`' or NS='$$(shell id)' would run id.
GIVEN := ARCHS BIN CONTAINER_TOOL ENVTEST_INDEX F FOLLOW FUZZTIME HUB_ADDRESS IMAGES IMG_AGENT IMG_WEBHOOK IP_RANGES_DATA KUBECTL KYVERNO LOAD NFT NS OVERLAYS PLATFORMS PROBE PROBE_IMAGE \
  PURGE PUSH RANGES REGISTRY RELEASE ROTATE SIZE TAIL TIMEOUT VERSION VULN_DB
defined = $(filter-out undefined,$(origin $(1)))
$(foreach name,$(GIVEN),$(if $(call defined,$(name)),$(eval override $(name) := $$(value $(name)))))

BIN := bin
PROGRAMS := egress-agent egress-webhook
# A file with AWS's ip-ranges.json, plain or gzip, for the targets that you run by hand.
RANGES ?=
RANGES_FLAG = $(if $(value RANGES),--ranges-file "$$RANGES")
FUZZTIME ?= 1s
# The race detector needs a C compiler.
RACE := $(shell command -v "$$(go env CC)" >/dev/null && echo -race)

# Programs, tests and checks are built with equal flags, so that each package is compiled once for all of them, and once
# more for the race detector. make lint runs vet.
BUILD := CGO_ENABLED=0 go build -trimpath
TEST := CGO_ENABLED=0 go test -trimpath -vet=off
E2E := $(TEST) -count=1
CHECK := CGO_ENABLED=0 GOFLAGS="$${GOFLAGS:-} -trimpath"

##@ Build

.PHONY: build
build: ## Build both programs into bin/
	@scripts/build.sh

.PHONY: control-plane
control-plane: ## Download or build etcd, kube-apiserver, kubectl and kube-controller-manager, once (minutes)
	@scripts/control-plane.sh "$$BIN/control-plane"

# The demonstration needs no kube-controller-manager.
.PHONY: demo-control-plane
demo-control-plane:
	@scripts/control-plane.sh "$$BIN/control-plane" etcd kube-apiserver kubectl

# The images of install.yaml are REGISTRY/egress-agent:VERSION and REGISTRY/egress-webhook:VERSION.
VERSION ?=
REGISTRY ?=
.PHONY: dist
dist: $(BIN)/kustomize $(BIN)/sbom ## Make the files of a release in bin/dist: make dist VERSION=v1.2.3 (REGISTRY=registry.example.com/team)
	@scripts/dist.sh "$$VERSION"

.PHONY: clean
clean: ## Remove everything that was built, except the control plane and Kyverno
	cd "$$BIN" 2>/dev/null || exit 0; rm -rf $(PROGRAMS) local bench benchwebhook benchhostile benchpeers race staticcheck govulncheck certs images deploy dist release kustomize sbom axe page status.html shop.yaml shop-mail.yaml walk.txt

.PHONY: clean-all
clean-all: ## Remove everything that was built
	rm -rf -- "$$BIN"

##@ Try it

.PHONY: try
try: ## Show what both programs do with policies in files, without a cluster (RANGES=; default: made-up ranges)
	@scripts/try.sh

.PHONY: demo
demo: build demo-control-plane $(BIN)/local ## Demonstrate both programs on a local control plane, with the real kubectl
	@"$$BIN/local" "$$BIN/control-plane" scripts/demo.sh

.PHONY: playground
playground: build demo-control-plane $(BIN)/local ## Open a shell with a local control plane on which both programs run (RANGES=)
	@"$$BIN/local" "$$BIN/control-plane" scripts/playground.sh

.PHONY: demo-webhook
demo-webhook: build ## Start the webhook and send it a review for each kind of mistake
	@scripts/demo-webhook.sh

.PHONY: run-local
run-local: build ## Run the agent against the cluster of your kubeconfig (KUBECONFIG=, RANGES=; default: AWS's document)
	@echo "egress-agent will write NetworkPolicies to the cluster of $${KUBECONFIG:-$$HOME/.kube/config}"
	"$$BIN/egress-agent" --kubeconfig "$${KUBECONFIG:-$$HOME/.kube/config}" $(RANGES_FLAG) --leader-elect=false --http-addr 127.0.0.1:8080

.PHONY: run-webhook-local
run-webhook-local: build ## Run the webhook on https://localhost:8443 with its own certificates (RANGES=)
	scripts/generate-certs.sh "$$BIN/certs"
	"$$BIN/egress-webhook" --addr 127.0.0.1:8443 --http-addr 127.0.0.1:8081 $(RANGES_FLAG) \
	  --tls-cert-file "$$BIN/certs/tls.crt" --tls-key-file "$$BIN/certs/tls.key"

.PHONY: render
render: build ## Print the NetworkPolicies of policies: make render F=policy.yaml RANGES=ip-ranges.json
	@$(if $(value F),,$(error F is missing: make render F=policy.yaml))"$$BIN/egress-agent" render -f "$$F" $(RANGES_FLAG)

.PHONY: validate
validate: build ## Print the webhook's verdicts on policies: make validate F=policy.yaml (RANGES=)
	@$(if $(value F),,$(error F is missing: make validate F=policy.yaml))"$$BIN/egress-webhook" validate -f "$$F" $(RANGES_FLAG)

##@ Deploy to the current cluster of kubectl

# The names of the images to build, push and deploy.
IMG_AGENT ?=
IMG_WEBHOOK ?=
CONTAINER_TOOL ?= docker
ARCHS ?= amd64 arm64
# Folders of deploy/components, such as "cert-manager prometheus".
OVERLAYS ?=

.PHONY: images
images: ## Build both images (CONTAINER_TOOL=docker|podman|buildah IMG_AGENT= IMG_WEBHOOK= ARCHS="amd64 arm64" PUSH=1)
	@scripts/images.sh

.PHONY: preflight
preflight: ## Check whether the cluster has all that the programs need; changes nothing (PROBE=1 proves with Pods of its own that NetworkPolicies are enforced; PROBE_IMAGE=)
	@scripts/preflight.sh

.PHONY: webhook-full-deploy
webhook-full-deploy: $(if $(value IMAGES),images) ## Deploy both programs; ends when the webhook refuses a bad policy (IMG_AGENT= IMG_WEBHOOK= OVERLAYS=; IMAGES=1 builds the images first)
	@scripts/deploy.sh all

.PHONY: deploy
deploy: ## Deploy the agent (IMG_AGENT=; default: the image that runs)
	@scripts/deploy.sh agent

.PHONY: webhook-deploy
webhook-deploy: ## Deploy the webhook; ends when it refuses a bad policy (IMG_WEBHOOK=; default: the image that runs)
	@scripts/deploy.sh webhook

.PHONY: certs
certs: ## Renew the webhook's certificate if it expires within 30 days (ROTATE=1: in any case)
	@scripts/certs.sh

.PHONY: tenant-onboard
tenant-onboard: ## Protect a tenant's namespace: make tenant-onboard NS=tenant-a (LABELS=tier=tenant also closes it by default, if a platform document selects it)
	@scripts/deploy.sh onboard "$${NS:-}"

.PHONY: status
status: ## Print the Pods, the leader, the AWS ranges, the certificate and the tenants
	@scripts/deploy.sh status

.PHONY: logs
logs: ## Print the programs' last log lines (TAIL=50 FOLLOW=1)
	@scripts/deploy.sh logs

.PHONY: restart
restart: ## Restart both programs, one Pod after the other
	@scripts/deploy.sh restart

.PHONY: webhook-undeploy
webhook-undeploy: ## Remove the webhook; policies are then stored unchecked
	@scripts/deploy.sh remove-webhook

.PHONY: undeploy
undeploy: ## Remove both programs; the tenants' NetworkPolicies stay (PURGE=1 deletes them too)
	@scripts/deploy.sh remove

##@ Check

# In parallel: one computes while another waits.
.PHONY: test
test: build control-plane ## Unit tests, fixtures, and end to end (under five minutes)
	@$(MAKE) --no-print-directory -j2 --output-sync=line e2e-packages test-unit

# Packages without goroutines and locks of their own. The race detector finds nothing there, and takes minutes.
PURE := /pkg/(analysis|domains|netpol|platform|policy|serviceentry|status|internal/(architecture|document|nearest|prefixes))(/|$$)
.PHONY: test-unit
test-unit: ## Unit tests, with the race detector where there are goroutines, and fixtures
	$(if $(RACE),,@echo "no C compiler found: the tests run without the race detector")
	go test -vet=off $(RACE) $$(go list ./... | grep -vE '$(PURE)')
	$(TEST) $$(go list ./... | grep -E '$(PURE)')

.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZTIME (1s)
	@scripts/fuzz.sh

.PHONY: e2e
e2e: build control-plane ## The built programs from scripts and against a real control plane; the Markdown files; the schema
	@$(MAKE) --no-print-directory e2e-packages

# Three packages at a time, the longest first, each with a control plane of its own. Without E2E_ALL they skip the tests
# that take long. Packages with a target of their own are left out. No prerequisites, so that make starts this target
# first: test and e2e have built the programs.
E2E_APART := /(faults|page|deployed|walk)
.PHONY: e2e-packages
e2e-packages:
	cd scripts/e2e && $(E2E) -p 3 ./agent ./deploy ./hostile ./shell ./webhook $$(go list ./... | grep -vE '$(E2E_APART)')

.PHONY: test-all
test-all: test-hostile $(BIN)/race ## The agent, with the race detector, through every fault, without each of its rights, and to every alert; both programs under attack; each fuzz target for ten seconds (half an hour)
	$(LONG) ./shell ./deploy ./faults/process ./faults/cluster ./language ./replay ./platform ./faults/network ./mirror ./webhook ./faults/feed
	IP_RANGES_DATA= go test -vet=off $(RACE) $$(go list ./... | grep -E '$(PURE)')
	@$(MAKE) --no-print-directory test-walk
	@FUZZTIME=10s scripts/fuzz.sh

# It runs in the package's folder, because only there go test prints the seconds of each command without -v.
.PHONY: test-walk
test-walk: build control-plane ## Follow README.md in an empty folder, with Go, git, make and openssl alone (E2E_COLD=1: with empty caches)
	cd scripts/e2e/walk && $(E2E) -timeout 60m

# Each fault ends with a minute without writes. So three packages run in parallel, the longest first, each with a control
# plane of its own.
LONG := cd scripts/e2e && E2E_ALL=1 E2E_BIN="$$BIN/race" $(E2E) -timeout 30m -p 3
.PHONY: test-faults
test-faults: control-plane $(BIN)/race ## The agent, with the race detector, through every fault (under ten minutes)
	$(LONG) ./faults/process ./faults/cluster ./faults/network ./faults/feed

# Without the race detector, which multiplies a program's memory. It runs in the package's folder, because only there go
# test prints the table of measurements without -v.
.PHONY: test-hostile
test-hostile: build control-plane ## Both programs, within the memory of their Pods, under every attack of a tenant or a Pod (six minutes)
	cd scripts/e2e/hostile && E2E_ALL=1 $(E2E) -timeout 30m

.PHONY: replay
replay: control-plane ## Serve each document of AWS in IP_RANGES_DATA/history to an agent with 2,000 policies, half under guardrails, and check each version of each NetworkPolicy (six minutes for 89)
	@$(NEED_RANGES)export IP_RANGES_DATA=$$(realpath "$$IP_RANGES_DATA"); cd scripts/e2e && E2E_ALL=1 REPLAY=full $(E2E) -timeout 120m -v ./replay

# The accessibility checks of the page. The browser runs them without a network.
AXE := axe/node_modules/axe-core/axe.min.js
.PHONY: test-page
test-page: build ## The page of egress-agent status in a real browser: search, accessibility, no network (needs Chromium and npm)
	test -f "$$BIN/$(AXE)" || npm install --no-save --no-audit --no-fund --prefix "$$BIN/axe" axe-core@4.14.1
	cd scripts/e2e && AXE="$$(realpath "../../$$BIN/$(AXE)")" $(E2E) ./page

# LOAD is a command that brings images to the nodes, as a registry would. It gets their names, as in
# "kind load docker-image". NFT is a command that runs nft on the only node of a cluster that enforces no NetworkPolicies,
# as in "docker exec -i NODE nft": with it, the probe of preflight is tested with policies that the test enforces.
# HUB_ADDRESS is an address of this machine that the nodes reach: with it, a hub for the mirror runs here.
LOAD ?= docker push
.PHONY: test-deployed
test-deployed: $(if $(value HUB_ADDRESS),control-plane) ## deploy/README.md's "Deploy images of your own", and updates under load, on the cluster that kubectl points at: an empty one (LOAD= NFT= PROBE_IMAGE= HUB_ADDRESS=, ten minutes)
	cd scripts/e2e && DEPLOYED=1 $(E2E) -timeout 30m -v ./deployed

.PHONY: bench
bench: build control-plane ## Run the benchmarks, each with its floor (IP_RANGES_DATA= the folder with AWS's real ip-ranges.json)
	$(TEST) -run '^$$' -bench . -benchmem ./pkg/...
	cd scripts/e2e && $(E2E) -run '^$$' -bench . -benchtime 10x ./agent

# small takes two minutes, full fifteen, growth a quarter of an hour, platform, expiry and reports ten minutes, mirror five.
SIZE ?= small
NEED_RANGES = $(if $(value IP_RANGES_DATA),,$(error set IP_RANGES_DATA to a folder with the ip-ranges.json of AWS))
.PHONY: bench-agent
bench-agent: build control-plane ## Compare the agent at scale with a bare client (SIZE=small, full, growth, platform, expiry, reports or mirror; IP_RANGES_DATA=)
	cd scripts/e2e && $(BUILD) -o "../../$$BIN/bench" ./bench
	@$(NEED_RANGES)"$$BIN/bench" --size "$$SIZE" --ranges "$$IP_RANGES_DATA/ip-ranges.json"

.PHONY: bench-webhook
bench-webhook: build ## Compare the webhook with a handler that allows everything (IP_RANGES_DATA=)
	cd scripts/e2e && $(BUILD) -o "../../$$BIN/benchwebhook" ./benchwebhook
	@$(NEED_RANGES)"$$BIN/benchwebhook" --ranges "$$IP_RANGES_DATA/ip-ranges.json"

# KYVERNO is a folder with Kyverno's programs kyverno and background-controller and its crds/, or none. The default is
# bin/kyverno, which scripts/kyverno.sh builds.
KYVERNO ?=
.PHONY: bench-peers
bench-peers: build control-plane ## Compare both programs with a ValidatingAdmissionPolicy and with Kyverno (KYVERNO=folder or none; IP_RANGES_DATA=; half an hour)
	cd scripts/e2e && $(BUILD) -o "../../$$BIN/benchpeers" ./benchpeers
	@$(NEED_RANGES)kyverno=$${KYVERNO:-$$BIN/kyverno}; \
	  [ "$$KYVERNO" != none ] || kyverno=; \
	  [ -n "$$KYVERNO" ] || scripts/kyverno.sh "$$kyverno" || { kyverno=; echo "Kyverno cannot be built: its rows are left out. Name a folder with its programs: KYVERNO=folder" >&2; }; \
	  "$$BIN/benchpeers" --programs "$$BIN" --kyverno "$$kyverno" --ranges "$$IP_RANGES_DATA/ip-ranges.json"

.PHONY: bench-hostile
bench-hostile: build control-plane ## Measure what the worst policies cost both programs, within the memory of their Pods (IP_RANGES_DATA=; default: made-up ranges)
	cd scripts/e2e && $(BUILD) -o "../../$$BIN/benchhostile" ./benchhostile
	@"$$BIN/benchhostile"

.PHONY: lint
lint: $(BIN)/staticcheck $(BIN)/govulncheck ## Run gofmt, go vet, staticcheck, shellcheck and govulncheck (VULN_DB=); check the webhook's imports
	@test -z "$$(gofmt -l cmd pkg scripts)" || { echo "not formatted: run make fmt:"; gofmt -l cmd pkg scripts; exit 1; }
	$(CHECK) go vet ./...
	$(CHECK) "$$BIN/staticcheck" ./...
	cd scripts/e2e && $(CHECK) go vet ./... && $(CHECK) "../../$$BIN/staticcheck" ./...
	shellcheck -x scripts/*.sh .ci/run
	@scripts/vulncheck.sh
	@imports=$$(go list -deps ./cmd/egress-webhook); \
	  ! grep '^k8s.io/client-go' <<<"$$imports" || { echo "egress-webhook must not import client-go"; exit 1; }

.PHONY: fmt
fmt: ## Format all Go code
	gofmt -w cmd pkg scripts

.PHONY: tidy-check
tidy-check: ## Fail if a go.mod or go.sum is not tidy
	go mod tidy -diff
	cd scripts/e2e && go mod tidy -diff

.PHONY: golden
golden: build control-plane ## Rewrite the expected outputs; read the difference before you commit it
	UPDATE_GOLDEN=1 go test ./...
	cd scripts/e2e && UPDATE_GOLDEN=1 go test -count=1 ./...

# Recipes also get the variables with a default, which are set by now.
$(foreach name,$(GIVEN),$(if $(call defined,$(name)),$(eval export $(name))))

##@ Help

.PHONY: help
help: ## Show this
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: $(BIN)/local $(BIN)/race $(BIN)/sbom $(BIN)/staticcheck $(BIN)/govulncheck $(BIN)/kustomize
$(BIN)/local:
	cd scripts/e2e && $(BUILD) -o "../../$$BIN/local" ./local
$(BIN)/race:
	go build $(RACE) -o "$$BIN/race/" ./cmd/...
$(BIN)/sbom:
	cd scripts/e2e && $(BUILD) -o "../../$$BIN/sbom" ./sbom
$(BIN)/kustomize:
	cd scripts/e2e && $(BUILD) -o "../../$$BIN/kustomize" sigs.k8s.io/kustomize/kustomize/v5
$(BIN)/staticcheck:
	cd scripts/e2e && $(BUILD) -o "../../$$BIN/staticcheck" honnef.co/go/tools/cmd/staticcheck
$(BIN)/govulncheck:
	cd scripts/e2e && $(BUILD) -o "../../$$BIN/govulncheck" golang.org/x/vuln/cmd/govulncheck
