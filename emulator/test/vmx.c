// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of VMX, of the CPU and not of a kernel: one for each mend of Bochs in
 * ../patches, by the mend's number. The program is its own hypervisor, without
 * an operating system, on one CPU; if there is another one, the last test starts
 * it. Guests share its address space, its GDT and its IDT. Results go to COM1 as
 * KTAP.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define PAGE __attribute__((aligned(4096)))

/* VMCS fields */
enum {
	VPID			= 0x0000,
	PI_VECTOR		= 0x0002,
	GUEST_ES_SELECTOR	= 0x0800,
	GUEST_INTR_STATUS	= 0x0810,
	HOST_ES_SELECTOR	= 0x0c00,
	MSR_STORE_ADDR		= 0x2006,
	TSC_OFFSET		= 0x2010,
	VIRTUAL_APIC_ADDR	= 0x2012,
	PI_DESC_ADDR		= 0x2016,
	EPT_POINTER		= 0x201a,
	EOI_EXIT_BITMAP0	= 0x201c,
	TSC_MULTIPLIER		= 0x2032,
	GUEST_PHYSICAL		= 0x2400,
	VMCS_LINK		= 0x2800,
	GUEST_DEBUGCTL		= 0x2802,
	PIN_CTLS		= 0x4000,
	CPU_CTLS		= 0x4002,
	EXCEPTION_BITMAP	= 0x4004,
	PF_MASK			= 0x4006,
	PF_MATCH		= 0x4008,
	CR3_TARGETS		= 0x400a,
	EXIT_CTLS		= 0x400c,
	MSR_STORE_COUNT		= 0x400e,
	MSR_LOAD_COUNT		= 0x4010,
	ENTRY_CTLS		= 0x4012,
	ENTRY_MSR_LOAD_COUNT	= 0x4014,
	ENTRY_INTR_INFO		= 0x4016,
	TPR_THRESHOLD		= 0x401c,
	CPU_CTLS2		= 0x401e,
	VM_INSTRUCTION_ERROR	= 0x4400,
	EXIT_REASON		= 0x4402,
	EXIT_INTR_INFO		= 0x4404,
	IDT_VECTORING_INFO	= 0x4408,
	GUEST_ES_LIMIT		= 0x4800,
	GUEST_LDTR_LIMIT	= 0x480c,
	GUEST_TR_LIMIT		= 0x480e,
	GUEST_GDTR_LIMIT	= 0x4810,
	GUEST_IDTR_LIMIT	= 0x4812,
	GUEST_ES_RIGHTS		= 0x4814,
	GUEST_CS_RIGHTS		= 0x4816,
	GUEST_LDTR_RIGHTS	= 0x4820,
	GUEST_TR_RIGHTS		= 0x4822,
	GUEST_INTERRUPTIBILITY	= 0x4824,
	GUEST_ACTIVITY		= 0x4826,
	GUEST_SYSENTER_CS	= 0x482a,
	HOST_SYSENTER_CS	= 0x4c00,
	CR0_MASK		= 0x6000,
	CR4_MASK		= 0x6002,
	EXIT_QUALIFICATION	= 0x6400,
	GUEST_CR0		= 0x6800,
	GUEST_CR3		= 0x6802,
	GUEST_CR4		= 0x6804,
	GUEST_ES_BASE		= 0x6806,
	GUEST_LDTR_BASE		= 0x6812,
	GUEST_TR_BASE		= 0x6814,
	GUEST_GDTR_BASE		= 0x6816,
	GUEST_IDTR_BASE		= 0x6818,
	GUEST_DR7		= 0x681a,
	GUEST_RSP		= 0x681c,
	GUEST_RIP		= 0x681e,
	GUEST_RFLAGS		= 0x6820,
	GUEST_PENDING_DEBUG	= 0x6822,
	GUEST_SYSENTER_ESP	= 0x6824,
	GUEST_SYSENTER_EIP	= 0x6826,
	HOST_CR0		= 0x6c00,
	HOST_CR3		= 0x6c02,
	HOST_CR4		= 0x6c04,
	HOST_FS_BASE		= 0x6c06,
	HOST_GS_BASE		= 0x6c08,
	HOST_TR_BASE		= 0x6c0a,
	HOST_GDTR_BASE		= 0x6c0c,
	HOST_IDTR_BASE		= 0x6c0e,
	HOST_SYSENTER_ESP	= 0x6c10,
	HOST_SYSENTER_EIP	= 0x6c12,
};

/* Controls */
#define PIN_EXTERNAL_INTERRUPT	(1u << 0)
#define PIN_POSTED_INTERRUPTS	(1u << 7)
#define CPU_TSC_OFFSETTING	(1u << 3)
#define CPU_TPR_SHADOW		(1u << 21)
#define CPU_SECONDARY		(1u << 31)
#define CPU2_EPT		(1u << 1)
#define CPU2_VIRTUAL_INTERRUPTS	(1u << 9)
#define CPU2_TSC_SCALING	(1u << 25)
#define EXIT_HOST_64		(1u << 9)
#define EXIT_ACK_INTERRUPT	(1u << 15)
#define ENTRY_GUEST_64		(1u << 9)

