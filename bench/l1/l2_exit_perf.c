// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an exit costs a guest, to be run in L1, so that the guest is L2 and L0 reflects
 * its exits. Prints "figure NAME TICKS EXITS": ticks of the TSC for each of
 *	cpuid		CPUID, which L1's kernel handles
 *	msr		RDMSR, too
 *	pio		port I/O, which L1's userspace handles
 *	ept		first access to a page that L1's userspace has mapped already
 *	turn-N		the same as pio, with N L2s on the same vCPU that take turns
 *	kick		a signal from another vCPU of L1, until userspace has seen it
 * as the guest sees them, but the last two, which userspace sees.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <test_util.h>
#include <kvm_util.h>
#include <processor.h>
#include <ucall_common.h>

#define PAGES		1024
#define MEM_GPA		0x40000000ul
#define LOOPS		2000
#define PIOS		500
#define ROUNDS		100
#define KICKS		500
#define MAX_L2S		16

static const char *const names[] = { "cpuid", "msr", "pio", "ept" };
static u64 kicks_seen, stop;
static struct kvm_vcpu *kicked;

static void pio(void)
{
	asm volatile("outb %%al, $0x80" : : "a"(0));
}

static void guest_code(void)
{
	u64 t, i;
	u32 a, b, c, d;

	for (i = 0; i < 100; i++)
		cpuid(0, &a, &b, &c, &d);
	t = rdtsc();
	for (i = 0; i < LOOPS; i++)
		cpuid(0, &a, &b, &c, &d);
	GUEST_SYNC((rdtsc() - t) / LOOPS);

	t = rdtsc();
	for (i = 0; i < LOOPS; i++)
		rdmsr(MSR_IA32_APICBASE);
	GUEST_SYNC((rdtsc() - t) / LOOPS);

	t = rdtsc();
	for (i = 0; i < PIOS; i++)
		pio();
	GUEST_SYNC((rdtsc() - t) / PIOS);

	t = rdtsc();
	for (i = 0; i < PAGES; i++)
		*(volatile u8 *)(MEM_GPA + i * 4096) = 1;
	GUEST_SYNC((rdtsc() - t) / PAGES);

	for (;;)
		asm volatile("pause");
}

static void guest_pio(void)
{
	for (;;)
		pio();
}

static void figure(const char *name, u64 ticks, u64 exits)
{
	printf("figure %s %lu %lu\n", name, (unsigned long)ticks, (unsigned long)exits);
	fflush(stdout);
}

static void turns(int l2s)
{
	struct kvm_vcpu *vcpus[MAX_L2S];
	char name[16];
	u64 t = 0;
	int i, round;

	for (i = 0; i < l2s; i++)
		vm_create_with_one_vcpu(&vcpus[i], guest_pio);
	for (round = -2; round < ROUNDS; round++) {
		if (!round)
			t = rdtsc();
		for (i = 0; i < l2s; i++) {
			vcpu_run(vcpus[i]);
			TEST_ASSERT_KVM_EXIT_REASON(vcpus[i], KVM_EXIT_IO);
		}
	}
	t = rdtsc() - t;
	snprintf(name, sizeof(name), "turn-%d", l2s);
	figure(name, t / ROUNDS / l2s, ROUNDS * l2s);
	for (i = 0; i < l2s; i++)
		kvm_vm_free(vcpus[i]->vm);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	TEST_ASSERT(!sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity()");
}

/* A signal that comes before KVM_RUN must end it, too. */
static void on_kick(int sig)
{
	WRITE_ONCE(kicked->run->immediate_exit, 1);
}

static void *vcpu_thread(void *arg)
{
	pin(1);
	while (!READ_ONCE(stop)) {
		TEST_ASSERT(__vcpu_run(kicked) && errno == EINTR, "no kick: exit %u",
			    kicked->run->exit_reason);
		WRITE_ONCE(kicked->run->immediate_exit, 0);
		WRITE_ONCE(kicks_seen, kicks_seen + 1);
	}
	return NULL;
}

static void kick(struct kvm_vcpu *vcpu)
{
	struct sigaction sa = { .sa_handler = on_kick };
	pthread_t thread;
	u64 t, i, sum = 0;

	kicked = vcpu;
	pin(0);
	sigaction(SIGUSR1, &sa, NULL);
	pthread_create(&thread, NULL, vcpu_thread, NULL);
	for (i = 0; i < KICKS; i++) {
		/* Let L2 run for a while */
		for (t = rdtsc(); rdtsc() - t < 200000;)
			asm volatile("pause");
		t = rdtsc();
		pthread_kill(thread, SIGUSR1);
		while (READ_ONCE(kicks_seen) == i)
			asm volatile("pause");
		sum += rdtsc() - t;
	}
	WRITE_ONCE(stop, 1);
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	figure("kick", sum / KICKS, KICKS);
}

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct ucall uc;
	u64 exits = 0, now;
	unsigned int i = 0;

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, MEM_GPA, 1, PAGES, 0);
	vm_phy_pages_alloc(vm, PAGES, MEM_GPA, 1);
	memset(addr_gpa2hva(vm, MEM_GPA), 0, PAGES * 4096ul);
	virt_map(vm, MEM_GPA, MEM_GPA, PAGES);
	while (i < ARRAY_SIZE(names)) {
		vcpu_run(vcpu);
		if (vcpu->run->exit_reason == KVM_EXIT_IO && vcpu->run->io.port == 0x80)
			continue;
		TEST_ASSERT(get_ucall(vcpu, &uc) == UCALL_SYNC, "exit %u", vcpu->run->exit_reason);
		now = vcpu_get_stat(vcpu, exits);
		figure(names[i++], uc.args[1], now - exits);
		exits = now;
	}
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
		kick(vcpu);
	kvm_vm_free(vm);
	for (i = 1; i <= MAX_L2S; i *= 4)
		turns(i);
	return 0;
}
