/* is.h - IS(result, call, parameters...): the public call has exactly this type. Otherwise C++
 * refuses the pointer to it, and C warns. Each file here includes the one header that the contract
 * names for its calls, so that is enough. */
#define IS(result, call, ...) \
    extern result (*is_##call)(__VA_ARGS__); \
    result (*is_##call)(__VA_ARGS__) = call
