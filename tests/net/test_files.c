/* Files: what takes a path, what waits for a disk, and that no worker waits with it. */
#include "net.h"

#include "base/atomic.h"
#include "base/fault.h"
#include "sched/pool.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/stat.h>

static char dir[64];

static const char *in_dir(char path[128], const char *name) {
    snprintf(path, 128, "%s/%s", dir, name);
    return path;
}
static void make_dir(void) {
    rt_pool_keep_ns = INT64_MAX / 2; /* the threads of the pool are counted */
    strcpy(dir, "/tmp/gort-files-XXXXXX");
    T_ASSERT(mkdtemp(dir));
}

static unsigned threads(void) {
    struct go_stats st = GO_STATS_INIT;
    T_EQ(go_stats(&st), 0);
    return st.blocking_threads;
}
static unsigned queued(void) {
    struct go_stats st = GO_STATS_INIT;
    T_EQ(go_stats(&st), 0);
    return st.blocking_queued;
}

/* ---- paths ----------------------------------------------------------------------------------- */

static void each_call(void *arg) {
    (void)arg;
    char a[128], b[128], d[128];
    struct stat st;
    in_dir(a, "a"), in_dir(b, "b"), in_dir(d, "d");
    T_EQ(go_mkdir(d, 0700), 0);
    T_EQ(go_mkdir(d, 0700), -EEXIST);
    T_EQ(go_unlink(d), -EISDIR);
    T_EQ(go_open(a, O_RDONLY, 0), -ENOENT);
    int fd = go_open(a, O_RDWR | O_CREAT | O_EXCL, 0640);
    T_ASSERT(fd >= 0, "%d", fd);
    T_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    T_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    T_EQ(go_open(a, O_RDWR | O_CREAT | O_EXCL, 0640), -EEXIST);
    T_EQ(go_write(fd, "hello", 5), 5);
    T_EQ(go_fsync(fd), 0);
    T_EQ(go_fdatasync(fd), 0);
    memset(&st, 0xff, sizeof st);
    T_EQ(go_fstat(fd, &st), 0);
    T_EQ(st.st_size, 5);
    T_EQ(st.st_mode & 0777 & ~0640, 0);
    T_EQ(go_rename(a, b), 0);
    T_EQ(go_rename(a, b), -ENOENT);
    T_EQ(go_unlink(a), -ENOENT);
    T_EQ(go_unlink(b), 0);
    fd = net_raise(fd, false);
    T_EQ(go_close(fd), 0);
    T_EQ(go_fsync(fd), -EBADF);
    T_EQ(go_fdatasync(fd), -EBADF);
    T_EQ(go_fstat(fd, &st), -EBADF);
    T_EQ(go_fsync(-1), -EBADF);
    T_EQ(rmdir(d), 0);

    uint64_t before = threads();
    go_scope s;
    go_scope_enter(&s, GO_FOREVER);
    go_scope_cancel(&s);
    T_EQ(go_mkdir(d, 0700), -ECANCELED);
    T_EQ(go_open(a, O_CREAT | O_RDWR, 0600), -ECANCELED);
    T_EQ(go_rename(dir, d), -ECANCELED);
    T_EQ(go_unlink(a), -ECANCELED);
    T_EQ(go_fsync(0), -ECANCELED);
    T_EQ(go_fdatasync(0), -ECANCELED);
    T_EQ(go_fstat(0, &st), -ECANCELED);
    T_EQ(go_scope_leave(&s), -ECANCELED);
    T_EQ(threads(), before);
    T_EQ(access(a, F_OK), -1);
}
static void *each_call_on_thread(void *arg) {
    each_call(NULL);
    T_EQ(threads(), 0); /* right there */
    return arg;
}
static void all_refused(int why) {
    struct stat st;
    T_EQ(go_open("/", O_RDONLY, 0), why);
    T_EQ(go_mkdir("/", 0700), why);
    T_EQ(go_unlink("/"), why);
    T_EQ(go_rename("/", "/tmp"), why);
    T_EQ(go_fsync(0), why);
    T_EQ(go_fdatasync(0), why);
    T_EQ(go_fstat(0, &st), why);
}
Test(files, each_call_as_its_namesake) {
    make_dir();
    all_refused(-ENXIO);
    RUN(each_call);
    T_EQ(go_start(NULL), 0);
    pthread_t t;
    T_EQ(pthread_create(&t, NULL, each_call_on_thread, NULL), 0);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
    all_refused(-ENXIO);
    T_EQ(rmdir(dir), 0);
}

