"""tools/bench: gort beside Go on this machine.

Every round runs each row once on each runtime, one right after the other, so that a slow minute of
the machine hits all of them; a ratio is taken inside a round. See --help.
"""
import argparse
import datetime
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

sys.dont_write_bytecode = True
import chart  # noqa: E402 (beside this file)
import instructions  # noqa: E402
import kv  # noqa: E402
import scale  # noqa: E402
import variants  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
OUT = BUILD / "bench"
GO_MIN = (1, 25)
MAX_ROUNDS = 5

# n, quick_n: size of the work, None = the programs' own. key: the JSON field that is compared, and
# unit how it is shown. procs: the only count that makes sense, None = those asked for, MOST = the
# largest of them.
MOST = -1
Bench = namedtuple("Bench", "name what n quick_n procs key unit default")
BENCHES = [
    Bench("switch", "yield", 2_000_000, 500_000, 1, "ns_per_op", "ns", True),
    Bench("spawn", "spawn, wait for each 1000", 1_000_000, 200_000, None, "ns_per_op", "ns", True),
    Bench("spawn_join", "spawn one, join it", 500_000, 100_000, None, "ns_per_op", "ns", True),
    Bench("chan_unbuf", "rendezvous, a message", 1_000_000, 200_000, None, "ns_per_op", "ns", True),
    Bench("lock_thread", "the same, one locked to a thread", 100_000, 20_000, None, "ns_per_op", "ns", False),
    Bench("chan_buf", "channel of 128, an item", 4_000_000, 1_000_000, None, "ns_per_op", "ns", True),
    Bench("chan_mpmc", "4 producers, 4 consumers", 2_000_000, 500_000, None, "ns_per_op", "ns", False),
    Bench("select4", "select over 4 channels", 1_000_000, 200_000, None, "ns_per_op", "ns", False),
    Bench("select_n", "select over 4, one ready", 1_000_000, 200_000, 1, "ns_per_op", "ns", False),
    Bench("select_park", "select over 4, waits each time", 500_000, 100_000, 1, "ns_per_op", "ns", False),
    Bench("mutex", "64 tasks, lock and unlock", 6_400_000, 640_000, None, "ns_per_op", "ns", False),
    Bench("waiters", "that many wait for a mutex", 40_000, 10_000, None, "ns_per_op", "ns", False),
    Bench("rwmutex", "64 tasks, 1 write in 100", 6_400_000, 640_000, None, "ns_per_op", "ns", False),
    Bench("cond", "a turn handed over", 1_000_000, 200_000, None, "ns_per_op", "ns", False),
    Bench("broadcast", "1000 wait for each", 1_000_000, 200_000, None, "ns_per_op", "ns", False),
    Bench("scope", "a deadline around a receive", 2_000_000, 500_000, None, "ns_per_op", "ns", False),
    Bench("group", "groups of 10 tasks, a task", 1_000_000, 200_000, None, "ns_per_op", "ns", False),
    Bench("skynet", "tree of tasks and channels", 1_000_000, 100_000, None, "ms", "ms", True),
    Bench("fib", "a task for each call", 30, 25, None, "ns_per_op", "ns", True),
    Bench("sieve", "a chain of channels", 1500, 600, None, "ms", "ms", True),
    Bench("gen", "a generator, a value", 1_000_000, 200_000, 1, "ns_per_op", "ns", False),
    Bench("gen_new", "make and close a generator", 200_000, 50_000, 1, "ns_per_op", "ns", False),
    Bench("timers", "tasks that sleep 1-50 ms", 100_000, 20_000, None, "ms", "ms", False),
    Bench("mem", "memory of a parked task", 100_000, 100_000, 1, "bytes_per_task", "B", True),
    Bench("idleconn", "an idle connection, reader", 10_000, 2_000, None, "bytes_per_conn", "B", False),
    Bench("idleconn_when", "the same, go_spawn_when", 10_000, 2_000, None, "bytes_per_conn", "B", False),
    Bench("file_read", "4 KiB of a cached file", 400_000, 100_000, None, "ns_per_op", "ns", False),
    Bench("file_read_threads", "the same, pread in threads", 400_000, 100_000, None, "ns_per_op", "ns", False),
    Bench("preempt", "1 ms sleep beside hogs, p99 late", 2_000, 500, MOST, "p99_us", "us", True),
    Bench("checkpoint", "go_checkpoint less the loop", 20_000_000, 5_000_000, 1, "ns_per_op", "ns", False),
]

