#!/bin/bash
# The steps of the demo, inside the cluster: demo-steps.sh NODES [--once]
set -euo pipefail
nodes=$1
once=${2:-}
work=$(mktemp -d)
doing='' # the current step
exec 3>&1 # the terminal, while a step's output goes to a file
trap ended EXIT
trap 'doing=; echo; exit 0' INT TERM # Ctrl-C is how the demo ends.

bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
if [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ]; then bold='' dim='' plain=''; fi

# ended stops everything. A second signal, as the cluster sends after Ctrl-C, must
# not interrupt that.
ended() {
	trap '' INT TERM
	if [ -n "$doing" ]; then explain >&3; fi
	kill $(jobs -p) 2>/dev/null || true
	wait
	rm -rf "$work"
}

number=0
# step TITLE COMMAND...: prints the title, runs the command, prints how long it took.
# An error ends the demo; in a condition, set -e would not apply.
step() {
	number=$((number + 1))
	printf '\n%s%d. %s%s\n' "$bold" $number "$1" "$plain"
	doing=$1
	shift
	local began=$EPOCHREALTIME
	"$@" >"$work/out" 2>&1
	doing=''
	sed 's/^/   /' "$work/out"
	printf '   %s(%s s)%s\n' "$dim" "$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.1f", b - a}')" "$plain"
}

