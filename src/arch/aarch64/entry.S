/* aarch64/entry.S - the first instructions of a new context.
 *
 *   in:  x2   the carried value        x29  the entry function (it was ctx.fp)
 *        sp   top of an empty stack, 16-byte aligned
 *
 * Zero frame pointer, and an undefined return address, end every backtrace here. */
        .text
        .globl  rt_arch_entry
        .hidden rt_arch_entry
        .type   rt_arch_entry, %function
        .p2align 4
rt_arch_entry:
        .cfi_startproc
        .cfi_undefined x30
        hint    #36                     // bti j
        mov     x0, x2
        mov     x9, x29
        mov     x29, xzr
        mov     x30, xzr
        blr     x9
        brk     #1
        .cfi_endproc
        .size   rt_arch_entry, .-rt_arch_entry

#include "notes.inc"
