#!/bin/bash
# The steps of the demo, inside the cluster: demo-steps.sh NODES [--once]
set -euo pipefail
nodes=$1
once=${2:-}
work=$(mktemp -d)
doing='' # the step that is under way
exec 3>&1 # what it says goes elsewhere meanwhile
trap ended EXIT
trap 'doing=; echo; exit 0' INT TERM # Ctrl-C is how the demo ends.

bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
if [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ]; then bold='' dim='' plain=''; fi

# ended leaves nothing running. A second signal, as the cluster sends after Ctrl-C,
# must not cut that short.
ended() {
	trap '' INT TERM
	if [ -n "$doing" ]; then explain >&3; fi
	kill $(jobs -p) 2>/dev/null || true
	wait
	rm -rf "$work"
}

number=0
# step TITLE COMMAND...: says what is done, does it, says how long it took. What
# fails in it ends the demo; as a condition it would go on after an error.
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

# explain shows what there is to see when a step failed.
explain() {
	cat "$work/out"
	echo "That failed: $doing. What the cluster says:"
	kubectl get pods,pvc,pv,volumeattachments,volumesnapshots,volumesnapshotcontents -A || true
	kubectl get events -A --sort-by=.lastTimestamp | tail -n 20 || true
	cat "$work"/*.log 2>/dev/null | tail -n 20 || true
}

load_images() {
	bin/devcluster load --name demo holdfast.io/holdfast:dev --file /holdfast=bin/holdfast
	bin/devcluster load --name demo holdfast.io/local-driver:dev --file /local-driver=bin/local-driver \
		--program /usr/sbin/mkfs.ext4 --program /usr/sbin/e2fsck --program /usr/sbin/resize2fs \
		--program /usr/sbin/mkfs.xfs --program /usr/sbin/xfs_growfs --program /usr/bin/mount --program /usr/bin/umount
}

# deploy starts driver and roles as pods.
deploy() {
	kinds
	kubectl apply -f driver/local/deploy/local-driver-attach.yaml -f deploy/snapshot-controller.yaml
	classes attach.local.holdfast.io
	kubectl -n kube-system rollout status deploy/snapshot-controller --timeout=2m
	kubectl -n holdfast-attach rollout status deploy/local-driver-controller --timeout=2m
	kubectl -n holdfast-attach rollout status daemonset/local-driver-node --timeout=2m
}

# kinds installs those of snapshots.
kinds() {
	bin/holdfast crds | kubectl apply --server-side -f - >/dev/null
	kubectl wait --for=condition=Established crd --all --timeout=1m >/dev/null
}

# run_here starts driver and roles as processes of this machine.
run_here() {
	kinds
	bin/local-driver --csi-address="$work/csi.sock" --data-dir="$work/data" --node-id=here >"$work/driver.log" 2>&1 &
	bin/holdfast csi-provisioner --csi-address="$work/csi.sock" --immediate-topology=false >"$work/provisioner.log" 2>&1 &
	bin/holdfast csi-resizer --csi-address="$work/csi.sock" >"$work/resizer.log" 2>&1 &
	bin/holdfast csi-snapshotter --csi-address="$work/csi.sock" >"$work/snapshotter.log" 2>&1 &
	bin/holdfast snapshot-controller >"$work/snapshot-controller.log" 2>&1 &
	classes local.holdfast.io
}

# classes DRIVER: those of the claim and of the snapshot. XFS grows in use on every
# machine; ext4 only with CAP_SYS_RESOURCE.
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
# volume at /data. What the script says first is shown, and which node has the
# volume.
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
	# Ready is when it runs; what it says comes a moment later.
	timeout 60 sh -c "until kubectl logs '$1' | grep .; do sleep 0.2; done"
	kubectl get volumeattachment
}

# expand SIZE [POD]: asks for more, and shows what came of it and what the pod
# sees of it while it runs.
expand() {
	if [ -n "${2:-}" ]; then seen "$2"; fi
	kubectl patch pvc data --type=merge -p "{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"$1\"}}}}"
	kubectl wait --for=jsonpath='{.spec.capacity.storage}'="$1" pv --all --timeout=2m
	if [ -n "${2:-}" ]; then
		# A kubelet looks once a minute whether a volume has grown, and when its pod changes.
		timeout 120 sh -c "until kubectl annotate --overwrite pod $2 example.com/look=\$(date +%N) >/dev/null
			kubectl get pvc data -o 'jsonpath={.status.capacity.storage}' | grep -qx $1; do sleep 0.3; done"
		seen "$2"
	fi
	volumes
}

# seen POD: what a pod sees of the volume, and has written so far.
seen() {
	kubectl exec "$1" -- sh -c 'df -h /data; echo "$(wc -l </data/written) lines written"'
}

# snapshot [POD]: with what the pod has written shortly before.
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

# destroy [POD]: what can go wrong does, and the claim goes too.
destroy() {
	if [ -n "${1:-}" ]; then
		kubectl exec "$1" -- sh -c 'rm /data/written; ls -l /data'
		kubectl delete pod "$1"
	fi
	kubectl delete pvc data
}

gone() {
	kubectl delete pvc/data volumesnapshot/before
	kubectl wait --for=delete pv --all --timeout=2m
	kubectl get pvc,pv,volumesnapshotcontents
}

# on_nodes is the demo with pods.
on_nodes() {
	local n1=demo-n1 n2=demo-n2
	step "Images from the programs just built" load_images
	step "The local driver on both nodes, and beside it provisioner, attacher, resizer and both halves of the snapshotter, as pods" deploy
	step "A claim for 1 GiB: the provisioner makes the volume" claim 1Gi
	step "A pod on $n1 that writes all the time: the attacher gives the volume to the node, the kubelet mounts it" \
		pod writer $n1 "df -h /data; while :; do date >> /data/written; sleep 0.1; done"
	step "The claim is to have 2 GiB: the resizer expands the volume, the kubelet its filesystem, and the pod goes on writing" \
		expand 2Gi writer
	step "A snapshot, while the pod goes on writing: snapshot-controller and csi-snapshotter make it, of one moment" snapshot writer
	step "The pod goes" kubectl delete pod writer
	step "A pod on $n2 has what the first one wrote: the attacher has taken the volume there" \
		pod reader $n2 "df -h /data; wc -l /data/written; exec sleep 1000000"
	step "Disaster: the data is destroyed, and then the claim is deleted, and its volume with it" destroy reader
	step "The same claim again, restored from the snapshot" claim 2Gi before
	step "A pod on $n1 has back what was there when the snapshot was taken" \
		pod survivor $n1 "df -h /data; wc -l /data/written; exec sleep 1000000"
}

# without_nodes is what of that needs no node.
without_nodes() {
	step "The local driver, provisioner, resizer and both halves of the snapshotter, as processes" run_here
	step "A claim for 1 GiB: the provisioner makes the volume" claim 1Gi
	step "The claim is to have 2 GiB: the resizer expands the volume, and its filesystem will grow when a pod uses it" expand 2Gi
	step "A snapshot of the volume: snapshot-controller and csi-snapshotter make it" snapshot
	step "Disaster: the claim is deleted, and its volume with it" destroy
	step "The same claim again, restored from the snapshot" claim 2Gi before
}

if [ "$nodes" -gt 0 ]; then on_nodes; else without_nodes; fi

if [ "$once" != --once ]; then
	cat <<-T

		${bold}Look around from another terminal:${plain}
		   export KUBECONFIG=$KUBECONFIG PATH=$(dirname "$(command -v kubectl)"):\$PATH
		   kubectl get pvc,pv,volumeattachment,volumesnapshot
		   kubectl get pods -A
		   kubectl get events
		Ctrl-C cleans up.
	T
	# Only a signal ends this.
	while :; do sleep 3600 & wait $!; done
fi

if [ "$nodes" -gt 0 ]; then step "The last pod goes" kubectl delete pod survivor; fi
step "Claim and snapshot are deleted, and with them what the driver has" gone