# explain shows the state of the cluster after a step failed.
explain() {
	cat "$work/out"
	echo "That failed: $doing. The state of the cluster:"
	kubectl get pods,pvc,pv,volumeattachments,volumesnapshots,volumesnapshotcontents -A || true
	kubectl get checkpoints -A -o wide 2>/dev/null || true
	kubectl get events -A --sort-by=.lastTimestamp | tail -n 20 || true
	cat "$work"/*.log 2>/dev/null | tail -n 20 || true
}

load_images() {
	bin/devcluster load --name demo holdfast.io/holdfast:dev --file /holdfast=bin/holdfast --file /holdfast-runtime=bin/holdfast-runtime
	bin/devcluster load --name demo docker.io/library/checkpoint-operator:v1.0.0 --file /manager=bin/holdfast
	bin/devcluster load --name demo holdfast.io/local-driver:dev --file /local-driver=bin/local-driver \
		--program /usr/sbin/mkfs.ext4 --program /usr/sbin/e2fsck --program /usr/sbin/resize2fs \
		--program /usr/sbin/mkfs.xfs --program /usr/sbin/xfs_growfs --program /usr/bin/mount --program /usr/bin/umount
}

# deploy starts driver and roles as pods.
deploy() {
	crds
	kubectl apply -f driver/local/deploy/local-driver-attach.yaml -f deploy/snapshot-controller.yaml
	classes attach.local.holdfast.io
	kubectl -n kube-system rollout status deploy/snapshot-controller --timeout=2m
	kubectl -n holdfast-attach rollout status deploy/local-driver-controller --timeout=2m
	kubectl -n holdfast-attach rollout status daemonset/local-driver-node --timeout=2m
}

# crds installs those of snapshots.
crds() {
	bin/holdfast crds | kubectl apply --server-side -f - >/dev/null
	kubectl wait --for=condition=Established crd --all --timeout=1m >/dev/null
}

# run_here starts driver and roles as processes of this machine.
run_here() {
	crds
	bin/local-driver --csi-address="$work/csi.sock" --data-dir="$work/data" --node-id=here >"$work/driver.log" 2>&1 &
	bin/holdfast csi-provisioner --csi-address="$work/csi.sock" --immediate-topology=false >"$work/provisioner.log" 2>&1 &
	bin/holdfast csi-resizer --csi-address="$work/csi.sock" >"$work/resizer.log" 2>&1 &
	bin/holdfast csi-snapshotter --csi-address="$work/csi.sock" >"$work/snapshotter.log" 2>&1 &
	bin/holdfast snapshot-controller >"$work/snapshot-controller.log" 2>&1 &
	classes local.holdfast.io
}

# classes DRIVER: for the claim and the snapshot. XFS grows in use on every machine;
# ext4 only with CAP_SYS_RESOURCE.
classes() {
	kubectl apply -f - <<-Y
		apiVersion: storage.k8s.io/v1
		kind: StorageClass
		metadata: {name: demo}
		provisioner: $1
		parameters: {csi.storage.k8s.io/fstype: xfs}
		allowVolumeExpansion: true
		---
		apiVersion: snapshot.storage.k8s.io/v1
		kind: VolumeSnapshotClass
		metadata: {name: demo}
		driver: $1
		deletionPolicy: Delete
	Y
}

# claim SIZE [SNAPSHOT]: a claim, restored from a snapshot if one is named.
claim() {
	local from=null
	if [ -n "${2:-}" ]; then from="{apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: $2}"; fi
	kubectl apply -f - <<-Y
		apiVersion: v1
		kind: PersistentVolumeClaim
		metadata: {name: data}
		spec:
		  storageClassName: demo
		  accessModes: [ReadWriteOnce]
		  resources: {requests: {storage: $1}}
		  dataSource: $from
	Y
	kubectl wait --for=jsonpath='{.status.phase}'=Bound pvc/data --timeout=2m
	volumes
	kubectl get events --field-selector reason=ProvisioningSucceeded -o custom-columns=EVENT:.message --no-headers | tail -n 1
}

# volumes shows the claim and its volume.
volumes() {
	kubectl get pvc -o custom-columns=CLAIM:.metadata.name,STATUS:.status.phase,CAPACITY:.status.capacity.storage
	kubectl get pv -o custom-columns=VOLUME:.metadata.name,STATUS:.status.phase,CAPACITY:.spec.capacity.storage
}

# pod NAME NODE SCRIPT: a pod on a node that runs a script with the claim's
# volume at /data. Shows the script's first output, and which node has the volume.
pod() {
	kubectl apply -f - <<-Y
		apiVersion: v1
		kind: Pod
		metadata: {name: $1}
		spec:
		  nodeSelector: {kubernetes.io/hostname: $2}
		  terminationGracePeriodSeconds: 0
		  containers:
		  - name: main
		    image: devcluster.local/busybox:1
		    command: [sh, -ec, "$3"]
		    volumeMounts: [{name: data, mountPath: /data}]
		  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
	Y
	kubectl wait --for=condition=Ready "pod/$1" --timeout=2m
	# The pod is ready when it runs; its output comes a moment later.
	timeout 60 sh -c "until kubectl logs '$1' | grep .; do sleep 0.2; done"
	kubectl get volumeattachment
}

# expand SIZE [POD]: requests more, and shows the result, in the pod too while it runs.
expand() {
	if [ -n "${2:-}" ]; then seen "$2"; fi
	kubectl patch pvc data --type=merge -p "{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"$1\"}}}}"
	kubectl wait --for=jsonpath='{.spec.capacity.storage}'="$1" pv --all --timeout=2m
	if [ -n "${2:-}" ]; then
		# A kubelet checks once a minute whether a volume has grown, and when its pod changes.
		timeout 120 sh -c "until kubectl annotate --overwrite pod $2 example.com/look=\$(date +%N) >/dev/null
			kubectl get pvc data -o 'jsonpath={.status.capacity.storage}' | grep -qx $1; do sleep 0.3; done"
		seen "$2"
	fi
	volumes
}

# seen POD: the volume as the pod sees it, and how much the pod has written.
seen() {
	kubectl exec "$1" -- sh -c 'df -h /data; echo "$(wc -l </data/written) lines written"'
}

# snapshot [POD]: takes it, after showing what the pod has written.
snapshot() {
	if [ -n "${1:-}" ]; then seen "$1"; fi
	kubectl apply -f - <<-Y
		apiVersion: snapshot.storage.k8s.io/v1
		kind: VolumeSnapshot
		metadata: {name: before}
		spec:
		  volumeSnapshotClassName: demo
		  source: {persistentVolumeClaimName: data}
	Y
	kubectl wait --for=jsonpath='{.status.readyToUse}'=true volumesnapshot/before --timeout=2m
	kubectl get volumesnapshot
}

# destroy [POD]: deletes the data, the pod and the claim.
destroy() {
	if [ -n "${1:-}" ]; then
		kubectl exec "$1" -- sh -c 'rm /data/written; ls -l /data'
		kubectl delete pod "$1"
	fi
	kubectl delete pvc data
}

# forget CHECKPOINT: deletes it. Nothing is left in the bucket.
forget() {
	kubectl -n checkpoint-operator-system delete checkpoint "$@" --timeout=2m
	if find "$work/s3/checkpoints" -name '*.ckpt' | grep .; then return 1; fi
}

gone() {
	kubectl delete pvc/data volumesnapshot/before
	kubectl wait --for=delete pv --all --timeout=2m
	kubectl get pvc,pv,volumesnapshotcontents
}

# on_nodes is the demo with nodes and pods.
on_nodes() {
	local n1=demo-n1 n2=demo-n2
	step "Build images and load them into the nodes" load_images
	step "Deploy the local driver on both nodes, with csi-provisioner, -attacher, -resizer and -snapshotter, and snapshot-controller" deploy
	step "Create a claim for 1 GiB: csi-provisioner creates the volume" claim 1Gi
	step "Start a pod on $n1 that writes all the time: csi-attacher attaches the volume, the kubelet mounts it" \
		pod writer $n1 "df -h /data; while :; do date >> /data/written; sleep 0.1; done"
	step "Request 2 GiB: csi-resizer expands the volume, the kubelet its filesystem, and the pod keeps writing" \
		expand 2Gi writer
	step "Take a snapshot while the pod keeps writing: snapshot-controller and csi-snapshotter take it, of one moment" snapshot writer
	step "Delete the pod" kubectl delete pod writer
	step "Start a pod on $n2: csi-attacher moves the volume there, with the data of the first pod" \
		pod reader $n2 "df -h /data; wc -l /data/written; exec sleep 1000000"
	step "Disaster: the data are destroyed, and the claim is deleted with its volume" destroy reader
	step "Create the same claim again, restored from the snapshot" claim 2Gi before
	step "Start a pod on $n1: it has the data from when the snapshot was taken" \
		pod survivor $n1 "df -h /data; wc -l /data/written; while :; do date >> /data/written; sleep 0.1; done"
	step "Start an S3 server on this machine, and the operator of checkpoints with an agent on each node" s3
	step "Checkpoint the pod's container into a bucket: its memory is stored and verified, and it goes on" checkpoint survivor
	step "Install holdfast-runtime on both nodes, in front of runc: it restores containers" install_wrapper $n1 $n2
	step "Start a pod that counts in its memory, and checkpoint it" counter $n1
	step "It counts on, which was a mistake: restore it in place. It is the same pod, and counts from the checkpoint" restore_counter
	step "Delete it, and start it on $n2 from the checkpoint: it has moved, with its memory" move_counter $n2
}

# s3 starts a server of buckets on this machine, for the nodes, and installs the operator
# of checkpoints. Its agents may connect to that server, which has the API server's
# address, only because a flag permits it.
s3() {
	local key=$RANDOM$RANDOM$RANDOM
	machine=$(kubectl config view --minify -o 'jsonpath={.clusters[0].cluster.server}')
	machine=${machine#https://} machine=${machine%:*}
	mkdir -p "$work/s3/checkpoints"
	ROOT_ACCESS_KEY=demo ROOT_SECRET_KEY=$key bin/versitygw --port "$machine:7070" --quiet posix "$work/s3" >"$work/s3.log" 2>&1 &
	sed "s#--host-root=/host#&\", \"--allow-s3-endpoint=$machine:7070#" deploy/checkpoint-operator.yaml | kubectl apply --server-side -f - >/dev/null
	kubectl wait --for=condition=Established crd --all --timeout=1m >/dev/null
	# Its Deployment: the rest names another pod.
	sed '/^---/Q' examples/checkpoints/checkpoints.yaml | kubectl apply -f -
	kubectl -n checkpoint-operator-system create secret generic bucket --from-literal=accessKeyID=demo --from-literal=secretAccessKey="$key"
	kubectl -n checkpoint-operator-system rollout status deploy/checkpoint-operator --timeout=2m
	kubectl -n checkpoint-operator-system rollout status daemonset/checkpoint-agent --timeout=2m
	timeout 60 sh -c 'until kubectl get checkpointnodes -o name | grep -q .; do sleep 0.2; done'
	kubectl wait checkpointnodes --all --for=condition=Ready --timeout=2m
}

# checkpoint POD: stores the state of its container in the bucket; the container goes on.
checkpoint() {
	seen "$1"
	store "$1"
	bin/holdfast archive verify "$work"/s3/checkpoints/*/main.ckpt
	seen "$1"
}