# Server benches; pinned: the server has one core for itself and the load generator another. burn: per
# cent; rate: requests a second, 0 = as many as are answered; serves: the programs' name for it, if another; seconds: at
# least; size: bytes of an echo message.
Server = namedtuple("Server", "name what proto conns burn pinned key unit default rate serves seconds size",
                    defaults=(0, None, 0, 64))
SERVERS = [
    Server("echo", "TCP echo, CPU a request", "echo", 64, 0, True, "server_cpu_us_per_req", "us", True),
    Server("wake", "echo over one connection: p50", "echo", 1, 0, True, "p50_us", "us", False, serves="echo"),
    Server("http", "HTTP server, CPU a request", "http", 64, 0, True, "server_cpu_us_per_req", "us", True),
    Server("http_raw", "HTTP by hand, CPU a request", "http", 64, 0, True, "server_cpu_us_per_req", "us", True),
    Server("mixed", "1% burn 5 ms: p99 of the others", "http", 8, 1, False, "p99_us", "us", False),
    Server("mixed_2k", "the same, 2,000 requests/s", "http", 8, 1, False, "p99_us", "us", True, 2_000, "mixed"),
    # So many per cent of a core are burnt, 5 ms at a time. --only stall: all three.
    *(Server(f"stall_{core}", f"{core}% of a core burnt: p99.9", "http", 64, core / 10, False, "p99.9_us", "us", False, 2_000,
             "mixed", 6) for core in (6, 64, 160)),
]
STALLS = tuple(s.name for s in SERVERS if s.name.startswith("stall_"))
BODY = "Hello, World!"


class Failed(Exception):
    """A run went wrong; the text says how."""


class Unknown(Exception):
    """The program does not know this bench."""


class Peer:
    """A runtime: its program, and which servers and other benches it has (None: asks the program); env, arguments: for its
    servers."""

    def __init__(self, name, label, program, servers=None, tasks=None, env=(), arguments=()):
        self.name, self.label, self.program, self.servers, self.tasks = name, label, program, servers, tasks
        self.env, self.arguments = {**os.environ, **dict(env)}, arguments

    def server_command(self, bench, port, procs):
        if self.name == "gort" and bench == "http":
            return [BUILD / "examples/http", "--port", str(port), "--procs", str(procs)]
        return [self.program, bench, "--procs", str(procs), f"port={port}", *self.arguments]


PEERS = [
    Peer("gort", "gort", OUT / "gort-bench"),
    Peer("go", "Go", OUT / "go-bench"),
    Peer("raw", "epoll loop", OUT / "gort-raw", servers=("echo", "wake", "http_raw", *STALLS), tasks=()),
    Peer("strict", "gort, strict", OUT / "gort-bench", servers=STALLS, tasks=(), arguments=["strict=1"]),
    Peer("hyper", "hyper", BUILD / "hyper/release/hyper-bench", servers=("http",), tasks=()),
    Peer("python", "Python", ROOT / "bench/python/gen.py", servers=(), tasks=("gen",)),
]

notices, errors = [], []


def notice(text):
    if text not in notices:
        notices.append(text)
        print(f"{clear()}note: {text}", flush=True)


def die(text):
    sys.exit(f"tools/bench: {text}")


def clear():
    return "\r\033[K" if sys.stdout.isatty() else ""


# Getting ready


