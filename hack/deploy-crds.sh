#!/bin/bash
# deploy-crds.sh: replaces the CRDs at the end of deploy/checkpoint-operator.yaml.
set -euo pipefail
cd "$(dirname "$0")/.."
file=deploy/checkpoint-operator.yaml
mark='# The CustomResourceDefinitions, as'
{
	sed "/^$mark/q" "$file"
	tail -qn +2 internal/crds/checkpoint.example.com_*.yaml | sed '1!s/^apiVersion: apiextensions/---\n&/'
} >"$file.new"
mv "$file.new" "$file"