/* Exit reasons */
#define EXIT_EXCEPTION		0
#define EXIT_INTERRUPT		1
#define EXIT_VMCALL		18
#define EXIT_EPT_VIOLATION	48

#define RFLAGS_IF		(1u << 9)
#define MSR_TSC			0x10

/* Memory-mapped local APIC */
#define APIC			0xfee00000ul
#define APIC_EOI		0x0b0
#define APIC_SPURIOUS		0x0f0
#define APIC_ISR		0x100
#define APIC_IRR		0x200
#define APIC_ICR		0x300
#define APIC_LVT_TIMER		0x320
#define APIC_LVT_LINT0		0x350
#define APIC_TIMER_COUNT	0x380
#define APIC_TIMER_CURRENT	0x390
#define APIC_TIMER_DIVIDE	0x3e0
#define ICR_SELF		(1u << 18)
#define ICR_OTHERS_INIT		0xc4500
#define ICR_OTHERS_STARTUP	0xc4600
#define APIC_MASKED		(1u << 16)

/* Offsets in the virtual-APIC page */
#define VAPIC_TPR		0x080
#define VAPIC_IRR		0x200

#define COM1			0x3f8

#define ALIAS			0x3fe00000ul	/* of the image, as in boot.S */
#define AP_START		0x8000

extern char stubs[], gdt[], tss[];
extern char guest_vmcall[], guest_spin[], guest_unmask[], guest_unmask_end[];
extern char guest_notify[], guest_rdtsc[];
extern char guest_raise[], ud_handler[], pf_handler[];
extern char pauses_start[], pauses_end[];
extern char image[], ap_start[], ap_start_end[];
extern volatile u64 pd[];
void pauses(void);
int vm_enter(int launched);
void interrupt(u64 vector, u64 rip);
void ap_main(void);
void main(void);

u32 ipi_command;		/* for guests to write to the ICR */
volatile u64 guest_tsc, pf_rip;
u64 raise_rsp;
volatile u32 raise_left, raise_twice;

static u8 vmxon_region[4096] PAGE, vmcs[4096] PAGE, vapic[4096] PAGE;
static u64 ept[6][512] PAGE;	/* one PML4, one PDPT, four PDs */
static u8 pi_page[4096] PAGE, guest_stack[4096] PAGE;
static struct { u64 index, value; } msr_store[1] PAGE;
static struct { u64 low, high; } idt[256] PAGE;

/* For the other CPU: where it is to store; that it is about to; that there is one */
static volatile u64 ap_store;
static volatile int ap_ready, ap_alive;
static volatile u8 monitored[4096] PAGE;

static volatile u32 irqs[256];	/* how often each vector has come */
static volatile u64 irq_rip[256];
static volatile int in_guest;	/* then vectors are virtual */

static int test, failed, launched;

/* Instructions */

static void outb(u16 port, u8 val)
{
	asm volatile("outb %0, %1" : : "a"(val), "Nd"(port));
}

static u8 inb(u16 port)
{
	u8 val;

	asm volatile("inb %1, %0" : "=a"(val) : "Nd"(port));
	return val;
}

static void outw(u16 port, u16 val)
{
	asm volatile("outw %0, %1" : : "a"(val), "Nd"(port));
}

static u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return lo | (u64)hi << 32;
}

static void wrmsr(u32 msr, u64 val)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)val), "d"((u32)(val >> 32)));
}

