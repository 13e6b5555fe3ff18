# SPDX-License-Identifier: GPL-2.0-only
#
# Each target is a script or a few of them; scripts/NAME --help says more.

.PHONY: help bench bench-l1 bench-alternatives bench-results profile test test-all check mutants modules deb tree export backport mail clean
.NOTPARALLEL:

help:
	@echo 'make bench      compare the unpatched and the patched kernel (table, build/bench/)'
	@echo 'make bench-l1   the same in a real L1 Linux, under QEMU (FULL=1: with 8192 memslots)'
	@echo 'make bench-alternatives    what contexts are worth beside what could be had for less'
	@echo 'make bench-results    take what these found over into bench/results/'
	@echo 'make profile [TRIP=switch] [PAGES=ept] [KERNEL=unpatched]    where the ticks go'
	@echo 'make test       selftests on both kernels, in the emulator'
	@echo 'make test-all   the same on more machines and debug kernels, after each series, and from one kernel to the other'
	@echo 'make mutants    breaks the series in many ways, and sees that a test notices each'
	@echo 'make check      the series and the scripts: checkpatch, each patch alone, documentation, mails'
	@echo 'make modules    kvm*.ko with the series for a kernel of Debian (KERNEL_HEADERS= names it)'
	@echo 'make deb        build/deb/: a DKMS package of them'
	@echo 'make tree       linux/: Linux 7.3 and all series as commits (LINUX_SRC= names a source)'
	@echo 'make export     patches/ from the commits in linux/'
	@echo 'make backport   linux-6.12/: Linux 6.12 and the series backported (scripts/backport exports it)'
	@echo 'make mail SERIES=1 FROM="Name <address>"    build/mail/: a series, signed off, to be sent'
	@echo '     [VERSION=2] [RFC=1] [TO=address,...] [TRAILERS="Trailer: text; ..."] [BASE=commit]'
	@echo 'make clean      remove build/ (linux/ and downloads stay)'
	@echo
	@echo 'RUNNER=qemu|bochs, BOCHS=, LINUX_SRC=, JOBS= are looked at; see scripts/*'

bench bench-l1 test test-all check modules deb:
	@scripts/steps $@

bench-alternatives: ; @scripts/setup && scripts/tree && scripts/emulator && bench/alternatives/run
bench-results: ; @bench/take
profile: ; @scripts/setup && scripts/tree && bench/profile $(TRIP:%=-t %) $(PAGES:%=-p %) $(KERNEL:%=-k %) $(WHAT)

tree: ; @scripts/setup && scripts/tree
export: ; @scripts/export
backport: ; @scripts/setup && scripts/backport tree
mail: export SERIES := $(value SERIES)
mail: export FROM := $(value FROM)
mail: ; @scripts/mail
mutants: ; @scripts/setup && scripts/tree && scripts/emulator && scripts/mutants

clean:
	@scripts/clean
