#!/bin/bash
# The demo, on a real Kubernetes: a claim becomes a volume that grows while a pod
# writes to it, moves to another node with its data, is restored from a snapshot
# after a disaster; a running container is checkpointed into a bucket; everything is
# deleted. The cluster stays up until Ctrl-C; with --once
# the demo ends by itself. Without root there is no node, and so no pod.
set -euo pipefail
cd "$(dirname "$0")/.."

nodes=2
if [ "$(id -u)" != 0 ]; then
	nodes=0
	echo "Not root: no node can be started. The volume is created, expanded, restored and deleted, but no pod uses it, and no container is checkpointed."
fi
stopped=''
trap 'stopped=yes' INT # The cluster gets it too, and cleans up: wait for that.
bin/devcluster exec --name demo --nodes $nodes -- hack/demo-steps.sh $nodes "$@" || [ "$stopped" ]
