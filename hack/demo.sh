#!/bin/bash
# The demo: a claim becomes a volume that grows while a pod writes to it, goes to
# another node with what is on it, comes back from a snapshot after a disaster, and
# goes away again, on a real Kubernetes. It stays up to be looked at until Ctrl-C; with --once it ends by itself. Without
# root there is no node, and so no pod.
set -euo pipefail
cd "$(dirname "$0")/.."

nodes=2
if [ "$(id -u)" != 0 ]; then
	nodes=0
	echo "Not root: no node can be started, so the volume is made, expanded, restored and deleted, but no pod uses it."
fi
stopped=''
trap 'stopped=yes' INT # It reaches the cluster too, which then cleans up: wait for that.
bin/devcluster exec --name demo --nodes $nodes -- hack/demo-steps.sh $nodes "$@" || [ "$stopped" ]
