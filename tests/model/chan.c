/* chan.c - sync/chan.c and sync/select.c, with foreign threads: each value is received once, in the
 * order in which it was sent, with what its sender did before; a cancelled send was not received;
 * whoever was let go may free the channel; and a select does one of its cases, and leaves nothing
 * on any channel. */
#include "machine.h"

#include "sync/chan.h"

#include <gort/chan.h>
#include <gort/scope.h>

/* No channel here has a descriptor. */
void rt_chan_fd_update(go_chan *chan) {
    (void)chan;
    model_assert(false);
}
void rt_chan_fd_close(go_chan *chan) {
    (void)chan;
    model_assert(false);
}

static go_chan *c, *d;
static int work[8];          /* plain: what the sender of value i did before */
static uint32_t received[8]; /* how often, by value */
static uint32_t nreceived, nclosed, ncanceled;
static go_scope scope;
static int reason;
static bool in_order; /* there is one sender */

static void channel(size_t capacity) {
    machine_init(1);
    c = go_chan_new(sizeof(uint64_t), capacity);
}
static void unbuffered(void) {
    channel(0);
}
static void buffered(void) {
    channel(1);
}
static void buffered_in_order(void) {
    channel(1);
    in_order = true;
}
static void unbuffered_in_scope(void) {
    channel(0);
    go_scope_enter(&scope, GO_FOREVER); /* of thread 0 */
}
static void buffered_in_scope(void) {
    channel(1);
    go_scope_enter(&scope, GO_FOREVER);
}

static int send_value(uint64_t v) {
    work[v] = 1;
    int r = go_chan_send(c, &v);
    if (r == -ECANCELED)
        rt_fetch_add_relaxed(&ncanceled, 1);
    return r;
}
static void send_one(void) {
    model_assert(send_value(model_self()) == 0);
}
static void send_two(void) {
    model_assert(send_value(2 * model_self()) == 0);
    model_assert(send_value(2 * model_self() + 1) == 0);
}

static int receive(uint64_t *v) {
    int r = go_chan_recv(c, v);
    if (r == 0) {
        model_assert(work[*v] == 1);
        rt_fetch_add_relaxed(&received[*v], 1);
        rt_fetch_add_relaxed(&nreceived, 1);
    }
    return r;
}
static void receive_one(void) {
    uint64_t v;
    model_assert(receive(&v) == 0);
}
static void receive_two(void) {
    uint64_t first, second;
    model_assert(receive(&first) == 0);
    model_assert(receive(&second) == 0);
    if (in_order)
        model_assert(first < second);
}
static void receive_and_free(void) {
    receive_one();
    go_chan_free(c);
}
static void receive_two_and_free(void) {
    receive_two();
    go_chan_free(c);
}
static void receive_until_closed(void) {
    uint64_t v;
    int r;
    while ((r = receive(&v)) == 0)
        ;
    model_assert(r == -EPIPE && v == 0);
    rt_fetch_add_relaxed(&nclosed, 1);
}
static void send_and_close(void) {
    send_one();
    model_assert(go_chan_close(c) == 0);
}
static void just_close(void) {
    model_assert(go_chan_close(c) == 0);
}
static void send_or_closed(void) {
    int r = send_value(model_self());
    model_assert(r == 0 || r == -EPIPE);
    rt_fetch_add_relaxed(&nclosed, r == -EPIPE);
}
static void try_receive(void) {
    uint64_t v;
    while (go_chan_try_recv(c, &v) != 0)
        model_wait_for_change();
    model_assert(work[v] == 1);
    rt_fetch_add_relaxed(&received[v], 1);
    rt_fetch_add_relaxed(&nreceived, 1);
}
static void try_send(void) {
    uint64_t v = model_self();
    work[v] = 1;
    while (go_chan_try_send(c, &v) != 0)
        model_wait_for_change();
}

static void send_or_canceled(void) {
    int r = send_value(model_self());
    model_assert(r == 0 || (r == -ECANCELED && reason == 1));
}
static void receive_or_canceled(void) {
    uint64_t v;
    int r = receive(&v);
    model_assert(r == 0 || (r == -ECANCELED && reason == 1));
    if (r != 0)
        rt_fetch_add_relaxed(&ncanceled, 1);
}
static void each_once(uint32_t n) {
    uint32_t sum = 0;
    for (int i = 0; i < 8; i++) {
        model_assert(received[i] <= 1);
        sum += received[i];
    }
    model_assert(sum == n && nreceived == n);
}
/* ---- select ---------------------------------------------------------------------------------- */

static void two_channels(void) {
    channel(0);
    d = go_chan_new(sizeof(uint64_t), 0);
}
static void two_channels_late(void) {
    two_channels();
    model_clock_moves();
}
static struct go_case sends(go_chan *to, uint64_t *v) {
    return (struct go_case){.chan = to, .send = true, .elem = v};
}
static struct go_case receives(go_chan *from, uint64_t *v) {
    return (struct go_case){.chan = from, .elem = v};
}
static void has_received(uint64_t v) {
    model_assert(work[v] == 1);
    rt_fetch_add_relaxed(&received[v], 1);
    rt_fetch_add_relaxed(&nreceived, 1);
}

