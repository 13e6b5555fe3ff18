// SPDX-License-Identifier: GPL-2.0-only
/* movepages PID NODE: moves what memory the process has on any other of eight nodes to NODE */
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned long to = argc == 3 ? 1ul << atoi(argv[2]) : 0, from = 0xff & ~to;

	if (!to || syscall(SYS_migrate_pages, atoi(argv[1]), 9, &from, &to) < 0) {
		perror("movepages PID NODE");
		return 1;
	}
	return 0;
}
