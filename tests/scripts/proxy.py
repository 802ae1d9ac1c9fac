#!/usr/bin/env python3
"""The examples echo and kv behind a network that delays, cuts, stalls, resets and passes single bytes (lib/proxy.py).

Usage: GORT_BUILD_DIR=build proxy.py [--spoil]
GORT_SOAK_SECONDS: how long the load lasts (10, which makes a minute in the six runs of tools/test; with --full: 60; an
hour: 3600, without ctest, whose time is limited). GORT_SEED: of all that is drawn; it is printed. --spoil lets the
network falsify bytes: checks must fail.
Promised: what came back or was acknowledged is right and stays, every connection ends, the server has as many
descriptors as before, and stops when told to.
"""

import collections
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
from lib.checks import check, open_files, run_groups  # noqa: E402 (beside this file)
from lib.proxy import HARMFUL, HARMLESS, PATIENCE, Link  # noqa: E402

BUILD = os.environ.get("GORT_BUILD_DIR", "build")
SECONDS = float(os.environ.get("GORT_SOAK_SECONDS", "10"))
SEED = int(os.environ.get("GORT_SEED") or time.time_ns() % 1000000)
CLIENTS = 8
SLOTS = 256  # of a client: what a cut connection left on its way is older than the next use of its slot
SPOIL = "--spoil" in sys.argv[1:]


