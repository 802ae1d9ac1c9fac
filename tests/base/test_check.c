/* check.h - sizes and times at their borders. */
#include "gotest.h"

#include "base/check.h"

Test(check, a_product_that_fits_is_exact) {
    size_t out = 1;
    T_ASSERT(rt_size_mul(0, SIZE_MAX, &out) && out == 0);
    T_ASSERT(rt_size_mul(SIZE_MAX, 0, &out) && out == 0);
    T_ASSERT(rt_size_mul(1, SIZE_MAX, &out) && out == SIZE_MAX);
    T_ASSERT(rt_size_mul(SIZE_MAX, 1, &out) && out == SIZE_MAX);
    T_ASSERT(rt_size_mul(UINT32_MAX, (size_t)UINT32_MAX + 2, &out) && out == SIZE_MAX);
    T_ASSERT(rt_size_mul(SIZE_MAX / 2, 2, &out) && out == SIZE_MAX - 1);
}

Test(check, a_product_that_does_not_fit_is_told) {
    size_t out;
    T_ASSERT(!rt_size_mul(SIZE_MAX, 2, &out));
    T_ASSERT(!rt_size_mul(2, SIZE_MAX, &out));
    T_ASSERT(!rt_size_mul(SIZE_MAX, SIZE_MAX, &out)); /* whose low half is 1 */
    T_ASSERT(!rt_size_mul(SIZE_MAX / 2 + 1, 2, &out)); /* and here 0 */
    T_ASSERT(!rt_size_mul((size_t)1 << 32, (size_t)1 << 32, &out));
    T_ASSERT(!rt_size_mul(SIZE_MAX / 3 + 1, 3, &out));
}

Test(check, a_sum_that_does_not_fit_is_told) {
    size_t out = 1;
    T_ASSERT(rt_size_add(0, 0, &out) && out == 0);
    T_ASSERT(rt_size_add(SIZE_MAX, 0, &out) && out == SIZE_MAX);
    T_ASSERT(rt_size_add(SIZE_MAX - 7, 7, &out) && out == SIZE_MAX);
    T_ASSERT(!rt_size_add(SIZE_MAX - 7, 8, &out));
    T_ASSERT(!rt_size_add(SIZE_MAX, 1, &out));
    T_ASSERT(!rt_size_add(SIZE_MAX, SIZE_MAX, &out));
}

Test(check, a_time_ends_at_its_borders) {
    T_EQ(rt_time_add(1, 2), 3);
    T_EQ(rt_time_add(5, -7), -2);
    T_EQ(rt_time_add(INT64_MAX, 0), INT64_MAX);
    T_EQ(rt_time_add(INT64_MAX - 1, 1), INT64_MAX);
    T_EQ(rt_time_add(1, INT64_MAX), INT64_MAX);
    T_EQ(rt_time_add(INT64_MAX, INT64_MAX), INT64_MAX);
    T_EQ(rt_time_add(INT64_MAX, -1), INT64_MAX - 1);
    T_EQ(rt_time_add(INT64_MIN, 1), INT64_MIN + 1);
    T_EQ(rt_time_add(INT64_MIN, -1), INT64_MIN);
    T_EQ(rt_time_add(-1, INT64_MIN), INT64_MIN);
    T_EQ(rt_time_add(INT64_MIN, INT64_MAX), -1);
}