def missing_packages():
    """Debian's names for what is not here."""
    need = []
    if not shutil.which("cc") and not shutil.which("gcc"):
        need += ["gcc", "libc6-dev"]
    if not shutil.which("cmake"):
        need.append("cmake")
    if not shutil.which("ninja") and not shutil.which("make"):
        need.append("ninja-build")
    if not shutil.which("pkg-config"):
        need.append("pkg-config")
    found = "pkg-config" not in need and subprocess.run(["pkg-config", "--exists", "liburing"]).returncode == 0
    if not found:
        need.append("liburing-dev")
    return need


def install_packages():
    need = missing_packages()
    if not need:
        return
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    if not shutil.which("apt-get") or (sudo and not shutil.which("sudo")):
        die(f"these are missing (names as in Debian): {' '.join(need)}. Please install them and run me again.")
    print(f"installing {' '.join(need)}", flush=True)
    env = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    run_or_die([*env, "update"], may_fail=True)
    run_or_die([*env, "install", "-y", "--no-install-recommends", *need])
    if missing_packages():
        die(f"still missing after apt-get: {' '.join(missing_packages())}")


def run_or_die(command, may_fail=False, **how):
    command = [str(c) for c in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)
    if done.returncode and not may_fail:
        print(done.stdout[-6000:], file=sys.stderr)
        die(f"failed: {' '.join(command)}")
    return done.stdout


def build_gort():
    print("building gort (Release)", flush=True)
    configure = ["cmake", "-S", ROOT, "-B", BUILD, "-DCMAKE_BUILD_TYPE=Release", "-DGORT_SANITIZE=",
                 "-DGORT_BUILD_BENCH=ON", "-DGORT_BUILD_EXAMPLES=ON"]
    if not (BUILD / "CMakeCache.txt").exists():
        # The tests need packages that a benchmark does not; whoever has configured them keeps them.
        configure.append("-DGORT_BUILD_TESTS=OFF")
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
    run_or_die(configure)
    known = run_or_die(["cmake", "--build", BUILD, "--target", "help"])
    targets = [t for t in ("gort-bench", "gort-loadgen", "gort-raw", "example_http", "example_kv") if re.search(rf"\b{t}\b", known)]
    run_or_die(["cmake", "--build", BUILD, "--parallel", str(os.cpu_count()), "--target", *targets])
    for program in ("gort-bench", "gort-loadgen"):
        if not (OUT / program).exists():
            die(f"the build made no {OUT / program}")


def find_go():
    """A Go that is new enough, or None and why."""
    places = [shutil.which("go"), "/usr/local/go/bin/go", *sorted(Path("/usr/lib").glob("go-1.*/bin/go"), reverse=True)]
    too_old = None
    for go in places:
        if not go or not Path(go).exists():
            continue
        version = subprocess.run([str(go), "env", "GOVERSION"], env={**os.environ, "GOTOOLCHAIN": "local"},
                                 capture_output=True, text=True).stdout.strip()
        m = re.match(r"go(\d+)\.(\d+)", version)
        if m and (int(m[1]), int(m[2])) >= GO_MIN:
            return str(go), version
        too_old = version or too_old
    return None, f"only {too_old}" if too_old else "no Go"


def build_go():
    """The version, or None when there is nothing to compare with."""
    go, version = find_go()
    if not go:
        need = ".".join(map(str, GO_MIN))
        notice(f"found {version}; {need} or later is needed to compare: unpack the archive from go.dev/dl as "
               f"/usr/local/go, or install your distribution's golang-{need} package or newer. gort runs alone.")
        return None
    print(f"building the Go program ({version})", flush=True)
    OUT.mkdir(parents=True, exist_ok=True)
    run_or_die([go, "build", "-o", OUT / "go-bench", "."], cwd=ROOT / "bench/go",
               env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""})
    return version


def build_hyper():
    """Rust's HTTP server; without a toolchain or its crates there is a notice, and it is skipped."""
    if not shutil.which("cargo"):
        return notice("no cargo (rustup.rs, or your distribution's package): hyper is skipped")
    print("building the hyper program", flush=True)
    done = subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", "--target-dir", BUILD / "hyper"],
                          cwd=ROOT / "bench/hyper", capture_output=True, text=True)
    if done.returncode:
        notice(f"hyper is skipped: {explain(done.stderr, done.returncode)}")
    return None


