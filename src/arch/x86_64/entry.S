/* x86_64/entry.S - the first instructions of a new context.
 *
 *   in:  rdx  the carried value        rbp  the entry function (it was ctx.fp)
 *        rsp  top of an empty stack, 16-byte aligned
 *
 *   top ->  +----------------------+
 *           | return address of    |  pushed by the call: rsp + 8 is 16-byte aligned in entry(),
 *           | entry(): never used  |  as the ABI wants it
 *           +----------------------+
 *
 * A frame pointer of zero and an undefined return address end every backtrace here. */
        .text
        .globl  rt_arch_entry
        .hidden rt_arch_entry
        .type   rt_arch_entry, @function
        .p2align 4
rt_arch_entry:
        .cfi_startproc
        .cfi_undefined rip
        endbr64
        movq    %rdx, %rdi
        movq    %rbp, %rax
        xorl    %ebp, %ebp
        call    *%rax
        ud2
        .cfi_endproc
        .size   rt_arch_entry, .-rt_arch_entry

/* Indirect-branch tracking is supported; shadow stacks are not, so that bit stays clear. */
#include "notes.inc"