static u64 rdtsc(void)
{
	u32 lo, hi;

	asm volatile("lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi) : : "memory");
	return lo | (u64)hi << 32;
}

static u32 cpuid_ecx(u32 leaf)
{
	u32 a = leaf, b, c = 0, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return c;
}

#define READ_CR(n) ({ u64 v; asm volatile("mov %%cr" #n ", %0" : "=r"(v)); v; })
#define WRITE_CR(n, v) asm volatile("mov %0, %%cr" #n : : "r"((u64)(v)) : "memory")

static u64 vmread(u64 field)
{
	u64 val = 0;

	asm volatile("vmread %1, %0" : "=r"(val) : "r"(field) : "cc");
	return val;
}

static void vmwrite(u64 field, u64 val)
{
	asm volatile("vmwrite %1, %0" : : "r"(field), "r"(val) : "cc", "memory");
}

static u32 apic_read(u32 reg)
{
	return *(volatile u32 *)(APIC + reg);
}

static void apic_write(u32 reg, u32 val)
{
	*(volatile u32 *)(APIC + reg) = val;
}

void *memset(void *p, int c, u64 n)
{
	void *to = p;

	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return p;
}

/* Output */

static void put(char c)
{
	for (int i = 0; i < 100000 && !(inb(COM1 + 5) & 0x20); i++)
		;
	outb(COM1, c);
}

static void puts(const char *s)
{
	for (; *s; s++) {
		if (*s == '\n')
			put('\r');
		put(*s);
	}
}

static void put_hex(u64 v)
{
	puts("0x");
	for (int i = 60; i >= 0; i -= 4)
		if (v >> i || !i)
			put("0123456789abcdef"[v >> i & 15]);
}

static void put_dec(u32 v)
{
	if (v > 9)
		put_dec(v / 10);
	put('0' + v % 10);
}

/* End the machine: Bochs, QEMU's isa-debug-exit, QEMU's two power controls. */
static void __attribute__((noreturn)) power_off(void)
{
	for (int i = 0; i < 100000 && !(inb(COM1 + 5) & 0x40); i++)
		;
	for (const char *s = "Shutdown"; *s; s++)
		outb(0x8900, *s);
	outb(0xf4, 0);
	outw(0x604, 0x2000);
	outw(0xb004, 0x2000);
	for (;;)
		asm volatile("cli; hlt");
}

static void __attribute__((noreturn)) bail_out(const char *why, u64 a, u64 b)
{
	puts("Bail out! ");
	puts(why);
	put(' ');
	put_hex(a);
	put(' ');
	put_hex(b);
	puts("\n");
	power_off();
}

/* Say what is not as it should be, and fail the test that runs. */
static void expect(const char *what, u64 got, u64 want)
{
	if (got == want)
		return;
	puts("# ");
	puts(what);
	puts(" is ");
	put_hex(got);
	puts(", should be ");
	put_hex(want);
	puts("\n");
	failed++;
}

void interrupt(u64 vector, u64 rip)
{
	if (vector < 32)
		bail_out("unexpected exception", vector, rip);
	irqs[vector]++;
	irq_rip[vector] = rip;
	if (!in_guest)
		apic_write(APIC_EOI, 0);
}

/* Let the host take whatever is pending, and forget it. */
static void drain(void)
{
	apic_write(APIC_LVT_TIMER, APIC_MASKED);
	apic_write(APIC_TIMER_COUNT, 0);
	for (int i = 0; i < 1000; i++)
		asm volatile("sti; nop; cli" : : : "memory");
	for (int i = 0; i < 256; i++)
		irqs[i] = 0;
}

static void send_ipi(u8 vector)
{
	apic_write(APIC_ICR, ICR_SELF | vector);
	for (int i = 0; i < 100000; i++)
		if (apic_read(APIC_IRR + vector / 32 * 16) >> vector % 32 & 1)
			return;
	expect("IPI pending", 0, 1);
}

/* VMX */

static const u32 ctl_msr[] = { 0x481, 0x482, 0x483, 0x484, 0x48b };
enum { PIN, CPU, EXIT, ENTRY, CPU2 };

/* The values that a kind of control can have: must be one, may be one. */
static void ctl_range(int kind, u32 *must, u32 *may)
{
	u32 msr = ctl_msr[kind];
	u64 val;

	*must = *may = 0;
	if (kind == CPU2) {
		ctl_range(CPU, must, may);
		*must = 0;
		if (!(*may & CPU_SECONDARY)) {
			*may = 0;
			return;
		}
	} else if (rdmsr(0x480) >> 55 & 1) {
		msr += 0x48d - 0x481;
	}
	val = rdmsr(msr);
	*must = val;
	*may = val >> 32;
}

static int can(int kind, u32 bits)
{
	u32 must, may;

	ctl_range(kind, &must, &may);
	return (may & bits) == bits;
}

static u32 ctl(int kind, u32 bits)
{
	u32 must, may;

	ctl_range(kind, &must, &may);
	return (bits & may) | must;
}

static int vmxon(void)
{
	u64 feature = rdmsr(0x3a);
	u64 pa = (u64)vmxon_region;
	u8 bad;

	if (!(feature & 1))
		wrmsr(0x3a, feature | 5);
	else if (!(feature & 4))
		return 0;
	WRITE_CR(0, (READ_CR(0) | rdmsr(0x486)) & rdmsr(0x487));
	WRITE_CR(4, (READ_CR(4) | 0x2000 | rdmsr(0x488)) & rdmsr(0x489));
	*(u32 *)vmxon_region = rdmsr(0x480) & 0x7fffffff;
	asm volatile("vmxon %1; setbe %0" : "=q"(bad) : "m"(pa) : "cc", "memory");
	return !bad;
}

/* A new VMCS, for a guest that starts at rip with the controls asked for. */
static void vm_init(void *rip, u64 rflags, u32 pin, u32 cpu, u32 cpu2, u32 exit)
{
	u64 pa = (u64)vmcs;
	u8 bad;

	asm volatile("vmclear %0" : : "m"(pa) : "cc", "memory");
	memset(vmcs, 0, sizeof(vmcs));
	memset(vapic, 0, sizeof(vapic));
	memset(pi_page, 0, sizeof(pi_page));
	*(u32 *)vmcs = rdmsr(0x480) & 0x7fffffff;
	asm volatile("vmclear %1; setbe %0" : "=q"(bad) : "m"(pa) : "cc", "memory");
	expect("VMCLEAR's failure", bad, 0);
	asm volatile("vmptrld %1; setbe %0" : "=q"(bad) : "m"(pa) : "cc", "memory");
	expect("VMPTRLD's failure", bad, 0);
	launched = 0;

	vmwrite(PIN_CTLS, ctl(PIN, pin));
	vmwrite(CPU_CTLS, ctl(CPU, cpu | (cpu2 ? CPU_SECONDARY : 0)));
	if (cpu2)
		vmwrite(CPU_CTLS2, ctl(CPU2, cpu2));
	vmwrite(EXIT_CTLS, ctl(EXIT, EXIT_HOST_64 | exit));
	vmwrite(ENTRY_CTLS, ctl(ENTRY, ENTRY_GUEST_64));
	vmwrite(EXCEPTION_BITMAP, 0);
	vmwrite(PF_MASK, 0);
	vmwrite(PF_MATCH, 0);
	vmwrite(CR3_TARGETS, 0);
	vmwrite(MSR_STORE_COUNT, 0);
	vmwrite(MSR_LOAD_COUNT, 0);
	vmwrite(ENTRY_MSR_LOAD_COUNT, 0);
	vmwrite(ENTRY_INTR_INFO, 0);
	vmwrite(TPR_THRESHOLD, 0);
	vmwrite(CR0_MASK, 0);
	vmwrite(CR4_MASK, 0);
	vmwrite(VIRTUAL_APIC_ADDR, (u64)vapic);
	if (cpu2 & CPU2_VIRTUAL_INTERRUPTS) {
		vmwrite(GUEST_INTR_STATUS, 0);
		for (int i = 0; i < 4; i++)
			vmwrite(EOI_EXIT_BITMAP0 + 2 * i, 0);
	}

	/* ES, CS, SS, DS, FS, GS */
	for (int i = 0; i < 6; i++) {
		vmwrite(GUEST_ES_SELECTOR + 2 * i, i == 1 ? 0x08 : 0x10);
		vmwrite(GUEST_ES_LIMIT + 2 * i, 0xffffffff);
		vmwrite(GUEST_ES_RIGHTS + 2 * i, i == 1 ? 0xa09b : 0xc093);
		vmwrite(GUEST_ES_BASE + 2 * i, 0);
		vmwrite(HOST_ES_SELECTOR + 2 * i, i == 1 ? 0x08 : 0x10);
	}
	vmwrite(GUEST_ES_SELECTOR + 12, 0);		/* LDTR */
	vmwrite(GUEST_LDTR_LIMIT, 0);
	vmwrite(GUEST_LDTR_RIGHTS, 0x10000);
	vmwrite(GUEST_LDTR_BASE, 0);
	vmwrite(GUEST_ES_SELECTOR + 14, 0x18);		/* TR */
	vmwrite(HOST_ES_SELECTOR + 12, 0x18);
	vmwrite(GUEST_TR_LIMIT, 0x67);
	vmwrite(GUEST_TR_RIGHTS, 0x8b);
	vmwrite(GUEST_TR_BASE, (u64)tss);
	vmwrite(GUEST_GDTR_BASE, (u64)gdt);
	vmwrite(GUEST_GDTR_LIMIT, 0x27);
	vmwrite(GUEST_IDTR_BASE, (u64)idt);
	vmwrite(GUEST_IDTR_LIMIT, sizeof(idt) - 1);
	vmwrite(GUEST_CR0, READ_CR(0));
	vmwrite(GUEST_CR3, READ_CR(3));
	vmwrite(GUEST_CR4, READ_CR(4));
	vmwrite(GUEST_DR7, 0x400);
	vmwrite(GUEST_RSP, (u64)guest_stack + sizeof(guest_stack));
	vmwrite(GUEST_RIP, (u64)rip);
	vmwrite(GUEST_RFLAGS, rflags | 2);
	vmwrite(GUEST_PENDING_DEBUG, 0);
	vmwrite(GUEST_DEBUGCTL, 0);
	vmwrite(GUEST_INTERRUPTIBILITY, 0);
	vmwrite(GUEST_ACTIVITY, 0);
	vmwrite(GUEST_SYSENTER_CS, 0);
	vmwrite(GUEST_SYSENTER_ESP, 0);
	vmwrite(GUEST_SYSENTER_EIP, 0);
	vmwrite(VMCS_LINK, -1ul);

	vmwrite(HOST_CR0, READ_CR(0));
	vmwrite(HOST_CR3, READ_CR(3));
	vmwrite(HOST_CR4, READ_CR(4));
	vmwrite(HOST_FS_BASE, 0);
	vmwrite(HOST_GS_BASE, 0);
	vmwrite(HOST_TR_BASE, (u64)tss);
	vmwrite(HOST_GDTR_BASE, (u64)gdt);
	vmwrite(HOST_IDTR_BASE, (u64)idt);
	vmwrite(HOST_SYSENTER_CS, 0);
	vmwrite(HOST_SYSENTER_ESP, 0);
	vmwrite(HOST_SYSENTER_EIP, 0);
}

/* Run the guest until it exits; the reason, or -1 if it could not be entered. */
static u32 vm_run(void)
{
	int ret;

	in_guest = 1;
	ret = vm_enter(launched);
	in_guest = 0;
	if (ret)
		return -1;
	launched = 1;
	return vmread(EXIT_REASON);
}

static void set_bit(void *map, u8 nr)
{
	((u8 *)map)[nr / 8] |= 1 << nr % 8;
}

static void set_virr(u8 vector)
{
	*(u32 *)(vapic + VAPIC_IRR + vector / 32 * 16) |= 1u << vector % 32;
}

/*
 * Tests: 0, or the reason why this CPU cannot have it. Interrupts are off in the
 * host, and no vector is pending.
 */

static const char *test_basic(void)
{
	vm_init(guest_vmcall, 0, 0, 0, 0, 0);
	expect("exit reason of VMLAUNCH", vm_run(), EXIT_VMCALL);
	expect("guest's RIP", vmread(GUEST_RIP), (u64)guest_vmcall);
	vmwrite(GUEST_RIP, vmread(GUEST_RIP) + 3);
	expect("exit reason of VMRESUME", vm_run(), EXIT_VMCALL);
	vmwrite(GUEST_RFLAGS, 0);
	expect("exit reason with a bad RFLAGS", vm_run(), 1u << 31 | 33);
	return 0;
}

#define APICV "no virtual-interrupt delivery or no posted interrupts"

static int can_apicv(void)
{
	return can(CPU, CPU_TPR_SHADOW) && can(CPU2, CPU2_VIRTUAL_INTERRUPTS);
}

static int can_posted(void)
{
	return can_apicv() && can(PIN, PIN_POSTED_INTERRUPTS);
}

static void vm_init_apicv(void *rip, u64 rflags, u32 pin, u32 exit)
{
	vm_init(rip, rflags, PIN_EXTERNAL_INTERRUPT | pin, CPU_TPR_SHADOW,
		CPU2_VIRTUAL_INTERRUPTS, exit);
}

static const char *test_pi_desc_alignment(void)
{
	if (!can_posted())
		return APICV;
	vm_init_apicv(guest_vmcall, 0, PIN_POSTED_INTERRUPTS, EXIT_ACK_INTERRUPT);
	vmwrite(PI_VECTOR, 0xf2);
	for (int offset = 0; offset < 4096; offset += 64) {
		vmwrite(PI_DESC_ADDR, (u64)pi_page + offset);
		expect("exit reason with an aligned descriptor", vm_run(),
		       EXIT_VMCALL);
		if (failed)
			break;
	}
	for (int offset = 1; offset < 64; offset *= 2) {
		vmwrite(PI_DESC_ADDR, (u64)pi_page + offset);
		expect("exit reason with a misaligned descriptor", vm_run(), -1u);
		expect("VM-instruction error", vmread(VM_INSTRUCTION_ERROR), 7);
	}
	return 0;
}

static const char *test_interrupt_with_if_clear(void)
{
	/* Pending before the entry */
	vm_init(guest_spin, 0, PIN_EXTERNAL_INTERRUPT, 0, 0, 0);
	send_ipi(0x40);
	expect("exit reason with an IPI pending", vm_run(), EXIT_INTERRUPT);
	expect("guest's RIP", vmread(GUEST_RIP), (u64)guest_spin);
	expect("interrupts taken", irqs[0x40], 0);
	drain();

	/* After the entry */
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, 0x41);
	apic_write(APIC_TIMER_COUNT, 2000);
	vm_init(guest_spin, 0, PIN_EXTERNAL_INTERRUPT, 0, 0, 0);
	expect("exit reason when the timer fires", vm_run(), EXIT_INTERRUPT);

	/* And without the control RFLAGS.IF counts. */
	drain();
	vm_init(guest_vmcall, 0, 0, 0, 0, 0);
	send_ipi(0x40);
	expect("exit reason without the control", vm_run(), EXIT_VMCALL);
	expect("interrupts taken", irqs[0x40], 0);
	return 0;
}

