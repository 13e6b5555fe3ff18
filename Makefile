# SPDX-License-Identifier: GPL-2.0-only
#
# Each target is a script or a few of them; scripts/NAME --help says more.

.PHONY: help bench test test-all check mutants tree export mail clean
.NOTPARALLEL:

help:
	@echo 'make bench      compare the unpatched and the patched kernel (table, bench/results/)'
	@echo 'make test       selftests on both kernels, in the emulator'
	@echo 'make test-all   the same on more machines and debug kernels, and from one kernel to the other'
	@echo 'make mutants    breaks the series in many ways, and sees that a test notices each'
	@echo 'make check      the series and the scripts: checkpatch, sparse, each patch alone'
	@echo 'make tree       linux/: Linux 7.3 and the series as commits (LINUX_SRC= names a source)'
	@echo 'make export     patches/ from the commits in linux/'
	@echo 'make mail FROM="Name <address>"    build/mail/: the series, signed off, to be sent'
	@echo 'make clean      remove build/ (linux/ and downloads stay)'
	@echo
	@echo 'RUNNER=qemu|bochs, BOCHS=, LINUX_SRC=, JOBS= are looked at; see scripts/*'

bench test test-all check:
	@scripts/steps $@

tree: ; @scripts/setup && scripts/tree
export: ; @scripts/export
mail: ; @scripts/mail "$(FROM)"
mutants: ; @scripts/setup && scripts/tree && scripts/emulator && scripts/mutants

clean:
	@scripts/clean
