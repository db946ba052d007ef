#!/bin/bash
# checkpoint-mutants.sh [NAME...]: shows that the crash sweep of Checkpoints can fail, as
# crash-mutants.sh does for volumes. Each mutant in test/crash/checkpoints/mutants removes
# one precaution, and the script makes the mutant's runs with it. They are part of the
# sweep, which passes without a mutant. A mutant counts as detected only if the sweep
# completes and reports leaks, stuck objects or other errors. The output stays in
# bin/crash-mutants.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
logs=$root/bin/crash-mutants
mkdir -p "$logs"
failed=0

# header NAME MUTANT prints a field of the header of a patch.
header() { sed -n "/^---/q; s/^$1: //p" "$2"; }

# run MUTANT NAME makes the runs of a mutant. go test -overlay applies it without changing
# the source tree.
run() {
	local file runs
	file=$(sed -n 's|^+++ b/||p' "$1")
	install -D "$file" "$dir/$2/$file"
	(cd "$dir/$2" && git apply "$root/$1")
	echo "{\"Replace\": {\"$root/$file\": \"$dir/$2/$file\"}}" >"$dir/$2/overlay.json"
	runs=$(header Runs "$1")
	go test -count=1 -vet=off -overlay "$dir/$2/overlay.json" -timeout 30m -v ./test/crash/checkpoints -full -patience 10s \
		-run "TestSweep/all/^$(header Scenarios "$1")${runs:+/$runs}" >"$logs/$2.log" 2>&1
}

echo "| removed | runs | leaks | stuck | other |"
echo "|---|---|---|---|---|"
for mutant in $(printf "%s\n" test/crash/checkpoints/mutants/*.patch | sort -V); do
	name=$(basename "$mutant" .patch)
	[[ $# = 0 || " $* " == *" $name "* ]] || continue
	if run "$mutant" "$name"; then
		echo "the sweep passes with $name, see $logs/$name.log" >&2
		failed=1
	fi
	# The table is printed only by a sweep that has completed.
	counts=$(awk -F ' *[|] *' -v wrong="$(grep -c '^ *wrong: ' "$logs/$name.log")" '/^\| \*\*all\*\*/ { print $4, "|", $6, "|", $7, "|", wrong }' "$logs/$name.log")
	if [ -z "$counts" ]; then
		echo "the sweep with $name has not completed, see $logs/$name.log" >&2
		failed=1
		continue
	fi
	echo "| $(head -1 "$mutant") | $counts |"
done
exit $failed
