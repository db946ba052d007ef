#!/bin/bash
# The demo: a claim becomes a volume that a pod writes to, and goes away again,
# on a real Kubernetes. It stays up to be looked at until Ctrl-C; with --once it
# ends by itself. Without root there is no node, and so no pod.
set -euo pipefail
cd "$(dirname "$0")/.."

nodes=1
if [ "$(id -u)" != 0 ]; then
	nodes=0
	echo "Not root: no node can be started, so the volume is made and deleted but no pod writes to it."
fi
trap : INT # It reaches the cluster too, which then cleans up: wait for that.
bin/devcluster exec --name demo --nodes $nodes -- hack/demo-steps.sh $nodes "$@"
