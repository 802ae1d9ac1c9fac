/* select.c: selects that meet each other, cancels, closes, and those who free what they are through
 * with. */
#include "t_unit.h"

#include "sched/park.h"

static go_chan *new_chan(size_t capacity) {
    go_chan *c = go_chan_new(sizeof(int), capacity);
    T_ASSERT(c);
    return c;
}

static bool is_parked(struct rt_g **g) {
    struct rt_g *who = rt_load_acquire(g);
    return who && RT_WAIT_STATE(rt_load_acquire(&who->wait)) == RT_WAITING;
}

/* ---- whoever made a case happen may free its channel ----------------------------------------- */

enum way { SEND, RECV, CLOSE, WAYS };

struct last {
    go_chan *c, *other;
    struct rt_g *g;
    enum way way;
    bool both; /* the select waits in both directions */
    int done;
};

static void select_last(void *arg) {
    struct last *l = arg;
    int v = 7;
    struct go_case k[] = {GO_CASE_RECV(l->other, &v), GO_CASE_RECV(l->c, &v),
                          GO_CASE_SEND(l->c, &(int){5})};
    if (!l->both)
        k[l->way == RECV ? 1 : 2].chan = NULL;
    rt_store_release(&l->g, rt_self());
    int r = go_select(k, 3, GO_FOREVER);
    T_ASSERT(r == 2 || (r == 1 && l->way != RECV), "%d", r);
    T_EQ(k[r].result, l->way == CLOSE ? -EPIPE : 0);
    T_EQ(v, r == 2 ? 7 : l->way == CLOSE ? 0 : 9);
    rt_store_release(&l->done, 1);
}

static void *select_last_thread(void *arg) {
    select_last(arg);
    return NULL;
}

static void let_go_and_free(struct last *l) {
    int v = 9;
    switch (l->way) {
    case SEND:
        T_EQ(go_chan_send(l->c, &v), 0);
        break;
    case RECV:
        T_EQ(go_chan_recv(l->c, &v), 0);
        T_EQ(v, 5);
        break;
    default:
        T_EQ(go_chan_close(l->c), 0);
    }
    go_chan_free(l->c);
}

static void free_after_use(bool thread, int rounds) {
    for (int i = 0; i < rounds; i++) {
        struct last l = {.c = new_chan(0), .other = new_chan(0)};
        pthread_t t;
        l.way = (enum way)(i % WAYS);
        l.both = i / WAYS % 2;
        if (thread)
            T_EQ(pthread_create(&t, NULL, select_last_thread, &l), 0);
        else
            T_SPAWN(select_last, &l);
        if (l.way == CLOSE || i % 4 == 0) /* one that comes after the close comes too late */
            T_AWAIT(is_parked(&l.g));
        let_go_and_free(&l);
        if (thread)
            T_EQ(pthread_join(t, NULL), 0);
        T_AWAIT(rt_load_acquire(&l.done));
        go_chan_free(l.other);
    }
}

static void free_after_use_green(void *wg) {
    free_after_use(false, (int)T_SCALE(600));
    go_waitgroup_done(wg);
}

GTest(select_races, whoever_made_a_case_happen_may_free_its_channel) {
    go_waitgroup wg = {0};
    go_waitgroup_add(&wg, 3);
    for (int i = 0; i < 3; i++)
        T_SPAWN(free_after_use_green, &wg);
    T_EQ(go_waitgroup_wait(&wg), 0);
}

Test(select_races, a_thread_may_free_what_a_select_is_through_with) {
    T_EQ(go_start(NULL), 0);
    free_after_use(false, (int)T_SCALE(300));
    t_stop();
    free_after_use(true, (int)T_SCALE(300));
}

/* ---- who came first -------------------------------------------------------------------------- */

enum { IN_LINE = 9 };
static struct line {
    go_chan *c, *other;
    struct rt_g *g[IN_LINE];
    int got[IN_LINE];
    bool send;
} line;

/* Plain calls and selects in turn. */
static void stand_in_line(void *arg) {
    int me = (int)t_int(arg), v = line.send ? me : -1;
    struct go_case k[] = {GO_CASE_RECV(line.other, NULL), GO_CASE_RECV(line.c, &v)};
    k[1].send = line.send;
    rt_store_release(&line.g[me], rt_self());
    if (me % 2)
        T_EQ(go_select(k, 2, GO_FOREVER), 1);
    else
        T_EQ(line.send ? go_chan_send(line.c, &v) : go_chan_recv(line.c, &v), 0);
    rt_store_release(&line.got[me], v + 1);
}

