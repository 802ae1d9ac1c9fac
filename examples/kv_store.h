/* kv_store.h - keys and values of kv.c: a hash table in shards, each under a mutex of its own. */
#ifndef KV_STORE_H
#define KV_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kv_text {
    const char *p;
    size_t len;
};

/* Whoever has it from kv_get may read it, without a lock, until kv_release. */
struct kv_value {
    atomic_int users;
    size_t len;
    char data[];
};

enum kv_status { KV_OK, KV_NOT_A_NUMBER, KV_OVERFLOW, KV_NO_MEMORY };

bool kv_init(void);

/* The value of key, or NULL. */
struct kv_value *kv_get(struct kv_text key);
void kv_release(struct kv_value *v);

/* until: when the key goes away, on go_now()'s clock; INT64_MAX: never. */
enum kv_status kv_set(struct kv_text key, struct kv_text value, int64_t until);
bool kv_delete(struct kv_text key);
/* False: there is no such key. */
bool kv_expire(struct kv_text key, int64_t until);
/* Add one to the number that key has; none counts as 0. */
enum kv_status kv_increment(struct kv_text key, int64_t *result);

/* A green thread that frees what has expired and is never asked for, until it is cancelled. */
void kv_sweep(void *unused);

#endif
