#!/usr/bin/env python3
"""Drives the example daemon as its init system and its clients do, under load.

Usage: GORT_BUILD_DIR=build daemon.py
One line per check; exit status 1 when one failed. Any number may run at once.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from lib.checks import PATIENCE, check, run_groups  # noqa: E402 (beside this file)

DAEMON = os.path.join(os.environ.get("GORT_BUILD_DIR", "build"), "examples", "daemon")


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


class Daemon:

    def __init__(self, *options, config="factor 3\n"):
        self.folder = tempfile.TemporaryDirectory()
        self.config = os.path.join(self.folder.name, "conf")
        self.pid_file = os.path.join(self.folder.name, "pid")
        self.configure(config)
        self.options = ["--config", self.config, "--pid-file", self.pid_file, "--port", "0", *options]

    def configure(self, text):
        with open(self.config + ".new", "w") as f:
            f.write(text)
        os.replace(self.config + ".new", self.config)  # it may be read just now

    def start(self):
        # Its errors go to a file: a daemon would hold a pipe open for as long as it runs.
        self.errors = open(os.path.join(self.folder.name, "errors"), "w+")
        self.process = subprocess.Popen([DAEMON, *self.options], stdout=subprocess.PIPE, stderr=self.errors, text=True)
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)
        self.port = int(found[1]) if found else None
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        self.folder.cleanup()

    def said(self):
        self.errors.seek(0)
        return self.errors.read()

    def connect(self):
        return Client(self.port)

    def pid(self):
        try:
            with open(self.pid_file) as f:
                return int(f.read() or 0)
        except FileNotFoundError:
            return 0


class Client:

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.socket.makefile("rb")

    def send(self, text):
        self.socket.sendall(text.encode())

    def line(self):
        return self.lines.readline().decode()

    def ask(self, text):
        self.send(text + "\n")
        return self.line()

    def close(self):
        self.lines.close()
        self.socket.close()


def score(text, factor):
    return f"{sum(text.encode()) * factor}\n"


def check_answers():
    with Daemon("--foreground") as daemon:
        check("the pid file has its process", wait_for(lambda: daemon.pid() == daemon.process.pid), daemon.pid())
        c = daemon.connect()
        check("a score", c.ask("score hello") == score("hello", 3))
        check("the configuration", c.ask("config") == "factor 3, loaded 1 times\n")
        check("what it does not know", c.ask("hello") == "what?\n")
        texts = [f"text {i}" for i in range(500)]
        c.send("".join(f"score {t}\n" for t in texts))
        check("500 requests in one piece are answered in order", all(c.line() == score(t, 3) for t in texts))
        c.send("sco")
        c.send("re hel")
        check("a request in pieces", c.ask("lo") == score("hello", 3))
        c.send("quit\n")
        check("quit closes", c.line() == "")
        c.close()
        c = daemon.connect()
        c.send("x" * 2000)
        try:
            check("a line that is too long closes", c.line() == "")
        except ConnectionResetError:  # it closed before it had read everything
            check("a line that is too long closes", True)
        c.close()


def check_reload():
    with Daemon("--foreground") as daemon:
        c = daemon.connect()
        check("before", c.ask("score a") == score("a", 3))
        daemon.configure("# new\nfactor 5\n")
        os.kill(daemon.process.pid, signal.SIGHUP)
        check("SIGHUP reads the configuration again",
              wait_for(lambda: c.ask("config") == "factor 5, loaded 2 times\n"), c.ask("config"))
        check("and the scores follow", c.ask("score a") == score("a", 5))
        daemon.configure("factor 6\nfaktor 7\n")
        os.kill(daemon.process.pid, signal.SIGHUP)
        check("a bad one is named", wait_for(lambda: "line 2 is not understood" in daemon.said()), daemon.said())
        check("and changes nothing", c.ask("config") == "factor 5, loaded 2 times\n", c.ask("config"))
        c.close()


def check_load():
    """Many clients at once, the configuration changes meanwhile, and then SIGTERM with all of them there."""
    clients, threads, each = 120, 6, 25
    with Daemon("--foreground", "--workers", "3") as daemon:
        wrong, over = [], threading.Event()

        def use(mine):
            try:
                for i in range(each):
                    for n, c in enumerate(mine):
                        c.send(f"score {n} {i}\n")
                    for n, c in enumerate(mine):
                        got = c.line()
                        if got not in (score(f"{n} {i}", 3), score(f"{n} {i}", 4)):
                            wrong.append(got)
            except OSError as e:
                wrong.append(repr(e))

        def reload():
            i = 0
            while not over.wait(0.005):
                daemon.configure(f"factor {3 + i % 2}\n")
                os.kill(daemon.process.pid, signal.SIGHUP)
                i += 1

        all_of_them = [daemon.connect() for _ in range(clients)]
        users = [threading.Thread(target=use, args=(all_of_them[k::threads], )) for k in range(threads)]
        reloader = threading.Thread(target=reload)
        for t in [*users, reloader]:
            t.start()
        for t in users:
            t.join()
        reloaded = wait_for(lambda: int(re.search(r"loaded (\d+)", all_of_them[0].ask("config"))[1]) > 2)
        over.set()
        reloader.join()
        check(f"{clients} clients, {each} requests each, under reloads: each its own answer", not wrong, wrong[:5])
        check("it was loaded meanwhile, or is so in the end", reloaded)
        os.kill(daemon.process.pid, signal.SIGTERM)  # all have had an answer, so all are accepted
        check("SIGTERM ends it with 0", daemon.process.wait(PATIENCE) == 0, daemon.process.returncode)
        check("and its connections", all(c.line() == "" for c in all_of_them))
        check("and its pid file", not os.path.exists(daemon.pid_file))
        for c in all_of_them:
            c.close()


def check_term_in_the_middle():
    """SIGTERM while requests are on their way: it ends, and what was answered is right."""
    for after in (0, 0.001, 0.01):
        with Daemon("--foreground") as daemon:
            clients = [daemon.connect() for _ in range(20)]
            first = all(c.ask("score a") == score("a", 3) for c in clients)
            for c in clients:
                c.send("score a\n" * 100)
            time.sleep(after)
            os.kill(daemon.process.pid, signal.SIGTERM)
            ended = daemon.process.wait(PATIENCE)
            good = True
            for c in clients:
                try:
                    while line := c.line():
                        good = good and line == score("a", 3)
                except ConnectionResetError:  # there was more to read when it closed
                    pass
                c.close()
            check(f"SIGTERM {after} s after many requests", first and good and ended == 0, (first, good, ended))


def check_daemon():
    with Daemon() as daemon:
        check("it leaves the terminal with 0", daemon.process.wait(PATIENCE) == 0, daemon.process.returncode)
        check("the pid file has another process",
              wait_for(lambda: daemon.pid() not in (0, daemon.process.pid)), daemon.pid())
        pid = daemon.pid()
        try:
            c = daemon.connect()
            check("it serves", c.ask("score x") == score("x", 3))
            check("it has a session of its own", os.getsid(pid) not in (os.getsid(0), 0), os.getsid(pid))
            again = subprocess.run([DAEMON, "--foreground", *daemon.options], capture_output=True, text=True, timeout=PATIENCE)
            check("a second one is refused", again.returncode == 1 and "already running" in again.stderr, again)
            os.kill(pid, signal.SIGTERM)
            check("SIGTERM ends it", c.line() == "")
            check("and its pid file goes", wait_for(lambda: not os.path.exists(daemon.pid_file)))
            c.close()
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise


def check_usage():
    for wrong in (["--port", "65536"], ["--workers", "0"], ["--none"], ["extra"]):
        done = subprocess.run([DAEMON, *wrong], capture_output=True, text=True, timeout=PATIENCE)
        check(f"{' '.join(wrong)} is refused", done.returncode == 2 and "usage" in done.stderr, done)
    with Daemon("--foreground", config="factor x\n") as daemon:
        check("no start with a bad configuration", daemon.process.wait(PATIENCE) == 1 and daemon.port is None, daemon.said())


def main():
    groups = (check_answers, check_reload, check_load, check_term_in_the_middle, check_daemon, check_usage)
    return run_groups([(group.__name__, group) for group in groups])


if __name__ == "__main__":
    sys.exit(main())
