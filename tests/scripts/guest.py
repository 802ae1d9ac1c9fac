#!/usr/bin/env python3
"""What the kernel sees of a host that starts and stops gort (tests/embed/host.c), by strace.

Usage: GORT_BUILD_DIR=build guest.py
One line per check; exit status 1 when one failed.

libc's pthread_create blocks all signals of its caller and puts its mask back, so a thread of the host that starts gort
makes those two calls for each thread of gort's; how many that is for an ordinary thread, the host shows first.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from lib.checks import PATIENCE, check, run_groups, skip  # noqa: E402 (beside this file)

HOST = os.path.join(os.environ.get("GORT_BUILD_DIR", "build"), "tests", "embed_host")

# What changes a process or a thread of it, for good or until it is changed back.
SIGNALS = "rt_sigaction rt_sigprocmask sigaltstack"
OTHERS = """setrlimit umask chdir fchdir chroot setpriority nice sched_setaffinity sched_setscheduler sched_setparam
    sched_setattr setitimer alarm timer_create setuid setgid setresuid setresgid setgroups setpgid setsid personality
    unshare setns mlockall munlockall seccomp capset kill tkill tgkill ptrace ioperm iopl"""
MAKES = "clone clone3"
TRACED = [*SIGNALS.split(), *OTHERS.split(), *MAKES.split(), "prctl", "prlimit64", "write"]


def trace():
    """The calls of each part: (part, thread, name, arguments); the host's two threads."""
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log")
        calls = ",".join("?" + name for name in TRACED)  # ?: not every architecture has all
        done = subprocess.run(["strace", "-f", "-o", log, "-e", "trace=" + calls, "-e", "signal=none", HOST],
                              capture_output=True,
                              text=True,
                              timeout=PATIENCE)
        lines = open(log).read().splitlines()
    if done.returncode != 0:
        raise RuntimeError((done.returncode, done.stdout[-500:], done.stderr[-500:]))
    main = lines[0].split()[0]
    part, parts = "before", []
    for line in lines:
        found = re.match(r"(\d+) +(\w+)\((.*)", line)
        if not found:
            continue  # the second half of a call, or an exit
        thread, name, rest = found.groups()
        mark = re.match(r'-1, "(\w+)"', rest) if name == "write" else None
        if mark and thread == main:
            part = mark[1]
        parts.append((part, thread, name, rest))
    return parts, main, done.stdout.strip()


def changes_of(rest):
    """Does a prlimit64, or prctl, change something?"""
    return not re.match(r"0, \w+, NULL|PR_GET_|PR_SET_NAME|PR_SET_VMA", rest)


def check_trace():
    parts, main, other = trace()

    def of(part, names, threads=None, ours=True):
        names = names.split()
        return [(p, t, n, r) for p, t, n, r in parts
                if p == part and n in names and (threads is None or (t in threads) == ours)]

    host = (main, other)
    plain, threads = len(of("plain", MAKES, host)), len(of("gort", MAKES, host))
    check("the trace has both threads of the host, and its parts",
          plain == 10 and threads >= 3 * 2 and parts[-1][0] == "end", (plain, threads, parts[-1]))
    check("nobody sets a signal's action", of("gort", "rt_sigaction") == [], of("gort", "rt_sigaction"))
    masks = len(of("gort", "rt_sigprocmask", [main]))
    usual = len(of("plain", "rt_sigprocmask", [main])) / max(plain, 1)
    check("the thread that starts it sets its mask as often as libc does to make as many ordinary threads",
          masks <= usual * threads, (masks, usual, threads))
    made = of("gort", "rt_sigprocmask sigaltstack", [other])
    check("the host's other thread sets no mask", made == [], made)
    made = of("gort", "sigaltstack", host)
    check("the host's threads get no alternate stack", made == [], made)
    made = of("gort", OTHERS)
    check("nobody changes ids, limits, priorities, directories or timers, or sends a signal", made == [], made)
    made = [c for c in of("gort", "prctl prlimit64") if changes_of(c[3])]
    check("nor by prctl or prlimit", made == [], made)
    made = of("gort", "prctl", host)
    check("the host's threads make no prctl", made == [], made)


def main():
    if not shutil.which("strace"):
        skip("strace is not installed")
        return 0
    with open(HOST, "rb") as f:
        program = f.read()
    if b"__asan_init" in program or b"__tsan_init" in program:
        skip("a sanitizer makes calls of its own")
        return 0
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    if probe.returncode != 0:
        skip("strace may not trace here: " + probe.stderr.strip()[:100])
        return 0
    return run_groups([("check_trace", check_trace)])


if __name__ == "__main__":
    sys.exit(main())
