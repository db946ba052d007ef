#!/bin/bash
# Runs all tests: those beside the code and those in test/, in a cluster with a real node,
# then those whose names say that they need two nodes, then those of devcluster. A test
# that needs two nodes and has another name fails before that and says so. Extra arguments
# go to all runs of go test.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
	echo "the tests start nodes and mount filesystems: run them as root" >&2
	exit 1
fi
two=^TestOnTwoNodes
# The race detector sees only the test's own process: it has its use where that runs the
# code under test. Linters run vet.
go test -race -vet=off -timeout 20m "$@" ./api/... ./cmd/... ./driver/... ./internal/... ./test/proxy
# The other tests start programs, and have the flags of their build: nothing is compiled twice.
# Two packages run at a time, in this order: the longest comes first.
export CGO_ENABLED=0
flags=(-trimpath -tags grpcnotrace -vet=off)
bin/devcluster exec --name "test-$$" --nodes 1 -- go test "${flags[@]}" -timeout 50m -skip "$two" "$@" ./test/e2e ./test/...
bin/devcluster exec --name "test-$$" --nodes 2 -- go test "${flags[@]}" -timeout 40m -run "$two" "$@" ./test/...
cd devcluster
go test -trimpath -timeout 30m "$@" ./...
