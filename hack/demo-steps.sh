#!/bin/bash
# The steps of the demo, inside the cluster: demo-steps.sh NODES [--once]
set -euo pipefail
nodes=$1
once=${2:-}
work=$(mktemp -d)
trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
trap 'echo; exit 0' INT TERM # Ctrl-C is how the demo ends.

bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
if [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ]; then bold='' dim='' plain=''; fi

number=0
# step TITLE COMMAND...: says what is done, does it, says how long it took.
step() {
	number=$((number + 1))
	printf '\n%s%d. %s%s\n' "$bold" $number "$1" "$plain"
	shift
	local began=$EPOCHREALTIME
	if ! "$@" >"$work/out" 2>&1; then
		cat "$work/out"
		explain
		exit 1
	fi
	sed 's/^/   /' "$work/out"
	printf '   %s(%s s)%s\n' "$dim" "$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.1f", b - a}')" "$plain"
}

# explain shows what there is to see when a step failed.
explain() {
	echo "That failed. What the cluster says:"
	kubectl get pods,pvc,pv -A || true
	kubectl get events -A --sort-by=.lastTimestamp | tail -n 20 || true
	cat "$work"/*.log 2>/dev/null | tail -n 20 || true
}

load_images() {
	bin/devcluster load --name demo holdfast.io/holdfast:dev --file /holdfast=bin/holdfast
	bin/devcluster load --name demo holdfast.io/local-driver:dev --file /local-driver=bin/local-driver \
		--program /usr/sbin/mkfs.ext4 --program /usr/sbin/e2fsck --program /usr/sbin/resize2fs \
		--program /usr/sbin/mkfs.xfs --program /usr/sbin/xfs_growfs --program /usr/bin/mount --program /usr/bin/umount
}

deploy() {
	kubectl apply -f driver/local/deploy/local-driver.yaml
	kubectl -n holdfast-system rollout status deploy/local-driver --timeout=2m
}

# run_here starts driver and provisioner as processes of this machine.
run_here() {
	bin/local-driver --csi-address="$work/csi.sock" --data-dir="$work/data" --node-id=here >"$work/driver.log" 2>&1 &
	bin/holdfast csi-provisioner --csi-address="$work/csi.sock" --immediate-topology=false >"$work/provisioner.log" 2>&1 &
	kubectl create -f - <<-Y
		apiVersion: storage.k8s.io/v1
		kind: StorageClass
		metadata: {name: local}
		provisioner: local.holdfast.io
	Y
}

claim() {
	kubectl apply -f - <<-Y
		apiVersion: v1
		kind: PersistentVolumeClaim
		metadata: {name: data}
		spec:
		  storageClassName: local
		  accessModes: [ReadWriteOnce]
		  resources: {requests: {storage: 1Gi}}
	Y
}

# pod NAME SCRIPT: a pod that runs a script with the claim's volume at /data.
pod() {
	kubectl apply -f - <<-Y
		apiVersion: v1
		kind: Pod
		metadata: {name: $1}
		spec:
		  terminationGracePeriodSeconds: 0
		  containers:
		  - name: main
		    image: devcluster.local/busybox:1
		    command: [sh, -ec, "$2; sleep 1000000"]
		    volumeMounts: [{name: data, mountPath: /data}]
		  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
	Y
	kubectl wait --for=condition=Ready "pod/$1" --timeout=2m
	# Ready is when it runs; what it says comes a moment later.
	timeout 60 sh -c "until kubectl logs '$1' | grep .; do sleep 0.2; done"
}

bound() {
	kubectl wait --for=jsonpath='{.status.phase}'=Bound pvc/data --timeout=2m
	kubectl get pvc,pv
	kubectl get events --field-selector reason=ProvisioningSucceeded -o custom-columns=EVENT:.message --no-headers
}

gone() {
	kubectl delete pvc data
	kubectl wait --for=delete pv --all --timeout=2m
	kubectl get pvc,pv
}

if [ "$nodes" -gt 0 ]; then
	step "Images from the programs just built" load_images
	step "The local driver and the provisioner, as pods" deploy
	step "A claim for 1 GiB" claim
	step "A pod that uses it: the scheduler picks the node, the provisioner makes the volume, the kubelet mounts it" \
		pod writer "echo hello from a pod > /data/greeting; df -h /data"
	step "What came of the claim" bound
	step "The pod goes" kubectl delete pod writer
	step "Another pod reads what the first one wrote" pod reader "cat /data/greeting"
	last="kubectl delete pod reader --now"
else
	step "The local driver and the provisioner, as processes" run_here
	step "A claim for 1 GiB" claim
	step "What came of the claim" bound
	last=true
fi

if [ "$once" != --once ]; then
	cat <<-T

		${bold}Look around from another terminal:${plain}
		   export KUBECONFIG=$KUBECONFIG PATH=$(dirname "$(command -v kubectl)"):\$PATH
		   kubectl get pvc,pv
		   kubectl get pods -A
		   kubectl get events
		Ctrl-C cleans up.
	T
	# Only a signal ends this.
	while :; do sleep 3600 & wait $!; done
fi

if [ "$last" != true ]; then step "The second pod goes" $last; fi
step "The claim is deleted, and the volume with it" gone