static const char *test_masked_virtual_interrupt(void)
{
	if (!can_apicv())
		return APICV;
	vm_init_apicv(guest_unmask, RFLAGS_IF, 0, 0);
	ipi_command = ICR_SELF | 0x40;
	vapic[VAPIC_TPR] = 0xf0;
	set_virr(0x50);
	vmwrite(GUEST_INTR_STATUS, 0x50);
	expect("exit reason", vm_run(), EXIT_INTERRUPT);
	expect("guest's RIP is behind the IPI",
	       vmread(GUEST_RIP) >= (u64)guest_unmask_end, 1);
	expect("virtual interrupts taken", irqs[0x50], 0);
	expect("guest interrupt status", vmread(GUEST_INTR_STATUS), 0x50);
	drain();

	/* It comes as soon as IF is set. */
	vmwrite(GUEST_RIP, (u64)guest_vmcall);
	vmwrite(GUEST_RFLAGS, RFLAGS_IF | 2);
	expect("exit reason with IF set", vm_run(), EXIT_VMCALL);
	expect("virtual interrupts taken", irqs[0x50], 1);
	expect("guest interrupt status", vmread(GUEST_INTR_STATUS), 0x5000);
	return 0;
}

static const char *test_idt_vectoring(void)
{
	static const u8 vectors[] = { 0x60, 0x71, 0x82 };
	const u64 hole = 0x3fe00000;

	if (!can_apicv())
		return APICV;
	for (int i = 0; i < 2; i++) {
		vm_init_apicv(guest_vmcall, RFLAGS_IF, 0, 0);
		set_virr(vectors[i]);
		vmwrite(GUEST_INTR_STATUS, vectors[i]);
		/* The frame of the interrupt goes where nothing is mapped. */
		vmwrite(GUEST_RSP, 0x123400001000);
		vmwrite(EXCEPTION_BITMAP, 1 << 14);
		expect("exit reason", vm_run(), EXIT_EXCEPTION);
		expect("interruption information", vmread(EXIT_INTR_INFO),
		       0x80000b0e);
		expect("exit qualification", vmread(EXIT_QUALIFICATION) >> 12,
		       0x123400000);
		expect("IDT-vectoring information", vmread(IDT_VECTORING_INFO),
		       0x80000000 | vectors[i]);
		expect("guest interrupt status", vmread(GUEST_INTR_STATUS),
		       vectors[i] << 8);
	}

	/* The same with a page that the guest has mapped, but not the host. */
	if (!can(CPU2, CPU2_EPT))
		return 0;
	ept[0][0] = (u64)ept[1] | 7;
	for (int i = 0; i < 4; i++)
		ept[1][i] = (u64)ept[2 + i] | 7;
	for (u64 i = 0; i < 2048; i++)
		((u64 *)ept[2])[i] = i << 21 == hole ? 0 : i << 21 | 0xb7;
	vm_init(guest_vmcall, RFLAGS_IF, PIN_EXTERNAL_INTERRUPT, CPU_TPR_SHADOW,
		CPU2_VIRTUAL_INTERRUPTS | CPU2_EPT, 0);
	vmwrite(EPT_POINTER, (u64)ept | 0x1e);
	set_virr(vectors[2]);
	vmwrite(GUEST_INTR_STATUS, vectors[2]);
	vmwrite(GUEST_RSP, hole + 4096);
	expect("exit reason with EPT", vm_run(), EXIT_EPT_VIOLATION);
	expect("guest-physical address", vmread(GUEST_PHYSICAL) >> 12, hole >> 12);
	expect("IDT-vectoring information with EPT", vmread(IDT_VECTORING_INFO),
	       0x80000000 | vectors[2]);
	return 0;
}

