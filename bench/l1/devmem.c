// SPDX-License-Identifier: GPL-2.0-only
/*
 * For a QEMU whose memory-backend-file has no offset= (before 8.1), by LD_PRELOAD: what
 * it maps of /dev/mem at 0 lies at DEVMEM_BASE.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	const char *base = getenv("DEVMEM_BASE");
	struct stat st;

	if (base && fd >= 0 && !off && !fstat(fd, &st) && S_ISCHR(st.st_mode) &&
	    st.st_rdev == makedev(1, 1))
		off = strtoull(base, NULL, 0);
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
}

void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t off)
	__attribute__((alias("mmap")));
