/* machine.c - see machine.h. */
#include "machine.h"

#include "base/sys.h"
#include "sched/g.h"
#include "sched/pool.h"
#include "sched/proc.h"
#include "sched/procs.h"
#include "sched/spawn.h"
#include "sched/stack.h"
#include "sched/start.h"
#include "sched/sysmon.h"
#include "sched/worker.h"

#define WEAK __attribute__((weak))

enum { STACKS = 2, GS_PER_P = 4, STACK_BYTES = 16 * 1024 };

struct rt_p ps[PROCS + 1];
struct rt_m ms[MS + 1];
struct rt_g gs[GS];
static struct rt_g pool[PROCS][GS_PER_P], foreign_pool[GS_PER_P];
static unsigned foreign_used;

void machine_init(uint32_t procs) {
    rt.procs = rt.procs_ever = procs;
    rt.ps = ps;
    rt.ms = ms;
    rt.nms = rt.max_ms = procs;
    rt.state = RT_RUNNING;
    for (unsigned i = 0; i <= MS; i++)
        ms[i].index = i;
    for (unsigned i = 0; i < PROCS; i++) {
        ps[i].index = i;
        ps[i].m = &ms[i];
        ms[i].p = &ps[i];
        ps[i].budget = RT_PICKS;
        ps[i].timer_when = INT64_MAX;
        ps[i].rng = i + 1;
        ps[i].slice_ns = 1000 * RT_COARSE_NS; /* each G is worth a wake, and worth stealing */
        ps[i].looked_at = ps[i].empty_at = model_clock;
        ps[i].id_next = i * 1000 + 1;
        ps[i].id_end = i * 1000 + 999;
        model_ignore(&ps[i].spawned, offsetof(struct rt_p, ring) - offsetof(struct rt_p, spawned));
    }
    rt.nobody = &ps[procs];
    *rt.nobody = (struct rt_p){
        .index = procs, .m = &ms[MS], .timer_when = INT64_MAX, .attention = RT_P_PREEMPT};
    ms[MS].p = rt.nobody;
    for (unsigned i = 0; i < GS; i++) {
        gs[i].limit = gs[i].timer_when = gs[i].wait_deadline = INT64_MAX;
        gs[i].wait = RT_WAIT_WORD(1, RT_LIVE);
    }
    model_gives_up("rt_gate_try");
    model_gives_up("spin");
    rt_idle_start();
}

static void give_gs(struct rt_p *p, struct rt_g *g) {
    for (unsigned i = 0; i < GS_PER_P; i++) {
        g[i].limit = g[i].timer_when = g[i].wait_deadline = INT64_MAX;
        g[i].wait = RT_WAIT_WORD(1, RT_DEAD);
        if (p)
            rt_g_free_owner(p, &g[i]);
    }
}

void machine_with_stacks(uint32_t procs) {
    machine_init(procs);
    rt_g_cache = 100;
    give_gs(NULL, foreign_pool);
    for (unsigned i = 0; i < procs; i++) {
        give_gs(&ps[i], pool[i]);
        for (unsigned k = 0; k < STACKS; k++) {
            char *low = model_stack(i * STACKS + k, STACK_BYTES);
            struct rt_stack *s = (struct rt_stack *)(void *)(low + STACK_BYTES) - 1;
            *s = (struct rt_stack){.low = low};
            rt_stack_push_owner(&ps[i], s);
        }
    }
}

void machine_be(unsigned i, struct rt_g *g) {
    model_be(&ms[i]);
    ms[i].g = g;
}

void machine_run(unsigned i) {
    model_be(&ms[i]); /* which has no G; to write that here would be outside the gate */
    rt_proc_run(&ms[i]);
}

void make(struct rt_g *g) {
    model_assert(g->arg == NULL);
    g->arg = g;
}

void run(struct rt_g *g) {
    model_assert(g->arg == g);
    g->id++;
}

/* ---- foreign threads; by --wrap, because the library has theirs in a thread-local variable ----
 */

struct rt_g *__wrap_rt_foreign_self(void);
struct rt_g *__wrap_rt_foreign_self(void) {
    static struct rt_g threads[MODEL_THREADS];
    struct rt_g *g = &threads[model_self()];
    if (!(g->flags & RT_G_THREAD)) { /* as in park.c */
        g->flags = RT_G_THREAD | RT_G_NOTE | RT_G_STARTED;
        g->wait = RT_WAIT_WORD(0, RT_LIVE);
        g->limit = g->timer_when = g->wait_deadline = INT64_MAX;
    }
    return g;
}

/* ---- in place of start.c --------------------------------------------------------------------- */

WEAK struct rt_sched rt;

WEAK int rt_not_running(void) {
    return -ENXIO;
}
WEAK int rt_foreign_enter(void) {
    return 0;
}
WEAK int rt_foreign_enter_to_close(void) {
    return 0;
}
WEAK void rt_foreign_leave(void) {
}

/* ---- of g.c: nobody needs more than what machine_with_stacks gave out ------------------------ */

WEAK uint32_t rt_g_cache;

WEAK int rt_g_refill_owner(struct rt_p *p) {
    (void)p;
    model_fail("the model has too few Gs");
}
WEAK void rt_g_trim_owner(struct rt_p *p) {
    (void)p;
}
WEAK struct rt_g *rt_g_get(int *err) {
    *err = 0;
    return &foreign_pool[rt_fetch_add(&foreign_used, 1)];
}
WEAK void rt_g_put(struct rt_g *g) {
    (void)g;
}
WEAK void rt_g_ids(uint64_t *first, uint64_t *end) {
    (void)first, (void)end;
}
WEAK uint64_t rt_g_one_id(void) {
    return 5000;
}
WEAK void rt_g_each(bool (*fn)(struct rt_g *g, void *arg), void *arg) {
    for (struct rt_g *g = pool[0]; g < pool[rt.procs]; g++)
        if (!fn(g, arg))
            return;
    for (unsigned i = 0; i < GS_PER_P && fn(&foreign_pool[i], arg); i++)
        ;
}