static const char *test_posted_interrupts(void)
{
	static const struct {
		const char *name;
		u8 posted, requested, virtual;	/* PIR, RVI, VIRR */
		u8 tpr, rvi;			/* RVI to come out */
	} cases[] = {
		{ "nothing posted", 0, 0, 0, 0, 0 },
		{ "nothing posted, one requested", 0, 0x50, 0x50, 0xf0, 0x50 },
		{ "one posted", 0x61, 0, 0, 0xf0, 0x61 },
		{ "a higher one posted", 0x61, 0x50, 0x50, 0xf0, 0x61 },
		{ "a lower one posted", 0x50, 0x61, 0x61, 0xf0, 0x61 },
		{ "only VIRR", 0, 0, 0x50, 0xf0, 0 },
		{ "one posted and delivered", 0x61, 0, 0, 0, 0 },
	};
	u32 *on = (u32 *)(pi_page + 32);

	if (!can_posted())
		return APICV;
	ipi_command = ICR_SELF | 0xf2;
	for (u32 i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int before = failed;

		/* Page aligned, so that mend 0001 makes no difference. */
		vm_init_apicv(guest_notify, 0, PIN_POSTED_INTERRUPTS,
			      EXIT_ACK_INTERRUPT);
		vmwrite(PI_VECTOR, 0xf2);
		vmwrite(PI_DESC_ADDR, (u64)pi_page);
		vapic[VAPIC_TPR] = cases[i].tpr;
		vmwrite(GUEST_INTR_STATUS, cases[i].requested);
		if (cases[i].virtual)
			set_virr(cases[i].virtual);
		if (cases[i].posted)
			set_bit(pi_page, cases[i].posted);
		*on = 1;
		irqs[0x61] = 0;
		expect("exit reason", vm_run(), EXIT_VMCALL);
		expect("outstanding notification", *on, 0);
		expect("RVI", vmread(GUEST_INTR_STATUS) & 0xff, cases[i].rvi);
		for (int vec = 0; vec < 256; vec++)
			if (irqs[vec] && !(vec == 0x61 && cases[i].posted &&
					   !cases[i].tpr))
				expect("vector taken", vec, 0);
		if (cases[i].posted && !cases[i].tpr)
			expect("deliveries of the posted one", irqs[0x61], 1);
		expect("vectors in service", apic_read(APIC_ISR + 0xf2 / 32 * 16),
		       0);
		if (failed != before) {
			puts("# in case: ");
			puts(cases[i].name);
			puts("\n");
		}
		drain();
	}
	return 0;
}