# Running


def pin(cpus):
    return (lambda: os.sched_setaffinity(0, cpus)) if cpus else None


def split_cores():
    """One core for a server and one for the load generator, not two threads of one core."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        notice("only one CPU: server and load generator share it")
        return None, None
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpus[0]}/topology/thread_siblings_list")
    mates = set()
    if siblings.exists():
        for part in siblings.read_text().strip().split(","):
            first, _, last = part.partition("-")
            mates |= set(range(int(first), int(last or first) + 1))
    others = [c for c in cpus[1:] if c not in mates] or cpus[1:]
    return {cpus[0]}, {others[0]}


def read_json(text, what):
    try:
        return json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise Failed(f"{what} printed no line of JSON: {text[-300:]!r}") from None


def explain(stderr, status):
    lines = stderr.strip().splitlines()
    return f"exit status {status}: " + " | ".join(lines[:4]) if lines else f"exit status {status}, nothing on stderr"


def run_program(peer, arguments):
    try:
        done = subprocess.run([str(peer.program), *arguments], capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        raise Failed("no end after 180 s") from None
    if done.returncode == 2 and re.search(r"(no|unknown) bench", done.stderr):
        raise Unknown
    if done.returncode:
        raise Failed(explain(done.stderr, done.returncode))
    return read_json(done.stdout, peer.program.name)


def run_task(peer, bench, procs, n):
    result = run_program(peer, [bench.name, "--procs", str(procs)] + (["--n", str(n)] if n else []))
    if bench.key not in result:
        raise Failed(f"no field {bench.key} in {result}")
    return result


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def end(server):
    """By SIGTERM; False: that was not enough."""
    if server.poll() is not None:
        return True
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return False
    return True


def wait_for_port(server, port, stderr):
    for _ in range(500):
        if server.poll() is not None:
            stderr.seek(0)
            text = stderr.read()
            if server.returncode == 2 and re.search(r"(no|unknown) bench", text):
                raise Unknown
            raise Failed("the server did not start: " + explain(text, server.returncode))
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise Failed("the server's port did not answer within 5 s")


def busy_s():
    """CPU seconds that the machine has not been idle."""
    ticks = [int(t) for t in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def run_server(peer, bench, procs, cores, seconds, warmup):
    port = free_port()
    command = [str(c) for c in peer.server_command(bench.serves or bench.name, port, procs)]
    if not Path(command[0]).exists():
        raise Unknown
    server_cores, client_cores = cores if bench.pinned else (None, None)
    with tempfile.TemporaryFile("w+") as stderr:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                                  preexec_fn=pin(server_cores), env=peer.env)
        try:
            wait_for_port(server, port, stderr)
            load = [OUT / "gort-loadgen", "--port", port, "--conns", bench.conns, "--duration", seconds,
                    "--warmup", warmup, "--proto", bench.proto, "--size", bench.size, "--server-pid", server.pid]
            if bench.proto == "http":
                load += ["--expect", BODY]
            if bench.burn:
                load += ["--burn-percent", bench.burn]
            if bench.rate:
                load += ["--rate", bench.rate]
            busy, began = busy_s(), time.monotonic()
            done = subprocess.run([str(a) for a in load], capture_output=True, text=True, preexec_fn=pin(client_cores),
                                  timeout=seconds + warmup + 60)
            busy, took = busy_s() - busy, time.monotonic() - began
            if server.poll() is not None:
                stderr.seek(0)
                raise Failed("the server died: " + explain(stderr.read(), server.returncode))
        except subprocess.TimeoutExpired:
            raise Failed("the load generator did not end") from None
        finally:
            if not end(server):
                notice(f"{peer.label} {bench.name}: SIGTERM did not end it within 5 s")
    if done.returncode:
        raise Failed(explain(done.stderr, done.returncode))
    result = read_json(done.stdout, "gort-loadgen")
    # What else the machine did: who has lost its CPU to that is late, whatever its runtime.
    others = max(0, busy / took - result["server_cores"] - result["client_cores"])
    return {"runtime": peer.name, "bench": bench.name, "procs": procs, **result, "others_cores": round(others, 2)}


def plain_thread(run):
    """What preempt says of the thread that it measures for comparison; None in other runs."""
    return {k: run["plain_" + k] for k in ("p50_us", "p99_us", "max_us")} if run and "plain_p99_us" in run else None


class Row:
    """One line of the table: a bench at a number of procs, and what each peer did in each round."""

    def __init__(self, bench, procs):
        self.bench, self.procs = bench, procs
        self.results = {}

    def is_server(self):
        return isinstance(self.bench, Server)

    def wants(self, peer):
        has = peer.servers if self.is_server() else peer.tasks
        return has is None or self.bench.name in has

    def best(self, peer):
        runs = [r for r in self.results.get(peer, []) if r]
        return min(runs, key=lambda r: r[self.bench.key]) if runs else None

    def value(self, peer):
        best = self.best(peer)
        return best[self.bench.key] if best else None

    def ratios(self, peer="go"):
        """Of the best of all rounds, then the median, the least and the most inside one round; None without both."""
        pairs = [(ours[self.bench.key], theirs[self.bench.key])
                 for ours, theirs in zip(self.results.get("gort", []), self.results.get(peer, [])) if ours and theirs]
        pairs = [(ours, theirs) for ours, theirs in pairs if ours > 0]
        if not pairs:
            return None
        each = [theirs / ours for ours, theirs in pairs]
        return self.value(peer) / self.value("gort"), statistics.median(each), min(each), max(each)

    def check_same_work(self):
        for field in ("n", "result"):
            seen = {name: {r[field] for r in runs if r and field in r} for name, runs in self.results.items()}
            values = set().union(*seen.values())
            if not self.is_server() and self.bench.name != "preempt" and len(values) > 1:
                errors.append(f"{self.bench.name}, procs {self.procs}: not the same work, field {field}: {seen}")


def progress(step, steps, began, text):
    line = f"[{step}/{steps}] {time.monotonic() - began:3.0f} s  {text}"
    if sys.stdout.isatty():
        print(f"{clear()}{line}", end="", flush=True)
    else:
        print(line, flush=True)


def run_all(rows, peers, options):
    """Runs the rounds asked for, or as many as fit the time; leaves the rows that have results."""
    cores = split_cores() if any(r.is_server() for r in rows) else None
    unknown, began, number = set(), time.monotonic(), 0
    seconds, warmup = (0.7, 0.3) if options.quick else (1.5, 0.5)
    while number < (options.rounds or MAX_ROUNDS):
        spent = time.monotonic() - began
        if not options.rounds and number >= options.least and spent + spent / number > options.budget:
            break
        number += 1
        for step, row in enumerate(rows, 1):
            progress(step, len(rows), began, f"round {number}  {row.bench.name}, procs {row.procs}")
            # Turn about, so that none always runs on what another has heated up.
            for peer in peers if number % 2 else reversed(peers):
                if not row.wants(peer) or (peer.name, row.bench.name) in unknown:
                    continue
                result = None
                try:
                    if row.is_server():
                        result = run_server(peer, row.bench, row.procs, cores, max(seconds, row.bench.seconds), warmup)
                    else:
                        n = row.bench.quick_n if options.quick else row.bench.n
                        result = run_task(peer, row.bench, row.procs, n)
                except Unknown:
                    unknown.add((peer.name, row.bench.name))
                    notice(f"{peer.label} does not have {row.bench.name}: skipped")
                    continue
                except Failed as e:
                    errors.append(f"{peer.label} {row.bench.name}, procs {row.procs}, round {number}: {e}")
                    print(f"{clear()}ERROR {errors[-1]}", flush=True)
                row.results.setdefault(peer.name, []).append(result)
    print(clear(), end="")
    for row in rows:
        row.check_same_work()
    rows[:] = [row for row in rows if any(r for runs in row.results.values() for r in runs)]
    return number


# Telling


def show(value, unit):
    if value is None:
        return "-"
    text = f"{value:,.0f}" if unit == "B" or value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"{text} {unit}"


def print_columns(lines):
    """The first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:])]
        print("  ".join(cells).rstrip())


