// SPDX-License-Identifier: GPL-2.0-only
/* pageout PID: swaps out what memory of its own the process has, and prints the kB that are left */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned long start, end;
	char name[64], line[512];
	int pidfd = argc == 2 ? syscall(SYS_pidfd_open, atoi(argv[1]), 0) : -1;
	FILE *f;

	if (pidfd < 0) {
		perror("pageout PID");
		return 1;
	}
	snprintf(name, sizeof(name), "/proc/%s/maps", argv[1]);
	f = fopen(name, "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx rw-p", &start, &end) == 2) {
			struct iovec all = { (void *)start, end - start };

			syscall(SYS_process_madvise, pidfd, &all, 1, MADV_PAGEOUT, 0);
		}
	snprintf(name, sizeof(name), "/proc/%s/status", argv[1]);
	f = fopen(name, "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %lu", &end) == 1)
			printf("%lu\n", end);
	return 0;
}
