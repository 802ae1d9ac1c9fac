/* Channels against a model: small random programs run for real, again and again, and what each of
 * their calls returned must be what some order of single steps can bring about.
 *
 * The model is the textbook's: a channel is a queue of values and two queues of those who wait, and
 * each step happens at once. It knows nothing of locks, claims or parks. A depth-first search,
 * which remembers the states that it has seen, looks for an order of steps that explains all the
 * results.
 *
 * The steps of a call: it looks whether it is cancelled (E); it does its work or begins to wait
 * (X); a waiting one is completed in the step of another. A cancel has two: it is visible (A), it
 * wakes (B). The last green thread closes every channel, so that each program comes to an end.
 *
 * A failure prints the program, the results and a seed: GORT_SEED=that repeats the program, though
 * not the schedule. */
#include "t_unit.h"

enum { CHANS = 3, THREADS = 5, OPS = 5, CASES = 3, BUFFER = 2, ROUNDS = 1500 };
enum kind { SEND, RECV, TRY_SEND, TRY_RECV, SELECT, POLL, CLOSE, CANCEL, KINDS };
static const char *const kind_names[] = {"send",   "recv", "try_send", "try_recv",
                                         "select", "poll", "close",    "cancel"};

struct one_case {
    bool send;
    int chan;  /* -1: NULL */
    int value; /* to send */
};

struct op {
    enum kind kind;
    int target; /* of a cancel */
    int n;
    struct one_case k[CASES]; /* what is no select has one */
    unsigned yields;          /* before it */
    /* What it returned: */
    int r, index, got; /* r: of the case, of the call when there was none; got: a value, or -1 */
};

struct program {
    int chans, threads;
    size_t capacity[CHANS];
    int n[THREADS];
    struct op op[THREADS][OPS];
    unsigned foreign; /* bit i: thread i is no green one */
};

/* ---- making programs ------------------------------------------------------------------------- */

static struct one_case random_case(const struct program *p, int value, bool send, uint64_t *seed) {
    return (struct one_case){send, (int)(t_random(seed) % (uint64_t)p->chans), value};
}

static void random_op(const struct program *p, int t, int i, struct op *op, uint64_t *seed) {
    static const enum kind kinds[] = {SEND,   SEND,   RECV,   RECV, TRY_SEND, TRY_RECV,
                                      SELECT, SELECT, SELECT, POLL, CLOSE,    CANCEL};
    *op = (struct op){.kind = kinds[t_random(seed) % T_COUNT(kinds)], .n = 1};
    if (op->kind == CLOSE && t_random(seed) % 2)
        op->kind = SELECT;
    op->target = (int)(t_random(seed) % (uint64_t)(p->threads - 1));
    op->yields = t_random(seed) % 4 == 0 ? (unsigned)(t_random(seed) % 4) : 0;
    bool select = op->kind == SELECT || op->kind == POLL;
    if (select)
        op->n = 1 + (int)(t_random(seed) % CASES);
    for (int j = 0; j < op->n; j++) {
        bool send = select ? t_random(seed) % 2 : op->kind == SEND || op->kind == TRY_SEND;
        op->k[j] = random_case(p, 1 + (t * OPS + i) * CASES + j, send, seed);
        if (j > 0 && t_random(seed) % 8 == 0)
            op->k[j].chan = -1;
    }
}

static void random_program(struct program *p, uint64_t seed) {
    seed = seed * UINT64_C(0x9E3779B97F4A7C15) + 1; /* neighbours shall have little in common */
    for (int i = 0; i < 8; i++)
        t_random(&seed);
    memset(p, 0, sizeof *p);
    p->chans = 1 + (int)(t_random(&seed) % CHANS);
    for (int i = 0; i < p->chans; i++)
        p->capacity[i] = t_random(&seed) % (BUFFER + 1);
    p->threads = 3 + (int)(t_random(&seed) % (THREADS - 2));
    if (t_random(&seed) % 16 == 0)
        p->foreign = (unsigned)t_random(&seed);
    int closer = p->threads - 1;
    for (int t = 0; t < closer; t++) {
        p->n[t] = 1 + (int)(t_random(&seed) % OPS);
        for (int i = 0; i < p->n[t]; i++)
            random_op(p, t, i, &p->op[t][i], &seed);
    }
    p->n[closer] = p->chans;
    for (int i = 0; i < p->chans; i++)
        p->op[closer][i] = (struct op){
            .kind = CLOSE, .n = 1, .k = {{.chan = i}}, .yields = (unsigned)(t_random(&seed) % 12)};
}