def print_sleepers(rows, peers):
    """preempt: how late who is, beside as many hogs, and how much of that the machine does by itself."""
    table = [["1 ms sleep beside hogs", "procs", "p50 us", "p99 us", "max us", "p99 : plain thread"]]
    for row in (r for r in rows if r.bench.name == "preempt"):
        plain = plain_thread(row.best("gort"))
        sleepers = [(peer.label, row.best(peer.name)) for peer in peers] + [("plain thread", plain)]
        for label, late in sleepers:
            if late:
                ratio = f"{late['p99_us'] / plain['p99_us']:.2f}" if plain and late is not plain else ""
                table.append([label, str(row.procs), *(f"{late[k]:,.0f}" for k in ("p50_us", "p99_us", "max_us")), ratio])
    if len(table) > 1:
        print()
        print_columns(table)


def print_others(rows, peers):
    """Who is neither gort nor Go and has a bench that is not a server."""
    for row in (r for r in rows if not r.is_server()):
        for peer in peers:
            ratio = row.ratios(peer.name)
            if ratio and peer.name not in ("gort", "go"):
                print(f"{row.bench.name}: {peer.label} {show(row.value(peer.name), row.bench.unit)}, gort is {ratio[0]:.2f}x")


def print_tables(rows, peers, rounds):
    have_go = any(p.name == "go" for p in peers)
    beside = ["Go", "gort is", "(median, min - max)" if rounds > 1 else ""] if have_go else []
    table = [["bench", "procs", "gort", *beside, "CPU s", "steals"]]
    for row in rows:
        line = [row.bench.name, str(row.procs), show(row.value("gort"), row.bench.unit)]
        cpu = []
        if have_go:
            ratio = row.ratios()
            line.append(show(row.value("go"), row.bench.unit))
            spread = f"({ratio[1]:.2f}, {ratio[2]:.2f} - {ratio[3]:.2f})" if ratio and rounds > 1 else ""
            line += [f"{ratio[0]:.2f}x" if ratio else "-", spread]
        for name in ("gort", "go") if have_go else ("gort",):
            best = row.best(name)
            cpu.append(f"{best['cpu_s']:.2f}" if best and "cpu_s" in best else "-")
        steals = (row.best("gort") or {}).get("steals")
        table.append(line + ["" if row.is_server() else " / ".join(cpu), "" if steals is None else str(steals)])
    print()
    print_columns(table)
    if have_go:
        spread = f"; median, min and max of the {rounds} rounds." if rounds > 1 else "."
        print("gort is so many times better than Go: Go's best over gort's best" + spread)
    print("CPU s: user and system time of the best repetition" + (", gort / Go." if have_go else "."))

    print_others(rows, peers)
    print_sleepers(rows, peers)
    servers = [r for r in rows if r.is_server() and r.results]
    if not servers:
        return
    table = [["server", "", "requests/s", "CPU us/request", "p50 us", "p99 us", "p99.9 us", "other load"]]
    for row in servers:
        for peer in peers:
            best = row.best(peer.name)
            if best:
                table.append([row.bench.name, peer.label, f"{best['rps']:,.0f}", f"{best['server_cpu_us_per_req']:.2f}",
                              *(f"{best[p]:,.0f}" for p in ("p50_us", "p99_us", "p99.9_us")), f"{best['others_cores']:.2f}"])
            if best and row.bench.burn:
                table.append(["", f"{peer.label}, its burns", f"{best['burns'] / best['duration_s']:,.0f}", "",
                              *(f"{best['burn_' + p]:,.0f}" for p in ("p50_us", "p99_us", "p99.9_us")), ""])
    print()
    print_columns(table)
    kinds = ", ".join(f"{r.bench.name} {r.bench.conns} connections" for r in servers)
    print(f"{kinds}; every byte of every answer was checked. Other load: CPUs that neither server nor load generator used.")


