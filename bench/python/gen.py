#!/usr/bin/env python3
"""Python's side of the bench gen: a generator counts, its consumer adds up. Same command line and same line of JSON as
gort-bench and go-bench: gen.py NAME [--procs P] [--n N] [reps=R]"""
import json
import platform
import sys
import time

N = 1_000_000


def count(n):
    for i in range(1, n + 1):
        yield i


def run(n):
    """ns and CPU seconds of one repetition. sum() asks for each value from C: the quickest consumer there is."""
    cpu, start = time.process_time(), time.perf_counter_ns()
    total = sum(count(n))
    ns, cpu = time.perf_counter_ns() - start, time.process_time() - cpu
    if total != n * (n + 1) // 2:
        sys.exit(f"gen.py: the values add up to {total}")
    return ns, cpu, total


def fail(text):
    print(f"gen.py: {text}", file=sys.stderr)
    sys.exit(2)


def parse(arguments):
    """n and reps. A generator runs on its consumer's thread: procs is read, and makes no difference."""
    options, rest = {"procs": 1, "n": N, "reps": 3}, list(arguments)
    while rest:
        key, equals, value = rest.pop(0).partition("=")
        if key in ("--procs", "--n") and not equals:
            value = rest.pop(0) if rest else ""
        if key not in ("--procs", "--n", "reps"):
            fail(f"{key}: no such option")
        if not value.isdecimal() or int(value) < 1:
            fail(f"{key}: a number from 1 on must follow")
        options[key.lstrip("-")] = int(value)
    return options["n"], options["reps"]


def main():
    if len(sys.argv) < 2:
        fail("usage: gen.py NAME [--procs P] [--n N] [reps=R]")
    if sys.argv[1] != "gen":
        fail(f'no bench "{sys.argv[1]}"; there are: gen')
    n, reps = parse(sys.argv[2:])
    run((n + 9) // 10)
    runs = sorted(run(n) for _ in range(reps))
    (ns, cpu, total), median = runs[0], runs[reps // 2][0]
    print(json.dumps({
        "runtime": "python", "bench": "gen", "procs": 1, "n": n, "ns_per_op": round(ns / n, 2),
        "ns_per_op_med": round(median / n, 2), "ms": round(ns / 1e6, 3), "ms_med": round(median / 1e6, 3), "result": total,
        "cpu_s": round(cpu, 3), "version": platform.python_version(),
    }, separators=(",", ":")))


if __name__ == "__main__":
    main()