/* ---- running them ---------------------------------------------------------------------------- */

static struct {
    struct program *p;
    go_chan *c[CHANS];
    go_scope scope[THREADS];
    go_waitgroup entered, gone;
    go_mutex all_done; /* no cancel ends a wait for a lock; the last one unlocks it */
    int left;
} real;

static int run_select(struct op *op, go_chan **c, int *value) {
    struct go_case k[CASES];
    for (int j = 0; j < op->n; j++) {
        go_chan *chan = op->k[j].chan < 0 ? NULL : c[op->k[j].chan];
        if (op->k[j].send)
            k[j] = (struct go_case)GO_CASE_SEND(chan, &op->k[j].value);
        else
            k[j] = (struct go_case)GO_CASE_RECV(chan, value);
    }
    int r = go_select(k, (size_t)op->n, op->kind == POLL ? GO_NOW : GO_FOREVER);
    if (r < 0)
        return r;
    op->index = r;
    return k[r].result;
}

static int run_op(struct op *op, int *value) {
    go_chan *c = real.c[op->k[0].chan];
    switch (op->kind) {
    case SEND:
        return go_chan_send(c, &op->k[0].value);
    case RECV:
        return go_chan_recv(c, value);
    case TRY_SEND:
        return go_chan_try_send(c, &op->k[0].value);
    case TRY_RECV:
        return go_chan_try_recv(c, value);
    case CLOSE:
        return go_chan_close(c);
    case CANCEL:
        go_scope_cancel(&real.scope[op->target]);
        return 0;
    default:
        return run_select(op, real.c, value);
    }
}

static void run_thread(void *arg) {
    int t = (int)t_int(arg);
    go_scope_enter(&real.scope[t], GO_FOREVER);
    go_waitgroup_done(&real.entered);
    go_waitgroup_wait(&real.entered); /* or cancelled: then all have entered */
    for (int i = 0; i < real.p->n[t]; i++) {
        struct op *op = &real.p->op[t][i];
        for (unsigned y = 0; y < op->yields; y++)
            go_yield();
        op->got = op->index = -1;
        op->r = run_op(op, &op->got);
    }
    if (rt_fetch_sub(&real.left, 1) > 1) /* a scope is cancelled only while it is entered */
        go_mutex_lock(&real.all_done);
    go_mutex_unlock(&real.all_done);
    go_scope_leave(&real.scope[t]);
    go_waitgroup_done(&real.gone);
}

static void *run_thread_foreign(void *arg) {
    run_thread(arg);
    return NULL;
}

static void run_program(struct program *p) {
    pthread_t thread[THREADS];
    real.p = p;
    go_waitgroup_add(&real.entered, p->threads);
    go_waitgroup_add(&real.gone, p->threads);
    go_mutex_lock(&real.all_done);
    real.left = p->threads;
    for (int i = 0; i < p->chans; i++)
        T_ASSERT(real.c[i] = go_chan_new(sizeof(int), p->capacity[i]));
    for (int t = 0; t < p->threads; t++)
        if (p->foreign >> t & 1)
            T_EQ(pthread_create(&thread[t], NULL, run_thread_foreign, t_ptr(t)), 0);
        else
            T_SPAWN(run_thread, t_ptr(t));
    T_EQ(go_waitgroup_wait(&real.gone), 0);
    for (int t = 0; t < p->threads; t++)
        if (p->foreign >> t & 1)
            T_EQ(pthread_join(thread[t], NULL), 0);
    for (int i = 0; i < p->chans; i++)
        go_chan_free(real.c[i]); /* aborts when somebody was left on it */
}

/* ---- the model ------------------------------------------------------------------------------- */

enum phase { OUTSIDE, ENTERED, WAITING };

struct queue {
    uint8_t n, who[THREADS];
};

struct state {
    uint8_t pc[THREADS], phase[THREADS], cancelled[THREADS];
    struct {
        uint8_t closed, count, value[BUFFER];
        struct queue q[2]; /* receivers, senders */
    } c[CHANS];
};

static void remove_from(struct queue *q, int t) {
    int kept = 0;
    for (int i = 0; i < q->n; i++)
        if (q->who[i] != t)
            q->who[kept++] = q->who[i];
    memset(q->who + kept, 0, (size_t)(q->n - kept)); /* equal states are equal bytes */
    q->n = (uint8_t)kept;
}

