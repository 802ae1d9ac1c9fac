/* kv_store.c - see kv_store.h.
 *
 * A key lives in the shard that the top bits of its hash name, and in the bucket of the low ones.
 * The hash is keyed by a random number, so that nobody can choose keys which all meet in one
 * bucket. A key that has expired goes away when somebody comes across it. */
#include "kv_store.h"

#include <errno.h>
#include <gort.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { SHARD_BITS = 6, SHARDS = 1 << SHARD_BITS, FIRST_BUCKETS = 16 };

struct entry {
    struct entry *next;
    uint64_t hash;
    int64_t until;
    struct kv_value *value;
    size_t key_len;
    char key[];
};

static struct shard {
    go_mutex lock;
    struct entry **buckets; /* nbuckets of them, a power of two */
    size_t nbuckets, entries;
} __attribute__((aligned(64))) shards[SHARDS];

static uint64_t secret;

bool kv_init(void) {
    if (getrandom(&secret, sizeof secret, 0) != sizeof secret)
        return false;
    for (int i = 0; i < SHARDS; i++) {
        shards[i].nbuckets = FIRST_BUCKETS;
        shards[i].buckets = calloc(FIRST_BUCKETS, sizeof *shards[i].buckets);
        if (!shards[i].buckets)
            return false;
    }
    return true;
}

/* FNV-1a, and the finalizer of MurmurHash3 (both public domain), begun with the secret. */
static uint64_t hash_of(struct kv_text key) {
    uint64_t h = secret ^ UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < key.len; i++)
        h = (h ^ (unsigned char)key.p[i]) * UINT64_C(0x100000001b3);
    h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
    h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33;
}

static struct shard *lock_shard(uint64_t hash) {
    struct shard *s = &shards[hash >> (64 - SHARD_BITS)];
    go_mutex_lock(&s->lock);
    return s;
}

/* ---- values ---------------------------------------------------------------------------------- */

static struct kv_value *new_value(struct kv_text text) {
    struct kv_value *v = malloc(sizeof *v + text.len);
    if (v) {
        atomic_init(&v->users, 1);
        v->len = text.len;
        memcpy(v->data, text.p, text.len);
    }
    return v;
}

void kv_release(struct kv_value *v) {
    if (atomic_fetch_sub_explicit(&v->users, 1, memory_order_acq_rel) == 1)
        free(v);
}

/* ---- entries; the shard is locked ------------------------------------------------------------ */

static void remove_at(struct shard *s, struct entry **link) {
    struct entry *e = *link;
    *link = e->next;
    s->entries--;
    kv_release(e->value);
    free(e);
}

/* The link to the entry of key, which is NULL when there is none. */
static struct entry **find(struct shard *s, uint64_t hash, struct kv_text key) {
    struct entry **link = &s->buckets[hash & (s->nbuckets - 1)];
    for (; *link; link = &(*link)->next) {
        struct entry *e = *link;
        if (e->hash != hash || e->key_len != key.len || memcmp(e->key, key.p, key.len) != 0)
            continue;
        if (e->until != INT64_MAX && e->until <= go_now()) {
            remove_at(s, link);
            while (*link)
                link = &(*link)->next;
        }
        break;
    }
    return link;
}

/* Without memory it stays as it is, and is slower. */
static void grow(struct shard *s) {
    size_t n = s->nbuckets * 2;
    struct entry **buckets = calloc(n, sizeof(struct entry *));
    if (!buckets)
        return;
    for (size_t i = 0; i < s->nbuckets; i++)
        for (struct entry *e = s->buckets[i], *next; e; e = next) {
            next = e->next;
            e->next = buckets[e->hash & (n - 1)];
            buckets[e->hash & (n - 1)] = e;
        }
    free(s->buckets);
    s->buckets = buckets;
    s->nbuckets = n;
}

