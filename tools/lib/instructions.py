"""tools/bench --only instructions: what an operation costs where the machine does not matter. Callgrind
counts runs with one and with two repetitions; the difference is a repetition, which starts and stops a
runtime, too, so the same with twice the work: the difference of both is the work. Its caches and its
branch predictor are models (32 KiB of first level, a simple predictor), so misses are a hint; what is
executed, read, written and locked is exact. One P: Valgrind runs one thread at a time."""
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# name, n, what one operation is
BENCHES = [
    ("switch", 20_000, "a yield"),
    ("spawn", 20_000, "spawn, run, end"),
    ("spawn_join", 20_000, "a pair"),
    ("chan_unbuf", 20_000, "a message"),
    ("chan_buf", 20_000, "an item"),
    ("chan_mpmc", 20_000, "an item"),
    ("select4", 20_000, "an item"),
    ("mutex", 64_000, "a pair"),
    ("rwmutex", 64_000, "a pair"),
    ("cond", 20_000, "a hand-over"),
    ("broadcast", 50_000, "a wake"),
    ("scope", 20_000, "enter, a send and a receive, leave"),
    ("group", 20_000, "a child"),
    ("gen", 20_000, "a value"),
    ("gen_new", 20_000, "a generator"),
    ("skynet", 1_000, "a leaf"),
    ("fib", 16, "a task"),
    ("sieve", 100, "a prime, of 100 more than 100"),
    ("timers", 2_000, "a sleep"),
    ("checkpoint", 100_000, "go_checkpoint"),
]
COLUMNS = ["instructions", "locked", "reads", "writes", "misses", "jumps", "mispredicted", "indirect"]


def count(program, name, n, reps):
    """{event: count} of a whole run, and how many operations a repetition has."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        command = ["valgrind", "--tool=callgrind", "--collect-bus=yes", "--cache-sim=yes", "--branch-sim=yes",
                   f"--callgrind-out-file={out}", program, name, "--procs", "1", "--n", str(n), f"reps={reps}"]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300,
                              env={"PATH": "/usr/bin:/bin", "GORT_NETPOLL": "epoll"})
        if done.returncode:
            raise RuntimeError(f"{name}: {(done.stderr or done.stdout)[-600:]}")
        result = json.loads(done.stdout.strip().splitlines()[-1])
        text = out.read_text()
    events = re.search(r"^events: (.*)$", text, re.M).group(1).split()
    totals = [int(x) for x in re.search(r"^(?:summary|totals): (.*)$", text, re.M).group(1).split()]
    totals += [0] * (len(events) - len(totals))
    return dict(zip(events, totals)), result["ms"] * 1e6 / result["ns_per_op"]


def repetition(program, name, n):
    one, ops = count(program, name, n, 1)
    two, _ = count(program, name, n, 2)
    return {event: two[event] - one[event] for event in two}, ops


def larger(name, n):
    return n + 1 if name == "fib" else 10 * n if name == "skynet" else 2 * n


def per_op(program, name, n):
    small, few = repetition(program, name, n)
    large, many = repetition(program, name, larger(name, n))
    d = {event: (large[event] - small[event]) / (many - few) for event in large}
    return [d["Ir"], d["Ge"], d["Dr"], d["Dw"], d["D1mr"] + d["D1mw"], d["Bc"], d["Bcm"] + d["Bim"], d["Bi"]]


def show(name, what, values):
    cells = [f"{v:.0f}" if v >= 20 else f"{v:.2f}" for v in values]
    return f"| {name} | {what} | " + " | ".join(cells) + " |"


def run(program, out):
    if not shutil.which("valgrind"):
        print("tools/bench: --only instructions needs valgrind (the package has that name)")
        return 2
    table = {}
    print("| bench | an operation | " + " | ".join(COLUMNS) + " |")
    print("|---|---|" + "---|" * len(COLUMNS))
    for name, n, what in BENCHES:
        table[name] = per_op(program, name, n)
        print(show(name, what, table[name]), flush=True)
    (out / "instructions.json").write_text(json.dumps({"columns": COLUMNS, "per_op": table}, indent=1) + "\n")
    return 0
