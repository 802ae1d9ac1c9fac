/* list.h - a ring with its head as one of the nodes. */
#include "gotest.h"

#include "base/list.h"

struct item {
    int n;
    struct rt_list link;
};

static int number(struct rt_list *l) {
    return rt_container_of(l, struct item, link)->n;
}

/* The list holds these numbers, seen from both sides. */
static void holds(const struct rt_list *head, const int *numbers, int n) {
    struct rt_list *l = head->next, *back = head->prev;
    for (int i = 0; i < n; i++, l = l->next, back = back->prev) {
        T_EQ(number(l), numbers[i]);
        T_EQ(number(back), numbers[n - 1 - i]);
    }
    T_ASSERT(l == head && back == head);
}

Test(list, a_new_one_is_empty) {
    struct rt_list head;
    rt_list_init(&head);
    T_ASSERT(rt_list_empty(&head));
    T_ASSERT(rt_list_pop_front(&head) == NULL);
    holds(&head, NULL, 0);
}

Test(list, first_in_is_first_out) {
    struct rt_list head;
    struct item items[3] = {{.n = 0}, {.n = 1}, {.n = 2}};
    rt_list_init(&head);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++)
            rt_list_push_back(&head, &items[i].link);
        holds(&head, (const int[]){0, 1, 2}, 3);
        T_ASSERT(!rt_list_empty(&head));
        for (int i = 0; i < 3; i++)
            T_EQ(number(rt_list_pop_front(&head)), i);
        T_ASSERT(rt_list_empty(&head));
    }
}

Test(list, any_node_may_leave_and_come_back) {
    struct rt_list head;
    struct item items[4] = {{.n = 0}, {.n = 1}, {.n = 2}, {.n = 3}};
    rt_list_init(&head);
    for (int i = 0; i < 4; i++)
        rt_list_push_back(&head, &items[i].link);
    rt_list_remove(&items[1].link); /* inside */
    holds(&head, (const int[]){0, 2, 3}, 3);
    rt_list_remove(&items[3].link); /* the last */
    holds(&head, (const int[]){0, 2}, 2);
    rt_list_remove(&items[0].link); /* the first */
    holds(&head, (const int[]){2}, 1);
    rt_list_push_back(&head, &items[1].link);
    holds(&head, (const int[]){2, 1}, 2);
    rt_list_remove(&items[2].link);
    rt_list_remove(&items[1].link); /* the only one */
    T_ASSERT(rt_list_empty(&head));
}

Test(list, who_is_off_the_list_knows_it) {
    struct rt_list head;
    struct item items[2] = {{.n = 0}, {.n = 1}};
    rt_list_init(&head);
    rt_list_push_back(&head, &items[0].link);
    rt_list_push_back(&head, &items[1].link);
    T_ASSERT(items[0].link.next && items[1].link.next);
    rt_list_remove(&items[1].link);
    T_ASSERT(!items[1].link.next && !items[1].link.prev);
    T_ASSERT(rt_list_pop_front(&head) == &items[0].link);
    T_ASSERT(!items[0].link.next && !items[0].link.prev);
}
