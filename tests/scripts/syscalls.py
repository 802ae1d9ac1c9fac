#!/usr/bin/env python3
"""The system calls of the example echo: none while it is idle, and how many for a request when it is not.

Usage: GORT_BUILD_DIR=build syscalls.py
Counted by strace -f; without it, or where it may not trace, this is skipped. Under strace everything is slower, and the
mix of calls another than at full speed; sysmon's do not count. Where perf may count (raw_syscalls) the sum at full speed
is printed, too.
GORT_PROCS and GORT_NETPOLL are the server's.
"""

import collections
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from lib.checks import PATIENCE, check, run_groups, skip  # noqa: E402 (beside this file)

BUILD = os.environ.get("GORT_BUILD_DIR", "build")
ENGINE = os.environ.get("GORT_NETPOLL", "auto")
QUIET, LONGEST = 1.0, 100.0  # seconds without a system call, and how long it has for that
SIZE = 64


class Server:
    def __enter__(self):
        self.process = subprocess.Popen([os.path.join(BUILD, "examples", "echo"), "--port", "0"],
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", self.process.stdout.readline())[1])
        return self

    def connect(self, n):
        all_of_them = [socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) for _ in range(n)]
        for s in all_of_them:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        load(all_of_them, 1)
        return all_of_them

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def load(connections, times):
    """Each connection has one request under way, and all of them go round."""
    message = b"x" * SIZE
    for _ in range(times):
        for s in connections:
            s.sendall(message)
        for s in connections:
            got = 0
            while got < SIZE:
                n = len(s.recv(SIZE - got))
                if n == 0:
                    raise ConnectionError("the server has closed")
                got += n


class Strace:
    """strace on a process; as a context it has attached, and `text` is what it has written after that."""

    def __init__(self, pid, *options):
        self.out = tempfile.NamedTemporaryFile("r", suffix=".strace", errors="replace")
        self.command = ["strace", "-f", *options, "-o", self.out.name, "-p", str(pid)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        if "attached" not in line:
            self.process.wait()
            raise PermissionError(line.strip())
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.communicate()
        self.text = self.out.read()


def longest_gap(text, end):
    starts = sorted(float(m[1]) for m in re.finditer(r"^\d+ +(\d+\.\d+) (?!<\.\.\.|---|\+\+\+)", text, re.M))
    return max((b - a for a, b in zip(starts, [*starts[1:], end])), default=0)


def check_idle(connections):
    """The stop that strace makes of a thread when it attaches ends its wait: a few calls are its own doing."""
    with Server() as server:
        idle = server.connect(connections)
        with Strace(server.process.pid, "-ttt") as trace:
            gap, until = 0, time.time() + LONGEST
            while gap < QUIET and time.time() < until:
                time.sleep(QUIET / 2)
                with open(trace.out.name, errors="replace") as f:
                    gap = longest_gap(f.read(), time.time())
        check(f"{ENGINE}: idle with {connections} connections, no system call for a second", gap >= QUIET,
              f"{gap:.3f} s\n" + trace.text[-2000:])
        load(idle, 1)  # it was idle, not dead


def sysmon_of(pid):
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/comm") as f:
            if f.read() == "gort-sysmon\n":
                return thread
    raise LookupError("no sysmon")


def by_name(text, but):
    """{call: how often} by all threads but that one."""
    calls = re.findall(r"^(\d+) +(\w+)\(", text, re.M)
    return collections.Counter(name for thread, name in calls if thread != but)


def check_loaded(connections, times):
    with Server() as server:
        busy = server.connect(connections)
        with Strace(server.process.pid) as trace:
            load(busy, times)
        # sysmon's calls are a matter of time: a thousand a second while somebody is awake, however many the requests.
        calls = by_name(trace.text, sysmon_of(server.process.pid))
        requests = connections * times
        each = ", ".join(f"{name} {n / requests:.2f}" for name, n in sorted(calls.items(), key=lambda c: -c[1])[:5])
        total = sum(calls.values()) / requests
        print(f"      {ENGINE}: {connections} connections, {total:.2f} system calls a request under strace: {each}")
        moved = all(calls.get(name, 0) > 0.99 * requests for name in ("recvfrom", "sendto"))
        check(f"{ENGINE}: {connections} connections, one recv and one send a request, and few others",
              moved and total <= MOST[connections], calls)


# recv, send, and what finding out costs: alone a connection pays for each wait, many share it. A second recv
# (EAGAIN) is allowed for.
MOST = {1: 12.0, 64: 4.5}


def print_full_speed(connections):
    loadgen = os.path.join(BUILD, "bench", "gort-loadgen")
    if not os.path.exists(loadgen) or not shutil.which("perf"):
        skip(f"{ENGINE}: full speed, no gort-loadgen or no perf")
        return
    with Server() as server:
        # perf counts while the command runs, which is the load.
        out = subprocess.run(["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", str(server.process.pid),
                              loadgen, "--port", str(server.port), "--conns", str(connections), "--proto", "echo",
                              "--size", str(SIZE), "--duration", "1", "--warmup", "0"], capture_output=True, text=True)
        number = re.search(r"^(\d+),,raw_syscalls", out.stderr, re.M)
        if not number:
            skip(f"{ENGINE}: full speed, perf may not count")
            return
        result = json.loads(out.stdout)
        requests = result["requests"]
        print(f"      {ENGINE}: {connections} connections, {int(number[1]) / requests:.2f} system calls a request at full "
              f"speed ({requests:,} in a second)")


def sanitized():
    """The sanitizers have threads of their own, which are not silent."""
    try:
        with open(os.path.join(BUILD, "CMakeCache.txt")) as f:
            return re.search(r"^GORT_SANITIZE:\w+=.+", f.read(), re.M)
    except OSError:
        return False


def main():
    if sanitized() or not shutil.which("strace"):
        skip("a sanitizer's threads make system calls" if sanitized() else "strace is not here")
        return 77
    try:
        with Strace(subprocess.Popen(["sleep", "20"]).pid, "-c"):
            pass
    except PermissionError as e:
        skip(f"strace may not trace: {e}")
        return 77
    groups = [("idle", lambda: check_idle(0)), ("idle, connected", lambda: check_idle(16))]
    groups += [(f"loaded, {n}", lambda n=n: check_loaded(n, 1000 // n)) for n in MOST]
    groups += [(f"full speed, {n}", lambda n=n: print_full_speed(n)) for n in (1, 64)]
    return run_groups(groups)


if __name__ == "__main__":
    sys.exit(main())
