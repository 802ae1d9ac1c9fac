/* generator.c - two functions take turns: no thread, no lock, and no scheduler in between. */
#include <gort.h>
#include <stdio.h>
static void digits(go_gen *self, void *arg) {
    printf("1 2 ");
    go_gen_yield(self, arg);
    printf("3 ");
}
static void letters(go_gen *self, void *arg) {
    printf("x y ");
    go_gen_yield(self, arg);
    printf("z\n");
}
static void take_turns(void *arg) {
    go_gen *a = go_gen_new(digits, arg), *b = go_gen_new(letters, arg);
    for (int turn = 0; turn < 4; turn++) go_gen_next(turn % 2 ? b : a, NULL);
    go_gen_close(a);
    go_gen_close(b);
}
int main(void) { return go_run(take_turns, NULL) == 0 ? 0 : 1; }
