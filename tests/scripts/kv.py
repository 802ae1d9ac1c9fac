#!/usr/bin/env python3
"""Talks to the example kv as redis-cli and redis-benchmark do, and as they never would.

Usage: GORT_BUILD_DIR=build kv.py
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
from lib.checks import PATIENCE, check, run_groups  # noqa: E402 (beside this file)

KV = os.path.join(os.environ.get("GORT_BUILD_DIR", "build"), "examples", "kv")


class Server:

    def __enter__(self):
        self.process = subprocess.Popen([KV, "--port", "0"], stdout=subprocess.PIPE, text=True)
        self.port = int(re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", self.process.stdout.readline())[1])
        return self

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def request(*words):
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def receive(s, n):
    got = b""
    while len(got) < n:
        piece = s.recv(n - len(got))
        if not piece:
            break
        got += piece
    return got


def ask(s, *words, wanted):
    s.sendall(request(*words))
    got = receive(s, len(wanted))
    check(" ".join(str(w)[:20] for w in words), got == wanted, got[:100])


def check_commands(server):
    with server.connect() as s:
        ask(s, "PING", wanted=b"+PONG\r\n")
        ask(s, "ping", "hello", wanted=b"$5\r\nhello\r\n")
        ask(s, "GET", "none", wanted=b"$-1\r\n")
        ask(s, "SET", "a", b"1\r\n\0x", wanted=b"+OK\r\n")
        ask(s, "GET", "a", wanted=b"$5\r\n1\r\n\0x\r\n")
        ask(s, "SET", "", "", wanted=b"+OK\r\n")
        ask(s, "GET", "", wanted=b"$0\r\n\r\n")
        ask(s, "DEL", "a", "none", "", wanted=b":2\r\n")
        ask(s, "GET", "a", wanted=b"$-1\r\n")
        ask(s, "INCR", "n", wanted=b":1\r\n")
        ask(s, "INCR", "n", wanted=b":2\r\n")
        ask(s, "GET", "n", wanted=b"$1\r\n2\r\n")
        for text in ("x", "", "1x", " 1", "+1", "9" * 30):
            ask(s, "SET", "n", text, wanted=b"+OK\r\n")
            ask(s, "INCR", "n", wanted=b"-ERR value is not an integer or out of range\r\n")
        ask(s, "SET", "n", "9223372036854775807", wanted=b"+OK\r\n")
        ask(s, "INCR", "n", wanted=b"-ERR increment or decrement would overflow\r\n")
        ask(s, "SET", "n", "-9223372036854775808", wanted=b"+OK\r\n")
        ask(s, "INCR", "n", wanted=b":-9223372036854775807\r\n")
        ask(s, "GET", wanted=b"-ERR wrong number of arguments for 'get' command\r\n")
        ask(s, "FLUSHALL", wanted=b"-ERR unknown command\r\n")
        ask(s, "SET", "a", "b", "XX", wanted=b"-ERR syntax error\r\n")
        s.sendall(b"PING\r\n  set  inline  it \r\n\r\nGET inline\n")
        wanted = b"+PONG\r\n+OK\r\n$2\r\nit\r\n"
        check("words on a line", receive(s, len(wanted)) == wanted)


def check_expiry(server):
    with server.connect() as s:
        ask(s, "EXPIRE", "none", 10, wanted=b":0\r\n")
        ask(s, "SET", "gone", "x", wanted=b"+OK\r\n")
        ask(s, "EXPIRE", "gone", 1000, wanted=b":1\r\n")
        ask(s, "GET", "gone", wanted=b"$1\r\nx\r\n")
        ask(s, "EXPIRE", "gone", -1, wanted=b":1\r\n")
        ask(s, "GET", "gone", wanted=b"$-1\r\n")
        ask(s, "DEL", "gone", wanted=b":0\r\n")
        ask(s, "SET", "brief", "5", "PX", 20, wanted=b"+OK\r\n")
        time.sleep(0.03)
        ask(s, "GET", "brief", wanted=b"$-1\r\n")
        ask(s, "SET", "count", "5", "EX", 1000, wanted=b"+OK\r\n")
        ask(s, "INCR", "count", wanted=b":6\r\n")
        ask(s, "EXPIRE", "count", 0, wanted=b":1\r\n")
        ask(s, "INCR", "count", wanted=b":1\r\n")
        for time_out in ("0", "-5", "x", str(1 << 62)):
            ask(s, "SET", "a", "b", "EX", time_out, wanted=b"-ERR invalid expire time in 'set' command\r\n")


def check_pipeline(server):
    n = 5000
    out = b"".join(request("SET", f"key:{i}", i) for i in range(n)) + b"".join(request("GET", f"key:{i}") for i in range(n))
    wanted = b"+OK\r\n" * n + b"".join(b"$%d\r\n%d\r\n" % (len(str(i)), i) for i in range(n))
    with server.connect() as s:
        sender = threading.Thread(target=s.sendall, args=(out,))
        sender.start()
        got = receive(s, len(wanted))
        sender.join()
        check(f"{2 * n} requests at once are answered in order", got == wanted, len(got))
    out = request("SET", "cut", "here") + request("GET", "cut") + b"PING\r\n"
    wanted = b"+OK\r\n$4\r\nhere\r\n+PONG\r\n"
    good = 0
    for at in range(1, len(out)):
        with server.connect() as s:
            s.sendall(out[:at])
            time.sleep(0.001)
            s.sendall(out[at:])
            good += receive(s, len(wanted)) == wanted
    check("requests cut at every byte", good == len(out) - 1, good)


def check_sizes(server):
    large = bytes(range(256)) * 4096  # 1 MiB, the most
    with server.connect() as s:
        ask(s, "SET", "large", large, wanted=b"+OK\r\n")
        for _ in range(3):
            s.sendall(request("GET", "large"))
        wanted = (b"$%d\r\n%s\r\n" % (len(large), large)) * 3
        check("a value of 1 MiB, three times", receive(s, len(wanted)) == wanted)


def check_garbage(server):
    for what, sent in (("more than 1 MiB", b"*2\r\n$3\r\nGET\r\n$1048577\r\n"), ("a negative length", b"*1\r\n$-5\r\n"),
                       ("no number", b"*x\r\n"), ("a number without an end", b"*" + b"1" * 40), ("too many words", b"*1025\r\n"),
                       ("no bulk", b"*1\r\n:5\r\n"), ("a bulk that goes on", b"*1\r\n$2\r\nPING\r\n"),
                       ("a line without an end", b"x" * 70000), ("words without an end", b"x " * 1025 + b"\r\n")):
        with server.connect() as s:
            s.sendall(request("PING"))
            got = b""
            try:
                s.sendall(sent)
            except (ConnectionResetError, BrokenPipeError):  # it has seen enough
                pass
            try:
                while piece := s.recv(4096):
                    got += piece
            except ConnectionResetError:  # it closed before it had read everything
                pass
            check(f"{what} is an error", got.startswith(b"+PONG\r\n-ERR ") and got.endswith(b"\r\n"), got[:100])


def check_many(server):
    clients, each = 8, 500

    def count(wrong):
        with server.connect() as s:
            s.sendall(request("INCR", "all") * each)
            last = 0
            lines = s.makefile("rb")
            for _ in range(each):
                n = int(lines.readline()[1:])
                wrong.extend([n] if n <= last else [])
                last = n

    wrong = []
    threads = [threading.Thread(target=count, args=(wrong,)) for _ in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check("counts of each client grow", not wrong, wrong[:5])
    with server.connect() as s:
        total = str(clients * each).encode()
        ask(s, "GET", "all", wanted=b"$%d\r\n%s\r\n" % (len(total), total))


def check_stop(server):
    with server.connect() as s:  # one that is still there
        ask(s, "PING", wanted=b"+PONG\r\n")  # and accepted: who is not, is reset with the listener
        server.process.send_signal(signal.SIGTERM)
        check("SIGTERM ends it with 0", server.process.wait(PATIENCE) == 0, server.process.returncode)
        check("and its connections", s.recv(1) == b"")


def main():
    groups = (check_commands, check_expiry, check_pipeline, check_sizes, check_garbage, check_many, check_stop)
    with Server() as server:
        return run_groups([(group.__name__, lambda group=group: group(server)) for group in groups])


if __name__ == "__main__":
    sys.exit(main())
