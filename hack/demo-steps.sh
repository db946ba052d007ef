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
	kubectl get pods,pvc,pv,volumeattachments -A || true
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
	kubectl apply -f driver/local/deploy/local-driver-attach.yaml
	class attach.local.holdfast.io
	kubectl -n holdfast-attach rollout status deploy/local-driver-controller --timeout=2m
	kubectl -n holdfast-attach rollout status daemonset/local-driver-node --timeout=2m
}

# run_here starts driver and roles as processes of this machine.
run_here() {
	bin/local-driver --csi-address="$work/csi.sock" --data-dir="$work/data" --node-id=here >"$work/driver.log" 2>&1 &
	bin/holdfast csi-provisioner --csi-address="$work/csi.sock" --immediate-topology=false >"$work/provisioner.log" 2>&1 &
	bin/holdfast csi-resizer --csi-address="$work/csi.sock" >"$work/resizer.log" 2>&1 &
	class local.holdfast.io
}

# class DRIVER: the class of the claim. XFS grows in use on every machine; ext4
# only with CAP_SYS_RESOURCE.
class() {
	kubectl apply -f - <<-Y
		apiVersion: storage.k8s.io/v1
		kind: StorageClass
		metadata: {name: demo}
		provisioner: $1
		parameters: {csi.storage.k8s.io/fstype: xfs}
		allowVolumeExpansion: true
	Y
}

claim() {
	kubectl apply -f - <<-Y
		apiVersion: v1
		kind: PersistentVolumeClaim
		metadata: {name: data}
		spec:
		  storageClassName: demo
		  accessModes: [ReadWriteOnce]
		  resources: {requests: {storage: 1Gi}}
	Y
	kubectl wait --for=jsonpath='{.status.phase}'=Bound pvc/data --timeout=2m
	volumes
	kubectl get events --field-selector reason=ProvisioningSucceeded -o custom-columns=EVENT:.message --no-headers
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

gone() {
	kubectl delete pvc data
	kubectl wait --for=delete pv --all --timeout=2m
	kubectl get pvc,pv
}

# on_nodes is the demo with pods.
on_nodes() {
	local n1=demo-n1 n2=demo-n2
	step "Images from the programs just built" load_images
	step "The local driver on both nodes, and beside it provisioner, attacher and resizer, as pods" deploy
	step "A claim for 1 GiB: the provisioner makes the volume" claim
	step "A pod on $n1 that writes all the time: the attacher gives the volume to the node, the kubelet mounts it" \
		pod writer $n1 "df -h /data; while :; do date >> /data/written; sleep 0.1; done"
	step "The claim is to have 2 GiB: the resizer expands the volume, the kubelet its filesystem, and the pod goes on writing" \
		expand 2Gi writer
	step "The pod goes" kubectl delete pod writer
	step "A pod on $n2 has what the first one wrote: the attacher has taken the volume there" \
		pod reader $n2 "df -h /data; wc -l /data/written; exec sleep 1000000"
}

# without_nodes is what of that needs no node.
without_nodes() {
	step "The local driver, the provisioner and the resizer, as processes" run_here
	step "A claim for 1 GiB: the provisioner makes the volume" claim
	step "The claim is to have 2 GiB: the resizer expands the volume, and its filesystem will grow when a pod uses it" expand 2Gi
}

if [ "$nodes" -gt 0 ]; then on_nodes; else without_nodes; fi

if [ "$once" != --once ]; then
	cat <<-T

		${bold}Look around from another terminal:${plain}
		   export KUBECONFIG=$KUBECONFIG PATH=$(dirname "$(command -v kubectl)"):\$PATH
		   kubectl get pvc,pv,volumeattachment
		   kubectl get pods -A
		   kubectl get events
		Ctrl-C cleans up.
	T
	# Only a signal ends this.
	while :; do sleep 3600 & wait $!; done
fi

if [ "$nodes" -gt 0 ]; then step "The second pod goes" kubectl delete pod reader; fi
step "The claim is deleted, and the volume with it" gone
