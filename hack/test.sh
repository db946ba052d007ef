#!/bin/bash
# All tests: those of the product inside a cluster with a real node, then what
# needs two nodes, then those of the cluster itself. Extra arguments go to all runs
# of go test.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
	echo "the tests start nodes and mount filesystems: run them as root" >&2
	exit 1
fi
two=TestAVolumeGoesFromNodeToNode
bin/devcluster exec --name "test-$$" --nodes 1 -- go test -race -timeout 30m -skip "$two" "$@" ./...
bin/devcluster exec --name "test-$$" --nodes 2 -- go test -race -timeout 10m -run "$two" "$@" ./test/e2e
cd devcluster
# With the flags of the build, so that Kubernetes is not compiled a second time.
CGO_ENABLED=0 go test -trimpath -timeout 30m "$@" ./...