static const char *test_msr_store_tsc(void)
{
	u64 before, after, offset = -(1ul << 60);

	if (!can(CPU, CPU_TSC_OFFSETTING))
		return "no TSC offsetting";
	for (int scale = 0; scale <= can(CPU2, CPU2_TSC_SCALING); scale++) {
		vm_init(guest_rdtsc, 0, 0, CPU_TSC_OFFSETTING,
			scale ? CPU2_TSC_SCALING : 0, 0);
		vmwrite(TSC_OFFSET, offset);
		if (scale)
			vmwrite(TSC_MULTIPLIER, 3ul << 48);
		msr_store[0].index = MSR_TSC;
		msr_store[0].value = 0;
		vmwrite(MSR_STORE_ADDR, (u64)msr_store);
		vmwrite(MSR_STORE_COUNT, 1);
		before = rdtsc();
		expect("exit reason", vm_run(), EXIT_VMCALL);
		after = rdtsc();
		expect("guest's TSC has the offset",
		       guest_tsc - offset >= (scale ? 3 : 1) * before &&
		       guest_tsc - offset <= (scale ? 3 : 1) * after, 1);
		if (msr_store[0].value < before || msr_store[0].value > after)
			expect(scale ? "stored TSC (scaled)" : "stored TSC",
			       msr_store[0].value, after);
	}
	return 0;
}