/* Takes the value over, also when there is no memory. */
static enum kv_status put(struct shard *s, uint64_t hash, struct kv_text key,
                          struct kv_value *value, int64_t until) {
    struct entry **link = find(s, hash, key), *e = *link;
    if (e) {
        kv_release(e->value);
        e->value = value;
        e->until = until;
        return KV_OK;
    }
    e = malloc(sizeof *e + key.len);
    if (!e) {
        kv_release(value);
        return KV_NO_MEMORY;
    }
    *e = (struct entry){.hash = hash, .until = until, .value = value, .key_len = key.len};
    memcpy(e->key, key.p, key.len);
    *link = e;
    if (++s->entries > s->nbuckets)
        grow(s);
    return KV_OK;
}

/* ---- calls ----------------------------------------------------------------------------------- */

struct kv_value *kv_get(struct kv_text key) {
    uint64_t hash = hash_of(key);
    struct shard *s = lock_shard(hash);
    struct entry *e = *find(s, hash, key);
    struct kv_value *v = e ? e->value : NULL;
    if (v)
        atomic_fetch_add_explicit(&v->users, 1, memory_order_relaxed);
    go_mutex_unlock(&s->lock);
    return v;
}

enum kv_status kv_set(struct kv_text key, struct kv_text text, int64_t until) {
    struct kv_value *value = new_value(text);
    if (!value)
        return KV_NO_MEMORY;
    uint64_t hash = hash_of(key);
    struct shard *s = lock_shard(hash);
    enum kv_status status = put(s, hash, key, value, until);
    go_mutex_unlock(&s->lock);
    return status;
}

bool kv_delete(struct kv_text key) {
    uint64_t hash = hash_of(key);
    struct shard *s = lock_shard(hash);
    struct entry **link = find(s, hash, key);
    bool there = *link != NULL;
    if (there)
        remove_at(s, link);
    go_mutex_unlock(&s->lock);
    return there;
}

bool kv_expire(struct kv_text key, int64_t until) {
    uint64_t hash = hash_of(key);
    struct shard *s = lock_shard(hash);
    struct entry *e = *find(s, hash, key);
    if (e)
        e->until = until;
    go_mutex_unlock(&s->lock);
    return e != NULL;
}

static enum kv_status number_of(const struct kv_value *v, int64_t *n) {
    char text[24], *end;
    if (v->len == 0 || v->len >= sizeof text || (v->data[0] != '-' && v->data[0] < '0'))
        return KV_NOT_A_NUMBER; /* strtoll would pass blanks and a plus */
    memcpy(text, v->data, v->len);
    text[v->len] = '\0';
    errno = 0;
    *n = strtoll(text, &end, 10);
    return *end || errno ? KV_NOT_A_NUMBER : KV_OK;
}

enum kv_status kv_increment(struct kv_text key, int64_t *result) {
    uint64_t hash = hash_of(key);
    struct shard *s = lock_shard(hash);
    struct entry *e = *find(s, hash, key);
    int64_t until = e ? e->until : INT64_MAX, n = 0;
    enum kv_status status = e ? number_of(e->value, &n) : KV_OK;
    if (status == KV_OK && __builtin_add_overflow(n, 1, result))
        status = KV_OVERFLOW;
    if (status == KV_OK) {
        char text[24];
        int len = snprintf(text, sizeof text, "%lld", (long long)*result);
        struct kv_value *value = new_value((struct kv_text){text, (size_t)len});
        status = value ? put(s, hash, key, value, until) : KV_NO_MEMORY;
    }
    go_mutex_unlock(&s->lock);
    return status;
}

void kv_sweep(void *unused) {
    (void)unused;
    for (int i = 0; go_sleep(100 * GO_MILLISECOND) == 0; i = (i + 1) % SHARDS) {
        struct shard *s = &shards[i];
        go_mutex_lock(&s->lock);
        int64_t now = go_now();
        for (size_t b = 0; b < s->nbuckets; b++)
            for (struct entry **link = &s->buckets[b]; *link;)
                if ((*link)->until <= now)
                    remove_at(s, link);
                else
                    link = &(*link)->next;
        go_mutex_unlock(&s->lock);
    }
}
