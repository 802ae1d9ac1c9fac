"""tools/bench --only kv: the example kv beside redis-server, both driven by redis-benchmark, with one request under
way on each connection (-P 1) and with 16 (-P 16).

Each server has one thread that serves and one core for itself; redis-benchmark has another. Every round runs both, one
right after the other and turn about, and a ratio is taken inside a round. What counts is the CPU time of the server's
process for a request; the rate is redis-benchmark's, which is often the slower one. redis-server keeps nothing on disk.
"""
import csv
import json
import shutil
import subprocess
import tempfile
import time
from collections import namedtuple

CONNECTIONS, BYTES, KEYS = 50, 64, 100_000
Row = namedtuple("Row", "test pipeline requests")
ROWS = [Row(test, pipeline, n) for pipeline, n in ((1, 100_000), (16, 500_000)) for test in ("set", "get")]


def commands(gort, port):
    return {"kv": [gort, "--port", port, "--procs", 1],
            "redis": ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]}


def cpu_s(pid):
    """CPU time of a process and all its threads, those that have ended too (CLOCK_PROCESS_CPUTIME_ID of another)."""
    return time.clock_gettime(~pid << 3 | 2)


def one(command, row, requests, port, cores, bench):
    """What one server did with one row; bench is the module bench.py."""
    server_cores, client_cores = cores
    with tempfile.TemporaryFile("w+") as stderr:
        server = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                                  preexec_fn=bench.pin(server_cores))
        try:
            bench.wait_for_port(server, port, stderr)

            def load(test, n, pipeline):
                done = subprocess.run([str(a) for a in ("redis-benchmark", "-p", port, "-c", CONNECTIONS, "-n", n, "-P", pipeline,
                                                        "-t", test, "-d", BYTES, "-r", KEYS, "--csv")],
                                      capture_output=True, text=True, timeout=180, preexec_fn=bench.pin(client_cores))
                lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
                if done.returncode or len(lines) != 2:
                    raise bench.Failed("redis-benchmark: " + bench.explain(done.stderr, done.returncode))
                return next(csv.DictReader(lines))

            load("set", KEYS, 16)  # warm, and there are keys to get
            before = cpu_s(server.pid)
            result = load(row.test, requests, row.pipeline)
            used = cpu_s(server.pid) - before
            if server.poll() is not None:
                raise bench.Failed("the server died")
        except subprocess.TimeoutExpired:
            raise bench.Failed("redis-benchmark did not end") from None
        finally:
            bench.end(server)
    return {"cpu_us": used / requests * 1e6, "rps": float(result["rps"]), "p50_ms": float(result["p50_latency_ms"]),
            "p99_ms": float(result["p99_latency_ms"])}


def table(results):
    lines = [["kv", "-P", "kv CPU us/request", "redis", "kv is", "(min - max)", "requests/s", "redis", "p99 ms", "redis"]]
    for row in ROWS:
        runs = results[row]
        if not all(all(each) for each in runs.values()):
            continue
        best = {name: min(each, key=lambda r: r["cpu_us"]) for name, each in runs.items()}
        ratios = [theirs["cpu_us"] / ours["cpu_us"] for ours, theirs in zip(runs["kv"], runs["redis"])]
        lines.append([row.test, str(row.pipeline), f"{best['kv']['cpu_us']:.2f}", f"{best['redis']['cpu_us']:.2f}",
                      f"{best['redis']['cpu_us'] / best['kv']['cpu_us']:.2f}x", f"({min(ratios):.2f} - {max(ratios):.2f})",
                      *(f"{best[name][key]:{how}}" for key, how in (("rps", ",.0f"), ("p99_ms", ".2f")) for name in ("kv", "redis"))])
    return lines


def run(bench, gort, rounds, quick, out, machine):
    """The exit status. gort: the program kv; out: the folder for kv.json."""
    if not shutil.which("redis-server") or not shutil.which("redis-benchmark"):
        print("kv: skipped, redis-server and redis-benchmark are not installed")
        return 0
    if not gort.exists():
        print(f"kv: skipped, {gort} was not built")
        return 0
    results = {row: {"kv": [], "redis": []} for row in ROWS}
    cores, began, failed = bench.split_cores(), time.monotonic(), []
    for number in range(rounds):
        for step, row in enumerate(ROWS, 1):
            bench.progress(step, len(ROWS), began, f"round {number + 1}  kv, {row.test}, -P {row.pipeline}")
            for name in ("kv", "redis") if number % 2 else ("redis", "kv"):
                port = bench.free_port()
                result = None
                try:
                    requests = row.requests // (4 if quick else 1)
                    result = one(commands(gort, port)[name], row, requests, port, cores, bench)
                except bench.Failed as e:
                    failed.append(f"{name}, {row.test}, -P {row.pipeline}, round {number + 1}: {e}")
                results[row][name].append(result)
    print(bench.clear())
    bench.print_columns(table(results))
    print(f"CPU time of the server's process; {CONNECTIONS} connections, {BYTES} bytes, {rounds} rounds; kv is so many times "
          f"better: best over best, then the least and most inside a round.\n\n{machine}")
    rows = [{"test": row.test, "pipeline": row.pipeline, "requests": row.requests, "rounds": runs} for row, runs in results.items()]
    (out / "kv.json").write_text(json.dumps({"machine": machine, "errors": failed, "rows": rows}, indent=1) + "\n")
    for line in failed:
        print("ERROR", line)
    return 1 if failed else 0
