/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From the multiboot loader to C in 64-bit mode, the stubs of the IDT, and the
 * way into a guest and out of it.
 */
#define MAGIC	0x1badb002
#define FLAGS	0x00010000		/* addresses follow: a flat file */
#define ALIAS	0x3fe00000		/* of the image, once pf_handler has run */

	.section .multiboot, "ax"
	.code32
	.balign	4
header:
	.long	MAGIC, FLAGS, -(MAGIC + FLAGS)
	.long	header, image, image_end, bss_end, start

	.globl	start
start:
	cli
	cld
	movl	$stack_top, %esp

	/* 4 GiB, each address mapped to itself, and nothing above. */
	movl	$pdpt + 3, pml4
	movl	$pd + 3, %eax
	xorl	%ecx, %ecx
1:	movl	%eax, pdpt(, %ecx, 8)
	addl	$0x1000, %eax
	incl	%ecx
	cmpl	$4, %ecx
	jne	1b
	movl	$0x83, %eax
	xorl	%ecx, %ecx
2:	movl	%eax, pd(, %ecx, 8)
	addl	$0x200000, %eax
	incl	%ecx
	cmpl	$2048, %ecx
	jne	2b

	movl	%cr4, %eax
	orl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx
	rdmsr
	orl	$0x100, %eax		/* EFER.LME */
	wrmsr
	movl	%cr0, %eax
	andl	$0x9fffffff, %eax	/* no CD and NW: MONITOR wants write-back memory */
	orl	$0x80000021, %eax	/* PG, NE, PE */
	movl	%eax, %cr0

	movl	$tss, %eax
	movw	%ax, gdt + 0x18 + 2
	shrl	$16, %eax
	movb	%al, gdt + 0x18 + 4
	movb	%ah, gdt + 0x18 + 7
	lgdt	gdt_pointer
	ljmp	$8, $3f

	.code64
3:	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	lldt	%ax
	movl	$0x18, %eax
	ltr	%ax
	movl	$stack_top, %esp
	call	main
4:	hlt
	jmp	4b

	.text
	/* Each stub has 16 bytes; no vector that is expected has an error code. */
	.globl	stubs
	.balign	16
stubs:
	vector = 0
	.rept	256
	.balign	16
	pushq	$vector
	jmp	common
	vector = vector + 1
	.endr
common:
	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	cld
	movq	72(%rsp), %rdi		/* the vector */
	movq	80(%rsp), %rsi		/* RIP, or an error code */
	call	interrupt
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%rcx
	popq	%rax
	addq	$8, %rsp
	iretq

	/*
	 * int vm_enter(int launched): 0 after a VM exit, 1 after VMfailInvalid,
	 * 2 after VMfailValid.
	 */
	.globl	vm_enter
vm_enter:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movl	$0x6c14, %eax		/* HOST_RSP */
	vmwrite	%rsp, %rax
	movl	$0x6c16, %eax		/* HOST_RIP */
	movl	$vm_exit, %ecx
	vmwrite	%rcx, %rax
	testl	%edi, %edi
	jnz	1f
	vmlaunch
	jmp	2f
1:	vmresume
2:	movl	$1, %eax
	jc	3f
	movl	$2, %eax
	jmp	3f
vm_exit:
	xorl	%eax, %eax
3:	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

	/* The guests. Each ends with VMCALL, RBX tells what it has seen. */
	.globl	guest_vmcall, guest_spin, guest_unmask, guest_unmask_end
	.globl	guest_notify, guest_rdtsc

guest_vmcall:
	vmcall
	jmp	guest_vmcall

guest_spin:
	movl	$3000000, %ecx
1:	pause
	decl	%ecx
	jnz	1b
	vmcall
	jmp	guest_spin

	/*
	 * Make the virtual interrupt deliverable but for RFLAGS.IF, then have a
	 * physical one come.
	 */
guest_unmask:
	cli
	xorl	%eax, %eax
	movq	%rax, %cr8
	movl	ipi_command, %eax
	movl	%eax, 0xfee00300
guest_unmask_end:
	movl	$1000, %ecx
1:	pause
	decl	%ecx
	jnz	1b
	vmcall
	jmp	guest_unmask

	/* Send a physical IPI with interrupts on, and wait for what comes. */
guest_notify:
	sti
	movl	ipi_command, %eax
	movl	%eax, 0xfee00300
	movl	$1000, %ecx
1:	pause
	decl	%ecx
	jnz	1b
	vmcall
	jmp	guest_notify

guest_rdtsc:
	rdtsc
	shlq	$32, %rdx
	orq	%rdx, %rax
	movq	%rax, guest_tsc
	vmcall
	jmp	guest_rdtsc

	/*
	 * void pauses(void): enable interrupts and execute 256 PAUSEs, of two
	 * bytes each, in a row.
	 */
	.globl	pauses, pauses_start, pauses_end
	.balign	4096
pauses:
	sti
	nop
pauses_start:
	.rept	256
	pause
	.endr
pauses_end:
	cli
	ret

	/*
	 * Raise #UD raise_left times, and count how often its handler has left
	 * something on the stack. No register outlives a VM exit.
	 */
	.globl	guest_raise
guest_raise:
	ud2
	cmpq	raise_rsp, %rsp
	je	1f
	incl	raise_twice
	movq	raise_rsp, %rsp
1:	decl	raise_left
	jnz	guest_raise
	vmcall
	jmp	guest_raise

	/* #UD of a UD2: go on behind it. */
	.globl	ud_handler
ud_handler:
	addq	$2, (%rsp)
	iretq

	/* #PF: keep RIP, and map the image where it is to be seen once more. */
	.globl	pf_handler
pf_handler:
	pushq	%rax
	movq	16(%rsp), %rax
	movq	%rax, pf_rip
	movq	$image + 0x83, %rax
	movq	%rax, pd + ALIAS / 0x200000 * 8
	popq	%rax
	addq	$8, %rsp
	iretq

	/* Where other CPUs start, copied to a page below 1 MB; then as above. */
	.globl	ap_start, ap_start_end
	.code16
ap_start:
	cli
	movw	%cs, %ax
	movw	%ax, %ds
	lgdtl	ap_gdt_pointer - ap_start
	movl	$0x20, %eax
	movl	%eax, %cr4
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	andl	$0x9fffffff, %eax
	orl	$0x80000021, %eax
	movl	%eax, %cr0
	ljmpl	$8, $ap_start64
ap_gdt_pointer:
	.word	0x27
	.long	gdt
ap_start_end:
	.code64
ap_start64:
	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$ap_stack_top, %esp
	call	ap_main

	.data
	.balign	16
	.globl	gdt
gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* 0x08: 64-bit code */
	.quad	0x00cf93000000ffff	/* 0x10: data */
	.quad	0x0000890000000067	/* 0x18: TSS */
	.quad	0
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.bss
	.balign	4096
pml4:	.skip	0x1000
pdpt:	.skip	0x1000
pd:	.skip	0x4000
	.skip	0x8000
stack_top:
	.skip	0x1000
ap_stack_top:
	.globl	pd
	.globl	tss
tss:	.skip	0x68

	.section .note.GNU-stack, "", @progbits