def machine_line(go_version):
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith(("model name", "Model"))), platform.machine())
    cc = subprocess.run([shutil.which("cc") or "gcc", "--version"], capture_output=True, text=True).stdout.splitlines()
    compiler = re.sub(r"\s*\(.*?\)", "", cc[0]) if cc else "unknown compiler"
    parts = [f"{cpu}, {len(os.sched_getaffinity(0))} CPUs", f"Linux {platform.release()}", compiler]
    if go_version:
        parts.append(go_version)
    return " · ".join(parts)


def report(rows, peers, machine, rounds):
    out = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "command": "tools/bench " + " ".join(sys.argv[1:]),
        "notices": notices,
        "errors": errors,
        "rows": [],
    }
    for row in rows:
        ratio = row.ratios()
        out["rows"].append({
            "bench": row.bench.name, "procs": row.procs, "compared": row.bench.key, "unit": row.bench.unit,
            "best": {p.name: row.value(p.name) for p in peers if p.name in row.results},
            "plain_thread": plain_thread(row.best("gort")),
            "go_over_gort": dict(zip(("best", "median", "min", "max"), ratio)) if ratio else None,
            "rounds": row.results,
        })
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "report.json").write_text(json.dumps(out, indent=1) + "\n")

    groups = [("Tasks and channels", [r for r in rows if not r.is_server()]),
              ("Servers", [r for r in rows if r.is_server()])]
    drawn = []
    for title, members in groups:
        lines = []
        for row in members:
            bars = [(p.name, p.label, row.value(p.name), show(row.value(p.name), row.bench.unit))
                    for p in peers if row.value(p.name)]
            plain = plain_thread(row.best("gort"))
            if plain:
                bars.append(("plain", "plain thread", plain["p99_us"], show(plain["p99_us"], row.bench.unit)))
            ratio = row.ratios()
            if bars:
                lines.append(chart.Line(row.bench.name, row.bench.what, row.procs, bars, ratio[0] if ratio else None))
        if lines:
            drawn.append((title, lines))
    subtitle = "Shorter is better. Best of " + ("one round." if rounds == 1 else f"{rounds} rounds.")
    (OUT / "report.svg").write_text(chart.svg("gort and Go on one machine", subtitle, drawn, machine))
    print(f"\n{machine}\nwrote {(OUT / 'report.json').relative_to(ROOT)} and {(OUT / 'report.svg').relative_to(ROOT)}")