/* The current call of t ends: as it really did? */
static bool finish(const struct program *p, struct state *s, int t, int r, int index, int got) {
    const struct op *op = &p->op[t][s->pc[t]];
    for (int i = 0; i < p->chans; i++) {
        remove_from(&s->c[i].q[0], t);
        remove_from(&s->c[i].q[1], t);
    }
    s->pc[t]++;
    s->phase[t] = OUTSIDE;
    return op->r == r && op->index == index && op->got == got;
}

/* Thread t, of which a case on channel c in this direction is due, ends so. */
static bool finish_case(const struct program *p, struct state *s, int t, int c, bool send, int r,
                        int got) {
    const struct op *op = &p->op[t][s->pc[t]];
    int index = op->index;
    if (op->kind != SELECT && op->kind != POLL)
        return finish(p, s, t, r, -1, got);
    if (index < 0 || op->k[index].chan != c || op->k[index].send != send)
        return false;
    return finish(p, s, t, r, index, got);
}

/* What t would send on c: for a select, in the case that it reports. */
static int value_of(const struct program *p, const struct state *s, int t) {
    const struct op *op = &p->op[t][s->pc[t]];
    return op->k[op->index < 0 ? 0 : op->index].value;
}

enum done { NOT_READY, WRONG, DONE };

static enum done result(bool right) {
    return right ? DONE : WRONG;
}

static enum done do_send(const struct program *p, struct state *s, int t, int c, int value) {
    if (s->c[c].closed)
        return result(finish_case(p, s, t, c, true, -EPIPE, -1));
    if (s->c[c].q[0].n > 0)
        return result(finish_case(p, s, s->c[c].q[0].who[0], c, false, 0, value) &&
                      finish_case(p, s, t, c, true, 0, -1));
    if (s->c[c].count == p->capacity[c])
        return NOT_READY;
    s->c[c].value[s->c[c].count++] = (uint8_t)value;
    return result(finish_case(p, s, t, c, true, 0, -1));
}

static enum done do_recv(const struct program *p, struct state *s, int t, int c) {
    struct queue *senders = &s->c[c].q[1];
    int got = 0, sender = senders->n > 0 ? senders->who[0] : -1;
    int sent = sender >= 0 ? value_of(p, s, sender) : -1;
    if (sender >= 0 && !finish_case(p, s, sender, c, true, 0, -1))
        return WRONG;
    if (s->c[c].count > 0) {
        uint8_t *value = s->c[c].value;
        got = value[0];
        memmove(value, value + 1, BUFFER - 1);
        value[--s->c[c].count] = 0;
        if (sender >= 0)
            value[s->c[c].count++] = (uint8_t)sent;
    } else if (sender >= 0) {
        got = sent;
    } else if (!s->c[c].closed) {
        return NOT_READY;
    } else {
        return result(finish_case(p, s, t, c, false, -EPIPE, 0));
    }
    return result(finish_case(p, s, t, c, false, 0, got));
}

/* A select does the case that it reported; there may be others, but it need not prefer them. */
static enum done do_case(const struct program *p, struct state *s, int t, int index) {
    const struct one_case *k = &p->op[t][s->pc[t]].k[index];
    if (k->chan < 0)
        return NOT_READY;
    return k->send ? do_send(p, s, t, k->chan, k->value) : do_recv(p, s, t, k->chan);
}

static bool do_close(const struct program *p, struct state *s, int t, int c) {
    if (s->c[c].closed)
        return finish(p, s, t, -EALREADY, -1, -1);
    s->c[c].closed = 1;
    while (s->c[c].q[0].n > 0)
        if (!finish_case(p, s, s->c[c].q[0].who[0], c, false, -EPIPE, 0))
            return false;
    while (s->c[c].q[1].n > 0)
        if (!finish_case(p, s, s->c[c].q[1].who[0], c, true, -EPIPE, -1))
            return false;
    return finish(p, s, t, 0, -1, -1);
}