# store POD: creates a Checkpoint of it, in the operator's namespace, the only one that the
# manifest's operator serves.
store() {
	kubectl apply -f - <<-Y
		apiVersion: checkpoint.example.com/v1alpha1
		kind: Checkpoint
		metadata: {name: $1, namespace: checkpoint-operator-system}
		spec:
		  target: {podName: $1, namespace: default}
		  storage:
		    backend: s3
		    s3:
		      endpoint: http://$machine:7070
		      bucket: checkpoints
		      credentialsSecretRef: {name: bucket}
	Y
	kubectl -n checkpoint-operator-system wait --for=condition=Ready "checkpoint/$1" --timeout=2m
	kubectl -n checkpoint-operator-system get checkpoint "$1"
}

# install_wrapper NODE...: has the agents install it, and restarts containerd, which goes on
# with the containers that run.
install_wrapper() {
	kubectl -n checkpoint-operator-system patch daemonset checkpoint-agent --patch-file deploy/checkpoint-agent-install.yaml
	kubectl -n checkpoint-operator-system rollout status daemonset/checkpoint-agent --timeout=2m
	local node
	for node; do
		bin/devcluster shell --name demo "$node" -- sh -ec '
			kill $(pidof containerd); while pidof containerd >/dev/null; do sleep 0.1; done
			until ctr version >/dev/null 2>&1; do sleep 0.1; done'
	done
	kubectl wait nodes --all --for=condition=Ready --timeout=2m
	kubectl wait checkpointnodes --all --for=condition=Ready --timeout=2m
}