static void without(void *arg) {
    (void)arg;
    rt_fault_arm(RT_FAULT_THREAD, 1, true, EAGAIN);
    all_refused(-EAGAIN);
    char path[128], c = 0;
    int fd = open(in_dir(path, "x"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    T_EQ(unlink(path), 0);
    rt_fault_arm(RT_FAULT_NOWAIT, 1, true, EAGAIN);
    T_EQ(go_write(fd, "ab", 2), 2); /* by the worker itself */
    T_EQ(go_pread(fd, &c, 1, 1), 1);
    T_EQ(c, 'b');
    int pair[2];
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    T_EQ(go_sendfile(pair[0], fd, &(off_t){0}, 2), 2);
    T_EQ(go_read(pair[1], &c, 1), 1);
    T_EQ(c, 'a');
    T_EQ(go_close(pair[0]), 0);
    T_EQ(go_close(pair[1]), 0);
    T_EQ(threads(), 0);
    rt_fault_disarm();
    T_EQ(go_close(fd), 0);
    rt_fault_arm(RT_FAULT_FILE, 1, true, EIO);
    all_refused(-EIO);
    rt_fault_disarm();
}
Test(files, errors_are_told) {
    make_dir();
    RUN(without);
    T_EQ(rmdir(dir), 0);
}

/* ---- what the cache does not have ------------------------------------------------------------ */

enum { SIZE = 1 << 16, PIECE = 1000 };

static char pattern(long at) {
    return (char)(at * 7 + (at >> 8));
}

static void *copy_slowly(void *arg) {
    char path[128], buf[SIZE];
    rt_fault_arm(RT_FAULT_NOWAIT, 1, true, net_int(arg));
    int fd = go_open(in_dir(path, "x"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    T_ASSERT(fd >= 0, "%d", fd);
    for (long at = 0; at < SIZE; at++)
        buf[at] = pattern(at);
    T_EQ(go_write(fd, buf, PIECE), PIECE);
    struct iovec iov[3] = {{buf + PIECE, PIECE}, {NULL, 0}, {buf + 2L * PIECE, PIECE}};
    T_EQ(go_writev(fd, iov, 3), 2L * PIECE);
    T_EQ(go_write_all(fd, buf + 3L * PIECE, PIECE), PIECE);
    T_EQ(go_pwrite(fd, buf + 4L * PIECE, SIZE - 4L * PIECE, 4L * PIECE), SIZE - 4L * PIECE);
    T_EQ(lseek(fd, 0, SEEK_CUR), 4L * PIECE);
    T_EQ(lseek(fd, 1, SEEK_SET), 1);
    memset(buf, 0, sizeof buf);
    T_EQ(go_read(fd, buf + 1, PIECE - 1), PIECE - 1);
    T_EQ(go_readv(fd, iov, 3), 2L * PIECE);
    T_EQ(go_pread(fd, buf + 3L * PIECE, sizeof buf, 3L * PIECE), SIZE - 3L * PIECE);
    T_EQ(go_pread(fd, buf, 1, 0), 1);
    T_EQ(go_pread(fd, buf, 1, SIZE), 0);
    T_EQ(lseek(fd, 0, SEEK_CUR), 3L * PIECE);
    for (long at = 0; at < SIZE; at++)
        T_ASSERT(buf[at] == pattern(at), "at %ld", at);
    rt_fault_disarm();
    T_ASSERT(threads() > 0);
    T_EQ(go_close(fd), 0);
    T_EQ(go_unlink(path), 0);
    int proc = go_open("/proc/self/stat", O_RDONLY, 0); /* knows no RWF_NOWAIT */
    T_ASSERT(go_pread(proc, buf, 4096, 0) > 10);
    T_ASSERT(go_read(proc, buf, 4096) > 10);
    T_EQ(go_close(proc), 0);
    int folder = go_open(dir, O_RDONLY | O_DIRECTORY, 0);
    T_EQ(go_read(folder, buf, 1), -EISDIR);
    T_EQ(go_pread(folder, buf, 1, 0), -EISDIR);
    T_EQ(go_fsync(folder), 0);
    T_EQ(go_close(folder), 0);
    return NULL;
}
static void run_copy(void *arg) {
    struct go_spawn_options o = GO_SPAWN_OPTIONS_INIT;
    (void)arg;
    o.stack_size = 1 << 20;
    static const int errors[] = {EAGAIN, EOPNOTSUPP};
    for (int i = 0; i < 2; i++) {
        go_task *t = go_task_spawn_with(&o, copy_slowly, net_ptr(errors[i]));
        T_ASSERT(t);
        T_EQ(go_task_join(t, NULL), 0);
    }
}
Test(files, what_is_not_cached_is_moved_by_the_pool) {
    make_dir();
    RUN(run_copy);
    T_EQ(rmdir(dir), 0);
}

static void cached(void *arg) {
    int fd = *(int *)arg;
    char buf[4096];
    T_EQ(go_pread(fd, buf, 100, 0), 100);
    T_EQ(lseek(fd, 0, SEEK_SET), 0);
    T_EQ(go_read(fd, buf, sizeof buf), sizeof buf);
    T_EQ(threads(), 0);
    T_EQ(go_close(fd), 0);
}
Test(files, what_is_cached_needs_no_thread) {
    char path[128], buf[4096] = "";
    make_dir();
    int fd = open(in_dir(path, "x"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    T_ASSERT(fd >= 0);
    T_EQ(unlink(path), 0);
    T_EQ(rmdir(dir), 0);
    T_EQ(write(fd, buf, sizeof buf), sizeof buf);
    struct iovec iov = {buf, sizeof buf};
    void *page = mmap(NULL, sizeof buf, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED || mlock(page, sizeof buf) != 0)
        T_SKIP("no page can be locked: %s", strerror(errno));
    if (preadv2(fd, &iov, 1, 0, 8 /* RWF_NOWAIT */) != (ssize_t)sizeof buf)
        T_SKIP("the file system of /tmp does not tell what is cached");
    T_EQ(go_run(cached, &fd), 0);
    T_EQ(munmap(page, sizeof buf), 0);
}

/* Where the kernel evicts when it is asked to, a part is at once there and the rest is not. */
static void partly_cached(void *arg) {
    char path[128], buf[SIZE];
    (void)arg;
    int fd = go_open(in_dir(path, "x"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (long at = 0; at < SIZE; at++)
        buf[at] = pattern(at);
    for (long at = 0; at < SIZE; at += 4096) /* or the cache has it in one piece */
        T_EQ(go_pwrite(fd, buf + at, 4096, at), 4096);
    for (int round = 0; round < 20; round++) {
        T_EQ(go_fdatasync(fd), 0);
        posix_fadvise(fd, 8192L * (round % 7), SIZE / 4, POSIX_FADV_DONTNEED);
        memset(buf, 0, sizeof buf);
        T_EQ(go_pread(fd, buf, SIZE, 0), SIZE);
        for (long at = 0; at < SIZE; at++)
            T_ASSERT(buf[at] == pattern(at), "at %ld", at);
    }
    T_EQ(go_close(fd), 0);
    T_EQ(go_unlink(path), 0);
}
Test(files, what_is_cached_in_part_is_read_whole) {
    make_dir();
    RUN(partly_cached);
    T_EQ(rmdir(dir), 0);
}

static void read_many_one(void *arg) {
    int fd = net_int(arg);
    uint64_t seed = (uint64_t)go_id();
    for (long i = 0; i < T_SCALE(200); i++) {
        char buf[64];
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        off_t at = (off_t)(seed >> 33) % (SIZE - 64);
        T_EQ(go_pread(fd, buf, 64, at), 64);
        for (int k = 0; k < 64; k++)
            T_EQ(buf[k], pattern(at + k));
    }
}
static void read_many(void *arg) {
    (void)arg;
    char path[128];
    go_waitgroup wg = {0};
    int fd = go_open(in_dir(path, "x"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (long at = 0; at < SIZE; at++)
        T_EQ(pwrite(fd, &(char){pattern(at)}, 1, at), 1);
    rt_fault_arm(RT_FAULT_NOWAIT, 1, true, EAGAIN);
    for (int i = 0; i < 40; i++)
        T_EQ(go_waitgroup_spawn(&wg, read_many_one, net_ptr(fd)), 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    rt_fault_disarm();
    T_EQ(go_close(fd), 0);
    T_EQ(go_unlink(path), 0);
}
Test(files, many_readers_at_once) {
    make_dir();
    RUN(read_many);
    T_EQ(rmdir(dir), 0);
}

/* ---- what takes long ------------------------------------------------------------------------- */

static char fifo[128];
static uint32_t opened;

static void open_reader(void *arg) {
    (void)arg;
    char c = 0;
    int fd = go_open(fifo, O_RDONLY, 0);
    T_ASSERT(fd >= 0, "%d", fd);
    rt_fetch_add(&opened, 1);
    T_EQ(go_read(fd, &c, 1), 1);
    T_EQ(c, 'x');
    T_EQ(go_close(fd), 0);
}
static void fifos(void *arg) {
    (void)arg;
    enum { READERS = 4 };
    go_waitgroup wg = {0};
    T_EQ(mkfifo(in_dir(fifo, "fifo"), 0600), 0);
    for (int i = 0; i < READERS; i++)
        T_EQ(go_waitgroup_spawn(&wg, open_reader, NULL), 0);
    while (threads() < READERS)
        go_yield();
    for (int i = 0; i < 100; i++) /* at procs 1 too the worker is ours */
        T_EQ(go_sleep(10 * GO_MICROSECOND), 0);
    T_EQ(rt_load_seq_cst(&opened), 0);
    int fd = go_open(fifo, O_WRONLY, 0);
    T_ASSERT(fd >= 0, "%d", fd);
    while (rt_load_seq_cst(&opened) < READERS)
        go_yield();
    T_EQ(go_write_all(fd, "xxxx", READERS), READERS);
    T_EQ(go_waitgroup_wait(&wg), 0);
    T_EQ(go_close(fd), 0);
    T_EQ(go_unlink(fifo), 0);
}
Test(files, a_fifo_without_a_writer_stalls_nobody) {
    make_dir();
    RUN(fifos);
    T_EQ(rmdir(dir), 0);
}

static sem_t gate;
static uint32_t held;

/* A disk that takes as long as the test wants, for one file: this pread is the library's, too. */
static int slow_disk = -1;
static uint32_t at_the_disk;
ssize_t pread(int fd, void *buf, size_t n, off_t offset) {
    if (fd == rt_load_relaxed(&slow_disk)) {
        rt_fetch_add(&at_the_disk, 1);
        while (sem_wait(&gate) != 0)
            ;
    }
    return preadv(fd, &(struct iovec){buf, n}, 1, offset);
}

static uint32_t turns, back;
static void count_turns(void *arg) {
    (void)arg;
    while (go_sleep(10 * GO_MICROSECOND) == 0) /* until the stop */
        rt_fetch_add(&turns, 1);
}
static void read_slowly(void *arg) {
    char c = 0;
    T_EQ(go_pread(net_int(arg), &c, 1, 0), 1);
    T_EQ(c, 'x');
    rt_fetch_add(&back, 1);
}

/* As many reads wait for the disk as there are Ps, and no P is taken from who hogs it: a worker
 * that waited with them would be one that nobody else has. The test itself is a foreign thread. */
Test(files, reads_that_the_disk_keeps_waiting_stall_nobody) {
    struct go_options o = GO_OPTIONS_INIT;
    uint32_t readers = (uint32_t)t_procs();
    char path[128];
    make_dir();
    int fd = open(in_dir(path, "x"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    T_EQ(pwrite(fd, "x", 1, 0), 1);
    T_EQ(sem_init(&gate, 0, 0), 0);
    o.procs = readers;
    o.max_threads = 2 * readers + 20;
    o.flags = GO_STRICT;
    T_EQ(go_start(&o), 0);
    rt_fault_arm(RT_FAULT_NOWAIT, 1, true, EAGAIN); /* the cache has nothing */
    rt_store_relaxed(&slow_disk, fd);
    for (uint32_t i = 0; i < readers; i++)
        SPAWN(read_slowly, net_ptr(fd));
    while (rt_load_seq_cst(&at_the_disk) < readers)
        usleep(100);
    SPAWN(count_turns, NULL);
    while (rt_load_seq_cst(&turns) < 100)
        usleep(100);
    T_EQ(rt_load_seq_cst(&back), 0);
    T_EQ(threads(), readers);
    for (uint32_t i = 0; i < readers; i++)
        sem_post(&gate);
    while (rt_load_seq_cst(&back) < readers)
        usleep(100);
    rt_fault_disarm();
    T_EQ(go_stop(GO_FOREVER), 0);
    T_EQ(close(fd), 0);
    T_EQ(unlink(path), 0);
    T_EQ(rmdir(dir), 0);
}

static void *hold(void *arg) {
    rt_store_seq_cst(&held, 1);
    while (sem_wait(&gate) != 0)
        ;
    return arg;
}
static void hold_pool(void *arg) {
    (void)arg;
    T_EQ(go_blocking(hold, NULL, NULL), 0);
}
enum { VICTIMS = 7 };
static int victim[VICTIMS], kept, socket_pair[2];
static void *late_call(void *arg) {
    int i = net_int(arg), fd = victim[i];
    switch (i) {
    case 0:
        return net_ptr((int)go_pwrite(fd, "bad", 3, 0));
    case 1:
        return net_ptr((int)go_write(fd, "bad", 3));
    case 2:
        return net_ptr((int)go_read(fd, &(char){0}, 1));
    case 3:
        return net_ptr((int)go_pread(fd, &(char){0}, 1, 0));
    case 4:
        return net_ptr((int)go_sendfile(socket_pair[0], fd, NULL, 1));
    case 5:
        return net_ptr((int)go_sendfile(fd, kept, NULL, 1));
    default:
        return net_ptr(go_fsync(fd));
    }
}
static void *close_late(void *arg) {
    char path[128];
    go_waitgroup wg = {0};
    struct stat st;
    for (int i = 0; i < VICTIMS; i++)
        victim[i] = net_raise(go_open(in_dir(path, "a"), O_RDWR | O_CREAT, 0600), false);
    int other = go_open(in_dir(path, "b"), O_RDWR | O_CREAT, 0600);
    T_ASSERT(other >= 0);
    kept = other;
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, socket_pair), 0);
    T_EQ(go_waitgroup_spawn(&wg, hold_pool, NULL), 0);
    while (!rt_load_seq_cst(&held))
        go_yield();
    rt_fault_arm(RT_FAULT_NOWAIT, 1, true, EAGAIN);
    go_task *t[VICTIMS];
    for (unsigned i = 0; i < VICTIMS; i++) {
        T_ASSERT((t[i] = go_task_spawn(late_call, net_ptr((int)i))) != NULL);
        while (queued() < i + 1)
            go_yield();
    }
    for (int i = 0; i < VICTIMS; i++) {
        T_EQ(go_close(victim[i]), 0);
        T_EQ(dup2(other, victim[i]), victim[i]); /* the same number, another file */
    }
    sem_post(&gate);
    for (int i = 0; i < VICTIMS; i++) {
        void *r = NULL;
        T_EQ(go_task_join(t[i], &r), 0);
        T_EQ(net_int(r), -EBADF);
    }
    rt_fault_disarm();
    T_EQ(fstat(other, &st), 0);
    T_EQ(st.st_size, 0);
    T_EQ(go_waitgroup_wait(&wg), 0);
    for (int i = 0; i < VICTIMS; i++)
        T_EQ(go_close(victim[i]), 0);
    T_EQ(go_close(other), 0);
    T_EQ(go_close(socket_pair[0]), 0);
    T_EQ(go_close(socket_pair[1]), 0);
    T_EQ(go_unlink(path), 0);
    T_EQ(go_unlink(in_dir(path, "a")), 0);
    return arg;
}
/* go_sendfile waits for room, and the file is closed: what has its number now is not sent. */
static void *send_one_byte(void *in) {
    return net_ptr((int)go_sendfile(socket_pair[0], net_int(in), NULL, 1));
}
static void *close_while_it_waits(void *arg) {
    char path[128], buf[4096] = "";
    make_dir();
    int in = net_raise(go_open(in_dir(path, "a"), O_RDWR | O_CREAT, 0600), false);
    int other = go_open(in_dir(path, "b"), O_RDWR | O_CREAT, 0600);
    T_EQ(pwrite(in, "a", 1, 0), 1);
    T_EQ(pwrite(other, "b", 1, 0), 1);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, socket_pair), 0);
    while (write(socket_pair[0], buf, sizeof buf) > 0)
        ;
    go_task *t = go_task_spawn(send_one_byte, net_ptr(in));
    T_ASSERT(t != NULL);
    T_EQ(go_sleep(20 * GO_MILLISECOND), 0); /* it waits; if not, it is told at its begin */
    T_EQ(go_close(in), 0);
    T_EQ(dup2(other, in), in);
    while (read(socket_pair[1], buf, sizeof buf) > 0)
        ;
    void *r = NULL;
    T_EQ(go_task_join(t, &r), 0);
    T_EQ(net_int(r), -EBADF);
    T_EQ(lseek(other, 0, SEEK_CUR), 0);
    T_EQ(read(socket_pair[1], buf, sizeof buf), -1);
    T_EQ(go_close(in), 0);
    T_EQ(go_close(other), 0);
    T_EQ(go_close(socket_pair[0]), 0);
    T_EQ(go_close(socket_pair[1]), 0);
    T_EQ(go_unlink(path), 0);
    T_EQ(go_unlink(in_dir(path, "a")), 0);
    T_EQ(rmdir(dir), 0);
    return arg;
}
Test(files, closed_while_its_bytes_wait_for_room) {
    T_EQ(go_start(NULL), 0);
    T_EQ(go_task_join(go_task_spawn(close_while_it_waits, NULL), NULL), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
}

Test(files, closed_while_its_call_waits_for_a_thread) {
    struct go_options o = GO_OPTIONS_INIT;
    o.max_threads = (unsigned)t_procs() + 2;
    make_dir();
    T_EQ(sem_init(&gate, 0, 0), 0);
    T_EQ(go_start(&o), 0);
    T_EQ(go_task_join(go_task_spawn(close_late, NULL), NULL), 0);
    T_EQ(go_stop(GO_FOREVER), 0);
    T_EQ(rmdir(dir), 0);
}
