#!/usr/bin/env python3
"""Runs the examples, but for http, which has checks of its own: http_conformance.py.

Usage: GORT_BUILD_DIR=build examples.py
One line per check; exit status 1 when one failed. Any number may run at once.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
from lib.checks import PATIENCE, check, run_groups, skip  # noqa: E402 (beside this file)

EXAMPLES = os.path.join(os.environ.get("GORT_BUILD_DIR", "build"), "examples")


def run(name, *arguments, **environment):
    done = subprocess.run([os.path.join(EXAMPLES, name), *arguments],
                          env={**os.environ, **environment},
                          capture_output=True,
                          text=True,
                          timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr


def check_hello():
    wanted = "1000 green threads, their squares add up to 333833500\n"
    got = run("hello")
    check("hello says what it should and exits with 0", got == (0, wanted, ""), got)
    if not os.path.exists(os.path.join(EXAMPLES, "hello_cc")):
        skip("hello.cc: no C++ compiler")
        return
    wanted = "caught: no square of 13\n100 green threads, their squares add up to 338181\n"
    got = run("hello_cc")
    check("hello.cc says what it should and exits with 0", got == (0, wanted, ""), got)


def check_generators():
    got = run("generator")
    check("generator takes turns", got == (0, "1 2 x y 3 z\n", ""), got)
    wanted = "".join(f"[PRODUCER] Producing {n}...\n[CONSUMER] Consuming {n}...\n"
                     "[PRODUCER] Consumer return: 200 OK\n" for n in range(1, 6))
    got = run("producer_consumer")
    check("producer_consumer sends and gets its answers", got == (0, wanted, ""), got)


def check_async_gather():
    wanted = "A starts\nB starts\nB ends\nA ends\nA waited 300 ms, B 100 ms\n"
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:  # a machine that stands still for 0.1 s or more in the wrong place shows another order
        got = run("async_gather")
        lines = got[1].splitlines()
        if got == (0, wanted, "") or got[0] != 0 or sorted(lines) != sorted(wanted.splitlines()):
            break
    check("async_gather starts A and B, ends B and A, and gives the results of A and B", got == (0, wanted, ""), got)


def check_models():
    number = r"[\d.]+"
    status, out, err = run("models")
    row = rf" +{number} ms +{number} ms +\d+ +{number} MB\n"
    names = ("N:1, one OS thread", "1:1, pthreads", "M:N, all CPUs")
    wanted = r"500 tasks compute and rest 20 times each\n\n.*\n" + "".join(re.escape(name) + row for name in names)
    check("models compares three of them", status == 0 and re.fullmatch(wanted, out), (status, out, err))


def run_downloads(procs):
    """The rows of its table: name, threads, downloads at once, pages, late ones."""
    status, out, err = run("downloads", GORT_PROCS=str(procs))
    number = r"[\d.]+"
    row = rf"^([a-z, ]+?) +{number} ms +(\d+) +(\d+) +{number} MB +(\d+) of 30, (\d+) late$"
    rows = [(name, *map(int, numbers)) for name, *numbers in re.findall(row, out, re.M)]
    names = [row[0] for row in rows]
    good = status == 0 and err == "" and names == ["one by one", "a thread each", "green threads, ten at a time"]
    return rows if good else None, (status, out, err)


def check_downloads():
    procs = 2
    until = time.monotonic() + PATIENCE
    while True:  # a machine that stands still for 0.4 s makes other pages late, too
        rows, got = run_downloads(procs)
        if rows is None:
            break
        each_once = all(pages + late == 30 and late >= 1 for *_, pages, late in rows)
        only_one = all(late == 1 for *_, late in rows)
        if not each_once or only_one or time.monotonic() > until:
            break
    check("downloads compares three ways", rows is not None, got)
    if rows is None:
        return
    check("each way gets every page, or its patience for it is over, as for the one that never comes", each_once, got)
    check("and gets the 29 others", only_one, got)
    (_, alone, one, *_), (_, threads, many, *_), (_, workers, ten, *_) = rows
    check("one by one: one thread, one download at a time", alone in (1, 2) and one == 1, got)  # TSan has a thread
    most = 31 if alone == 1 else 33  # and in a forked child one more, from the first pthread_create on
    check("a thread each: up to 30 more, as many at once", alone < threads <= most and 1 <= many <= 30, got)
    check("green threads: at most ten at once", 1 <= ten <= 10, got)
    check("on the threads that gort may start", alone + procs + 1 <= workers <= alone + procs + 64, got)


def check_pipeline():
    wanted = "10000 squares add up to 333383335000\n"
    for procs in ("1", "2", "8"):
        got = run("pipeline", GORT_PROCS=procs)
        check(f"pipeline loses nothing with GORT_PROCS={procs}", got == (0, wanted, ""), got)


def start_echo(*options):
    program = os.path.join(EXAMPLES, "echo")
    process = subprocess.Popen([program, "--port", "0", *options],
                               stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    line = process.stdout.readline().decode()
    found = re.search(r"^listening on 127\.0\.0\.1:(\d+)$", line, re.M)
    if not found:
        process.kill()
        sys.exit(f"{program} did not start: {line!r} {process.communicate()!r}")
    return process, int(found.group(1))


def echoed(connection, data):
    """Send data while receiving, as an echo server that blocks on its writes makes necessary."""
    sender = threading.Thread(target=connection.sendall, args=(data, ))
    sender.start()
    got = bytearray()
    while len(got) < len(data):
        piece = connection.recv(65536)
        if not piece:
            break
        got += piece
    sender.join()
    return bytes(got)


def stop(process, number):
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, errors.decode(errors="replace")
    except subprocess.TimeoutExpired:
        process.kill()
        return "does not end", process.communicate()[1].decode(errors="replace")


def check_echo():
    process, port = start_echo("--procs", "2")
    connections = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(100)]
    for i, connection in enumerate(connections):
        connection.sendall(b"connection %d" % i)
    good = all(c.recv(100) == b"connection %d" % i for i, c in enumerate(connections))
    check("echo serves 100 connections at once, each its own bytes", good)
    data = bytes(i * 31 % 251 for i in range(3_000_000))
    check("echo brings 3 MB back unchanged", echoed(connections[0], data) == data)
    connections[0].shutdown(socket.SHUT_WR)
    check("echo closes when its client does", connections[0].recv(1) == b"")
    status, out, err = run("echo", "--port", str(port))
    used = status == 1 and out == "" and "Address already in use" in err
    check("a port in use: exit status 1 and a word why", used, (status, out, err))
    result = stop(process, signal.SIGTERM)
    check("SIGTERM: echo exits with 0, with 99 connections open", result == (0, ""), result)
    check("and they are closed", all(c.recv(1) == b"" for c in connections[1:]))
    for connection in connections:
        connection.close()

    result = stop(start_echo()[0], signal.SIGINT)
    check("SIGINT does the same", result == (0, ""), result)
    status, out, err = run("echo", "--help")
    check("echo --help", status == 0 and "--port" in out and err == "", (status, out, err))
    for options in (["--port", "65536"], ["--procs", "x"], ["--none"], ["extra"]):
        status, out, err = run("echo", *options)
        check(f"echo {' '.join(options)}: exit status 2", status == 2 and err != "", (status, err))


def main():
    groups = (check_hello, check_async_gather, check_generators, check_models, check_downloads, check_pipeline,
              check_echo)
    return run_groups([(group.__name__, group) for group in groups])


if __name__ == "__main__":
    sys.exit(main())
