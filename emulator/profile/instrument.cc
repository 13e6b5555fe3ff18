// SPDX-License-Identifier: GPL-2.0-only
//
// Records what the CPU executes, host and guests, from one RDTSC of a VMX guest to its
// next one, which is a round trip of vmx_l2_perf_test, and appends it to the file
// $PROFILE_OUT: the head, then the records, which bench/profile.py reads. At most
// $PROFILE_MAX trips are written. Meant for a machine with one CPU.

#include "bochs.h"
#include "cpu/cpu.h"
#include "cpu/decoder/ia_opcodes.h"
#include "memory/memory-bochs.h"

#if BX_INSTRUMENTATION

enum kind {
	OTHER, CALL, RET, VMREAD, VMWRITE, RDMSR, WRMSR, INVALIDATE, VMPTRLD, VMCLEAR,
	VMENTER, EVENT, STORE,
};

#define FLAG_GUEST	1	// in VMX non-root operation
#define FLAG_REDUNDANT	2	// VMWRITE of the value that the field has
#define FLAG_LOCKED	4

struct record {
	Bit64u rip;
	Bit64u value;		// VMWRITE: what; EVENT: qualification; STORE: address
	Bit32u field;		// VMREAD, VMWRITE: the field; MSR: ECX; EVENT: reason; STORE: length
	Bit32u vmcs;		// current VMCS, page number
	Bit32u icount;		// when it began
	Bit16u opcode;		// EVENT: PROFILE_EVENT_*
	Bit8u flags;
	Bit8u kind;
};

struct head {
	Bit64u magic;
	Bit64u trip;
	Bit64u nr_records;
	Bit64u ticks;
};

#define MAGIC		0x31656c69666f7270ull
#define MAX_RECORDS	(1u << 22)
#define STACK_SIZE	(4u * 4096)	// Linux' THREAD_SIZE

static record *records;
static unsigned nr;
static bool recording, locked;
static Bit64u trip, start, max_trips = ~(Bit64u)0;
static FILE *out;

void profile_open(void)
{
	const char *name = getenv("PROFILE_OUT"), *max = getenv("PROFILE_MAX");

	if (max)
		max_trips = strtoull(max, NULL, 0);
	if (!name)
		return;
	records = (record *)calloc(MAX_RECORDS, sizeof(record));
	out = records ? fopen(name, "wb") : NULL;
	if (!out) {
		fprintf(stderr, "profile: cannot write to %s\n", name);
		exit(1);
	}
}

void profile_close(void)
{
	if (out && fclose(out)) {
		fprintf(stderr, "profile: writing failed\n");
		unlink(getenv("PROFILE_OUT"));
	}
	out = NULL;
}

static record *add(BX_CPU_C *c, Bit8u kind)
{
	record *r = &records[nr];

	// The reader sees that a trip is not complete, as its ticks do not add up
	if (nr < MAX_RECORDS - 1)
		nr++;
	memset(r, 0, sizeof(*r));
	r->rip = c->get_instruction_pointer();
	r->icount = (Bit32u)c->get_icount();
	r->vmcs = (Bit32u)(c->vmcsptr >> 12);
	r->flags = c->in_vmx_guest ? FLAG_GUEST : 0;
	r->kind = kind;
	return r;
}

static void write_trip(BX_CPU_C *c)
{
	head h = { MAGIC, trip, nr, c->get_icount() - start };

	if (trip++ >= max_trips)
		return;
	fwrite(&h, sizeof(h), 1, out);
	fwrite(records, sizeof(record), nr, out);
}

void profile_event(unsigned cpu, unsigned what, Bit64u reason, Bit64u qualification)
{
	record *r;

	if (!recording)
		return;
	r = add(BX_CPU(cpu), EVENT);
	r->opcode = what;
	r->field = (Bit32u)reason;
	r->value = qualification;
}