/* ---- of stack.c ------------------------------------------------------------------------------ */

WEAK int rt_stack_class(size_t bytes) {
    (void)bytes;
    return 0;
}
WEAK struct rt_stack *rt_stack_get(unsigned size_class) {
    (void)size_class;
    model_fail("the model has too few stacks");
}
WEAK struct rt_stack *rt_stack_get_owner(struct rt_p *p) {
    (void)p;
    model_fail("the model has too few stacks");
}
WEAK void rt_stack_put(struct rt_stack *s) {
    (void)s;
}
WEAK void rt_stack_trim_owner(struct rt_p *p) {
    (void)p;
}

/* ---- of sysmon.c, scope.c, join.c, proc.c ---------------------------------------------------- */

/* Each M asks for sysmon when it comes out of rt_idle_sleep. One that comes out again and again
 * (there is work, but its P is being visited) does not keep the others from getting on. */
WEAK uint32_t rt_sysmon_asleep = 1;
WEAK void rt_sysmon_wake_slow(void) {
    static unsigned rounds[PROCS];
    if (rt_m() && ++rounds[rt_m()->index] > 1)
        model_let_others();
}
WEAK void rt_sysmon_call_sig(void) {
}
WEAK int rt_cancel_slow(struct rt_g *g) {
    (void)g;
    return 0;
}
WEAK int rt_cancel_result(struct rt_g *g, int park_result, int64_t own_deadline) {
    (void)g, (void)own_deadline;
    return park_result;
}
WEAK void rt_task_ended(struct rt_m *m, struct rt_g *g) {
    (void)m, (void)g;
}
WEAK bool rt_proc_run(struct rt_m *m) {
    (void)m;
    return false;
}
WEAK void rt_idle_start(void) {
}

/* ---- what no model has, and the shipped files know ------------------------------------------- */

WEAK void rt_group_child(struct rt_g *g) {
    (void)g;
    model_assert(false);
}
WEAK go_group *rt_group_unlink(struct rt_g *g) {
    (void)g;
    model_assert(false);
    return NULL;
}
WEAK void rt_group_left(struct rt_m *m, go_group *group) {
    (void)m, (void)group;
    model_assert(false);
}
WEAK void rt_group_adopt(go_group *group, struct rt_g *g) {
    (void)group, (void)g;
    model_assert(false);
}
WEAK void rt_local_end(struct rt_g *g) {
    (void)g;
    model_assert(false);
}
WEAK int64_t rt_stack_scavenge(int64_t now) {
    (void)now;
    return INT64_MAX;
}
WEAK void rt_sem_answer_all(void) {
}
WEAK struct rt_pool_counts rt_pool_counts(void) {
    return (struct rt_pool_counts){0};
}
WEAK bool rt_sem_waited(void) {
    return false;
}
WEAK bool rt_pool_is_ours(void) {
    return false;
}
WEAK void rt_pool_start(void) {
}
WEAK int rt_worker_start_spare(uint32_t change) {
    (void)change;
    return -EAGAIN;
}
WEAK int64_t rt_sys_thread_cpu(pthread_t t) {
    (void)t;
    return 0;
}
WEAK char rt_sys_thread_state(int tid) {
    (void)tid;
    return 'S';
}
WEAK int rt_sys_tid(void) {
    return 0;
}
WEAK int rt_sys_pid(void) {
    return 0;
}
WEAK bool rt_sys_may_switch(int pid) {
    return pid == 0;
}
WEAK int rt_sys_errno(void) {
    return 0;
}
WEAK void rt_sys_set_errno(int value) {
    (void)value;
}
WEAK void rt_pool_stop(void) {
}
WEAK void rt_sys_alt_stack(void *base, size_t bytes) {
    (void)base, (void)bytes;
}
WEAK bool rt_mutex_held(const uint32_t *lock, uint64_t id) {
    (void)lock, (void)id;
    return false;
}
WEAK bool rt_long_run_note(struct rt_p *p, uint64_t progress, bool *told) {
    (void)p, (void)progress, (void)told;
    return false;
}
WEAK void rt_long_run_tell(int64_t ns, bool blocked, bool taken) {
    (void)ns, (void)blocked, (void)taken;
}
WEAK void rt_long_run_miss(void) {
}
WEAK void rt_procs_start(void) {
}
WEAK int64_t rt_procs_look(int64_t now) {
    (void)now;
    return -1;
}
WEAK bool rt_procs_changes(void) {
    return false;
}
WEAK void rt_procs_spare_came(void) {
}
WEAK void rt_procs_leave(struct rt_m *m) {
    (void)m;
    model_assert(false);
}
WEAK void rt_p_init(struct rt_p *p, uint32_t index) {
    p->index = index;
}
WEAK void rt_m_init(struct rt_m *m, uint32_t index) {
    m->index = index;
}
WEAK uint64_t rt_live(uint64_t *spawned, uint64_t *ended) {
    *spawned = *ended = 0;
    return 1;
}
WEAK void rt_local_fork_child(void) {
}
WEAK void rt_share_fork_child(void) {
}
WEAK void rt_pool_fork_child(void) {
}
WEAK void rt_long_run_fork_child(void) {
}
