// SPDX-License-Identifier: GPL-2.0-only
/*
 * L2s that share fewer vCPUs, to be run in L1, while whatever happens to L1: a thread for
 * each, and each L2 computes, in registers and in memory, and exits to L1's userspace with
 * what it has, which is held against what L1 computes itself. "l2_work: all run" says that
 * each has come back once; -t SECONDS later it ends, and prints "figure work-N TICKS EXITS":
 * ticks of all a round, and the exits of all L2s to L1.
 *	-n N	L2s (4)		-w N	steps of a round (20000)
 *	-b	do as QEMU's balloon says meanwhile (L1's kernel needs no driver)
 */
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <test_util.h>
#include <kvm_util.h>
#include <processor.h>
#include <ucall_common.h>

#define MAX_L2S		64
#define WORDS		(16 * 4096 / sizeof(u64))

struct l2 {
	pthread_t thread;
	struct kvm_vcpu *vcpu;
	u64 *mem;
	u64 rounds;
};

static u64 steps = 20000;
static struct l2 l2s[MAX_L2S];
static int running;
static bool stop;

static u64 work(u64 x, u64 *mem, u64 n)
{
	while (n--) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		mem[x % WORDS] += x;
	}
	return x;
}

static void guest_code(u64 seed, u64 *mem, u64 n)
{
	u64 x = seed, xmm;

	for (;;) {
		asm volatile("movq %0, %%xmm7" : : "r"(x) : "xmm7");
		GUEST_SYNC(x);
		asm volatile("movq %%xmm7, %0" : "=r"(xmm));
		GUEST_ASSERT_EQ(xmm, x);
		x = work(x, mem, n);
	}
}

static void *l2_thread(void *arg)
{
	struct l2 *l2 = arg;
	u64 x = 1000 + (l2 - l2s), *mem = calloc(WORDS, sizeof(u64));
	struct ucall uc;

	for (;;) {
		vcpu_run(l2->vcpu);
		switch (get_ucall(l2->vcpu, &uc)) {
		case UCALL_SYNC:
			break;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
		default:
			TEST_FAIL("exit %u", l2->vcpu->run->exit_reason);
		}
		TEST_ASSERT(uc.args[1] == x, "L2 %ld, round %lu: %lx in place of %lx", (long)(l2 - l2s),
			    (unsigned long)l2->rounds, (unsigned long)uc.args[1], (unsigned long)x);
		if (!l2->rounds++)
			__atomic_add_fetch(&running, 1, __ATOMIC_SEQ_CST);
		if (READ_ONCE(stop))
			break;
		x = work(x, mem, steps);
	}
	TEST_ASSERT(!memcmp(mem, l2->mem, WORDS * sizeof(u64)), "L2 %ld: its memory is not what it should be",
		    (long)(l2 - l2s));
	return NULL;
}

/* The places of a microvm's devices */
#define MMIO		0xfeb00000
#define MMIO_SIZE	0x200
#define MMIO_NUM	24

#define BALLOON_MAX	(256ul << 20)
#define BATCH		256

/* A queue for one request, as a device before version 1 lays it out */
struct queue {
	struct vring_desc desc;
	struct vring_avail avail;
	__virtio16 ring[1];
	struct vring_used used __attribute__((aligned(64)));
};

static volatile u8 *mmio;
#define REG(r)	(*(volatile u32 *)(mmio + VIRTIO_MMIO_##r))

static u64 phys(void *p)
{
	u64 entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	TEST_ASSERT(pread(fd, &entry, 8, (u64)p / 4096 * 8) == 8 && entry >> 63, "no physical address");
	close(fd);
	return (entry & ((1ull << 55) - 1)) << 12;
}

