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

# work_tree DIRECTORY COMMIT LOG: a work tree of linux/ at COMMIT, made if there is none
work_tree() {
	if [ ! -f "$1/Kbuild" ]; then
		git -C "$LINUX" worktree prune
		mkdir -p "$(dirname "$1")"
		room 1000 "$(dirname "$1")"
		rm -rf "$1"
		git -C "$LINUX" worktree add -q -f --no-checkout --detach "$1" "$2" > "$3" 2>&1 ||
			die "the work tree ${1#"$TOP"/} failed" "$3" "see its end"
	fi
	git -C "$1" checkout -q -f --detach "$2" > "$3" 2>&1 ||
		die "checking ${2#tip/} out in ${1#"$TOP"/} failed" "$3" "see its end"
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

# The series: patches/series has a line for each, in order of sending: NN-NAME, the
# numbers of those that it depends on (- or 02,05), what it is. In linux/ each ends at the
# branch tip/NN-NAME, and the last one at HEAD; rebase.updateRefs, which scripts/tree sets
# there, has git rebase move these branches along.
series_names() { awk '!/^#/ && NF {print $1}' "$TOP/patches/series"; }

# series_name N|NAME|NN-NAME: the whole name
series_name() {
	local name

	while read -r name; do
		if [ "$1" = "$name" ] || [ "$1" = "${name#*-}" ] ||
		   { [[ $1 =~ ^[0-9]+$ ]] && ((10#$1 == 10#${name%%-*})); }; then
			echo "$name"
			return
		fi
	done < <(series_names)
	die "there is no series '$1'" "" "it is one of: $(series_names | paste -sd' ')"
}

# series_ends: of each series NN-NAME, the commit that it begins on, its last one, and the
# number of its commits; or one line that says why linux/ has no such series
series_ends() {
	local git=(git -C "$LINUX") names name bad tip n prev seen='' before='tag base'

	[ -f "$TOP/patches/series" ] || die "there is no patches/series, which says the order of the series"
	bad=$(awk '!/^#/ && NF && ($1 !~ /^[0-9][0-9]-[a-z0-9-]+$/ || ($2 != "-" && $2 !~ /^[0-9][0-9](,[0-9][0-9])*$/) || NF < 3) {print; exit}' "$TOP/patches/series")
	[ -z "$bad" ] || die "patches/series: not NN-NAME, numbers or -, and a description: $bad"
	mapfile -t names < <(series_names)
	[ ${#names[@]} != 0 ] || die "patches/series names no series"
	prev=$("${git[@]}" rev-parse -q --verify 'base^{commit}' 2>/dev/null) ||
		die "linux/ has no tag base" "" "run make tree"
	name=$("${git[@]}" for-each-ref --format='%(refname:lstrip=3)' refs/heads/tip | grep -vxF "$(printf '%s\n' "${names[@]}")" | head -n 1) || :
	[ -z "$name" ] || die "linux/ has a branch tip/$name, and patches/series does not name it" "" "add a line there, or delete the branch"
	[ "$("${git[@]}" rev-list --count --merges base..HEAD)" = 0 ] || die "base..HEAD in linux/ has merges; make it linear"
	for name in "${names[@]}"; do
		# shellcheck disable=SC2013 # words
		for n in $(awk -v name="$name" '$1 == name {gsub(/[-,]/, " ", $2); print $2}' "$TOP/patches/series"); do
			[[ " $seen" == *" $n-"* ]] || die "series $name needs $n, and patches/series has none of that number before it" "" \
				"put them in order there"
		done
		seen+="$name "
		if [ "$name" = "${names[-1]}" ]; then
			tip=$("${git[@]}" rev-parse HEAD)
		else
			tip=$("${git[@]}" rev-parse -q --verify "refs/heads/tip/$name^{commit}") ||
				die "linux/ has no branch tip/$name, at which that series of patches/series ends" "" \
				    "run make tree, or set it (git -C linux branch tip/$name COMMIT)"
		fi
		if ! "${git[@]}" merge-base --is-ancestor "$prev" "$tip" ||
		   ! "${git[@]}" merge-base --is-ancestor "$tip" HEAD; then
			die "in linux/, branch tip/$name is not on the way from $before to HEAD" "" \
			    "set it to the last commit of that series (git -C linux branch -f tip/$name COMMIT)"
		fi
		n=$("${git[@]}" rev-list --count "$prev..$tip")
		[ "$n" != 0 ] || die "series $name has no commit in linux/ after $before" "" \
			"set tip/$name to its last one (git -C linux branch -f tip/$name COMMIT)"
		echo "$name $prev $tip $n"
		prev=$tip
		before=tip/$name
	done
}

# narrow FILE: what goes into a letter has 75 columns at most, but for lines that are a
# link, and cannot be broken
narrow() {
	local long

	long=$(LC_ALL=C.UTF-8 grep -nE '^.{76}' "$TOP/$1" | grep -vE '^[0-9]+:([^ ]* +)?https?://[^ ]*$' | head -n 1) || :
	[ -z "$long" ] || die "$1: line ${long%%:*} has more than 75 columns; break it"
}

# What is in no commit, or in the middle of a rebase, is not what linux/ holds
linux_clean() {
	local d

	for d in rebase-merge rebase-apply; do
		if [ -d "$(git -C "$LINUX" rev-parse --absolute-git-dir 2>/dev/null)/$d" ]; then
			die "linux/ is in the middle of a rebase or am" "" "finish it (git -C linux rebase --continue, or --abort) and call again"
		fi
	done
	[ -z "$(git -C "$LINUX" status --porcelain -uno 2>/dev/null)" ] ||
		die "linux/ has changes that are in no commit" "" "commit them, or throw them away (git -C linux reset --hard)"
}

# Debian's archives that this machine's apt knows (mirror and proxies are its own) for SUITE
archives() { # [SUITE]
	local filter=/security/d

	case ${1:-} in *-security) filter='s,/debian$,&-security,' ;; esac
	{
		# shellcheck disable=SC2016 # the format is apt's
		apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' || :
		sed -nE 's/^URIs:[[:space:]]*//p' /etc/apt/sources.list.d/*.sources || :
		sed -nE 's/^deb(-src)?[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\3/p' \
			/etc/apt/sources.list /etc/apt/sources.list.d/*.list || :
	} 2>/dev/null | tr ' ' '\n' | sed -nE 's,/*$,,; /^[a-z+]+:/p' |
		grep -i debian | grep -v archive.debian | sed "$filter" | awk '!seen[$0]++'
}

# kvm_patches DIRECTORY LOG: the series in $LINUX as patches of what packaging/dkms/files names, KVM
# itself, which also stands in kvm_files then
kvm_patches() {
	local other

	linux_clean
	mapfile -t kvm_files < <(sed '/^#/d; /^$/d' "$TOP/packaging/dkms/files")
	other=$(git -C "$LINUX" diff --name-only base HEAD -- . ':!Documentation' ':!tools' ':!MAINTAINERS' "${kvm_files[@]/#/:!}") ||
		die "linux/ has no series" "" "run make tree"
	[ -z "$other" ] || die "the series changes ${other//$'\n'/ }, which is not of KVM's modules" "" \
		"add it to packaging/dkms/files, if modules for an unpatched kernel may have it changed"
	rm -rf "$1"
	git -C "$LINUX" -c core.quotePath=false format-patch -q --no-signature --zero-commit --no-numbered \
		-o "$1" base..HEAD -- "${kvm_files[@]}" > "$2" 2>&1 || die "git format-patch failed" "$2" "see its end"
}
