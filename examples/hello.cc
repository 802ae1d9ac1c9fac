// hello.cc - gort from C++17: any callable on a green thread, and an exception on its way from one
// to another.
#include <gort.h>

#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

// Start fn() on a green thread; 0 or -errno. What fn throws ends the program, as with std::thread.
template <class F> static int go(F fn) {
    auto copy = std::make_unique<F>(std::move(fn));
    int r = go_spawn([](void *arg) { (*std::unique_ptr<F>(static_cast<F *>(arg)))(); }, copy.get());
    if (r == 0)
        copy.release(); // the green thread's now
    return r;
}

// A channel of Ts: what is in it belongs to it.
template <class T> class channel {
  public:
    explicit channel(size_t capacity) : c(go_chan_new(sizeof(T *), capacity)) {
        if (!c)
            throw std::bad_alloc();
    }
    ~channel() {
        for (T *left; go_chan_try_recv(c, &left) == 0;)
            delete left;
        go_chan_free(c);
    }
    channel(const channel &) = delete;
    channel &operator=(const channel &) = delete;

    void send(T value) {
        auto copy = std::make_unique<T>(std::move(value));
        T *p = copy.get();
        if (go_chan_send(c, &p) == 0)
            copy.release();
    }
    std::unique_ptr<T> receive() { // empty when the wait was cancelled
        T *p = nullptr;
        return std::unique_ptr<T>(go_chan_recv(c, &p) == 0 ? p : nullptr);
    }

  private:
    go_chan *c;
};

struct answer {
    int square = 0;
    std::exception_ptr error;
};

static answer square(int n) {
    answer a;
    try {
        if (n == 13)
            throw std::domain_error("no square of " + std::to_string(n));
        a.square = n * n;
    } catch (...) { // a handler that parks needs gort/cxx.h; this one does not park
        a.error = std::current_exception();
    }
    return a;
}

static void start(void *) {
    const int count = 100;
    auto answers = std::make_shared<channel<answer>>(0);
    int started = 0, sum = 0;
    for (int n = 1; n <= count; n++)
        started += go([answers, n] { answers->send(square(n)); }) == 0;
    for (int i = 0; i < started; i++) {
        try {
            auto a = answers->receive();
            if (!a)
                break;
            if (a->error)
                std::rethrow_exception(a->error);
            sum += a->square;
        } catch (const std::exception &e) {
            std::printf("caught: %s\n", e.what());
        }
    }
    std::printf("%d green threads, their squares add up to %d\n", started, sum);
}

int main() {
    return go_run(start, nullptr) == 0 ? 0 : 1;
}
