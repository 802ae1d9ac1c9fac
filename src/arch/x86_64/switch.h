/* x86_64/switch.h - see arch.h. from in rdi, to in rsi, the carried value in rdx.
 *
 * Nothing is pushed, so a red zone below rsp stays whole: its owner does not run meanwhile. rbx and
 * rbp cannot both be clobbered everywhere; rbp is part of the context, rbx the compiler spills. */
#ifndef RT_ARCH_X86_64_SWITCH_H
#define RT_ARCH_X86_64_SWITCH_H

#ifdef __AVX512F__
#define RT_ARCH_CLOBBER_AVX512 \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", \
        "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", \
        "k7"
#else
#define RT_ARCH_CLOBBER_AVX512
#endif

static inline __attribute__((always_inline)) void *rt_arch_switch(struct rt_ctx *from,
                                                                  const struct rt_ctx *to,
                                                                  void *carry) {
    __asm__ __volatile__("leaq 1f(%%rip), %%rax\n\t"
                         "movq %%rax, 0(%%rdi)\n\t"
                         "movq %%rsp, 8(%%rdi)\n\t"
                         "movq %%rbp, 16(%%rdi)\n\t"
                         "movq 8(%%rsi), %%rsp\n\t"
                         "movq 16(%%rsi), %%rbp\n\t"
                         "jmpq *0(%%rsi)\n"
                         "1:\n\t"
                         "endbr64"
                         : "+D"(from), "+S"(to), "+d"(carry)
                         :
                         : "rax", "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
                           "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                           "xmm15", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)",
                           "st(7)" RT_ARCH_CLOBBER_AVX512, "cc", "memory");
    return carry;
}

static inline __attribute__((always_inline, noreturn)) void rt_arch_jump(const struct rt_ctx *to,
                                                                         void *carry) {
    __asm__ __volatile__("movq 8(%%rsi), %%rsp\n\t"
                         "movq 16(%%rsi), %%rbp\n\t"
                         "jmpq *0(%%rsi)"
                         :
                         : "S"(to), "d"(carry)
                         : "memory");
    __builtin_unreachable();
}

/* A context for rt_arch_swap_in that will call entry(carry) on the empty stack below top (16-byte
 * aligned): its stack pointer. The frame is drawn in swap.S. */
static inline void *rt_arch_swap_prepare(void *top, void (*entry)(void *carry)) {
    void **sp = (void **)top - 7;
    for (int i = 0; i < 5; i++)
        sp[i] = NULL;
    sp[5] = (void *)entry;
    sp[6] = (void *)rt_arch_entry;
    return sp;
}

static inline __attribute__((always_inline)) const char *rt_arch_sp(void) {
    const char *sp;
    __asm__ __volatile__("movq %%rsp, %0" : "=r"(sp));
    return sp;
}

#endif
