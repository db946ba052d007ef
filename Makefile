# Two commands for a fresh Debian machine with Go and root: make demo, make test.
# They install the packages that they lack, or say in one line what is missing.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help

# The version of Kubernetes in devcluster, from its go.mod.
KUBERNETES := $(shell sed -n 's/^\tk8s.io\/kubernetes v//p' devcluster/go.mod)
KUBE_MINOR := $(word 2,$(subst ., ,$(KUBERNETES)))
KUBE_FLAGS := -X k8s.io/component-base/version.gitVersion=v$(KUBERNETES) \
	-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(KUBE_MINOR) \
	-X k8s.io/client-go/pkg/version.gitVersion=v$(KUBERNETES)

# Programs are static: they run in images that contain nothing else.
BUILD := env CGO_ENABLED=0 go build
# gRPC's traces would link Go's templates, which keep every method of every type: a third of the program.
TAGS := -tags grpcnotrace

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: need build bin/versitygw ## Create, attach, expand, move and restore a volume and a pod, until Ctrl-C (ONCE=1: end by itself)
	@hack/demo.sh $(if $(ONCE),--once)

.PHONY: test
test: need need-test build bin/versitygw ## Run all tests, on a real Kubernetes with real nodes (root)
	@hack/test.sh

.PHONY: crash
crash: build ## Kill the program at every write and every call, and count what leaks (UPDATE=1: update docs/internals/crash.md, RESUME=1: go on)
	bin/devcluster exec --name "crash-$$$$" -- go test -count=1 -timeout 12h -v ./test/crash -full $(if $(UPDATE),-update) $(if $(RESUME),-resume) | grep -vE '^=== |^ +--- PASS'
	go test -count=1 -timeout 60m -v ./test/crash/checkpoints -full $(if $(UPDATE),-update) | grep -vE '^=== |^ +--- PASS'

.PHONY: crash-mutants
crash-mutants: build ## Show that the crash sweep fails when a precaution is removed
	bin/devcluster exec --name "mutants-$$$$" -- hack/crash-mutants.sh
	hack/checkpoint-mutants.sh

.PHONY: bench bench-scale
bench: build ## Measure requests, rates, CPU and memory of volumes and attachments (UPDATE=1: update docs/internals/benchmarks.md)
	bin/devcluster exec --name "bench-$$$$" -- $(MEASURE) -run 'TestCostOf|TestDelayOf' $(SHOW)

bench-scale: build ## Measure the same among 10,000 volumes and snapshots (UPDATE=1: update docs/internals/benchmarks.md)
	$(MEASURE) -parallel 1 -run TestMany $(SHOW)

.PHONY: bench-upstream
bench-upstream: build ## Measure the five roles beside the five programs of upstream in the directory UPSTREAM, in turns (UPDATE=1: update docs/internals/benchmarks.md)
	@[ -n "$(UPSTREAM)" ] || { echo "set UPSTREAM to a directory with csi-provisioner, csi-attacher, csi-resizer, csi-snapshotter and snapshot-controller" >&2; exit 1; }
	bin/devcluster exec --name "bench-upstream-$$$$" -- $(MEASURE) -run TestFiveRolesBesideUpstream -upstream '$(abspath $(UPSTREAM))' $(SHOW)

.PHONY: bench-archive
bench-archive: ## Compare writing an archive of a checkpoint with zstd -1 -T2, in turns (HOLDFAST_BENCH_PAGES=file: of this file)
	@hack/need.sh zstd=zstd
	go test -run '^$$' -bench AgainstZstd -benchtime 9x ./internal/archive

.PHONY: bench-checkpoint
bench-checkpoint: build bin/versitygw ## Compare the ways to checkpoint and to restore a container, in turns (MIB=64,512 ROUNDS=3 BENCH=Restore; UPDATE=1: update docs/internals/checkpoint-benchmarks.md)
	@hack/need.sh gcc=gcc /usr/include/stdio.h=libc6-dev
	bin/devcluster exec --name "bench-checkpoint-$$$$" --nodes 1 -- go test -run '^$$' -bench '$(or $(BENCH),Checkpoint|Restore)' -benchtime $(or $(ROUNDS),3)x \
		-timeout 30m ./test/checkpoint $(if $(MIB),-sizes $(MIB)) $(if $(UPDATE),-update)

MEASURE := go test -count=1 -timeout 30m -v ./test/scale -full $(if $(UPDATE),-update)
SHOW := | grep -vE '^=== |^ +--- PASS'

.PHONY: build
build: bin/holdfast bin/holdfast-runtime bin/local-driver devcluster ## Build all programs into bin/

.PHONY: bin/holdfast bin/holdfast-runtime bin/local-driver
bin/holdfast bin/holdfast-runtime bin/local-driver:
	@$(BUILD) $(TAGS) -trimpath -ldflags '-s -w' -o $@ ./cmd/$(@F)

