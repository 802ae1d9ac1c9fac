/* aarch64/switch.h - see arch.h. from in x0, to in x1, the carried value in x2.
 *
 * The callee-saved d8-d15 are among the clobbers, so they are spilled by the compiler when live. */
#ifndef RT_ARCH_AARCH64_SWITCH_H
#define RT_ARCH_AARCH64_SWITCH_H

static inline __attribute__((always_inline)) void *rt_arch_switch(struct rt_ctx *from_,
                                                                  const struct rt_ctx *to_,
                                                                  void *carry_) {
    register struct rt_ctx *from __asm__("x0") = from_;
    register const struct rt_ctx *to __asm__("x1") = to_;
    register void *carry __asm__("x2") = carry_;
    __asm__ __volatile__(
        "adr x9, 1f\n\t"
        "mov x10, sp\n\t"
        "stp x9, x10, [x0]\n\t"
        "str x29, [x0, #16]\n\t"
        "ldp x9, x10, [x1]\n\t"
        "ldr x29, [x1, #16]\n\t"
        "mov sp, x10\n\t"
        "br x9\n"
        "1:\n\t"
        "hint #36" /* bti j */
        : "+r"(from), "+r"(to), "+r"(carry)
        :
        : "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16",
          "x17", "x18", "x19",
          "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30", "v0",
          "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",
          "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27",
          "v28", "v29", "v30", "v31", "cc", "memory");
    return carry;
}

static inline __attribute__((always_inline, noreturn)) void rt_arch_jump(const struct rt_ctx *to_,
                                                                         void *carry_) {
    register const struct rt_ctx *to __asm__("x1") = to_;
    register void *carry __asm__("x2") = carry_;
    __asm__ __volatile__("ldp x9, x10, [x1]\n\t"
                         "ldr x29, [x1, #16]\n\t"
                         "mov sp, x10\n\t"
                         "br x9"
                         :
                         : "r"(to), "r"(carry)
                         : "x9", "x10", "memory");
    __builtin_unreachable();
}

/* A context for rt_arch_swap_in that will call entry(carry) on the empty stack below top (16-byte
 * aligned): its stack pointer. The frame is drawn in swap.S. */
static inline void *rt_arch_swap_prepare(void *top, void (*entry)(void *carry)) {
    void **sp = (void **)top - 20;
    for (int i = 0; i < 20; i++)
        sp[i] = NULL;
    sp[10] = (void *)entry;
    sp[11] = (void *)rt_arch_entry;
    return sp;
}

static inline __attribute__((always_inline)) const char *rt_arch_sp(void) {
    const char *sp;
    __asm__ __volatile__("mov %0, sp" : "=r"(sp));
    return sp;
}

#endif
