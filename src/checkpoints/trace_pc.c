/* trace_pc.c - libgort-checkpoints.a: a go_checkpoint in every loop and function of code that is
 * compiled with -fsanitize-coverage=trace-pc, by gcc or clang.
 *
 * The flag is made for fuzzers: the compiler calls this function at the entry of each function and
 * at each turn of the flow behind it (gcc: in each basic block; clang: in so many that every loop
 * that may be left has one on each way around). What it is called with is nothing, so what it costs
 * is the call, the registers that the caller cannot use across it, and what the optimiser leaves
 * undone because of it. The check itself is a load and a branch, of one word for all threads: that
 * is cheaper than to find out which thread this is (docs/performance.md).
 *
 * An archive of its own, because whoever uses the flag for a fuzzer has a __sanitizer_cov_trace_pc
 * of his own. It is hidden, so each program and shared object calls its own copy without a detour
 * by the PLT. */
#include <gort/task.h>

__attribute__((visibility("hidden"))) void __sanitizer_cov_trace_pc(void);

void __sanitizer_cov_trace_pc(void) {
    go_checkpoint();
}