# ROLE makes an image whose entrypoint is that role, for manifests without a command.
IMAGE = holdfast.io/$(ROLE):dev
ROLE = holdfast
ROLES := csi-provisioner csi-attacher csi-resizer csi-snapshotter snapshot-controller node-driver-registrar livenessprobe \
	checkpoint-operator manager
.PHONY: image image-local-driver
image: bin/holdfast bin/holdfast-runtime ## Write an image into bin/holdfast.tar, without Docker (IMAGE=name, ROLE=csi-attacher)
	go run -C devcluster ./mkimage -name '$(IMAGE)' -output ../bin/$(ROLE).tar \
		-file /holdfast=../bin/holdfast -file /holdfast-runtime=../bin/holdfast-runtime \
		$(foreach role,$(ROLES),-link /$(role)=/holdfast) -entrypoint /$(ROLE)

image-local-driver: bin/local-driver ## The same for the local driver, with this machine's mkfs and mount, into bin/local-driver.tar
	@hack/need.sh mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs mount=mount
	go run -C devcluster ./mkimage -name holdfast.io/local-driver:dev -output ../bin/local-driver.tar \
		-file /local-driver=../bin/local-driver -entrypoint /local-driver \
		$(addprefix -program /usr/sbin/,mkfs.ext4 e2fsck resize2fs mkfs.xfs xfs_growfs) \
		$(addprefix -program /usr/bin/,mount umount)

.PHONY: devcluster
devcluster: ## Build devcluster, the Kubernetes for demo and tests (the first time takes minutes)
	@hack/progress.sh 'building Kubernetes $(KUBERNETES) as one program' \
		$(BUILD) -C devcluster -trimpath -ldflags '-s -w $(KUBE_FLAGS)' -o ../bin/devcluster .

.PHONY: need need-test
need: # Only root can start nodes, so nobody else needs the packages for them.
	@if [ "$$(id -u)" = 0 ]; then hack/need.sh debootstrap=debootstrap nsenter=util-linux; fi

need-test:
	@hack/need.sh gcc=gcc /usr/include/stdio.h=libc6-dev mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs mount=mount \
		'/usr/lib/postgresql/*/bin/postgres=postgresql'

.PHONY: crds
crds: ## Copy the CRDs of the snapshot API from the module with its types
	hack/crds.sh

.PHONY: lint
# With the flags of the build, so that dependencies are not compiled twice. In devcluster
# without the linters that analyze all dependencies, that is all of Kubernetes; go test
# runs vet there.
LINT := env CGO_ENABLED=0 GOFLAGS='-trimpath -tags=grpcnotrace -buildvcs=false' $(CURDIR)/bin/golangci-lint run --allow-parallel-runners
lint: bin/golangci-lint ## Check the style of all code
	$(LINT) ./...
	cd devcluster && $(LINT) --config ../.golangci.yml --disable govet,staticcheck,exhaustive ./...

bin/golangci-lint: go.tools.mod
	@hack/progress.sh 'building golangci-lint' \
		go build -modfile=go.tools.mod -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

bin/versitygw: go.tools.mod # The S3 server of the tests. They run make for it, too.
	@hack/progress.sh 'building versitygw' \
		$(BUILD) -modfile=go.tools.mod -o $@ github.com/versity/versitygw/cmd/versitygw

bin/containerd-%: hack/containerd-%/go.mod # Other versions than that of the nodes' Debian. A test with -full runs make for them.
	@hack/progress.sh 'building containerd $*' $(BUILD) -C $(<D) -trimpath -ldflags '-s -w' -o ../../$@/ tool

.PHONY: generate
generate: bin/controller-gen ## Generate deepcopy functions and CRDs from the types in api/
	bin/controller-gen object crd paths=./api/... output:crd:dir=internal/crds
	hack/deploy-crds.sh

bin/controller-gen: go.tools.mod
	@hack/progress.sh 'building controller-gen' \
		go build -modfile=go.tools.mod -o $@ sigs.k8s.io/controller-tools/cmd/controller-gen

# Compares contents, not commits, so that you can run it before a commit.
GENERATED = find api internal/crds deploy -name 'zz_generated.*' -o -name '*.yaml' | sort | xargs sha256sum
.PHONY: verify-generated
verify-generated:
	@before=$$($(GENERATED)); $(MAKE) -s generate; \
	diff <(echo "$$before") <($(GENERATED)) || { echo 'generated files were out of date; make generate has updated them: commit them' >&2; exit 1; }

.PHONY: verify
verify: lint verify-generated ## Check style, generated files and go.mod
	hack/crds.sh --check
	go mod tidy -diff
	cd devcluster && go mod tidy -diff

.PHONY: clean
clean: ## Remove everything built, and what dead clusters left
	@if [ -x bin/devcluster ]; then bin/devcluster down; fi
	rm -rf bin