GTest(select_races, who_waits_is_served_in_the_order_of_coming) {
    for (int round = 0; round < 6; round++) {
        memset(&line, 0, sizeof line);
        line.send = round % 2;
        line.c = new_chan(round % 3 == 2 && !line.send);
        line.other = new_chan(0);
        for (int i = 0; i < IN_LINE; i++) {
            T_SPAWN(stand_in_line, t_ptr(i));
            T_AWAIT(is_parked(&line.g[i]));
        }
        for (int i = 0; i < IN_LINE; i++) {
            int v = i;
            T_EQ(line.send ? go_chan_recv(line.c, &v) : go_chan_send(line.c, &v), 0);
            T_EQ(v, i);
            T_AWAIT(rt_load_acquire(&line.got[i]));
            T_EQ(line.got[i], i + 1);
        }
        go_chan_free(line.c);
        go_chan_free(line.other);
    }
}

/* ---- selects that meet ----------------------------------------------------------------------- */

/* Each offers its number on some channels and takes another's from them. A value that was sent was
 * received by one other; nobody meets himself; when each has met as often as all others together
 * want to be met, nobody is left over. */
enum { DANCERS = 12, FLOORS = 3 };

static struct dance {
    go_chan *floor[FLOORS], *stop;
    int steps; /* of each */
    int dancing;
    int given[DANCERS], taken[DANCERS], met[DANCERS];
} dance;

static void dance_on(void *arg) {
    int me = (int)t_int(arg), other = -1, met = 0;
    uint64_t seed = (uint64_t)me + 1;
    for (;;) {
        struct go_case k[2 * FLOORS + 1];
        size_t n = 0;
        for (int i = 0; i < FLOORS; i++) { /* some of them, in some order */
            go_chan *c = dance.floor[t_random(&seed) % FLOORS];
            k[n++] = (struct go_case)GO_CASE_RECV(c, &other);
            k[n++] = (struct go_case)GO_CASE_SEND(c, &me);
        }
        k[n++] = (struct go_case)GO_CASE_RECV(dance.stop, NULL);
        int r = go_select(k, n, GO_FOREVER);
        T_ASSERT(r >= 0, "%d", r);
        if (r == (int)n - 1) {
            T_EQ(k[r].result, -EPIPE);
            break;
        }
        T_EQ(k[r].result, 0);
        met++;
        if (k[r].send) {
            dance.given[me]++;
        } else {
            T_ASSERT(other >= 0 && other < DANCERS && other != me, "%d met %d", me, other);
            rt_fetch_add(&dance.taken[other], 1);
        }
        if (met == dance.steps && rt_fetch_sub(&dance.dancing, 1) == DANCERS / 2)
            T_EQ(go_chan_close(dance.stop), 0);
    }
    dance.met[me] = met;
}

static void *dance_on_thread(void *arg) {
    dance_on(arg);
    return NULL;
}

static void all_dance(int threads) {
    pthread_t t[DANCERS];
    int met = 0, taken = 0;
    memset(&dance, 0, sizeof dance);
    dance.steps = (int)T_SCALE(threads ? 150 : 1000);
    dance.dancing = DANCERS;
    for (int i = 0; i < FLOORS; i++)
        dance.floor[i] = new_chan(0);
    dance.stop = new_chan(0);
    T_EQ(go_start(NULL), 0);
    for (int i = 0; i < DANCERS; i++)
        if (i < threads)
            T_EQ(pthread_create(&t[i], NULL, dance_on_thread, t_ptr(i)), 0);
        else
            T_SPAWN(dance_on, t_ptr(i));
    for (int i = 0; i < threads; i++)
        T_EQ(pthread_join(t[i], NULL), 0);
    T_AWAIT(t_stats().tasks_live == 0);
    t_stop();
    for (int i = 0; i < DANCERS; i++) {
        T_EQ(dance.given[i], dance.taken[i]);
        met += dance.met[i];
        taken += dance.taken[i];
    }
    T_EQ(met, 2 * taken); /* two at each meeting */
    for (int i = 0; i < FLOORS; i++)
        go_chan_free(dance.floor[i]);
    go_chan_free(dance.stop);
}

Test(select_races, selects_meet_in_pairs, .timeout = 120) {
    all_dance(0);
    all_dance(4);
}

/* ---- between the look and the locks, between the locks and the park -------------------------- */

/* A token lies on one of many channels, or on two: who moves it lays the next one down before it
 * takes the last one up. A poll that looked at one channel after the other, and no more, would
 * sometimes find each of them empty. Once it is polled away, the mover starts with a new one. */
