/* aarch64/swap.S - rt_arch_swap_in, rt_arch_swap_out: a switch that ends the function which makes
 * it. See arch.h.
 *
 *   in:  x0   where to save the stack pointer        x1   where the other one is saved
 *        x2   the carried value                      x3   word, w4  what it becomes
 *
 *   sp ->   +-----------+-----------+
 *    +0     | x19       | x20       |
 *           | ...       | x28       |
 *   +80     | x29       | x30       |  a new context: the entry function, rt_arch_entry
 *   +96     | d8        | d9        |
 *           | ...       | d15       |
 *  +160     +-----------+-----------+
 *
 * The other context's sp is read before the word is written, which may let somebody change it. The
 * carried value is the result; it stays in x2 for rt_arch_entry. The end is a `ret`, which is
 * predicted wrongly: a `br` to a return address faults where landing pads are enforced. So both
 * names are one function. */
        .text
        .globl  rt_arch_swap_in
        .hidden rt_arch_swap_in
        .type   rt_arch_swap_in, %function
        .globl  rt_arch_swap_out
        .hidden rt_arch_swap_out
        .type   rt_arch_swap_out, %function
        .p2align 4
rt_arch_swap_in:
rt_arch_swap_out:
        .cfi_startproc
        hint    #34                     // bti c
        sub     sp, sp, #160
        .cfi_adjust_cfa_offset 160
        stp     x19, x20, [sp, #0]
        stp     x21, x22, [sp, #16]
        stp     x23, x24, [sp, #32]
        stp     x25, x26, [sp, #48]
        stp     x27, x28, [sp, #64]
        stp     x29, x30, [sp, #80]
        .cfi_rel_offset x29, 80
        .cfi_rel_offset x30, 88
        stp     d8, d9, [sp, #96]
        stp     d10, d11, [sp, #112]
        stp     d12, d13, [sp, #128]
        stp     d14, d15, [sp, #144]
        mov     x9, sp
        ldr     x10, [x1]
        str     x9, [x0]
        mov     sp, x10
        stlr    w4, [x3]
        mov     x0, x2
        ldp     x19, x20, [sp, #0]
        ldp     x21, x22, [sp, #16]
        ldp     x23, x24, [sp, #32]
        ldp     x25, x26, [sp, #48]
        ldp     x27, x28, [sp, #64]
        ldp     x29, x30, [sp, #80]
        ldp     d8, d9, [sp, #96]
        ldp     d10, d11, [sp, #112]
        ldp     d12, d13, [sp, #128]
        ldp     d14, d15, [sp, #144]
        add     sp, sp, #160
        .cfi_adjust_cfa_offset -160
        .cfi_restore x29
        .cfi_restore x30
        ret
        .cfi_endproc
        .size   rt_arch_swap_in, .-rt_arch_swap_in
        .size   rt_arch_swap_out, .-rt_arch_swap_out

#include "notes.inc"
