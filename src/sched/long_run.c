/* long_run.c - go_on_long_run: sysmon tells who hogged its P.
 *
 * Promise: the hook runs on a green thread of its own, never on the hog, one at a time and at most
 * ten times a second; what was not told is counted. sysmon waits for nothing here.
 *
 * There is one record, filled by sysmon while nobody has it (busy == 0), read by the green thread
 * that sysmon spawns for it, which gives it back when the hook has returned. The name is copied:
 * the hog may have ended by then, and its name with it. */
#include "sched/long_run.h"

#include "base/lock.h"
#include "base/san.h"
#include "base/sys.h"
#include "sched/gate.h"
#include "sched/retake.h"
#include "sched/spawn.h"
#include "sched/start.h"

#include <string.h>

static const int64_t EVERY_NS = 100 * 1000 * 1000;

static struct {
    uint32_t lock; /* of hook and arg */
    void (*hook)(const struct go_long_run *, void *);
    void *arg;
    uint32_t wanted;
    uint32_t busy;
    struct go_long_run record; /* sysmon's, then the reporter's */
    char name[32];
    int64_t told_at; /* sysmon's */
    uint64_t missed;
} lr;

int go_on_long_run(void (*hook)(const struct go_long_run *, void *), void *arg) {
    rt_lock(&lr.lock);
    lr.hook = hook;
    lr.arg = arg;
    rt_store_relaxed(&lr.wanted, hook != NULL);
    rt_unlock(&lr.lock);
    return 0;
}

/* Another thread may have been in go_on_long_run. */
void rt_long_run_fork_child(void) {
    rt_store_relaxed(&lr.lock, 0);
}

bool rt_long_run_note(struct rt_p *p, uint64_t progress, bool *told) {
    if (!rt_load_relaxed(&lr.wanted))
        return false;
    if (rt_load_relaxed(&lr.busy)) {
        lr.missed++;
        *told = true;
        return false;
    }
    struct rt_m *m = rt_gate_try_p(p);
    if (!m)
        return false;
    rt_san_acquired(&lr.busy); /* the gate's fence pairs with the release in report */
    const struct rt_g *g = rt_progress_any(p) == progress ? m->g : NULL;
    if (g) {
        lr.record = (struct go_long_run){.size = sizeof lr.record, .id = g->id, .fn = g->fn};
        const char *name = rt_load_relaxed(&g->name);
        lr.name[0] = 0;
        if (name)
            strncat(lr.name, name, sizeof lr.name - 1);
        lr.record.name = name ? lr.name : NULL;
    }
    rt_gate_open(m);
    return g != NULL;
}

void rt_long_run_miss(void) {
    lr.missed += rt_load_relaxed(&lr.wanted);
}

static void report(void *arg) {
    (void)arg;
    rt_lock(&lr.lock);
    void (*hook)(const struct go_long_run *, void *) = lr.hook;
    void *hook_arg = lr.arg;
    rt_unlock(&lr.lock);
    if (hook)
        hook(&lr.record, hook_arg);
    rt_store_release(&lr.busy, 0); /* see rt_long_run_note */
}

void rt_long_run_tell(int64_t ns, bool blocked, bool taken) {
    static const struct go_spawn_options name = {sizeof name, "go_on_long_run", 0};
    int64_t now = rt_sys_now();
    struct rt_g *g;
    if (lr.told_at != 0 && now - lr.told_at < EVERY_NS) {
        lr.missed++;
        return;
    }
    lr.record.ns = ns;
    lr.record.blocked = blocked;
    lr.record.taken = taken;
    lr.record.missed = lr.missed;
    rt_store_relaxed(&lr.busy, 1); /* the spawn hands it on */
    if (rt_spawn(&name, (void *)report, NULL, 0, &g) == 0) {
        lr.told_at = now;
        lr.missed = 0;
    } else {
        rt_store_relaxed(&lr.busy, 0);
        lr.missed++;
    }
}
