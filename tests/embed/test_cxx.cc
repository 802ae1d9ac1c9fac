/* gort/cxx.h, and what needs nothing of it: exceptions on green threads.
 *
 * Each exception knows whose it is, and all are counted: one that is freed by the wrong catch block
 * is missed at its own. */
#include "gotest.h"

#include <gort.h>
#include <gort/cxx.h>

#include <atomic>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

std::atomic<int> alive, done;

struct error : std::runtime_error {
    int whose;
    explicit error(int n) : std::runtime_error("error " + std::to_string(n)), whose(n) {
        alive++;
    }
    error(const error &e) : std::runtime_error(e), whose(e.whose) {
        alive++;
    }
    ~error() override {
        alive--;
    }
    bool belongs_to(int n) const {
        return whose == n && what() == "error " + std::to_string(n);
    }
};

/* Two of each kind: those that stay where they are, and those that come back on another thread. */
void park(int n) {
    if (n % 2)
        go_yield();
    else
        T_EQ(go_sleep(n % 7 * GO_MICROSECOND), 0);
}

const int CROWD = 50;

/* fn(number, round) on a crowd of green threads; no exception is left, and none is being handled.
 */
void crowd(void (*fn)(int, int)) {
    static void (*body)(int, int);
    static long rounds;
    body = fn;
    rounds = T_SCALE(200);
    done = 0;
    T_EQ(go_start(nullptr), 0);
    go_waitgroup wg = {};
    static std::atomic<int> numbers;
    numbers = 0;
    for (int i = 0; i < CROWD; i++)
        T_EQ(go_waitgroup_spawn(
                 &wg,
                 [](void *) {
                     int n = numbers++;
                     for (int round = 0; round < rounds; round++) {
                         body(n, round);
                         T_EQ(std::uncaught_exceptions(), 0);
                         T_ASSERT(!std::current_exception());
                     }
                     done++;
                 },
                 nullptr),
             0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
    T_EQ(done, CROWD);
    T_EQ(alive, 0);
}

void throw_from(int n, int depth) {
    auto held = std::make_unique<int>(depth);
    if (depth == 0)
        throw error(n);
    throw_from(n, depth - 1);
}

} // namespace

Test(cxx, exceptions_need_no_care_where_no_handler_parks) {
    crowd([](int n, int) {
        bool caught = false;
        try {
            park(n);
            throw_from(n, n % 5);
        } catch (const error &e) {
            caught = e.belongs_to(n);
        }
        park(n);
        T_ASSERT(caught);
    });
}

Test(cxx, a_handler_parks_inside_a_guard) {
    crowd([](int n, int) {
        try {
            throw_from(n, n % 5);
        } catch (const error &e) {
            {
                gort::exception_guard aside;
                park(n);
                T_ASSERT(e.belongs_to(n));
            }
            T_ASSERT(e.belongs_to(n));
            try {
                throw; /* the very one */
            } catch (const error &again) {
                T_ASSERT(&again == &e);
                gort::exception_guard aside;
                park(n + 1);
            }
            T_ASSERT(e.belongs_to(n));
        }
    });
}

Test(cxx, guards_nest) {
    crowd([](int n, int) {
        try {
            throw error(n);
        } catch (const error &outer) {
            gort::exception_guard aside;
            try {
                T_ASSERT(!std::current_exception());
                park(n);
                throw error(n + 1000);
            } catch (const error &inner) {
                gort::exception_guard too;
                park(n + 1);
                T_ASSERT(inner.belongs_to(n + 1000) && outer.belongs_to(n));
            }
        }
    });
}

Test(cxx, an_exception_may_leave_the_guards_block) {
    crowd([](int n, int) {
        int caught = 0;
        try {
            try {
                throw error(n);
            } catch (const error &) {
                gort::exception_guard aside;
                park(n);
                throw error(n + 1000);
            }
        } catch (const error &e) {
            caught = e.belongs_to(n + 1000);
        }
        T_EQ(caught, 1);
    });
}

