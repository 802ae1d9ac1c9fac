/* fault.c - base/fault.c: of the calls of a site just the nth fails, with the error that was armed,
 * or each from then on, on whatever threads they are made. */
#include "model.h"

#include "base/fault.h"

#include <errno.h>

static const enum rt_fault_site SITE = RT_FAULT_MMAP;

static uint32_t failed;

static void call(void) {
    int r = rt_fault(SITE);
    model_assert(r == 0 || r == -ENOMEM);
    rt_fetch_add_relaxed(&failed, r != 0);
}
static void two_calls(void) {
    call();
    call();
}

static void arm_third(void) {
    rt_fault_arm(SITE, 3, false, ENOMEM);
}
static void arm_second_and_all(void) {
    rt_fault_arm(SITE, 2, true, ENOMEM);
}
static void hits_are(uint32_t n) {
    model_assert(failed == n && rt_fault_points[SITE].hits == n);
}
static void one_failed(void) {
    hits_are(1);
}
static void three_failed(void) {
    hits_are(3);
}

/* Whoever sees that it is armed sees with what. */
static void arm_first(void) {
    rt_fault_arm(SITE, 1, false, ENOMEM);
}
static void one_or_none_failed(void) {
    model_assert(failed <= 1 && rt_fault_points[SITE].countdown == (failed ? 0 : 1));
}

/* Or each from the first that sees it. */
static void arm_all(void) {
    rt_fault_arm(SITE, 1, true, ENOMEM);
    call();
}
static void all_failed_since(void) {
    model_assert(failed >= 1 && failed <= 3 && rt_fault(SITE) == -ENOMEM);
}

static void arm_and_disarm(void) {
    rt_fault_arm(SITE, 1, true, ENOMEM);
    rt_fault_disarm();
    call(); /* one's own is not late */
}
static void none_is_armed(void) {
    model_assert(failed <= 2 && rt_fault_points[SITE].countdown == 0 && rt_fault(SITE) == 0);
}

const struct model_case model_cases[] = {
    MODEL_CASE("fault.third", arm_third, one_failed, NULL, 0, 0, two_calls, two_calls),
    MODEL_CASE("fault.second_and_all", arm_second_and_all, three_failed, NULL, 0, 0, two_calls,
               two_calls),
    MODEL_CASE("fault.armed", NULL, one_or_none_failed, NULL, 0, 0, arm_first, two_calls),
    MODEL_CASE("fault.all_armed", NULL, all_failed_since, NULL, 0, 0, arm_all, two_calls),
    MODEL_CASE("fault.disarmed", NULL, none_is_armed, NULL, 0, 0, arm_and_disarm, two_calls),
    {0},
};