/*
 * A trace has 32 instructions at most. If PAUSE did not end it, the timer's
 * interrupts would all be seen at the same places, 32 PAUSEs apart.
 */
static const char *test_pause(void)
{
	u32 places = 0, count = 0;

	if (cpuid_ecx(1) >> 31)
		return "a hypervisor is at work";
	for (u32 ticks = 40; ticks < 140; ticks++) {
		u64 pos;

		apic_write(APIC_TIMER_DIVIDE, 0xb);
		apic_write(APIC_LVT_TIMER, 0x41);
		apic_write(APIC_TIMER_COUNT, ticks);
		pauses();
		pos = irq_rip[0x41] - (u64)pauses_start;
		if (irqs[0x41] && pos < (u64)(pauses_end - pauses_start))
			places |= 1u << pos / 2 % 32;
		drain();
	}
	for (; places; places &= places - 1)
		count++;
	if (count < 8)
		expect("number of places of interrupts", count, 32);
	return 0;
}

static void set_gate(int vector, u64 to)
{
	idt[vector].low = (to & 0xffff) | 8 << 16 | 0x8eul << 40 |
			  (to >> 16 & 0xffff) << 48;
	idt[vector].high = to >> 32;
}

/*
 * Whatever comes between an exception and its handler's first instruction is to
 * find RIP at the handler, or else the exception is raised again.
 */
static const char *test_exception(void)
{
	const u32 raises = 20000;
	u32 reason, interrupts = 0;
	u64 twice = 0, diff;

	/* A page fault, as the handler is not mapped */
	set_gate(6, ALIAS + (ud_handler - image));
	set_gate(14, (u64)pf_handler);
	for (u32 i = 0; i < raises; i++) {
		pd[ALIAS >> 21] = 0;
		asm volatile("invlpg (%0)" : : "r"(ALIAS) : "memory");
		asm volatile("mov %%rsp, %0; ud2; sub %%rsp, %0; add %0, %%rsp"
			     : "=&r"(diff) : : "memory", "cc");
		if (diff)
			twice++;
	}
	expect("RIP of the page fault", pf_rip, ALIAS + (ud_handler - image));
	expect("exceptions raised again after a page fault", twice, 0);
	pd[ALIAS >> 21] = ALIAS | 0x83;
	asm volatile("invlpg (%0)" : : "r"(ALIAS) : "memory");

	/* An interrupt that exits the guest */
	set_gate(6, (u64)ud_handler);
	raise_left = raises;
	raise_twice = 0;
	raise_rsp = (u64)guest_stack + sizeof(guest_stack);
	vm_init(guest_raise, 0, PIN_EXTERNAL_INTERRUPT, 0, 0, 0);
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, 0x41);
	for (;;) {
		apic_write(APIC_TIMER_COUNT, 50 + interrupts % 401);
		reason = vm_run();
		if (reason != EXIT_INTERRUPT)
			break;
		interrupts++;
		asm volatile("sti; nop; cli" : : : "memory");
	}
	expect("exit reason", reason, EXIT_VMCALL);
	expect("a hundred interrupts and more", interrupts > 100, 1);
	expect("exceptions raised again after an interrupt", raise_twice, 0);

	set_gate(6, (u64)stubs + 16 * 6);
	set_gate(14, (u64)stubs + 16 * 14);
	return 0;
}

