# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Sourced by the scripts: places, messages, and how a step fails.

set -euo pipefail
umask 022
export LC_ALL=C

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
BUILD=${BUILD_DIR:-$TOP/build}
# shellcheck disable=SC2034 # used by those that source this
LINUX=${LINUX_DIR:-$TOP/linux}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/kvm-nested-contexts
LOGS=$BUILD/log
JOBS=${JOBS:-$(nproc)}
mkdir -p "$LOGS" "$CACHE"

export CCACHE_DIR=${CCACHE_DIR:-$CACHE/ccache} CCACHE_BASEDIR=$TOP CCACHE_NOHASHDIR=1
# Kernel headers are many: on a miss, do not run the preprocessor on its own first
export CCACHE_DEPEND=1
# shellcheck disable=SC2034
CC_KERNEL=gcc
if command -v ccache >/dev/null; then
	# shellcheck disable=SC2034
	CC_KERNEL="ccache gcc"
fi

# Where the emulator puts the initrd (scripts/image, scripts/boot): above what GRUB
# and the kernel's unpacking touch, below any mem= that is of use
# shellcheck disable=SC2034
initrd_at=0x18000000

say() { printf '%s\n' "$*" >&2; }

# die WHAT [LOG [ADVICE]]: one line, then the end
die() {
	local line="${0##*/}: $1"

	if [ $# -gt 2 ]; then
		line+="; $3"
	fi
	if [ -n "${2:-}" ]; then
		if [ "$(df -Pk "$BUILD" | awk 'NR==2 {print $4}')" -lt 51200 ] ||
		   grep -qs 'No space left on device' "$2"; then
			line="${0##*/}: $1: the disk is full; free some space (make clean) and call again"
		fi
		line+=" (log: ${2#"$TOP"/})"
	fi
	say "$line"
	exit 1
}

# room MEGABYTES DIRECTORY: what a step is about to write fits there, or it does not begin.
# What fails for want of space may clean up after itself, and leave no trace of the cause.
room() {
	local free

	free=$(df -Pm "$2" | awk 'NR == 2 {print $4}')
	[ "$free" -ge "$1" ] ||
		die "the disk is too full: $1 MB are needed in $2, $free MB are free; free some space (make clean) and call again"
}

# usage TEXT of the caller's header: the comment block after the SPDX line
usage() {
	sed -n '/^# Usage:/,/^$/{s/^# \{0,1\}//;p}' "$0"
	exit "${1:-0}"
}

need() {
	local tool

	for tool; do
		command -v "$tool" >/dev/null ||
			die "$tool is missing; run scripts/setup"
	done
}

# One line of progress that overwrites itself on a terminal; in a log, nothing
progress() {
	if [ -t 2 ]; then
		printf '\r\033[K%s' "$*" >&2
	fi
}
progress_end() {
	if [ -t 2 ]; then
		printf '\r\033[K' >&2
	fi
}

# Counts what a kernel build compiles: make ... | count_cc TITLE LOG
count_cc() {
	local n=0 line

	: > "$2"
	while IFS= read -r line; do
		printf '%s\n' "$line" >> "$2"
		case $line in
		"  CC "*|"  AS "*|"  LD "*|"  AR "*)
			n=$((n + 1))
			if ((n % 20 == 0)); then
				progress "$1: $n compiled: ${line##* }"
			fi
			;;
		esac
	done
	progress_end
	say "$1: $n compiled"
}