static void *pages(u64 n)
{
	void *p = mmap(NULL, n * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(p != MAP_FAILED, "no memory");
	return p;
}

static void *balloon_thread(void *arg)
{
	u8 *mem = pages(BALLOON_MAX / 4096);
	volatile struct queue *queue[2];
	u32 *pfns = pages(1), have = 0, want, n, i;

	mlock(pfns, 4096);
	REG(STATUS) = 0;
	REG(STATUS) = 3;
	REG(DRIVER_FEATURES) = 0;
	REG(GUEST_PAGE_SIZE) = 4096;
	for (i = 0; i < 2; i++) {
		queue[i] = pages(1);
		mlock((void *)queue[i], 4096);
		queue[i]->desc.addr = phys(pfns);
		queue[i]->avail.flags = VRING_AVAIL_F_NO_INTERRUPT;
		REG(QUEUE_SEL) = i;
		REG(QUEUE_NUM) = 1;
		REG(QUEUE_ALIGN) = 64;
		REG(QUEUE_PFN) = phys((void *)queue[i]) / 4096;
	}
	REG(STATUS) = 7;
	/* The configuration: pages wanted, pages had */
	for (;; usleep(10000)) {
		while ((want = REG(CONFIG)) != have) {
			bool more = want > have;
			u8 *p;

			n = more ? want - have : have - want;
			n = n < BATCH ? n : BATCH;
			p = mem + (more ? have : have - n) * 4096ul;
			TEST_ASSERT(!more || !mlock(p, n * 4096), "no memory for the balloon");
			for (i = 0; i < n; i++)
				pfns[i] = phys(p + i * 4096) / 4096;
			queue[!more]->desc.len = n * sizeof(*pfns);
			queue[!more]->avail.idx++;
			REG(QUEUE_NOTIFY) = !more;
			while (queue[!more]->used.idx != queue[!more]->avail.idx)
				usleep(1000);
			if (!more)
				TEST_ASSERT(!munlock(p, n * 4096) && !madvise(p, n * 4096, MADV_DONTNEED), "deflating");
			have += more ? n : -n;
			(&REG(CONFIG))[1] = have;
		}
	}
	return NULL;
}

static void balloon(void)
{
	int fd = open("/dev/mem", O_RDWR | O_SYNC), i;
	pthread_t thread;

	mmio = mmap(NULL, MMIO_NUM * MMIO_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, MMIO);
	TEST_ASSERT(mmio != MAP_FAILED, "/dev/mem cannot be mapped");
	for (i = 0; i < MMIO_NUM && REG(DEVICE_ID) != VIRTIO_ID_BALLOON; i++)
		mmio += MMIO_SIZE;
	TEST_ASSERT(i < MMIO_NUM, "QEMU has no balloon");
	pthread_create(&thread, NULL, balloon_thread, NULL);
}

int main(int argc, char **argv)
{
	int n = 4, seconds = 2, opt, i;
	u64 t, rounds = 0, exits = 0;
	char name[32];

	while ((opt = getopt(argc, argv, "bn:t:w:")) != -1) {
		switch (opt) {
		case 'b':
			balloon();
			break;
		case 'n':
			n = atoi_positive("L2s", optarg);
			break;
		case 't':
			seconds = atoi_positive("Seconds", optarg);
			break;
		case 'w':
			steps = atoi_positive("Steps", optarg);
			break;
		default:
			TEST_FAIL("-b, -n L2S, -t SECONDS and -w STEPS are known");
		}
	}
	TEST_ASSERT(n <= MAX_L2S, "at most %d L2s", MAX_L2S);
	for (i = 0; i < n; i++) {
		struct kvm_vm *vm = vm_create_with_one_vcpu(&l2s[i].vcpu, guest_code);
		gva_t mem = vm_alloc(vm, WORDS * sizeof(u64), KVM_UTIL_MIN_VADDR);

		l2s[i].mem = addr_gva2hva(vm, mem);
		memset(l2s[i].mem, 0, WORDS * sizeof(u64));
		vcpu_args_set(l2s[i].vcpu, 3, (u64)(1000 + i), mem, steps);
	}
	t = rdtsc();
	for (i = 0; i < n; i++)
		pthread_create(&l2s[i].thread, NULL, l2_thread, &l2s[i]);
	while (__atomic_load_n(&running, __ATOMIC_SEQ_CST) < n)
		usleep(1000);
	/* sed of busybox, which the runner may have, keeps the last line back */
	printf("l2_work: all run\nl2_work: for %d s\n", seconds);
	fflush(stdout);
	sleep(seconds);
	WRITE_ONCE(stop, true);
	for (i = 0; i < n; i++)
		pthread_join(l2s[i].thread, NULL);
	t = rdtsc() - t;
	for (i = 0; i < n; i++) {
		rounds += l2s[i].rounds;
		exits += vcpu_get_stat(l2s[i].vcpu, exits);
		kvm_vm_free(l2s[i].vcpu->vm);
	}
	snprintf(name, sizeof(name), "work-%d", n);
	printf("figure %s %lu %lu\n", name, (unsigned long)(t / rounds), (unsigned long)exits);
	return 0;
}
