#!/bin/sh
# need.sh COMMAND=PACKAGE... : makes sure that commands exist, or files if the name
# begins with a slash; it may be a pattern then. As root it installs the Debian packages of
# those that are missing; otherwise it says in one line what to install.
set -eu

packages=
for pair in "$@"; do
	# shellcheck disable=SC2086 # a pattern
	case $pair in /*) if ls ${pair%%=*} >/dev/null 2>&1; then continue; fi ;; esac
	if ! PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null 2>&1; then
		packages="$packages ${pair#*=}"
	fi
done
[ -n "$packages" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "missing on this machine, install as root: apt-get install$packages" >&2
	exit 1
fi
echo "installing:$packages"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
apt-get install -y -q --no-install-recommends $packages >/dev/null 2>&1 || {
	apt-get update -q >/dev/null
	apt-get install -y -q --no-install-recommends $packages >/dev/null
}