def parse_options():
    names = [b.name for b in BENCHES + SERVERS]
    p = argparse.ArgumentParser(prog="tools/bench", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=
                                "benches: " + " ".join(b.name for b in BENCHES + SERVERS if b.default) +
                                "\nonly with --only: " + " ".join(b.name for b in BENCHES + SERVERS if not b.default),
                                description="Builds gort, runs it beside Go and writes a table, "
                                "build/bench/report.json and build/bench/report.svg.")
    p.add_argument("--quick", action="store_true", help="less work: about 20 s instead of 2 minutes")
    p.add_argument("--only", metavar="A,B", help="these benches, or all; scale: how costs grow with the number of tasks, "
                   "processors, channels, waiters and timers; kv: the example kv beside redis-server; stall: the three of that name; "
                   "instructions: counted by Valgrind; tries, ring: what was decided in the netpollers, beside what could have been; "
                   "connections: servers by the number of these, on both engines")
    p.add_argument("--rounds", type=int, metavar="N", help="default: as many as fit the time, 2 to 5, with --quick 1 to 5")
    p.add_argument("--procs", metavar="P,Q", help="default 1,2 (1 on one CPU); servers take the first")
    p.add_argument("--peers", default="go,raw,python", metavar="A,B", help="beside gort: go, raw (an epoll loop by hand), python "
                   "(gen alone), hyper, strict (gort that takes no P from hogs: stall alone), none")
    p.add_argument("--no-build", action="store_true", help="use the programs as they are")
    o = p.parse_args()
    if o.rounds is not None and o.rounds < 1:
        p.error("--rounds: at least 1")
    o.budget, o.least = (20, 1) if o.quick else (120, 2)
    o.only = o.only.split(",") if o.only else [b.name for b in BENCHES + SERVERS if b.default]
    if "stall" in o.only:
        o.only[o.only.index("stall"):o.only.index("stall") + 1] = STALLS
    o.scale = o.only == ["scale"]
    o.kv = o.only == ["kv"]
    o.instructions = o.only == ["instructions"]
    o.variants = o.only[0] if len(o.only) == 1 and o.only[0] in variants.TABLES else None
    if o.scale or o.kv or o.variants or o.instructions:
        o.only = []
    if o.only == ["all"]:
        o.only = names
    for name in o.only:
        if name not in names:
            p.error(f"--only: no bench {name}; there are {' '.join(names)}")
    default_procs = "1,2" if len(os.sched_getaffinity(0)) > 1 else "1"
    try:
        o.procs = [int(x) for x in (o.procs or default_procs).split(",")]
    except ValueError:
        p.error("--procs: numbers with commas between them")
    if min(o.procs) < 1:
        p.error("--procs: at least 1")
    if o.variants:
        o.peers = ",".join(variants.peers_of(o.variants)) or "none"
    o.peers = [] if o.peers == "none" or o.kv or o.instructions else o.peers.split(",")
    for name in o.peers:
        if name not in [peer.name for peer in PEERS[1:]]:
            p.error(f"--peers: no peer {name}; there are {' '.join(peer.name for peer in PEERS[1:])}")
    return o