/* The work of a call that has begun; if it can do nothing it waits, or says so. */
static bool step_x(const struct program *p, struct state *s, int t) {
    const struct op *op = &p->op[t][s->pc[t]];
    bool ready = false;
    for (int j = 0; j < op->n; j++) {
        struct state next = *s;
        enum done done = do_case(p, &next, t, j);
        ready |= done != NOT_READY;
        if (done == DONE && (op->index < 0 || op->index == j)) {
            *s = next;
            return true;
        }
    }
    if (ready)
        return false;
    if (op->kind == POLL || op->kind == TRY_SEND || op->kind == TRY_RECV)
        return finish(p, s, t, -EAGAIN, -1, -1);
    for (int j = 0; j < op->n; j++) {
        if (op->k[j].chan < 0)
            continue;
        struct queue *q = &s->c[op->k[j].chan].q[op->k[j].send];
        remove_from(q, t); /* in two cases, once in the queue */
        q->who[q->n++] = (uint8_t)t;
    }
    s->phase[t] = WAITING;
    return true;
}

/* Cancels: phase ENTERED of the canceller is between A and B. */
static bool step_cancel(const struct program *p, struct state *s, int t) {
    int target = p->op[t][s->pc[t]].target;
    s->cancelled[target] = 1;
    if (s->phase[t] == OUTSIDE) {
        s->phase[t] = ENTERED;
        return true;
    }
    if (s->phase[target] == WAITING && !finish(p, s, target, -ECANCELED, -1, -1))
        return false;
    return finish(p, s, t, 0, -1, -1);
}

/* One step of thread t; false: it has none, or not one with the results that were seen. */
static bool step(const struct program *p, struct state *s, int t) {
    const struct op *op = &p->op[t][s->pc[t]];
    if (s->pc[t] == p->n[t])
        return false;
    switch (op->kind) {
    case CLOSE:
        return do_close(p, s, t, op->k[0].chan);
    case CANCEL:
        return step_cancel(p, s, t);
    case TRY_SEND:
    case TRY_RECV:
        return step_x(p, s, t);
    default:
        break;
    }
    if (s->phase[t] == ENTERED)
        return step_x(p, s, t);
    if (s->cancelled[t]) /* on entry, or as soon as it has begun to wait */
        return finish(p, s, t, -ECANCELED, -1, -1);
    if (s->phase[t] == WAITING)
        return false;
    s->phase[t] = ENTERED;
    return true;
}

/* States that have been seen, by their hash: 64 bits, so a false hit is out of the question. */
enum { SEEN = 1 << 18 };
static uint64_t seen[SEEN];
static uint32_t used[SEEN / 2], n_used;

static bool is_new(const struct state *s) {
    const unsigned char *bytes = (const unsigned char *)s;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < sizeof *s; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
    h ^= h >> 32;
    uint32_t i = h % SEEN;
    for (; seen[i] != 0; i = (i + 1) % SEEN)
        if (seen[i] == h)
            return false;
    T_ASSERT(n_used < T_COUNT(used), "the search is too large");
    used[n_used++] = i;
    seen[i] = h;
    return true;
}

static bool explains(const struct program *p, const struct state *s) {
    bool over = true;
    for (int t = 0; t < p->threads; t++)
        over &= s->pc[t] == p->n[t];
    if (over)
        return true;
    if (!is_new(s))
        return false;
    for (int t = 0; t < p->threads; t++) {
        struct state next = *s;
        if (step(p, &next, t) && explains(p, &next))
            return true;
    }
    return false;
}

static bool is_possible(const struct program *p) {
    struct state start;
    memset(&start, 0, sizeof start);
    while (n_used > 0)
        seen[used[--n_used]] = 0;
    return explains(p, &start);
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void print(const struct program *p, uint64_t seed) {
    fprintf(stderr, "no order of steps explains this; GORT_SEED=%llu\n", (unsigned long long)seed);
    for (int i = 0; i < p->chans; i++)
        fprintf(stderr, "  channel %d: capacity %zu\n", i, p->capacity[i]);
    for (int t = 0; t < p->threads; t++) {
        fprintf(stderr, "  %d%s:", t, p->foreign >> t & 1 ? " (a thread)" : "");
        for (int i = 0; i < p->n[t]; i++) {
            const struct op *op = &p->op[t][i];
            fprintf(stderr, " %s", kind_names[op->kind]);
            if (op->kind == CANCEL)
                fprintf(stderr, " %d", op->target);
            for (int j = 0; j < op->n && op->kind != CANCEL; j++)
                if (op->kind == CLOSE || !op->k[j].send)
                    fprintf(stderr, "%s %d", j ? "," : "", op->k[j].chan);
                else
                    fprintf(stderr, "%s %d<-%d", j ? "," : "", op->k[j].chan, op->k[j].value);
            fprintf(stderr, " = %d", op->r);
            if (op->index >= 0)
                fprintf(stderr, " by case %d", op->index);
            if (op->got >= 0)
                fprintf(stderr, " got %d", op->got);
            fprintf(stderr, ";");
        }
        fprintf(stderr, "\n");
    }
}

static struct program program;

Test(chan_model, every_result_is_one_that_single_steps_can_bring_about, .timeout = 120) {
    const char *text = getenv("GORT_SEED");
    uint64_t base = text ? strtoull(text, NULL, 10) : 1;
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < (int)T_SCALE(ROUNDS); i++) {
        random_program(&program, base + (uint64_t)i);
        for (int again = 0; again < 3; again++) {
            run_program(&program);
            if (!is_possible(&program)) {
                print(&program, base + (uint64_t)i);
                T_ASSERT(0, "see above");
            }
        }
    }
    t_stop();
}

