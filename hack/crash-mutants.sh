#!/bin/bash
# crash-mutants.sh [NAME...]: shows that the crash sweep can fail. Each mutant of
# test/crash/mutants takes one precaution out of the program; the scenarios that
# it names are swept with that program, and must fail. Run it inside a cluster.
# What the sweeps say is kept in bin/crash-mutants.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
logs=$root/bin/crash-mutants
mkdir -p "$logs"
missed=0

# build makes holdfast with the mutant: the compiler reads the changed files in
# place of those of the tree, which stays as it is.
build() {
	local files
	files=$(sed -n 's|^+++ b/||p' "$1")
	for file in $files; do install -D "$file" "$2/$file"; done
	(cd "$2" && git apply "$1")
	for file in $files; do echo "\"$root/$file\": \"$2/$file\""; done | paste -sd, | sed 's/.*/{"Replace": {&}}/' >"$2/overlay.json"
	CGO_ENABLED=0 go build -overlay "$2/overlay.json" -o "$2/holdfast" ./cmd/holdfast
}

echo "| taken out | runs | leaks | stuck | other |"
echo "|---|---|---|---|---|"
for mutant in $(printf "%s\n" test/crash/mutants/*.patch | sort -V); do
	name=$(basename "$mutant" .patch)
	[[ $# = 0 || " $* " == *" $name "* ]] || continue
	mkdir "$dir/$name"
	build "$root/$mutant" "$dir/$name"
	scenarios=$(sed -n 's/^Scenarios: //p' "$mutant")
	if HOLDFAST_PROGRAMS=$dir/$name go test -count=1 -timeout 30m -v ./test/crash -full -patience 10s \
		-run "TestSweep/^($scenarios)" >"$logs/$name.log" 2>&1; then
		missed=1
	fi
	awk -F ' *[|] *' -v what="$(head -1 "$mutant")" '/^\| \*\*all/ { printf "| %s | %s | %s | %s |", what, $4, $6, $7 }' "$logs/$name.log"
	echo " $(grep -c '^ *wrong: ' "$logs/$name.log") |"
done
if [ $missed = 1 ]; then
	echo "the sweep has not noticed all of them" >&2
	exit 1
fi