def procs_of(bench, asked):
    return asked if bench.procs is None else [max(asked)] if bench.procs == MOST else [bench.procs]


def run_scale(peers, machine):
    began = time.monotonic()
    try:
        scale.run([p for p in peers if p.tasks is None], run_program, lambda step, steps, text: progress(step, steps, began, text), OUT,
                  machine)
    except Failed as e:
        print(f"{clear()}ERROR {e}", file=sys.stderr)
        return 1
    print(f"\n{machine}\nwrote {(OUT / 'scale.json').relative_to(ROOT)} and {(OUT / 'scale.svg').relative_to(ROOT)}")
    return 0


def main():
    o = parse_options()
    go_version = None
    if not o.no_build:
        install_packages()
        build_gort()
    if "go" in o.peers:
        go_version = find_go()[1] if o.no_build and (OUT / "go-bench").exists() else build_go()
        if not go_version:
            o.peers.remove("go")
    if "hyper" in o.peers and not o.no_build:
        build_hyper()
    peers = [p for p in PEERS if p.name == "gort" or p.name in o.peers]
    for peer in list(peers):
        if not peer.program.exists():
            if peer.name == "gort":
                die(f"{peer.program} is missing; run me without --no-build")
            notice(f"{peer.program.name} was not built: skipped")
            peers.remove(peer)
    rows = [Row(b, procs) for b in BENCHES if b.name in o.only for procs in procs_of(b, o.procs)]
    for s in SERVERS:
        if s.name in o.only:
            # mixed is about what a second core is good for; the others have one core each.
            rows.append(Row(s, o.procs[0] if s.pinned else max(o.procs)))
    if os.getloadavg()[0] > 0.5:
        notice(f"the machine is busy with something else (load {os.getloadavg()[0]:.1f}); times will scatter")
    machine = machine_line(go_version)
    if o.scale:
        return run_scale(peers, machine)
    if o.kv:
        return kv.run(sys.modules[__name__], BUILD / "examples/kv", o.rounds or (1 if o.quick else 3), o.quick, OUT, machine)
    if o.instructions:
        return instructions.run(PEERS[0].program, OUT)
    if o.variants:
        return variants.run(sys.modules[__name__], o.variants, o.rounds or 3, o.quick, OUT, machine)
    rounds = run_all(rows, peers, o)
    print_tables(rows, peers, rounds)
    report(rows, peers, machine, rounds)
    if errors:
        print("\nerrors:", *errors, sep="\n  ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
