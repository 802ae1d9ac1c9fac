"""tools/bench --only tries, --only ring: decisions inside the netpollers, beside what they were decided against; --only
connections: servers by the number of their connections, on both engines, beside a loop by hand and Go.

Each variant is gort-bench built once more with a compiler flag, or run with another engine, or another peer. Every round
runs each row on each variant, one right after the other, turn about. The table has the least of all rounds, since what
others do to the machine only adds; and the median of the ratios, inside a round, to the first variant of the same group.
"""
import json
import os
import statistics
import time
from collections import namedtuple

Variant = namedtuple("Variant", "name flags engine peer group", defaults=("", "", "gort", None))
URING, EPOLL = "uring", "epoll"
COST = "server_cpu_us_per_req"
AND_LATE = ("p50_us", "p99_us")
AND_BURNS = ("p99_us", "p99.9_us", "burn_p99_us")


def echo(bench, name, conns, size=64, proto="echo", **more):
    keys = {"pinned": True, "key": COST, "unit": "us", "default": False, "serves": "echo", **more}
    return bench.Server(name, "", proto, conns, 0, size=size, **keys)


def tries(bench):
    """When a read tries first, and when it polls first: by the number of connections and the size of a message."""
    variants = [Variant("uring: unless dry", "", URING), Variant("uring: always", "-DRT_TRY=1", URING),
                Variant("uring: never after a read", "-DRT_TRY=2", URING),
                Variant("epoll: unless dry", "", EPOLL), Variant("epoll: always", "-DRT_TRY=1", EPOLL)]
    rows = [(echo(bench, f"{conns:,} x {size:,} B", conns, size, seconds=conns * size >> 26), 1)
            for size in (64, 4096, 65536) for conns in (1, 64, 512, 4000)]
    return variants, rows


def ring(bench):
    """Completions that wait until their owner enters the kernel, or interrupt it."""
    variants = [Variant("deferred", "", URING), Variant("prompt", "-DRT_RING_DEFERRED=0", URING)]
    by_name = {s.name: s for s in bench.SERVERS}
    rows = [(echo(bench, f"echo, {conns:,} connections", conns), 1) for conns in (1, 64, 512)]
    rows += [(echo(bench, "8 Ps on all cores, 64 connections", 64, pinned=False), 8),
             (echo(bench, "nearly idle: 100 requests/s", 64, rate=100), 1),
             (by_name["stall_6"], 2), (by_name["stall_64"], 2), (by_name["stall_160"], 2)]
    return variants, rows


def connections(bench):
    """What a request costs, and how long it takes; the server on one core, and on as many as there are."""
    variants = [Variant("epoll loop", peer="raw"), Variant("uring", engine=URING), Variant("epoll", engine=EPOLL),
                Variant("Go", peer="go")]
    rows = [(echo(bench, f"echo, {conns:,}", conns), 1) for conns in (1, 64, 512, 4000)]
    rows += [(echo(bench, f"http_raw, {conns:,}", conns, serves="http_raw", proto="http"), 1) for conns in (1, 64, 512, 4000)]
    rows += [(echo(bench, f"echo, {conns:,}, all cores", conns, pinned=False), os.cpu_count()) for conns in (64, 512)]
    return [v._replace(group="all") for v in variants], rows


TABLES = {"tries": tries, "ring": ring, "connections": connections}


def peers_of(table):
    """That must be built, too."""
    return ["go", "raw"] if table == "connections" else []


def build(bench, variant):
    """The program of a variant, as a peer; None: it is not there."""
    if variant.peer != "gort":
        peer = next(p for p in bench.PEERS if p.name == variant.peer)
        return peer if peer.program.exists() else bench.notice(f"{peer.program.name} was not built: skipped")
    program = bench.OUT / "gort-bench"
    if variant.flags:
        tree = bench.BUILD / "variants" / variant.flags.lstrip("-")
        bench.run_or_die(["cmake", "-S", bench.ROOT, "-B", tree, "-DCMAKE_BUILD_TYPE=Release", "-DGORT_BUILD_TESTS=OFF",
                          "-DGORT_BUILD_EXAMPLES=OFF", f"-DCMAKE_C_FLAGS={variant.flags}"])
        bench.run_or_die(["cmake", "--build", tree, "--parallel", "2", "--target", "gort-bench"])
        program = tree / "bench/gort-bench"
    return bench.Peer("gort", variant.name, program, env={"GORT_NETPOLL": variant.engine})


def cell(runs, first):
    """CPU us a request; what they had to wait, and where green threads burn these and the burns; the ratio to the first."""
    done = [r for r in runs if r]
    if not done:
        return "-"
    late = AND_BURNS if "burns" in done[0] else AND_LATE
    text = f"{min(r[COST] for r in done):.2f}" + "".join(f" / {min(r[key] for r in done) / 1000:.2f}" for key in late)
    ratios = [r[COST] / f[COST] for r, f in zip(runs, first) if r and f]
    return text + (f" (x{statistics.median(ratios):.2f})" if ratios and runs is not first else "")


def run(bench, table, rounds, quick, out, machine):
    """The exit status; out: the folder for the JSON."""
    variants, rows = TABLES[table](bench)
    built = [(v, build(bench, v)) for v in variants]
    variants, peers = zip(*((v, peer) for v, peer in built if peer))
    results = {(row.name, peer.label): [] for row, _ in rows for peer in peers}
    cores, began, failed = bench.split_cores(), time.monotonic(), []
    for number in range(rounds):
        for step, (row, procs) in enumerate(rows, 1):
            bench.progress(step, len(rows), began, f"round {number + 1}  {row.name}")
            for peer in peers if number % 2 == 0 else reversed(peers):
                result = None
                try:
                    result = bench.run_server(peer, row, procs, cores, max(0.7 if quick else 2, row.seconds), 0.3)
                except bench.Failed as e:
                    failed.append(f"{row.name}, {peer.label}, round {number + 1}: {e}")
                results[row.name, peer.label].append(result)
    print(bench.clear())
    first = {v.group or v.engine: v.name for v in reversed(variants)}
    bench.print_columns([[table, *(p.label for p in peers)]] +
                        [[row.name, *(cell(results[row.name, v.name], results[row.name, first[v.group or v.engine]])
                                      for v in variants)] for row, _ in rows])
    print(f"CPU us of the server for a request / p50 / p99 in ms, least of {rounds} rounds (median of the ratios of the first "
          f"number to that of the first of its group); stall: / p99 and p99.9 of the others / p99 of the burns.\n\n{machine}")
    (out / f"{table}.json").write_text(json.dumps({"machine": machine, "errors": failed, "runs": {
        f"{row}, {label}": runs for (row, label), runs in results.items()}}, indent=1) + "\n")
    for line in failed:
        print("ERROR", line)
    return 1 if failed else 0
