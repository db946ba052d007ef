#!/bin/bash
# crash-mutants.sh [NAME...]: shows that the crash sweep can fail. Each mutant of
# test/crash/mutants takes one precaution out of the program, and the scenarios
# that it names are swept with that program. First comes a control: the same
# scenarios, with the program as it is, must pass. A mutant counts as noticed only
# if the sweep comes to its end and tells of leaks, of what is stuck, or of what is
# wrong, and if runs have failed in each way of striking that the mutant names.
# Run it inside a cluster. What the sweeps say is kept in bin/crash-mutants.
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
[ ${#mutants[@]} -gt 0 ] || { echo "there is no such mutant: $*" >&2; exit 1; }

# build makes holdfast, with the mutant if there is one: it is applied with
# go build -overlay, and the tree stays as it is.
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

# sweep DIR PATTERN LOG plays what the pattern says with the programs in DIR.
sweep() {
	HOLDFAST_PROGRAMS=$1 go test -count=1 -timeout 90m -v ./test/crash -full -patience 10s -run "$2" >"$3" 2>&1
}

# header NAME MUTANT is a line of what a patch begins with.
header() { sed -n "/^---/q; s/^$1: //p" "$2"; }

# pattern MUTANT says what is to be swept, as -run wants it.
pattern() {
	local runs
	runs=$(header Runs "$1")
	echo "TestSweep/^($(header Scenarios "$1"))${runs:+/$runs}"
}

# counts LOG prints runs, leaks, what is stuck and what is wrong; nothing if the
# sweep has not come to its end.
counts() {
	awk -F ' *[|] *' -v wrong="$(grep -c '^ *wrong: ' "$1")" '/^\| \*\*all\*\*/ { print $4, $6, $7, wrong }' "$1"
}

# ways LOG prints the ways of striking in which runs have failed.
ways() { sed -n '/^| fault /,/^$/p' "$1" | awk -F ' *[|] *' '$4 + 0 > 0 { print $2 }'; }

complain() {
	echo "$1" >&2
	failed=1
}

# judge MUTANT LOG prints a row, and complains if the mutant was not noticed.
judge() {
	local runs leaks stuck wrong by
	read -r runs leaks stuck wrong <<<"$(counts "$2")" || true
	if [ -z "$runs" ]; then
		complain "the sweep with $1 has not come to its end, see $2"
		return
	fi
	by=$(ways "$2")
	echo "| $(head -1 "$1") | $runs | $leaks | $stuck | $wrong | $(paste -sd, <<<"${by:-no fault}" | sed 's/,/, /g') |"
	[ $((leaks + stuck + wrong)) -gt 0 ] || complain "the sweep has not noticed $1, see $2"
	header Faults "$1" | sed 's/, /\n/g' | while read -r way; do
		grep -qxF "$way" <<<"$by" || echo "$way"
	done | grep . >&2 && complain "the sweep has not noticed $1 in these ways, see $2" || true
}

mkdir "$dir/control"
build "" "$dir/control"
all=$(for mutant in "${mutants[@]}"; do pattern "$mutant"; done | sort -u | paste -sd'|')
if ! sweep "$dir/control" "$all" "$logs/control.log"; then
	echo "the sweep fails without a mutant, so that it fails with one shows nothing; see $logs/control.log" >&2
	exit 1
fi

echo "| taken out | runs | leaks | stuck | other | noticed by |"
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
