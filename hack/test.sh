#!/bin/bash
# Runs all tests: those of the product in a cluster with a real node, then those whose
# names say that they need two nodes, then those of devcluster. A test that needs two
# nodes and has another name fails in the first run and says so. Extra arguments go to
# all runs of go test.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
	echo "the tests start nodes and mount filesystems: run them as root" >&2
	exit 1
fi
two=^TestOnTwoNodes
bin/devcluster exec --name "test-$$" --nodes 1 -- go test -race -timeout 40m -skip "$two" "$@" ./...
bin/devcluster exec --name "test-$$" --nodes 2 -- go test -race -timeout 15m -run "$two" "$@" ./test/...
cd devcluster
# With the flags of the build, so that Kubernetes is not compiled twice.
CGO_ENABLED=0 go test -trimpath -timeout 30m "$@" ./...