enum { PLACES = 64 };
static struct {
    go_chan *c[PLACES];
    int laid; /* how often it was laid down anew */
    int stop;
} places;

static void *move_token(void *arg) {
    int at = 0, v;
    uint64_t seed = 11;
    while (!rt_load_acquire(&places.stop)) {
        int to = (at + 1 + (int)(t_random(&seed) % (PLACES - 1))) % PLACES;
        T_EQ(go_chan_try_send(places.c[to], &to), 0);
        if (go_chan_try_recv(places.c[at], &v) != 0)
            rt_fetch_add(&places.laid, 1);
        at = to;
    }
    return arg;
}

static void poll_for_token(void *arg) {
    struct go_case k[PLACES];
    int v;
    (void)arg;
    for (int i = 0; i < PLACES; i++)
        k[i] = (struct go_case)GO_CASE_RECV(places.c[i], &v);
    for (int i = 1; i <= (int)T_SCALE(3000); i++) {
        while (rt_load_acquire(&places.laid) < i)
            go_yield();
        int r = go_select(k, PLACES, GO_NOW);
        T_ASSERT(r >= 0, "%d at poll %d", r, i);
    }
    rt_store_release(&places.stop, 1);
}

Test(select_races, a_poll_overlooks_nothing_that_moves) {
    pthread_t t;
    for (int i = 0; i < PLACES; i++)
        places.c[i] = new_chan(1);
    T_EQ(go_start(NULL), 0);
    T_EQ(pthread_create(&t, NULL, move_token, NULL), 0);
    T_SPAWN(poll_for_token, NULL);
    T_EQ(pthread_join(t, NULL), 0);
    t_stop();
    for (int i = 0; i < PLACES; i++)
        go_chan_free(places.c[i]);
}

/* One ball, which two select for in turn. A wake that is lost is the end of the game. */
struct court {
    go_chan *to[2][20];
    int cases, rounds;
};
static struct court court;

static void play(void *arg) {
    int me = (int)t_int(arg), ball;
    uint64_t seed = (uint64_t)me + 5;
    struct go_case in[20], out[20];
    for (int i = 0; i < court.cases; i++) {
        in[i] = (struct go_case)GO_CASE_RECV(court.to[me][i], &ball);
        out[i] = (struct go_case)GO_CASE_SEND(court.to[1 - me][i], &ball);
    }
    for (int i = 0; i < court.rounds; i++) {
        if (i > 0 || me == 1) {
            T_ASSERT(go_select(in, (size_t)court.cases, GO_FOREVER) >= 0);
            T_EQ(ball, 2 * i - (me == 0));
        }
        ball = 2 * i + me;
        if (t_random(&seed) % 2)
            T_ASSERT(go_select(out, (size_t)court.cases, GO_FOREVER) >= 0);
        else
            T_EQ(go_chan_send(court.to[1 - me][t_random(&seed) % (uint64_t)court.cases], &ball), 0);
    }
    if (me == 0)
        T_ASSERT(go_select(in, (size_t)court.cases, GO_FOREVER) >= 0);
}

static void *play_thread(void *arg) {
    play(arg);
    return NULL;
}

Test(select_races, no_wake_is_lost_on_the_way_into_the_park, .timeout = 120) {
    T_EQ(go_start(NULL), 0);
    for (int way = 0; way < 8; way++) {
        pthread_t t;
        court.cases = way & 1 ? 20 : 3;
        court.rounds = (int)T_SCALE(way & 4 ? 1000 : 5000);
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < court.cases; j++)
                court.to[i][j] = new_chan(way >> 1 & 1);
        T_SPAWN(play, t_ptr(1));
        if (way & 4) {
            T_EQ(pthread_create(&t, NULL, play_thread, t_ptr(0)), 0);
            T_EQ(pthread_join(t, NULL), 0);
        } else {
            T_SPAWN(play, t_ptr(0));
        }
        T_AWAIT(t_stats().tasks_live == 0);
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < court.cases; j++)
                go_chan_free(court.to[i][j]);
    }
    t_stop();
}

/* ---- everything at once ---------------------------------------------------------------------- */

/* Producers and consumers select over all channels, with deadlines, polls and cancels in between; a
 * close ends it. What was sent with success was received once, whoever gave up meanwhile. */
enum { CHANS = 4, SIDES = 5 };

static struct traffic {
    go_chan *c[CHANS];
    uint64_t sent, received, sum_in, sum_out;
    int stop, victims;
    go_scope *scope[2 * SIDES]; /* who may be cancelled now; under lock[] */
    go_mutex lock[2 * SIDES];
} traffic;

