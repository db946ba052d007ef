#!/bin/bash
# checkpoint-mutants.sh [NAME...]: shows that the crash sweep of Checkpoints can fail, as
# crash-mutants.sh does for volumes. Each mutant in test/crash/checkpoints/mutants removes
# one precaution, and the script makes the mutant's runs with it. They are part of the
# sweep, which passes without a mutant. A mutant counts as detected only if the sweep
# completes and reports leaks, stuck objects or other errors. Mutants of restores name the
# packages whose tests have to find them: that of the agent, for one, has a sweep of its own.
# The output stays in bin/crash-mutants.
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

# overlay MUTANT NAME applies a mutant, for go test -overlay, without changing the source tree.
overlay() {
	local file
	file=$(sed -n 's|^+++ b/||p' "$1")
	install -D "$file" "$dir/$2/$file"
	(cd "$dir/$2" && git apply "$root/$1")
	echo "{\"Replace\": {\"$root/$file\": \"$dir/$2/$file\"}}" >"$dir/$2/overlay.json"
}

# run MUTANT NAME makes the runs of a mutant.
run() {
	local runs
	runs=$(header Runs "$1")
	go test -count=1 -vet=off -overlay "$dir/$2/overlay.json" -timeout 30m -v ./test/crash/checkpoints -full -patience 10s \
		-run "TestSweep/all/^$(header Scenarios "$1")${runs:+/$runs}" >"$logs/$2.log" 2>&1
}

# check MUTANT NAME runs the tests that have to find a mutant of restores, and prints its row.
# A test may find it by waiting forever.
check() {
	local found
	# shellcheck disable=SC2046 # a list of packages
	if go test -count=1 -vet=off -overlay "$dir/$2/overlay.json" -timeout 2m $(header Tests "$1") >"$logs/$2.log" 2>&1; then
		echo "the tests pass with $2, see $logs/$2.log" >&2
		return 1
	fi
	found=$(grep -aoE '^--- FAIL: Test\w+|^\s+Test\S+ \([0-9]' "$logs/$2.log" | grep -oE 'Test\w+' | sort -u | paste -sd, | sed 's/,/, /g')
	if [ -z "$found" ]; then
		echo "no test has found $2, see $logs/$2.log" >&2
		return 1
	fi
	echo "| $(head -1 "$1") | \`${found//, /\`, \`}\` |"
}

echo "| removed | runs | leaks | stuck | other |"
echo "|---|---|---|---|---|"
for mutant in $(printf "%s\n" test/crash/checkpoints/mutants/*.patch | sort -V); do
	name=$(basename "$mutant" .patch)
	[[ $# = 0 || " $* " == *" $name "* ]] || continue
	overlay "$mutant" "$name"
	if [ -n "$(header Tests "$mutant")" ]; then
		check "$mutant" "$name" >>"$dir/restores" || failed=1
		continue
	fi
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
if [ -s "$dir/restores" ]; then
	printf '\n| removed from restores | found by |\n|---|---|\n'
	cat "$dir/restores"
fi
exit $failed
