#!/bin/bash
# crash-mutants.sh [NAME...]: shows that the crash sweep can fail. Each mutant in
# test/crash/mutants removes one precaution from the program, and the script sweeps the
# mutant's scenarios with that program. First comes a control: the unchanged program
# must pass the same scenarios. A mutant counts as detected only if the sweep completes
# and reports leaks, stuck objects or other errors, and if runs failed with each fault
# that the mutant names. Run it inside a cluster. The sweeps' output stays in
# bin/crash-mutants.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
logs=$root/bin/crash-mutants
mkdir -p "$logs"
mutants=()
failed=0

for mutant in $(printf "%s\n" test/crash/mutants/*.patch | sort -V); do
	name=$(basename "$mutant" .patch)
	[[ $# = 0 || " $* " == *" $name "* ]] && mutants+=("$mutant")
done
[ ${#mutants[@]} -gt 0 ] || { echo "no such mutant: $*" >&2; exit 1; }

# build MUTANT DIR builds holdfast, with the mutant if there is one. go build -overlay
# applies it without changing the source tree.
build() {
	local overlay=() files
	if [ -n "$1" ]; then
		files=$(sed -n 's|^+++ b/||p' "$1")
		for file in $files; do install -D "$file" "$2/$file"; done
		(cd "$2" && git apply "$1")
		for file in $files; do echo "\"$root/$file\": \"$2/$file\""; done | paste -sd, | sed 's/.*/{"Replace": {&}}/' >"$2/overlay.json"
		overlay=(-overlay "$2/overlay.json")
	fi
	CGO_ENABLED=0 go build "${overlay[@]}" -o "$2/holdfast" ./cmd/holdfast
}

# sweep DIR PATTERN LOG sweeps the scenarios of a pattern with the programs in DIR.
sweep() {
	HOLDFAST_PROGRAMS=$1 go test -count=1 -timeout 90m -v ./test/crash -full -patience 10s -run "$2" >"$3" 2>&1
}

# header NAME MUTANT prints a field of the header of a patch.
header() { sed -n "/^---/q; s/^$1: //p" "$2"; }

# pattern MUTANT prints the scenarios and runs to be swept, in the form of -run.
pattern() {
	local runs
	runs=$(header Runs "$1")
	echo "TestSweep/^($(header Scenarios "$1"))${runs:+/$runs}"
}

# counts LOG prints the numbers of runs, leaks, stuck objects and other errors, or
# nothing if the sweep has not completed.
counts() {
	awk -F ' *[|] *' -v wrong="$(grep -c '^ *wrong: ' "$1")" '/^\| \*\*all\*\*/ { print $4, $6, $7, wrong }' "$1"
}

# faults LOG prints the faults with which runs have failed.
faults() { sed -n '/^| fault /,/^$/p' "$1" | awk -F ' *[|] *' '$4 + 0 > 0 { print $2 }'; }

complain() {
	echo "$1" >&2
	failed=1
}

# judge MUTANT LOG prints a row, and complains if the mutant was not detected.
judge() {
	local runs leaks stuck wrong by
	read -r runs leaks stuck wrong <<<"$(counts "$2")" || true
	if [ -z "$runs" ]; then
		complain "the sweep with $1 has not completed, see $2"
		return
	fi
	by=$(faults "$2")
	echo "| $(head -1 "$1") | $runs | $leaks | $stuck | $wrong | $(paste -sd, <<<"${by:-no fault}" | sed 's/,/, /g') |"
	[ $((leaks + stuck + wrong)) -gt 0 ] || complain "the sweep has not detected $1, see $2"
	header Faults "$1" | sed 's/, /\n/g' | while read -r fault; do
		grep -qxF "$fault" <<<"$by" || echo "$fault"
	done | grep . >&2 && complain "the sweep has not detected $1 with these faults, see $2" || true
}

mkdir "$dir/control"
build "" "$dir/control"
all=$(for mutant in "${mutants[@]}"; do pattern "$mutant"; done | sort -u | paste -sd'|')
if ! sweep "$dir/control" "$all" "$logs/control.log"; then
	echo "the sweep fails without a mutant, so its failures with mutants show nothing; see $logs/control.log" >&2
	exit 1
fi

echo "| removed | runs | leaks | stuck | other | detected by |"
echo "|---|---|---|---|---|---|"
read -r runs leaks stuck wrong <<<"$(counts "$logs/control.log")"
echo "| Nothing | $runs | $leaks | $stuck | $wrong | |"
for mutant in "${mutants[@]}"; do
	name=$(basename "$mutant" .patch)
	mkdir "$dir/$name"
	build "$root/$mutant" "$dir/$name"
	if sweep "$dir/$name" "$(pattern "$mutant")" "$logs/$name.log"; then
		complain "the sweep passes with $name, see $logs/$name.log"
	fi
	judge "$mutant" "$logs/$name.log"
done
exit $failed