static void select_some(int me, bool send) {
    uint64_t seed = (uint64_t)me * 77 + 5;
    int open = CHANS;
    bool closed[CHANS] = {false};
    while (open > 0) {
        struct go_case k[2 * CHANS];
        int v[2 * CHANS], n = CHANS + (int)(t_random(&seed) % (CHANS + 1));
        for (int i = 0; i < n; i++) {
            int j = i < CHANS ? i : (int)(t_random(&seed) % CHANS);
            v[i] = send ? (int)(t_random(&seed) % 1000) : -1;
            k[i] = (struct go_case)GO_CASE_RECV(closed[j] ? NULL : traffic.c[j], &v[i]);
            k[i].send = send;
        }
        int64_t deadline = GO_FOREVER;
        unsigned dice = (unsigned)(t_random(&seed) % 8);
        if (dice == 0)
            deadline = GO_NOW;
        else if (dice < 3)
            deadline = go_now() + (int64_t)(t_random(&seed) % 50) * GO_MICROSECOND;
        go_scope s;
        go_scope_enter(&s, dice == 3 ? go_now() + 20 * GO_MICROSECOND : GO_FOREVER);
        go_mutex_lock(&traffic.lock[me]);
        traffic.scope[me] = &s;
        go_mutex_unlock(&traffic.lock[me]);
        int r = go_select(k, (size_t)n, deadline);
        go_mutex_lock(&traffic.lock[me]);
        traffic.scope[me] = NULL;
        go_mutex_unlock(&traffic.lock[me]);
        go_scope_leave(&s);
        if (r < 0) {
            T_ASSERT(r == -ECANCELED || (r == -EAGAIN && deadline == GO_NOW) ||
                         (r == -ETIMEDOUT && deadline != GO_NOW && deadline != GO_FOREVER),
                     "%d", r);
            go_yield();
        } else if (k[r].result == -EPIPE) {
            for (int j = 0; j < CHANS; j++)
                if (traffic.c[j] == k[r].chan) {
                    closed[j] = true;
                    open--;
                }
        } else {
            T_EQ(k[r].result, 0);
            rt_fetch_add(send ? &traffic.sent : &traffic.received, 1);
            rt_fetch_add(send ? &traffic.sum_in : &traffic.sum_out, (uint64_t)v[r]);
        }
    }
}

static void produce(void *arg) {
    select_some((int)t_int(arg), true);
}
static void consume(void *arg) {
    select_some((int)t_int(arg), false);
}
static void *produce_thread(void *arg) {
    produce(arg);
    return NULL;
}
static void *consume_thread(void *arg) {
    consume(t_ptr(t_int(arg) + SIDES));
    return NULL;
}

static void *cancel_them(void *arg) {
    uint64_t seed = 3;
    while (!rt_load_acquire(&traffic.stop)) {
        int i = (int)(t_random(&seed) % (2 * SIDES));
        go_mutex_lock(&traffic.lock[i]);
        if (traffic.scope[i])
            go_scope_cancel(traffic.scope[i]);
        go_mutex_unlock(&traffic.lock[i]);
        sched_yield();
    }
    return arg;
}

static void flow(int threads) {
    pthread_t p[SIDES], q[SIDES], canceller;
    memset(&traffic, 0, sizeof traffic);
    for (size_t i = 0; i < CHANS; i++)
        traffic.c[i] = new_chan(i % 3);
    T_EQ(go_start(NULL), 0);
    T_EQ(pthread_create(&canceller, NULL, cancel_them, NULL), 0);
    t_start_threads(p, threads, produce_thread);
    t_start_threads(q, threads, consume_thread);
    for (int i = threads; i < SIDES; i++) {
        T_SPAWN(produce, t_ptr(i));
        T_SPAWN(consume, t_ptr(i + SIDES));
    }
    T_AWAIT(rt_load_relaxed(&traffic.received) > (uint64_t)T_SCALE(20000));
    for (int i = 0; i < CHANS; i++)
        T_EQ(go_chan_close(traffic.c[i]), 0);
    t_join_threads(p, threads);
    t_join_threads(q, threads);
    T_AWAIT(t_stats().tasks_live == 0);
    rt_store_release(&traffic.stop, 1);
    T_EQ(pthread_join(canceller, NULL), 0);
    t_stop();
    T_EQ(traffic.sent, traffic.received);
    T_EQ(traffic.sum_in, traffic.sum_out);
    for (int i = 0; i < CHANS; i++)
        go_chan_free(traffic.c[i]);
}

Test(select_races, nothing_is_lost_or_doubled_between_cancels_deadlines_and_a_close,
     .timeout = 120) {
    flow(0);
    flow(2);
}