// Of the host, and not to its stack
void profile_access(unsigned cpu, bx_address addr, unsigned len, unsigned rw)
{
	BX_CPU_C *c = BX_CPU(cpu);
	record *r;

	if (!recording || c->in_vmx_guest || (rw != BX_WRITE && rw != BX_RW) ||
	    (addr ^ c->get_reg64(BX_64BIT_REG_RSP)) < STACK_SIZE)
		return;
	r = add(c, STORE);
	r->value = addr;
	r->field = len;
	if (locked)
		r->flags |= FLAG_LOCKED;
}

// Of VMWRITE
static Bit64u source(BX_CPU_C *c, bxInstruction_c *i)
{
	Bit64u value = 0;
	bx_phy_address phy;
	bx_address addr;

	if (i->modC0())
		return c->get_reg64(i->src());

	addr = (Bit64s)(Bit32s)i->displ32s();
	if (i->sibBase() < BX_GENERAL_REGISTERS)
		addr += c->get_reg64(i->sibBase());
	else if (i->sibBase() == BX_64BIT_REG_RIP)
		addr += c->get_instruction_pointer() + i->ilen();
	if (i->sibIndex() < BX_GENERAL_REGISTERS && i->sibIndex() != 4)
		addr += c->get_reg64(i->sibIndex()) << i->sibScale();
	if (c->dbg_xlate_linear2phy(addr, &phy))
		BX_MEM(0)->dbg_fetch_mem(c, phy, 8, (Bit8u *)&value);
	return value;
}

void profile_instruction(unsigned cpu, bxInstruction_c *i)
{
	BX_CPU_C *c = BX_CPU(cpu);
	unsigned opcode = i->getIaOpcode();
	record *r;

	if (!out)
		return;

	if (opcode == BX_IA_RDTSC && c->in_vmx_guest) {
		recording = !recording;
		if (!recording) {
			write_trip(c);
			return;
		}
		start = c->get_icount();
		nr = 0;
	}
	if (!recording)
		return;

	r = add(c, OTHER);
	r->opcode = opcode;
	// XCHG with memory is locked without a prefix
	locked = i->getLock() || opcode == BX_IA_XCHG_EbGb || opcode == BX_IA_XCHG_EwGw ||
		 opcode == BX_IA_XCHG_EdGd || opcode == BX_IA_XCHG_EqGq;

	switch (opcode) {
	case BX_IA_CALL_Jq:
	case BX_IA_CALL_Eq:
		r->kind = CALL;
		break;
	case BX_IA_RET_Op64:
	case BX_IA_RET_Op64_Iw:
		r->kind = RET;
		break;
	case BX_IA_VMREAD_EqGq:
	case BX_IA_VMREAD_EdGd:
		r->kind = VMREAD;
		r->field = (Bit32u)c->get_reg64(i->src());
		break;
	case BX_IA_VMWRITE_GqEq:
	case BX_IA_VMWRITE_GdEd:
		r->kind = VMWRITE;
		r->field = (Bit32u)c->get_reg64(i->dst());
		r->value = source(c, i);
		if (!c->in_vmx_guest && c->vmcs_map->is_valid(r->field) &&
		    r->value == c->vmread(r->field))
			r->flags |= FLAG_REDUNDANT;
		break;
	case BX_IA_RDMSR:
		r->kind = RDMSR;
		r->field = (Bit32u)c->get_reg64(BX_64BIT_REG_RCX);
		break;
	case BX_IA_WRMSR:
		r->kind = WRMSR;
		r->field = (Bit32u)c->get_reg64(BX_64BIT_REG_RCX);
		break;
	case BX_IA_INVEPT:
	case BX_IA_INVVPID:
	case BX_IA_INVPCID:
		r->kind = INVALIDATE;
		r->field = (Bit32u)c->get_reg64(i->dst());
		break;
	case BX_IA_VMPTRLD_Mq:
		r->kind = VMPTRLD;
		break;
	case BX_IA_VMCLEAR_Mq:
		r->kind = VMCLEAR;
		break;
	case BX_IA_VMLAUNCH:
	case BX_IA_VMRESUME:
		r->kind = VMENTER;
		break;
	}
}

#endif