/* Whichever comes first, then the other one; then both channels may go. */
static void receive_from_both(void) {
    uint64_t v[2];
    struct go_case cases[2] = {receives(c, &v[0]), receives(d, &v[1])};
    int i = go_select(cases, 2, GO_FOREVER);
    model_assert((i == 0 || i == 1) && cases[i].result == 0 && v[i] == 1u + (unsigned)i);
    has_received(v[i]);
    model_assert(go_chan_recv(i == 0 ? d : c, &v[1 - i]) == 0);
    has_received(v[1 - i]);
    go_chan_free(c);
    go_chan_free(d);
}
static void send_to_d(void) {
    uint64_t v = model_self();
    work[v] = 1;
    model_assert(go_chan_send(d, &v) == 0);
}

/* Two selects that could meet on either channel meet on one; the second meeting is on the other. */
static void send_or_receive(go_chan *to, go_chan *from) {
    uint64_t out = 2 * model_self(), in;
    bool sent = false;
    work[out] = 1;
    for (int round = 0; round < 2; round++) {
        struct go_case cases[2] = {sends(to, &out), receives(from, &in)};
        if (round == 1)
            cases[sent ? 0 : 1].chan = NULL;
        int i = go_select(cases, 2, GO_FOREVER);
        model_assert((i == 0 || i == 1) && cases[i].result == 0 && (round == 0 || i != !sent));
        if (i == 1)
            has_received(in);
        sent = i == 0;
    }
}
static void send_c_or_receive_d(void) {
    send_or_receive(c, d);
}
static void send_d_or_receive_c(void) {
    send_or_receive(d, c);
}

static void receive_or_late(void) {
    uint64_t v[2];
    struct go_case cases[2] = {receives(c, &v[0]), receives(d, &v[1])};
    int i = go_select(cases, 2, 1000);
    if (i == 0)
        has_received(v[0]);
    else
        model_assert(i == -ETIMEDOUT);
}
static void try_send_once(void) {
    uint64_t v = 1;
    work[v] = 1;
    rt_fetch_add_relaxed(&nclosed, go_chan_try_send(c, &v) == 0);
}
static void nothing_left(void) {
    each_once(nclosed); /* what was sent was received */
    model_assert(!c->recvq.first && !c->sendq.first && !d->recvq.first && !d->sendq.first);
}

/* ---- scopes ---------------------------------------------------------------------------------- */

static void cancel(void) {
    reason = 1;
    go_scope_cancel(&scope);
}

static void one_received(void) {
    each_once(1);
}
static void two_received(void) {
    each_once(2);
}
static void one_received_all_closed(void) {
    each_once(1);
    model_assert(nclosed == 2);
}
static void received_or_closed(void) {
    each_once(1 - (nclosed - 1));
    model_assert(go_chan_len(c) == 0);
}
/* The one that was not cancelled waits, if the other was. */
static void received_or_canceled(void) {
    each_once(1 - ncanceled);
}
/* With room for one, a send is done although nobody receives it. */
static void sent_or_canceled(void) {
    each_once(nreceived);
    model_assert(nreceived + go_chan_len(c) + ncanceled == 2);
}

#define CASE(n, start, check, b, ...) MODEL_CASE("chan." n, start, check, check, b, 0, __VA_ARGS__)
#define ENDS(n, start, check, b, ...) \
    { .name = "chan." n, .init = (start), .thread = {__VA_ARGS__}, .end = (check), .bound = (b) }

const struct model_case model_cases[] = {
    ENDS("rendezvous", unbuffered, one_received, 4, send_one, receive_and_free),
    ENDS("two_senders", unbuffered, two_received, 2, send_one, send_one, receive_two_and_free),
    ENDS("two_receivers", unbuffered, two_received, 1, send_two, receive_one, receive_one),
    ENDS("buffered", buffered_in_order, two_received, 3, send_two, receive_two_and_free),
    ENDS("buffered_two_senders", buffered, two_received, 2, send_one, send_one, receive_two),
    ENDS("buffered_two_receivers", buffered, two_received, 1, send_two, receive_one, receive_one),
    ENDS("close", unbuffered, one_received_all_closed, 1, receive_until_closed,
         receive_until_closed, send_and_close),
    ENDS("close_and_send", unbuffered, received_or_closed, 2, send_or_closed, receive_until_closed,
         just_close),
    ENDS("try_receive", unbuffered, one_received, 3, send_one, try_receive),
    ENDS("try_send", unbuffered, one_received, 3, receive_one, try_send),
    CASE("send_canceled", unbuffered_in_scope, received_or_canceled, 2, send_or_canceled,
         receive_one, cancel),
    CASE("receive_canceled", unbuffered_in_scope, received_or_canceled, 2, receive_or_canceled,
         send_one, cancel),
    CASE("buffered_send_canceled", buffered_in_scope, sent_or_canceled, 2, send_or_canceled,
         send_one, receive_one, cancel),
    ENDS("select", two_channels, two_received, 2, receive_from_both, send_one, send_to_d),
    ENDS("two_selects", two_channels, two_received, 2, send_c_or_receive_d, send_d_or_receive_c),
    ENDS("select_late", two_channels_late, nothing_left, 3, receive_or_late, try_send_once),
    {0},
};