Test(cxx, a_destructor_parks_while_an_exception_passes) {
    struct parks_at_its_end {
        int n;
        ~parks_at_its_end() {
            T_EQ(std::uncaught_exceptions(), 1);
            {
                gort::exception_guard aside;
                T_EQ(std::uncaught_exceptions(), 0);
                park(n);
                try {
                    throw error(n + 1000);
                } catch (const error &e) {
                    T_ASSERT(e.belongs_to(n + 1000));
                }
            }
            T_EQ(std::uncaught_exceptions(), 1);
        }
    };
    crowd([](int n, int) {
        bool caught = false;
        try {
            parks_at_its_end p = {n};
            throw error(n);
        } catch (const error &e) {
            caught = e.belongs_to(n);
        }
        T_ASSERT(caught);
    });
}

Test(cxx, a_generator_yields_inside_a_guard) {
    crowd([](int n, int) {
        go_gen *gen = go_gen_new(
            [](go_gen *g, void *arg) {
                int whose = *static_cast<int *>(arg);
                try {
                    throw error(whose + 1000);
                } catch (const error &e) {
                    gort::exception_guard aside;
                    go_gen_yield(g, nullptr);
                    T_ASSERT(e.belongs_to(whose + 1000));
                }
            },
            &n);
        T_ASSERT(gen);
        T_EQ(go_gen_next(gen, nullptr), 0);
        try {
            throw error(n);
        } catch (const error &e) {
            {
                gort::exception_guard aside;
                park(n);
                T_EQ(go_gen_next(gen, nullptr), -EPIPE);
            }
            T_ASSERT(e.belongs_to(n));
        }
        T_EQ(go_gen_close(gen), 0);
    });
}

Test(cxx, an_exception_goes_to_another_green_thread) {
    struct box {
        go_chan *c;
        static void fill(void *arg) {
            auto *b = static_cast<box *>(arg);
            std::exception_ptr p;
            try {
                throw error(7);
            } catch (...) {
                p = std::current_exception(); /* and out of the block, so that no guard is needed */
            }
            auto *sent = new std::exception_ptr(std::move(p));
            T_EQ(go_chan_send(b->c, &sent), 0);
        }
    };
    T_EQ(go_start(nullptr), 0);
    box b = {go_chan_new(sizeof(std::exception_ptr *), 0)};
    for (long i = 0; i < T_SCALE(500); i++) {
        std::exception_ptr *got = nullptr;
        T_EQ(go_spawn(box::fill, &b), 0);
        T_EQ(go_chan_recv(b.c, &got), 0);
        try {
            std::unique_ptr<std::exception_ptr> owner(got);
            std::rethrow_exception(*owner);
        } catch (const error &e) {
            T_ASSERT(e.belongs_to(7));
        }
    }
    T_EQ(go_stop(GO_FOREVER), 0);
    go_chan_free(b.c);
    T_EQ(alive, 0);
}

Test(cxx, a_guard_does_no_harm_on_a_foreign_thread) {
    try {
        throw error(1);
    } catch (const error &e) {
        {
            gort::exception_guard aside;
            T_EQ(go_sleep(1), 0);
        }
        T_ASSERT(std::current_exception() && e.belongs_to(1));
    }
    T_EQ(alive, 0);
}

Test(cxx, one_that_leaves_its_green_thread_terminates) {
    T_DIES(SIGABRT, "terminate called", { go_run([](void *) { throw error(3); }, nullptr); });
}

/* A joiner may run its task on its own stack. */
static void join_a_thrower(void *) {
    go_task *t = go_task_spawn([](void *) -> void * { throw error(4); }, nullptr);
    try {
        go_task_join(t, nullptr);
    } catch (const error &) {
        abort(); /* without the line on stderr */
    }
}

Test(cxx, one_that_leaves_its_task_terminates_and_is_not_the_joiners) {
    T_DIES(SIGABRT, "terminate called", { go_run(join_a_thrower, nullptr); });
}
