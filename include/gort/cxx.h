/* gort/cxx.h - for C++: parks while an exception is being handled. Not part of gort.h; in C this
 * file is empty.
 *
 * The runtime of C++ keeps two things per thread: the stack of exceptions that are being handled,
 * and the number of those on their way to a handler (what __cxa_get_globals finds). A green thread
 * that parks between the beginning and the end of a catch block leaves its exception on that stack:
 * others that throw and catch there meanwhile take it for theirs, and the green thread, having gone
 * on on another thread, ends its catch block on somebody else's. That frees the wrong exception. A
 * destructor that parks while an exception unwinds its frame miscounts in the same way.
 *
 * So a park needs a guard there, and only there: inside a try block, and anywhere else, nothing is
 * needed, and nothing is paid.
 *
 *   try {
 *       work();
 *   } catch (const std::exception &e) {
 *       gort::exception_guard aside;
 *       report(e);                     // may park
 *   }
 *
 * The guard takes both away from the thread, and gives them back to the one that it ends on. In
 * between code runs as if no exception were handled: it may throw and catch, also out of the
 * guard's block, but `throw;` and std::current_exception() do not find the exception outside. The
 * exception itself, by its reference, is there as before.
 *
 * Others swap the two at each switch (mordor, YTsaurus, ClickHouse's silk, boost.context since
 * 1.88) or replace __cxa_get_globals (userver). That needs no guard, but each switch, or the whole
 * program, pays for it. libstdc++ and libc++ keep them in the same way, which is the ABI's:
 * https://itanium-cxx-abi.github.io/cxx-abi/abi-eh.html, 2.2.2. */
#ifndef GORT_CXX_H
#define GORT_CXX_H
#ifdef __cplusplus

#include <cxxabi.h>

namespace gort {

/* On a stack, in a block that is left in the order in which it was entered. Guards nest. Any
 * thread; on one that is not green it does no harm. */
class exception_guard {
  public:
    /* Not inlined: __cxa_get_globals is declared const, so that a compiler that saw both calls
     * would make them one, and give the exceptions back to the thread that they came from. */
    __attribute__((noinline)) exception_guard() noexcept {
        globals *here = globals_here();
        kept = *here;
        *here = globals();
        __asm__ __volatile__("" ::: "memory");
    }
    __attribute__((noinline)) ~exception_guard() {
        globals *here = globals_here();
        here->caught = kept.caught;      /* what was caught inside has been left */
        here->uncaught += kept.uncaught; /* one is on its way when it is what ends the block */
        __asm__ __volatile__("" ::: "memory");
    }
    exception_guard(const exception_guard &) = delete;
    exception_guard &operator=(const exception_guard &) = delete;

  private:
    struct globals {
        void *caught = nullptr;
        unsigned uncaught = 0;
    } __attribute__((may_alias));

    static globals *globals_here() noexcept {
        return reinterpret_cast<globals *>(abi::__cxa_get_globals());
    }

    globals kept;
};

} /* namespace gort */

#endif
#endif
