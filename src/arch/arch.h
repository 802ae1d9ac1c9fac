/* arch.h - the contract of a context switch.
 *
 * A context is a resume address, a stack pointer and a frame pointer. rt_arch_switch saves those
 * three and nothing else: the inline assembly declares every other register clobbered, so the
 * compiler spills just what is live around the switch, and the resume is a `jmp` to a label in the
 * middle of the function, never a `ret`, which the return stack would predict wrongly. Floating
 * point control words (mxcsr, x87, fpcr) are not part of a context: they are the thread's, and the
 * documentation tells users to set them for the whole process.
 *
 *   carry = rt_arch_switch(from, to, carry)  save into *from, go on at *to; the result is what
 *                                            whoever switches back to *from carries
 *   rt_arch_jump(to, carry)                  the same without saving anything
 *   rt_arch_prepare(ctx, top, entry)         a context that will call entry(carry) on the empty
 *                                            stack below top (16-byte aligned); entry must never
 *                                            return
 *
 * The idea to leave the saving to the compiler is from PhotonLibOS ("Stackful Coroutine Made
 * Fast"). Every resume label is a landing pad (endbr64, bti j).
 *
 * That is the switch of those who go on behind it. A function that is called in order to switch
 * (the next of a generator, its yield) would go on with a `ret` to a caller other than the one who
 * called last, and two wrong predictions cost more than all the rest. For these, as a tail call:
 *
 *   return rt_arch_swap_in(from, to, carry, word, value)
 *
 * saves the callee-saved registers on the stack and the stack pointer in *from, sets *word = value
 * (release: whoever reads it may go on at *from), and returns, by a jump, from the function that
 * had saved *to, whose result is carry. A context is one stack pointer here. rt_arch_swap_out does
 * the same: one is for the way there, one for the way back.
 *
 *   rt_arch_sp()                             the stack pointer, about
 *
 * RT_ARCH_OUTERMOST(call): for an unwinder the frame that makes this call has no caller, as if the
 * callee stood on a stack of its own. What the compiler knows of the frame is the same after it. */
#ifndef RT_ARCH_H
#define RT_ARCH_H

#include <stddef.h>
#include <stdint.h>

struct rt_ctx {
    void *pc;
    void *sp;
    void *fp;
};

_Static_assert(offsetof(struct rt_ctx, pc) == 0, "known to the assembly");
_Static_assert(offsetof(struct rt_ctx, sp) == 8, "known to the assembly");
_Static_assert(offsetof(struct rt_ctx, fp) == 16, "known to the assembly");

/* First instructions of a new context: calls ctx.fp with the carried value (entry.S). */
void rt_arch_entry(void) __attribute__((visibility("hidden")));

#if defined(__x86_64__)
#define RT_ARCH_RETURN "rip"
#include "arch/x86_64/switch.h"
#elif defined(__aarch64__)
#define RT_ARCH_RETURN "x30"
#include "arch/aarch64/switch.h"
#endif

#define RT_ARCH_OUTERMOST(call) \
    do { \
        __asm__ __volatile__(".cfi_remember_state\n\t.cfi_undefined " RT_ARCH_RETURN); \
        (call); \
        __asm__ __volatile__(".cfi_restore_state"); \
    } while (0)

/* swap.S. The compiler makes a tail call only where the types of the results agree. */
int rt_arch_swap_in(void **from, void *const *to, void *carry, uint32_t *word, uint32_t value)
    __attribute__((visibility("hidden")));
void *rt_arch_swap_out(void **from, void *const *to, void *carry, uint32_t *word, uint32_t value)
    __attribute__((visibility("hidden")));

static inline void rt_arch_prepare(struct rt_ctx *ctx, void *top, void (*entry)(void *carry)) {
    ctx->pc = (void *)rt_arch_entry;
    ctx->sp = top;
    ctx->fp = (void *)entry;
}

#endif
