#!/usr/bin/env python3
"""Checks examples/http byte by byte over raw sockets, and with curl, ab, wrk and h2load.

Usage: GORT_BUILD_DIR=build http_conformance.py [word]   (only groups with the word in their name)
One line per check; exit status 1 when one failed; a tool that is not installed is skipped. Any
number may run at once: every server gets a port of its own.
"""
import email.utils
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from lib.checks import PATIENCE, check, open_files, run_groups, skip  # noqa: E402 (beside this file)

BUILD = os.environ.get("GORT_BUILD_DIR", "build")
PROGRAM = os.path.join(BUILD, "examples", "http")


# What a busy machine must not make it do; a group that wants another time says so.
NEVER = [f"--{name}-timeout=10m" for name in ("idle", "header", "body", "write")] + ["--grace=10m"]


class Server:
    """The program under test on a free port."""
    started = []

    def __init__(self, *options):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([PROGRAM, "--port", "0", *NEVER, *options],
                                        stdout=subprocess.PIPE,
                                        stderr=self.errors)
        Server.started.append(self.process)
        line = self.process.stdout.readline().decode()
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", line)
        if not found:
            Server.kill_all()
            sys.exit(f"{PROGRAM} did not start: {line!r} {self.stderr()!r}")
        self.port = int(found.group(1))

    @staticmethod
    def kill_all():
        """Whatever a check that stopped short has left running."""
        for process in Server.started:
            process.kill()
            process.wait()
        Server.started.clear()

    def connect(self, receive_buffer=None):
        return Client(self.port, receive_buffer)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=PATIENCE):
        """The exit status, or None when it does not end."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        finally:
            self.process.stdout.close()

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def check_clean_end(self, name):
        """Every group ends so: nothing said on stderr (a sanitizer would have), exit status 0."""
        self.signal(signal.SIGTERM)
        status = self.wait()
        check(f"{name}: the server ends with 0 and has nothing to complain about", status == 0
              and self.stderr() == "", f"status {status}, stderr {self.stderr()!r}")


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    def __getitem__(self, name):
        return self.fields.get(name.lower())


class Client:
    """One connection, read strictly: what does not look like HTTP raises ValueError."""

    def __init__(self, port, receive_buffer=None):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def more(self):
        data = self.socket.recv(1 << 20)
        if not data:
            raise ValueError(f"the connection ended after {self.buffer[:200]!r}")
        self.buffer += data

    def take(self, n):
        while len(self.buffer) < n:
            self.more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def head(self):
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("ascii").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d\d\d) [A-Za-z ]+", first)
        if not found:
            raise ValueError(f"status line {first!r}")
        fields = {}
        for line in lines:
            found_field = re.fullmatch(r"([A-Za-z-]+): (\S.*)?", line)
            if not found_field or found_field.group(1).lower() in fields:
                raise ValueError(f"field {line!r}")
            fields[found_field.group(1).lower()] = found_field.group(2)
        return int(found.group(1)), fields

    def answer(self, to_head=False):
        status, fields = self.head()
        return Answer(status, fields, b"" if to_head else self.take(int(fields["content-length"])))

    def ask(self, data, to_head=False):
        return self.send(data).answer(to_head)

    def ended(self):
        """The end of the stream with nothing before it; a reset is not an end."""
        try:
            return self.buffer == b"" and self.socket.recv(1) == b""
        except OSError:
            return False

    def usable(self):
        """The connection takes another request."""
        try:
            return self.ask(GET).body == b"Hello, World!"
        except (OSError, ValueError):
            return False


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def post(body, path="/echo", fields=""):
    return (f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
            ).encode() + body


def post_chunks(chunks, fields="", trailer=b""):
    head = f"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{fields}\r\n".encode()
    return (head + b"".join(b"%x\r\n%s\r\n" % (len(c), c)
                            for c in chunks) + b"0\r\n" + trailer + b"\r\n")


def body_of(n, seed=0):
    """n bytes without a short period, so that a piece in the wrong place is seen."""
    return bytes((i * 31 + seed + i // 251) % 256 for i in range(n))


def stats(server):
    with server.connect() as c:
        text = c.ask(b"GET /stats HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").body.decode()
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


# ---- What a well-behaved client sees ----


def group_basic():
    begun = time.time()
    server = Server()
    with server.connect() as c:
        a = c.ask(GET)
        check("GET / answers 200 and Hello, World!", (a.status, a.body) == (200, b"Hello, World!"),
              a.body)
        check("GET / has exactly Date, Content-Type and Content-Length",
              set(a.fields) == {"date", "content-type", "content-length"}, a.fields)
        check("GET / says text/plain, 13 bytes",
              (a["Content-Type"], a["Content-Length"]) == ("text/plain", "13"))
        first_date = a["Date"]
        parsed = email.utils.parsedate_to_datetime(first_date)
        check("the Date is in the one format that is allowed",
              email.utils.format_datetime(parsed, usegmt=True) == first_date, first_date)
        check("the Date is now", begun - 2 < parsed.timestamp() <= time.time(), first_date)
        check("the connection stays open", c.usable() and c.usable())
        a = c.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", to_head=True)
        check("HEAD / counts 13 bytes", (a.status, a["Content-Length"]) == (200, "13"))
        check("HEAD / sends none of them", c.usable())
        a = c.ask(b"GET /?a=b HTTP/1.1\r\nHost: a\r\n\r\n")
        check("a query does not matter to the route", a.body == b"Hello, World!")
        a = c.ask(b"GET /header?x-TEST HTTP/1.1\r\nHost: a\r\nX-Test: \t some  value \t\r\n\r\n")
        check("a field is found in any case, without the blanks around it",
              (a.status, a.body) == (200, b"some  value"), a.body)
        a = c.ask(b"GET /header?X-None HTTP/1.1\r\nHost: a\r\n\r\n")
        check("a field that is not there answers 404", a.status == 404)
        a = c.ask(b"GET /header?X-Empty HTTP/1.1\r\nHost: a\r\nX-Empty:\r\n\r\n")
        check("an empty field is there", (a.status, a.body) == (200, b""))
        a = c.ask(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
        check("an unknown path answers 404 and stays open", a.status == 404 and c.usable())
        a = c.ask(post(b"x", "/"))
        check("POST / answers 405 with Allow", (a.status, a["Allow"]) == (405, "GET, HEAD"))
        a = c.ask(b"DELETE /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        check("DELETE /echo answers 405 with Allow", (a.status, a["Allow"]) == (405, "POST"))
        a = c.ask(b"HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\n", to_head=True)
        check("HEAD with an error has no body either", a.status == 405 and c.usable())
        a = c.ask(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        check("OPTIONS * is answered", (a.status, a["Allow"]) == (200, "GET, HEAD, POST"))
        a = c.ask(b"GET http://a/header?host HTTP/1.1\r\nHost: a:80\r\n\r\n")
        check("a target may be a whole URL", (a.status, a.body) == (200, b"a:80"))
        a = c.ask(b"GET HTTP://a?x HTTP/1.1\r\nHost: a\r\n\r\n")
        check("a whole URL may lack the path", a.body == b"Hello, World!")
        check("empty lines before a request are overlooked", c.ask(b"\r\n\r\n" + GET).status == 200)
        a = c.ask(b"GET / HTTP/1.1\nHost: a\n\n")
        check("bare line feeds are understood", a.status == 200)
        a = c.ask(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n")
        check("HTTP/1.2 is treated as 1.1", a.status == 200 and c.usable())
        check("a second later the Date is another",
              until(lambda: c.ask(GET)["Date"] != first_date))
    server.check_clean_end("basic")


def group_connection():
    server = Server()
    cases = [("1.1 with Connection: close",
              b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close"),
             ("1.1 with close in a list, in capitals",
              b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x ,\tCLOSE\r\n\r\n", "close"),
             ("1.1 with close and keep-alive",
              b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", "close"),
             ("1.1 with Connection: closed",
              b"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", None),
             ("1.0", b"GET / HTTP/1.0\r\n\r\n", "close"),
             ("1.0 with Connection: Keep-Alive",
              b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "keep-alive"),
             ("1.0 with keep-alive and a body",
              b"POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 13\r\n\r\n"
              b"Hello, World!", "keep-alive")]
    for name, request, connection in cases:
        with server.connect() as c:
            a = c.ask(request)
            good = (a.status, a.body, a["Connection"]) == (200, b"Hello, World!", connection)
            check(f"{name} is answered with Connection: {connection}", good, a.fields)
            check(f"{name}: the connection {'ends' if connection == 'close' else 'goes on'}",
                  c.ended() if connection == "close" else c.usable())
    with server.connect() as c:
        c.send(GET).socket.shutdown(socket.SHUT_WR)
        check("a client that closes its half gets its answer",
              c.answer().status == 200 and c.ended())
    with server.connect() as c:
        a = c.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET * 50)
        check("what follows a Connection: close is neither answered nor reset", a.status == 200
              and c.ended())
    server.check_clean_end("connection")


def group_bodies():
    server = Server()
    with server.connect() as c:
        for n in (0, 1, 13, 3900, 4000, 4095, 4096, 4097, 8192, 100_000, 1 << 20):
            check(f"a body of {n} bytes comes back", c.ask(post(body_of(n))).body == body_of(n))
        for size, n in ((1, 300), (7, 1000), (4096, 3), (10_000, 10), (1 << 20, 1)):
            chunks = [body_of(size, i) for i in range(n)]
            check(f"{n} chunks of {size} bytes come back",
                  c.ask(post_chunks(chunks)).body == b"".join(chunks))
        check("a chunked body may be empty", c.ask(post_chunks([])).body == b"")
        a = c.ask(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n"
                  b"A;name=value\r\n0123456789\r\n00b\r\nabcdefghijk\r\n000\r\n\r\n")
        check("chunk sizes in capitals, with zeros, with extensions",
              a.body == b"0123456789abcdefghijk", a.body)
        check("trailers are read and dropped",
              c.ask(post_chunks([b"abc"], trailer=b"X-A: 1\r\nX-B: 2\r\n")).body == b"abc")
        check("after all of these the connection is in step", c.usable())
        # A head that fills the buffer nearly or wholly, before a body that has to go somewhere.
        for pad in range(3800, 4120, 16):
            fields = f"X-Pad: {'p' * pad}\r\n"
            first = c.ask(post_chunks([b"abc", body_of(5000)], fields)).body
            second = c.ask(post(body_of(700), fields=fields)).body
            good = first == b"abc" + body_of(5000) and second == body_of(700)
            if not good or pad >= 4104:
                check("bodies behind heads of every size around the buffer's come back", good,
                      f"pad {pad}")
                break
        a = c.ask(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + GET)
        check("a GET may have a body, and the next request is behind it", a.status == 200
              and c.answer().status == 200)
        a = c.ask(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc")
        check("the same Content-Length twice is one", (a.status, a.body) == (200, b"abc"))
    with server.connect() as c:
        c.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        check("Expect: 100-continue is answered with 100 and nothing else",
              c.take(25) == b"HTTP/1.1 100 Continue\r\n\r\n" and c.buffer == b"")
        a = c.ask(b"hello")
        check("then the body is taken", (a.status, a.body) == (200, b"hello") and c.usable())
        a = c.ask(post(b"hello", fields="Expect: 100-Continue\r\n"))
        check("no 100 when the body is there already", (a.status, a.body) == (200, b"hello"))
        c.send(b"POST /echo HTTP/1.1\r\nHost: a\r\n"
               b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        check("100 for a chunked body too", c.take(25) == b"HTTP/1.1 100 Continue\r\n\r\n")
        check("and it is taken", c.ask(b"3\r\nabc\r\n0\r\n\r\n").body == b"abc")
    with server.connect() as c:
        c.send(b"POST /echo HTTP/1.1\r\nHost: a\r\n"
               b"Content-Length: 1048577\r\nExpect: 100-continue\r\n\r\n")
        check("Expect with a body that is too large: 413, no 100", c.answer().status == 413)
    server.check_clean_end("bodies")


# ---- What is refused ----


def line(text):
    return text.encode("latin-1") + b"\r\nHost: a\r\n\r\n"


def fields(*lines):
    return ("GET / HTTP/1.1\r\n" + "".join(f + "\r\n" for f in lines) + "\r\n").encode("latin-1")


REFUSED = [
    ("garbage", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ("no version", 400, b"GET /\r\n\r\n"),
    ("a method alone", 400, b"GET\r\n\r\n"),
    ("a word for a version", 400, line("GET / X")),
    ("a version of letters", 400, line("GET / HTTP/x.y")),
    ("something behind the version", 400, line("GET / HTTP/1.1 x")),
    ("a two-digit version", 400, line("GET / HTTP/1.10")),
    ("a version in small letters", 400, line("GET / http/1.1")),
    ("a method with a bracket", 400, line("G(T / HTTP/1.1")),
    ("a control character in the target", 400, line("GET /\x01 HTTP/1.1")),
    ("a target that is no path", 400, line("GET index.html HTTP/1.1")),
    ("* without OPTIONS", 400, line("GET * HTTP/1.1")),
    ("a URL without a host", 400, line("GET http:///x HTTP/1.1")),
    ("HTTP/2.0", 505, line("GET / HTTP/2.0")),
    ("HTTP/0.9", 505, line("GET / HTTP/0.9")),
    ("the preface of HTTP/2", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("no Host in 1.1", 400, b"GET / HTTP/1.1\r\n\r\n"),
    ("two Hosts", 400, fields("Host: a", "Host: b")),
    ("the same Host twice", 400, fields("Host: a", "host: a")),
    ("a list of Hosts", 400, fields("Host: a, b")),
    ("a Host with a path", 400, fields("Host: a/b")),
    ("a blank before the colon", 400, fields("Host: a", "X : 1")),
    ("a field without a name", 400, fields("Host: a", ": 1")),
    ("a field without a colon", 400, fields("Host: a", "nonsense")),
    ("a folded field", 400, fields("Host: a", "X: 1", " 2")),
    ("a blank before the first field", 400, fields(" Host: a")),
    ("a NUL in a field", 400, fields("Host: a", "X: a\0b")),
    ("a carriage return in a field", 400, fields("Host: a", "X: a\rb")),
    ("101 fields", 431, fields("Host: a", *[f"X-{i}: {i}" for i in range(100)])),
    ("a head of 40,000 bytes", 431, fields("Host: a", "X: " + "x" * 40000)),
    ("a target of 40,000 bytes", 431, line("GET /" + "x" * 40000 + " HTTP/1.1")),
    ("40,000 bytes without a line's end", 431, b"GET /" + b"x" * 40000),
    ("Content-Length and chunked", 400,
     fields("Host: a", "Content-Length: 3", "Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    ("chunked and Content-Length", 400,
     fields("Host: a", "Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n"),
    ("two different Content-Lengths", 400,
     fields("Host: a", "Content-Length: 3", "Content-Length: 4") + b"abcd"),
    *[(f"Content-Length: {value!r}", 400, fields("Host: a", f"Content-Length: {value}") + b"abc")
      for value in ("", "x", "-3", "+3", "3 3", "3, 3", "0x3", "3.0", "18446744073709551619",
                    "9" * 40)],
    ("Transfer-Encoding: gzip", 501, fields("Host: a", "Transfer-Encoding: gzip")),
    ("Transfer-Encoding: gzip, chunked", 501,
     fields("Host: a", "Transfer-Encoding: gzip, chunked")),
    ("Transfer-Encoding: xchunked", 501, fields("Host: a", "Transfer-Encoding: xchunked")),
    ("two Transfer-Encodings", 400,
     fields("Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked")),
    ("chunked in HTTP/1.0", 400,
     b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("Expect: something else", 417, fields("Host: a", "Expect: the-unexpected")),
    ("a chunk size that is none", 400, post_chunks([])[:-5] + b"xyz\r\n"),
    ("a negative chunk size", 400, post_chunks([])[:-5] + b"-1\r\n"),
    ("a chunk size of 17 digits", 400, post_chunks([])[:-5] + b"11111111111111111\r\n"),
    ("a chunk longer than it says", 400, post_chunks([])[:-5] + b"3\r\nabcd\r\n0\r\n\r\n"),
    ("a chunk without its CR LF", 400, post_chunks([])[:-5] + b"3\r\nabc0\r\n\r\n"),
    ("a body of 1 MiB and a byte", 413, post(b"x" * ((1 << 20) + 1))),
    ("a body of 3 GB, said only", 413, fields("Host: a", "Content-Length: 3000000000")),
    ("a body of 2^64 - 1", 413, fields("Host: a", "Content-Length: 18446744073709551615")),
    ("chunks of 1 MiB and a byte", 413, post_chunks([b"x" * 65536] * 16 + [b"y"])),
    ("one chunk of 3 MiB", 413, post_chunks([b"x" * (3 << 20)])),
    ("a chunk of 2^64 - 1", 413,
     post_chunks([])[:-5] + b"ffffffffffffffff\r\n" + b"x" * ((1 << 20) + 100_000)),
]


def refusal_fault(c, a, status):
    if a.status != status:
        return f"status {a.status}"
    if a["Connection"] != "close":
        return f"Connection: {a['Connection']}"
    return "" if c.ended() else "no clean end"


def group_refused():
    server = Server("--linger", "10m")
    for name, status, request in REFUSED:
        with server.connect() as c:
            try:
                fault = refusal_fault(c, c.ask(request), status)
            except (OSError, ValueError) as e:
                fault = repr(e)
            check(f"{name}: {status}, Connection: close, a clean end", fault == "", fault)
    with server.connect() as c:
        c.send(GET * 3 + b"nonsense\r\n\r\n" + GET)
        good = [c.answer().status for _ in range(3)] == [200] * 3
        a = c.answer()
        check("good requests before a bad one are answered, those behind are not", good
              and refusal_fault(c, a, 400) == "", a.status)
    # The answer must survive a client that is still sending: a close would send it a reset.
    with server.connect() as c:
        c.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n")
        time.sleep(0.2)
        sent = True
        try:
            for _ in range(40):
                c.send(b"x" * 50_000)
        except OSError:
            sent = False
        a = c.answer()
        check("413 reaches a client that sends 2 MB more before it looks", sent and a.status == 413)
    with server.connect() as c:
        a = c.ask(fields("Host: a", *[f"X-{i}: {i}" for i in range(99)]))
        check("100 fields are taken", a.status == 200)
        room = 32768 - len(fields("Host: a", "X: "))
        check("a head of exactly 32,768 bytes is taken",
              c.ask(fields("Host: a", "X: " + "x" * room)).status == 200)
        a = c.ask(fields("Host: a", "X: " + "x" * (room + 1)))
        check("one byte more is not", refusal_fault(c, a, 431) == "", a.status)
    server.check_clean_end("refused")


# ---- How it arrives ----


def group_cuts():
    server = Server()
    chunked = post_chunks([b"chunk one", b"two"], trailer=b"X: 1\r\n")
    requests = [
        ("a GET", b"GET /header?x HTTP/1.1\r\nHost: a\r\nX: value\r\n\r\n", [(200, b"value")]),
        ("a POST with a length", post(b"the body"), [(200, b"the body")]),
        ("a chunked POST", chunked, [(200, b"chunk onetwo")]),
        ("three pipelined", post(b"1") + chunked + GET, [(200, b"1"), (200, b"chunk onetwo"),
                                                         (200, b"Hello, World!")]),
        ("a bad one", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", [(505, b"the request was refused\n")]),
    ]

    def wrong(client, expected):
        try:
            got = []
            for _ in expected:
                a = client.answer()
                got.append((a.status, a.body))
            return got != expected
        except (OSError, ValueError):
            return True

    for name, request, expected in requests:
        clients = [server.connect() for _ in request[1:]]
        for cut, c in enumerate(clients, 1):
            c.send(request[:cut])
        time.sleep(0.1)  # so that the server has read each first part alone
        for cut, c in enumerate(clients, 1):
            c.send(request[cut:])
        bad = [cut for cut, c in enumerate(clients, 1) if wrong(c, expected)]
        check(f"{name}, cut in two at each of {len(clients)} places", bad == [], f"wrong at {bad}")
        for c in clients:
            c.close()
        with server.connect() as c:
            for i in range(len(request)):
                c.send(request[i:i + 1])
                time.sleep(0.0005)
            check(f"{name}, byte by byte", not wrong(c, expected))
    with server.connect() as c:
        large = fields("Host: a", "X: " + "x" * 20_000)
        for i in range(0, len(large), 1000):
            c.send(large[i:i + 1000])
            time.sleep(0.001)
        check("a head of 20,000 bytes in 21 pieces", c.answer().status == 200 and c.usable())
    with server.connect() as c:
        large = body_of(200_000)
        data = post(large) + post_chunks([large[i:i + 777] for i in range(0, len(large), 777)])
        for i in range(0, len(data), 9999):
            c.send(data[i:i + 9999])
        check("bodies of 200,000 bytes in pieces",
              c.answer().body == large and c.answer().body == large)
    server.check_clean_end("cuts")


def group_pipelining():
    server = Server()
    with server.connect() as c:
        c.send(GET * 3)
        first = c.socket.recv(65536)
        check("three requests in one packet are answered in one write",
              first.count(b"Hello, World!") == 3, first)
    with server.connect() as c:
        wanted = [body_of(i * 37 % 600, i) for i in range(100)]
        c.send(b"".join(
            post(b) if i % 2 else post_chunks([b] if b else []) for i, b in enumerate(wanted)))
        check("100 pipelined requests are answered in order",
              [c.answer().body for _ in wanted] == wanted)
        check("and the connection goes on", c.usable())
    with server.connect() as c:
        n = 2000
        sender = threading.Thread(target=c.send, args=(GET * n,))
        sender.start()
        good = all(c.answer().body == b"Hello, World!" for _ in range(n))
        sender.join()
        check(f"{n} pipelined GETs", good)
    with server.connect() as c:
        c.send(
            post(body_of(100_000)) + GET + post(body_of(50_000)) +
            b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        good = (c.answer().body == body_of(100_000) and c.answer().status == 200
                and c.answer().body == body_of(50_000))
        good = (good and c.answer(to_head=True)["Content-Length"] == "13"
                and c.answer().status == 200)
        check("large answers keep their place among small ones", good)
    server.check_clean_end("pipelining")


# ---- Clients that are slow, gone, or many ----


def group_slow():
    server = Server("--idle-timeout", "400ms", "--header-timeout", "300ms", "--body-timeout",
                    "300ms", "--write-timeout", "500ms", "--max-header", "1024", "--max-body",
                    "2000")

    def drip(c, data):
        """A byte each 30 ms, which must not stretch the time-out, until the server has enough (else
        it would come to the end, and no 408): the seconds, the answer, whether it was a clean end."""
        c.socket.settimeout(0.03)
        for i in range(len(data)):
            try:
                c.send(data[i:i + 1])
                received = c.socket.recv(65536)
                c.buffer += received
                break
            except socket.timeout:
                continue
        c.socket.settimeout(PATIENCE)
        took = time.monotonic() - start
        return took, c.answer(), c.ended()

    start = time.monotonic()
    with server.connect() as c:
        good = c.ended()
        took = time.monotonic() - start
        check("a connection that says nothing is closed after the idle time-out", good
              and took > 0.35, f"{took:.2f} s")
    with server.connect() as c:
        start = time.monotonic()
        c.usable()
        good = c.ended()
        took = time.monotonic() - start
        check("so is one that has been used", good and took > 0.35, f"{took:.2f} s")
    start = time.monotonic()
    with server.connect() as c:
        took, a, ended = drip(c, fields("Host: a", "X: " + "x" * 1000))
        check("a head that drips in gets 408 and is closed", (a.status, ended) == (408, True)
              and took > 0.25, f"{took:.2f} s")
    start = time.monotonic()
    with server.connect() as c:
        took, a, ended = drip(c, fields("Host: a", *[f"X: {i}" for i in range(150)]))
        check("so does one that drips whole lines", (a.status, ended) == (408, True)
              and took > 0.25, f"{took:.2f} s")
    start = time.monotonic()
    with server.connect() as c:
        c.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        took, a, ended = drip(c, b"x" * 1000)
        check("so does a body that drips in", (a.status, ended) == (408, True) and took > 0.25,
              f"{took:.2f} s")
    start = time.monotonic()
    with server.connect() as c:
        c.send(post_chunks([])[:-5])
        took, a, ended = drip(c, b"1\r\nx\r\n" * 100)
        check("so do chunks", (a.status, ended) == (408, True) and took > 0.25, f"{took:.2f} s")
    with server.connect(receive_buffer=4096) as c:
        c.socket.settimeout(0.2)
        asked, start, gone = post(b"y" * 2000) * 100, time.monotonic(), False
        while time.monotonic() - start < PATIENCE and not gone:
            try:
                c.socket.send(asked)
            except socket.timeout:
                pass
            except OSError:
                gone = True
        check("a client that never reads is cut off", gone)
    with server.connect() as c:
        check("--max-header holds",
              refusal_fault(c, c.ask(fields("Host: a", "X: " + "x" * 1000)), 431) == "")
    with server.connect() as c:
        check("--max-body holds", refusal_fault(c, c.ask(post(b"x" * 2001)), 413) == "")
    with server.connect() as c:
        check("after all that it serves as before", c.usable())
    server.check_clean_end("slow")


def group_many():
    server = Server()
    n = 200
    clients = [server.connect() for _ in range(n)]
    good = True
    for turn in range(5):
        for i, c in enumerate(clients):
            c.send(post(b"%d of %d" % (i, turn)) if i % 3 else GET)
        for i, c in enumerate(clients):
            wanted = b"%d of %d" % (i, turn) if i % 3 else b"Hello, World!"
            good = good and c.answer().body == wanted
    check(f"{n} connections at once, 5 requests each", good)
    numbers = stats(server)
    check("/stats counts the open connections", numbers["connections_open"] == n + 1, numbers)
    check("/stats counts the requests", numbers["requests"] == 5 * n, numbers)
    for i, c in enumerate(clients):
        if i % 2:  # a reset, half of them with a request begun
            c.send(post(b"x" * 100)[:-50] if i % 4 == 1 else b"GE")
            c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.close()
    check("connections that end in every way are all let go",
          until(lambda: stats(server)["connections_open"] == 1))
    total = stats(server)["connections"]
    for _ in range(300):
        with server.connect() as c:
            c.send(b"GET / HTTP/1.0\r\n\r\n")
    good = until(lambda: stats(server)["connections_open"] == 1)
    check("300 clients that do not wait for their answer do no harm", good
          and stats(server)["connections"] >= total + 300)
    descriptors = open_files(server.process.pid)
    check("no descriptor is left behind", descriptors < 40, descriptors)
    server.check_clean_end("many")


# For what lasts this long; when the look at it took longer it is repeated with the next.
WINDOWS = (700, 3000, 12000, 48000)


def group_jobs():
    server = Server()
    with server.connect() as c:
        for n, ms in enumerate(WINDOWS, 1):
            start = time.monotonic()
            a = c.ask(post(b"", f"/jobs?ms={ms}"))
            numbers = stats(server)
            if time.monotonic() - start < ms / 1000:
                break
        check("POST /jobs answers 202", (a.status, a.body) == (202, b"accepted\n"), a.status)
        check("the job runs, and was not waited for",
              numbers["jobs_started"] == n and numbers["jobs_done"] < n, numbers)
        for _ in range(50):
            c.send(post(b"", "/jobs?ms=20"))
        good = all(c.answer().status == 202 for _ in range(50))
        n += 50
        check("50 jobs at once", good and stats(server)["jobs_started"] == n)
        check("all jobs get done", until(lambda: stats(server)["jobs_done"] == n), stats(server))
    server.check_clean_end("jobs")


# ---- The end ----


def refuses_connections(server):
    try:
        server.connect().close()
        return False
    except OSError:
        return True


def settle(server, *clients):
    """Until the server has accepted these, has read what they have sent, and all its threads wait."""
    ports = {c.socket.getsockname()[1] for c in clients}

    def settled():
        with open("/proc/net/tcp") as f:
            rows = [row.split() for row in f.readlines()[1:]]
        here = [r for r in rows if int(r[1][-4:], 16) in ports or int(r[2][-4:], 16) in ports]
        ours = [r for r in here if int(r[1][-4:], 16) == server.port]
        sent = all(r[4].startswith("00000000:") for r in here)
        taken = len(ours) == len(ports) and all(r[4].endswith(":00000000") and r[9] != "0" for r in ours)
        if not sent or not taken:
            return False
        tasks = f"/proc/{server.process.pid}/task"
        for thread in os.listdir(tasks):
            with open(f"{tasks}/{thread}/stat") as f:
                if f.read().rpartition(")")[2].split()[0] != "S":
                    return False
        return True

    if not until(settled):
        raise TimeoutError("the server does not settle")


def stop_among_requests(ms, is_last):
    """SIGTERM while a request is running that takes ms. False: too late for that, and not the last try."""
    server = Server("--linger", "100ms")  # the clients stay to the end
    idle, used, busy, begun, sending = (server.connect() for _ in range(5))
    used_well = used.usable()
    start = time.monotonic()
    busy.send(b"GET /wait?ms=%d HTTP/1.1\r\nHost: a\r\n\r\n" % ms)
    begun.send(b"GET / HTTP/1.1\r\nHos")
    sending.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234")
    with server.connect() as c:
        c.ask(post(b"", "/jobs?ms=600"))
    settle(server, idle, used, busy, begun, sending)
    server.signal(signal.SIGTERM)
    refused = until(lambda: refuses_connections(server))
    if time.monotonic() - start >= ms / 1000 and not is_last:
        return False
    check("a used connection", used_well)
    check("SIGTERM closes a connection that never asked", idle.ended())
    check("and one that waits for its next request", used.ended())
    check("new connections are refused", refused)
    check("while a request is running the server is", server.process.poll() is None)
    a = begun.ask(b"t: a\r\n\r\n")
    check("a request whose head had begun is finished",
          (a.status, a["Connection"]) == (200, "close") and begun.ended())
    a = sending.ask(b"56789")
    check("so is one whose body had begun",
          (a.status, a.body, a["Connection"]) == (200, b"0123456789", "close") and sending.ended())
    a = busy.answer()
    check("the request in progress gets its answer",
          (a.status, a.body, a["Connection"]) == (200, b"waited\n", "close"))
    check("and its connection ends", busy.ended())
    check("then the server exits with 0",
          server.wait() == 0 and server.stderr() == "", server.stderr())
    return True


def group_stop():
    for ms in WINDOWS:
        if stop_among_requests(ms, ms == WINDOWS[-1]):
            break

    server = Server()
    server.signal(signal.SIGINT)
    check("SIGINT does the same", server.wait() == 0)

    server = Server("--grace", "200ms")
    with server.connect() as c:
        c.send(b"GET /wait?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n")
        settle(server, c)
        server.signal(signal.SIGTERM)
        status = server.wait()
        check("a request longer than the grace is cut off: exit status 1", status == 1, status)
        check("and that is said", "grace" in server.stderr(), server.stderr())

    server = Server()
    with server.connect() as c:
        c.send(b"GET /wait?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n")
        settle(server, c)
        server.signal(signal.SIGTERM)
        until(lambda: refuses_connections(server))
        server.signal(signal.SIGTERM)
        status = server.wait()
        check("a second signal ends it at once", status == -signal.SIGTERM, status)


def group_command_line():
    def run(*options):
        done = subprocess.run([PROGRAM, *options], capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stdout, done.stderr

    status, out, err = run("--help")
    names = ("host", "port", "procs", "max-header", "max-body", "idle-timeout", "header-timeout",
             "body-timeout", "write-timeout", "linger", "grace", "help")
    check("--help tells of every option and exits with 0", (status, err) == (0, "")
          and all(f"--{name} " in out for name in names), out)
    for options in ("--none", "--port x", "--port 65536", "--procs -1", "--grace 10", "extra",
                    "--port"):
        status, out, err = run(*options.split())
        check(f"{options}: exit status 2 and a word why", (status, out) == (2, "") and err, err)
    server = Server("--procs", "1")
    status, out, err = run("--port", str(server.port))
    check("a port in use: exit status 1 and a word why", status == 1
          and "Address already in use" in err, err)
    server.check_clean_end("command line")


# ---- Tools that people use ----


def tool(name, *arguments, stdin=None):
    done = subprocess.run([name, *arguments], capture_output=True, timeout=PATIENCE, input=stdin)
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


def tool_curl(url):
    status, out, _ = tool("curl", "-sS", url + "/")
    check("curl gets /", (status, out) == (0, "Hello, World!"))
    status, out, _ = tool("curl", "-sS", "-o", "/dev/null", "-o", "/dev/null", "-w",
                          "%{num_connects}%{http_code} ", url + "/", url + "/")
    check("curl keeps the connection for a second request", (status, out) == (0, "1200 0200 "), out)
    status, out, _ = tool("curl", "-sSI", url + "/")
    check("curl -I", status == 0 and "Content-Length: 13" in out and "Hello" not in out)
    status, out, _ = tool("curl", "-sS0", url + "/")
    check("curl with HTTP/1.0", (status, out) == (0, "Hello, World!"))
    data = body_of(1_000_000)
    post_stdin = ("curl", "-sS", "--data-binary", "@-", url + "/echo")
    for what, *more in (("posts 1 MB, with an Expect", "-H", "Expect: 100-continue"),
                        ("posts 1 MB in chunks", "-H", "Transfer-Encoding: chunked")):
        status, out, err = tool(*post_stdin, *more, stdin=data)
        check(f"curl {what}", status == 0 and out.encode("latin-1") == data, err)
    code_only = ("-o", "/dev/null", "-w", "%{http_code}")
    status, out, _ = tool(*post_stdin, *code_only, stdin=b"x" * 2_000_000)
    check("curl is told 413", out == "413", out)


def tool_ab(url):
    for what, *more in (("with keep-alive", "-k"), ("a connection per request",)):
        status, out, err = tool("ab", "-q", "-n", "2000", "-c", "20", *more, url + "/")
        good = (status == 0 and re.search(r"Complete requests:\s+2000\n", out)
                and re.search(r"Failed requests:\s+0\n", out) and "Non-2xx" not in out
                and (not more or re.search(r"Keep-Alive requests:\s+2000\n", out)))
        check(f"ab, {what}: 2,000 requests, none failed", bool(good), out + err)


def tool_wrk(url):
    status, out, err = tool("wrk", "-t1", "-c32", "-d1s", "--timeout", "100s", url + "/")
    good = (status == 0 and "Socket errors" not in out and "Non-2xx" not in out
            and re.search(r"\b[1-9]\d* requests in", out))
    check("wrk, 32 connections, 1 s: no error", bool(good), out + err)


def tool_h2load(url):
    status, out, err = tool("h2load", "--h1", "-n2000", "-c10", "-m8", url + "/")
    good = (status == 0 and "2000 succeeded, 0 failed, 0 errored, 0 timeout" in out
            and "2000 2xx" in out)
    check("h2load --h1: 2,000 requests, none failed", good, out + err)


def group_tools():
    server = Server("--linger", "10m")
    tools = {"curl": tool_curl, "ab": tool_ab, "wrk": tool_wrk, "h2load": tool_h2load}
    for name, use in tools.items():
        if shutil.which(name):
            use(f"http://127.0.0.1:{server.port}")
        else:
            skip(f"{name} is not installed")
    server.check_clean_end("tools")


def main():
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    groups = [(name[6:], f) for name, f in globals().items()
              if name.startswith("group_") and word in name]
    return run_groups(groups, Server.kill_all)


if __name__ == "__main__":
    sys.exit(main())