class Server:
    def __init__(self, name):
        self.process = subprocess.Popen([os.path.join(BUILD, "examples", name), "--port", "0"],
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", self.process.stdout.readline())[1])

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def descriptors(self):
        return open_files(self.process.pid)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "does not end"


def receive(s, n):
    """n bytes, or fewer when the connection ends; None when nothing comes."""
    got = b""
    try:
        while len(got) < n:
            piece = s.recv(n - len(got))
            if not piece:
                break
            got += piece
    except socket.timeout:
        return None
    except OSError:
        pass
    return got


class Load:
    """Clients that talk through links until the time is over, and what they have seen."""

    def __init__(self, server, talk):
        self.server, self.talk = server, talk
        self.lock = threading.Lock()
        self.seen, self.struck = collections.Counter(), collections.Counter()
        self.bytes, self.wrong, self.lost, self.stuck = 0, [], [], []

    def note(self, where, what):
        with self.lock:
            where.append(what)

    def idle(self):
        """The plans that have done nothing yet."""
        with self.lock:
            return [p for p in HARMLESS if not self.seen[p]] + [p for p in HARMFUL if not self.struck[p]]

    def client(self, number, until):
        n = 0
        # A few after the time, too: each plan must have had its turn, and struck, however slow the machine.
        while time.monotonic() < until or self.idle():
            draw = random.Random(f"{SEED}:{number}:{n}")
            plan = (HARMLESS + HARMFUL)[(number + n) % len(HARMLESS + HARMFUL)]
            link = Link(self.server.port, plan, draw.random(), SPOIL)
            who = f"{plan}, client {number}, connection {n}"
            whole = self.talk(self, link.client, draw, (number, n % SLOTS), who)
            if not link.end():
                self.note(self.stuck, who)
            if whole is False and plan in HARMLESS:
                self.note(self.lost, who)
            with self.lock:
                self.seen[plan] += 1
                self.struck[plan] += link.struck
            n += 1

    def run(self):
        until = time.monotonic() + SECONDS / 2
        threads = [threading.Thread(target=self.client, args=(i, until), daemon=True) for i in range(CLIENTS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(SECONDS + PATIENCE)
            if t.is_alive():
                self.note(self.stuck, "a client")


def talk_echo(load, s, draw, _slot, who):
    """True: all came back, and then the end; False: it ended early; None: the client left in the middle."""
    for _ in range(draw.randrange(1, 8)):
        message = draw.randbytes(draw.choice((1, 10, 1000, 6000)))
        try:
            s.sendall(message)
        except OSError:
            return False
        if draw.random() < 0.05:
            return None
        got = receive(s, len(message))
        if got is None:
            load.note(load.stuck, who)
            return None
        if got != message[:len(got)]:
            load.note(load.wrong, who)
        with load.lock:
            load.bytes += len(got)
        if len(got) < len(message):
            return False
    try:
        s.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    rest = receive(s, 1)
    if rest is None:
        load.note(load.stuck, who)
    elif rest:
        load.note(load.wrong, who)
    return True


def request(*words):
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


class Book:
    """What the server must know in the end: by slot the last acknowledged value and those that may be there, by client
    how often it has counted and may have."""

    def __init__(self):
        self.value, self.maybe = {}, {}
        self.count, self.extra = collections.Counter(), collections.Counter()

    def acknowledged(self, slot, value):
        self.value[slot], self.maybe[slot] = value, []

    def talk(self, load, s, draw, slot, who):
        number = slot[0]
        for _ in range(draw.randrange(1, 8)):
            value = draw.randbytes(draw.choice((1, 10, 1000, 6000)))
            self.maybe.setdefault(slot, []).append(value)
            self.extra[number] += 1
            try:
                s.sendall(request("SET", "value:%d:%d" % slot, value) + request("INCR", f"count:{number}"))
            except OSError:
                return False
            if draw.random() < 0.05:
                return None
            got = receive(s, len(b"+OK\r\n:1\r\n"))
            more = got
            while more and not got.endswith(b"\r\n"):
                more = receive(s, 1)
                got += more or b""
            if more is None:
                load.note(load.stuck, who)
                return None
            with load.lock:
                load.bytes += len(got)
            if got.startswith(b"+OK\r\n"):
                self.acknowledged(slot, value)
            answer = re.fullmatch(rb"\+OK\r\n:(\d+)\r\n", got)
            if not answer:  # cut short, or wrong
                if not (b"+OK\r\n".startswith(got) or re.fullmatch(rb"\+OK\r\n(:\d*\r?)?", got)):
                    load.note(load.wrong, (who, got))
                return False
            self.count[number] += 1
            self.extra[number] -= 1
            n = int(answer[1])
            if not self.count[number] <= n <= self.count[number] + self.extra[number]:
                load.note(load.wrong, (who, n, self.count[number], self.extra[number]))
        return True

    def check_all(self, server):
        bad = []
        with server.connect() as s:
            lines = s.makefile("rb")

            def get(key):
                s.sendall(request("GET", key))
                size = int(lines.readline()[1:])
                return lines.read(size + 2)[:-2] if size >= 0 else None

            for slot, maybe in self.maybe.items():
                value = get("value:%d:%d" % slot)
                if value != self.value.get(slot) and value not in maybe:
                    bad.append((slot, value and len(value)))
            for number, least in self.count.items():
                count = int(get(f"count:{number}") or 0)
                if not least <= count <= least + self.extra[number]:
                    bad.append(("count", number, count, least, self.extra[number]))
        check(f"kv: {len(self.value)} values and {sum(self.count.values())} counts that were acknowledged are there",
              self.value and not bad, bad[:5])


def behind_proxy(name, talk, afterwards=lambda server: None):
    server = Server(name)
    try:
        with server.connect() as s:  # what is made at the first connection is there
            s.sendall(request("PING"))
            receive(s, 1)
            before = server.descriptors() - 1
        load = Load(server, talk)
        load.run()
        total = sum(load.seen.values())
        check(f"{name}: {total} connections, {load.bytes} bytes came back and were right", load.bytes and not load.wrong,
              load.wrong[:5])
        check(f"{name}: whole where nothing was cut", not load.lost, load.lost[:5])
        check(f"{name}: every connection ends", not load.stuck, load.stuck[:5])
        check(f"{name}: the network did what it is there for", not load.idle(), load.idle())
        late = time.monotonic() + PATIENCE
        while server.descriptors() != before and time.monotonic() < late:
            time.sleep(0.05)
        check(f"{name}: {before} descriptors as before", server.descriptors() == before, server.descriptors())
        afterwards(server)
        with server.connect() as s:
            s.sendall(request("PING"))
            check(f"{name}: still serves", receive(s, 1) in (b"+", b"*"))
        code = server.stop()
        check(f"{name}: SIGTERM ends it with 0", code == 0, code)
    finally:
        server.process.kill()
        server.process.wait()


def main():
    print(f"seed {SEED}, {SECONDS:g} s")
    book = Book()
    return run_groups([("echo", lambda: behind_proxy("echo", talk_echo)),
                       ("kv", lambda: behind_proxy("kv", book.talk, book.check_all))])


if __name__ == "__main__":
    sys.exit(main())