# counter_pod NODE [ANNOTATION]
counter_pod() {
	kubectl apply -f - <<-Y
		apiVersion: v1
		kind: Pod
		metadata: {name: counter, annotations: {${2:-}}}
		spec:
		  nodeName: $1
		  terminationGracePeriodSeconds: 0
		  containers:
		  - name: main
		    image: devcluster.local/busybox:1
		    command: [sh, -c, "i=0; while true; do i=\$((i+1)); echo \$i; sleep 0.1; done"]
	Y
}

# counted NUMBER: waits until the container has counted so far, and shows its numbers.
counted() {
	timeout 120 sh -c "until [ \"\$(kubectl logs counter --tail=1 2>/dev/null)\" -ge $1 ] 2>/dev/null; do sleep 0.2; done"
	echo "The container began with $(kubectl logs counter | head -n 1), and has counted to $(kubectl logs counter --tail=1)"
}

counter() {
	counter_pod "$1"
	counted 50
	store counter
}

restore_counter() {
	counted 100
	kubectl annotate pod counter checkpoint.example.com/restore-from=counter
	kubectl wait pod/counter --for=condition=checkpoint.example.com/Restored --timeout=2m
	counted 50
	kubectl get pod counter -o wide
}

move_counter() {
	kubectl delete pod counter
	counter_pod "$1" 'checkpoint.example.com/restore-from: counter'
	kubectl wait pod/counter --for=condition=checkpoint.example.com/Restored --timeout=2m
	counted 50
	kubectl get pod counter -o wide
	kubectl get events --field-selector reason=Restored
}

# without_nodes is the part that needs no node.
without_nodes() {
	step "Start the local driver, csi-provisioner, csi-resizer, csi-snapshotter and snapshot-controller as processes" run_here
	step "Create a claim for 1 GiB: csi-provisioner creates the volume" claim 1Gi
	step "Request 2 GiB: csi-resizer expands the volume; its filesystem will grow when a pod uses it" expand 2Gi
	step "Take a snapshot of the volume" snapshot
	step "Disaster: the claim is deleted with its volume" destroy
	step "Create the same claim again, restored from the snapshot" claim 2Gi before
}

if [ "$nodes" -gt 0 ]; then on_nodes; else without_nodes; fi

if [ "$once" != --once ]; then
	cat <<-T

		${bold}Look around from another terminal:${plain}
		   export KUBECONFIG=$KUBECONFIG PATH=$(dirname "$(command -v kubectl)"):\$PATH
		   kubectl get pvc,pv,volumeattachment,volumesnapshot
		   kubectl get checkpoints -A -o wide
		   kubectl get pods -A
		   kubectl get events
		Ctrl-C cleans up.
	T
	# Only a signal ends this.
	while :; do sleep 3600 & wait $!; done
fi

if [ "$nodes" -gt 0 ]; then
	step "Delete the Checkpoints, and with them what is in the bucket" forget survivor counter
	step "Delete the last pods" kubectl delete pod survivor counter
fi
step "Delete claim and snapshot, and with them everything at the driver" gone
