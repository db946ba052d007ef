#!/bin/bash
# The CRDs of the snapshot API in internal/crds are those of the module with its
# types, byte for byte: Go embeds no file of another module. Without arguments this
# copies them from there, with --check it reports differences.
set -euo pipefail
cd "$(dirname "$0")/.."
module=github.com/kubernetes-csi/external-snapshotter/client/v8
go mod download "$module"
from=$(go list -m -f '{{.Dir}}' "$module")/config/crd
to=internal/crds

case "${1:-}" in
'')
	rm -f "$to"/*snapshot.storage.k8s.io_*.yaml
	install -m 644 "$from"/*snapshot.storage.k8s.io_*.yaml "$to"
	;;
--check)
	diff -ru -x kustomization.yaml -x '*.go' -x 'holdfast.io_*.yaml' -x 'checkpoint.example.com_*.yaml' "$from" "$to" || {
		echo "the CRDs in $to are not those of $module in go.mod; copy them with: make crds" >&2
		exit 1
	}
	;;
*)
	echo "usage: $0 [--check]" >&2
	exit 2
	;;
esac
