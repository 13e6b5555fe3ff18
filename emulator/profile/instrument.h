// SPDX-License-Identifier: GPL-2.0-only
//
// Bochs' instrumentation for bench/profile, see instrument.cc. Bochs wants every hook to
// be there, used or not.
#if BX_INSTRUMENTATION

class bxInstruction_c;

void profile_open(void);
void profile_close(void);
void profile_instruction(unsigned cpu, bxInstruction_c *i);
void profile_access(unsigned cpu, bx_address addr, unsigned len, unsigned rw);
void profile_event(unsigned cpu, unsigned what, Bit64u reason, Bit64u qualification);

#define PROFILE_EVENT_EXIT	1
#define PROFILE_EVENT_INTERRUPT	2
#define PROFILE_EVENT_EXCEPTION	3

#define BX_INSTR_INIT_ENV() profile_open()
#define BX_INSTR_EXIT_ENV() profile_close()
#define BX_INSTR_BEFORE_EXECUTION(cpu, i) profile_instruction(cpu, i)
#define BX_INSTR_LIN_ACCESS(cpu, lin, phy, len, memtype, rw) profile_access(cpu, lin, len, rw)
#define BX_INSTR_VMEXIT(cpu, reason, qualification) \
	profile_event(cpu, PROFILE_EVENT_EXIT, reason, qualification)
#define BX_INSTR_HWINTERRUPT(cpu, vector, cs, eip) \
	profile_event(cpu, PROFILE_EVENT_INTERRUPT, vector, 0)
#define BX_INSTR_EXCEPTION(cpu, vector, error_code) \
	profile_event(cpu, PROFILE_EVENT_EXCEPTION, vector, error_code)

#else

#define BX_INSTR_INIT_ENV()
#define BX_INSTR_EXIT_ENV()
#define BX_INSTR_BEFORE_EXECUTION(cpu, i)
#define BX_INSTR_LIN_ACCESS(cpu, lin, phy, len, memtype, rw)
#define BX_INSTR_VMEXIT(cpu, reason, qualification)
#define BX_INSTR_HWINTERRUPT(cpu, vector, cs, eip)
#define BX_INSTR_EXCEPTION(cpu, vector, error_code)

#endif

#define BX_INSTR_INITIALIZE(cpu)
#define BX_INSTR_EXIT(cpu)
#define BX_INSTR_RESET(cpu, type)
#define BX_INSTR_HLT(cpu)
#define BX_INSTR_MWAIT(cpu, addr, len, flags)
#define BX_INSTR_DEBUG_PROMPT()
#define BX_INSTR_DEBUG_CMD(cmd)
#define BX_INSTR_CNEAR_BRANCH_TAKEN(cpu, branch_eip, new_eip)
#define BX_INSTR_CNEAR_BRANCH_NOT_TAKEN(cpu, branch_eip)
#define BX_INSTR_UCNEAR_BRANCH(cpu, what, branch_eip, new_eip)
#define BX_INSTR_FAR_BRANCH(cpu, what, prev_cs, prev_eip, new_cs, new_eip)
#define BX_INSTR_OPCODE(cpu, i, opcode, len, is32, is64)
#define BX_INSTR_INTERRUPT(cpu, vector)
#define BX_INSTR_CLFLUSH(cpu, laddr, paddr)
#define BX_INSTR_CACHE_CNTRL(cpu, what)
#define BX_INSTR_TLB_CNTRL(cpu, what, new_cr3)
#define BX_INSTR_PREFETCH_HINT(cpu, what, seg, offset)
#define BX_INSTR_AFTER_EXECUTION(cpu, i)
#define BX_INSTR_REPEAT_ITERATION(cpu, i)
#define BX_INSTR_PHY_ACCESS(cpu, phy, len, memtype, rw)
#define BX_INSTR_INP(addr, len)
#define BX_INSTR_INP2(addr, len, val)
#define BX_INSTR_OUTP(addr, len, val)
#define BX_INSTR_WRMSR(cpu, addr, value)