/* What other CPUs do: store where they are told to, a while later. */
void ap_main(void)
{
	ap_alive = 1;
	for (;;) {
		while (!ap_store)
			asm volatile("pause");
		/* Have just this page in the TLB, and written to. */
		WRITE_CR(3, READ_CR(3));
		*(volatile u8 *)(ap_store ^ 0x800) = 1;
		ap_ready = 1;
		for (int i = 0; i < 3000; i++)
			asm volatile("pause");
		*(volatile u8 *)ap_store = 1;
		ap_store = 0;
	}
}

static const char *test_mwait(void)
{
	static const u8 offsets[] = { 0, 1, 31, 62, 63 };

	if (!(cpuid_ecx(1) >> 3 & 1))
		return "no MONITOR";
	for (int i = 0; i < ap_start_end - ap_start; i++)
		((volatile u8 *)AP_START)[i] = ap_start[i];
	apic_write(APIC_ICR, ICR_OTHERS_INIT);
	for (int i = 0; i < 100000; i++)
		asm volatile("pause");
	apic_write(APIC_ICR, ICR_OTHERS_STARTUP | AP_START >> 12);
	for (int i = 0; i < 1000000 && !ap_alive; i++)
		asm volatile("pause");
	if (!ap_alive)
		return "no other CPU";

	/* The other CPU knows the page by another linear address. */
	pd[ALIAS >> 21] = (u64)image | 0x83;
	for (u32 i = 0; i < sizeof(offsets); i++) {
		volatile u8 *to = monitored + 64 + offsets[i];
		u32 rounds = 0;

		*to = 0;
		ap_ready = 0;
		ap_store = ALIAS + ((char *)to - image);
		while (!ap_ready)
			asm volatile("pause");
		/* If all else fails */
		apic_write(APIC_TIMER_DIVIDE, 0xb);
		apic_write(APIC_LVT_TIMER, 0x41);
		apic_write(APIC_TIMER_COUNT, 1000000);
		while (!*to) {
			rounds++;
			asm volatile("monitor" : : "a"(to), "c"(0), "d"(0));
			if (!*to)
				asm volatile("mwait" : : "a"(0), "c"(1) : "memory");
		}
		/* An MWAIT that does not wait sees each store. */
		expect("it waited", rounds < 10, 1);
		expect("timer ran out", !apic_read(APIC_TIMER_CURRENT), 0);
		while (ap_store)
			asm volatile("pause");
		drain();
	}
	pd[ALIAS >> 21] = ALIAS | 0x83;
	return 0;
}

static const struct {
	const char *name;
	const char *(*fn)(void);
} tests[] = {
	{ "VMLAUNCH, VMRESUME and a failed VM entry", test_basic },
	{ "0001 posted-interrupt descriptor at any 64 bytes",
	  test_pi_desc_alignment },
	{ "0002 external interrupt exits a guest with IF clear",
	  test_interrupt_with_if_clear },
	{ "0003 masked virtual interrupt stays pending",
	  test_masked_virtual_interrupt },
	{ "0004 virtual interrupt in the IDT-vectoring information",
	  test_idt_vectoring },
	{ "0005 posted-interrupt processing", test_posted_interrupts },
	{ "0006 VM exit stores the physical TSC", test_msr_store_tsc },
	{ "0007 interrupt between PAUSEs", test_pause },
	{ "0010 RIP after an exception", test_exception },
	{ "0011 store of another CPU ends MWAIT", test_mwait },
};

#define TESTS (sizeof(tests) / sizeof(*tests))

void main(void)
{
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 0x83);
	outb(COM1 + 0, 1);
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3);
	outb(COM1 + 2, 7);
	outb(COM1 + 4, 3);

	puts("KTAP version 1\n1..");
	if (!(cpuid_ecx(1) >> 5 & 1)) {
		puts("0 # SKIP this CPU has no VMX\n");
		power_off();
	}
	put_dec(TESTS);
	puts("\n");

	for (int i = 0; i < 256; i++)
		set_gate(i, (u64)stubs + 16 * i);
	struct __attribute__((packed)) { u16 limit; u64 base; } idtr = {
		sizeof(idt) - 1, (u64)idt
	};
	asm volatile("lidt %0" : : "m"(idtr));

	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	apic_write(APIC_SPURIOUS, 0x1ff);
	apic_write(APIC_LVT_LINT0, APIC_MASKED);

	if (!vmxon())
		bail_out("VMX cannot be entered", rdmsr(0x3a), READ_CR(4));

	for (test = 0; test < (int)TESTS; test++) {
		const char *skip;

		failed = 0;
		drain();
		skip = tests[test].fn();
		puts(failed ? "not ok " : "ok ");
		put_dec(test + 1);
		put(' ');
		puts(tests[test].name);
		if (skip) {
			puts(" # SKIP ");
			puts(skip);
		}
		puts("\n");
	}
	power_off();
}