/* A model that explains everything proves nothing. */

static void refuse(const char *what) {
    if (is_possible(&program)) {
        print(&program, 0);
        T_ASSERT(0, "%s passes", what);
    }
}

Test(chan_model, spoilt_results_are_refused) {
    T_EQ(go_start(NULL), 0);
    for (uint64_t seed = 1; seed <= (uint64_t)T_SCALE(200); seed++) {
        random_program(&program, seed);
        run_program(&program);
        for (int t = 0; t < program.threads; t++)
            for (int i = 0; i < program.n[t]; i++) {
                struct op *op = &program.op[t][i], right = *op;
                if (op->got > 0) {
                    op->got = 200;
                    refuse("a value that nobody sent");
                } else if (op->kind == CLOSE) {
                    op->r = op->r ? 0 : -EALREADY;
                    refuse("a channel that was closed twice, or by nobody");
                }
                *op = right;
            }
        T_ASSERT(is_possible(&program));
    }
    t_stop();
}

static struct op *add(int t, enum kind kind, int r) {
    struct op *op = &program.op[t][program.n[t]++];
    *op = (struct op){.kind = kind, .n = 1, .r = r, .index = -1, .got = -1};
    op->k[0].send = kind == SEND || kind == TRY_SEND;
    op->k[0].value = 10 * (t + 1) + program.n[t];
    return op;
}

static void begin(size_t capacity) {
    memset(&program, 0, sizeof program);
    program.chans = 1;
    program.threads = 3;
    program.capacity[0] = capacity;
}

static void give_and_take(size_t capacity, int first, int second) {
    begin(capacity);
    add(0, SEND, 0);
    add(0, SEND, 0);
    add(1, RECV, 0)->got = first;
    add(1, RECV, 0)->got = second;
}

Test(chan_model, knows_what_channels_do) {
    for (size_t capacity = 0; capacity < 3; capacity++) {
        give_and_take(capacity, 11, 12);
        T_ASSERT(is_possible(&program));
        give_and_take(capacity, 12, 11);
        refuse("a queue that is not first in, first out");
        give_and_take(capacity, 11, 11);
        refuse("a value that was received twice");
        add(2, TRY_RECV, 0)->got = 12;
        refuse("a value that was received twice, and another once");
    }
    begin(1);
    add(0, SEND, 0);
    add(0, TRY_RECV, -EAGAIN);
    refuse("a buffered value that nobody sees");
    add(1, RECV, 0)->got = 11;
    T_ASSERT(is_possible(&program));

    begin(0);
    add(0, TRY_SEND, 0);
    refuse("a rendezvous of one");
    add(1, TRY_RECV, 0)->got = 11;
    refuse("a rendezvous of two that do not wait");
    program.op[1][0].kind = RECV;
    T_ASSERT(is_possible(&program));

    begin(1);
    add(0, CANCEL, 0);
    add(0, RECV, 0)->got = 21;
    add(1, SEND, 0);
    refuse("a call of a cancelled scope that did something");
    program.op[0][1].r = -ECANCELED;
    program.op[0][1].got = -1;
    T_ASSERT(is_possible(&program));

    begin(1); /* 0 receives what 1 may have sent before or after 2 cancelled 0 */
    add(0, RECV, 0)->got = 21;
    add(1, SEND, 0);
    add(2, CANCEL, 0);
    T_ASSERT(is_possible(&program));
    program.op[0][0].got = -1;
    program.op[0][0].r = -ECANCELED;
    T_ASSERT(is_possible(&program));

    begin(1);
    add(0, SEND, 0);
    add(0, POLL, -EAGAIN)->n = 2;
    program.op[0][1].k[1].chan = -1;
    refuse("a poll that overlooks something");
}
