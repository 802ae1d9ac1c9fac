/* Exit code 0 when this process may make the ring that the uring engine wants. */
#include <linux/io_uring.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    struct io_uring_params p;
    memset(&p, 0, sizeof p);
    p.flags = 1u << 12 | 1u << 13; /* SINGLE_ISSUER | DEFER_TASKRUN, Linux 6.1 */
    return syscall(__NR_io_uring_setup, 4, &p) < 0;
}
