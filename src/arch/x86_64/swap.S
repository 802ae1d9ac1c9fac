/* x86_64/swap.S - rt_arch_swap_in, rt_arch_swap_out: a switch that ends the function which makes
 * it. See arch.h.
 *
 *   in:  rdi  where to save the stack pointer        rsi  where the other one is saved
 *        rdx  the carried value                      rcx  word, r8d  what it becomes
 *
 *   sp ->   +----------------------+
 *    +0     | r15 r14 r13 r12 rbx  |
 *   +40     | rbp                  |  a new context: the entry function
 *   +48     | return address       |  a new context: rt_arch_entry
 *           +----------------------+
 *
 * The other context's sp is read before the word is written, which may let somebody change it. The
 * carried value is the result; it stays in rdx for rt_arch_entry. The return is a jump: see arch.h;
 * notrack, because a return address is no landing pad. Two copies, because each then has a jump of
 * its own, which a loop on either side sends to one place again and again: a single jump that goes
 * to two places by turns costs 2.3 ns more (Zen 3). */
        .text
        .macro  swap name
        .globl  \name
        .hidden \name
        .type   \name, @function
        .p2align 5
\name:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r15, 0
        movq    %rsp, (%rdi)
        movq    (%rsi), %rsp
        movl    %r8d, (%rcx)
        movq    %rdx, %rax
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore rbp
        popq    %rcx
        .cfi_adjust_cfa_offset -8
        .cfi_register rip, rcx
        notrack jmp *%rcx
        .cfi_endproc
        .size   \name, .-\name
        .endm

        swap    rt_arch_swap_in
        swap    rt_arch_swap_out

#include "notes.inc"
