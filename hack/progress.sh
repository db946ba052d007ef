#!/bin/bash
# progress.sh WHAT COMMAND... : runs a command that may take minutes and shows the
# elapsed time. A command that ends within two seconds shows nothing.
set -u
what=$1
shift

"$@" &
command=$!
trap 'kill $command 2>/dev/null' INT TERM
seconds=0
while kill -0 $command 2>/dev/null; do
	if [ $seconds -ge 2 ]; then
		if [ -t 2 ]; then
			printf '\r%s … %d s ' "$what" $seconds >&2
		elif [ $((seconds % 60)) = 2 ]; then
			printf '%s … %d s\n' "$what" $seconds >&2
		fi
	fi
	# The pause ends early when the command does.
	timeout 1 tail --pid=$command -f /dev/null
	seconds=$((seconds + 1))
done
wait $command
status=$?
if [ $seconds -gt 2 ] && [ -t 2 ]; then printf '\r%s: %d s     \n' "$what" $seconds >&2; fi
exit $status
