/* use.c: the macros of the public headers where a user may put them, as C11 and as C++17. */
#include <gort.h>

static int in_file;
static struct go_case file_scope[] = {GO_CASE_RECV(NULL, &in_file), GO_CASE_SEND(NULL, &in_file)};

int use(go_chan *c, const int *constant);
int use(go_chan *c, const int *constant) {
    int value = 0;
    struct go_case cases[] = {GO_CASE_RECV(c, &value), GO_CASE_SEND(c, constant),
                              GO_CASE_RECV(c, NULL), GO_CASE_SEND(NULL, NULL)};
    struct go_case one = GO_CASE_RECV(c, &value);
    cases[0] = (struct go_case)GO_CASE_RECV(c, &value);
    cases[1] = (struct go_case)GO_CASE_SEND(c, constant + 1);
    cases[2] = one;
    return go_select(cases, 4, GO_FOREVER) + go_select(file_scope, 2, GO_NOW) + cases[0].result;
}
