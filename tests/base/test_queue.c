/* queue.h - a queue whose head is one pointer. */
#include "gotest.h"

#include "base/queue.h"

struct item {
    int n;
    struct rt_node node;
};

static int number(struct rt_node *n) {
    return rt_container_of(n, struct item, node)->n;
}

/* The queue holds these numbers, seen from both sides. */
static void holds(void *head, const int *numbers, int n) {
    struct rt_node *f = head, *b = head;
    if (n == 0)
        T_ASSERT(!head);
    for (int i = 0; i < n; i++, f = f->next) {
        b = b->prev;
        T_EQ(number(f), numbers[i]);
        T_EQ(number(b), numbers[n - 1 - i]);
    }
    T_ASSERT(f == head && b == head);
}

static struct item items[4] = {{.n = 0}, {.n = 1}, {.n = 2}, {.n = 3}};

Test(queue, zeroed_memory_is_an_empty_one) {
    void *head = NULL;
    T_ASSERT(!rt_queue_pop(&head));
    holds(head, NULL, 0);
}

Test(queue, first_in_is_first_out) {
    void *head = NULL;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 4; i++)
            rt_queue_push(&head, &items[i].node);
        holds(head, (const int[]){0, 1, 2, 3}, 4);
        for (int i = 0; i < 4; i++) {
            T_EQ(number(rt_queue_pop(&head)), i);
            T_ASSERT(!items[i].node.next); /* says that it is on no queue */
        }
        holds(head, NULL, 0);
    }
}

Test(queue, who_is_pushed_to_the_front_is_the_first) {
    void *head = NULL;
    rt_queue_push_front(&head, &items[2].node);
    holds(head, (const int[]){2}, 1);
    rt_queue_push(&head, &items[3].node);
    rt_queue_push_front(&head, &items[1].node);
    rt_queue_push_front(&head, &items[0].node);
    holds(head, (const int[]){0, 1, 2, 3}, 4);
}

Test(queue, any_node_can_be_removed) {
    for (int out = 0; out < 4; out++) {
        void *head = NULL;
        int left[3], n = 0;
        for (int i = 0; i < 4; i++)
            rt_queue_push(&head, &items[i].node);
        for (int i = 0; i < 4; i++)
            if (i != out)
                left[n++] = i;
        rt_queue_remove(&head, &items[out].node);
        T_ASSERT(!items[out].node.next);
        holds(head, left, 3);
        while (n > 0)
            rt_queue_remove(&head, &items[left[--n]].node);
        holds(head, NULL, 0);
    }
}
