"""What the scripts that talk to a program share: a line for each check, and their sum as exit status."""

import os

# Seconds that anything may take before it counts as lost: a machine may be busy for long. A little less than ctest gives
# to a whole script (tests/CMakeLists.txt), so that the check is named.
PATIENCE = 250.0

counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(what, good, detail=""):
    counts["passed" if good else "failed"] += 1
    print(("ok    " if good else "FAIL  ") + what + ("" if good or detail == "" else f": {detail}"), flush=True)


def skip(what):
    counts["skipped"] += 1
    print(f"skip  {what}", flush=True)


def open_files(pid):
    """Descriptors of a program, but those that its runtime makes when a worker comes."""
    n = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            n += os.readlink(f"/proc/{pid}/fd/{fd}") not in ("anon_inode:[io_uring]", "anon_inode:[eventfd]")
        except FileNotFoundError:  # closed meanwhile
            pass
    return n


def run_groups(groups, afterwards=lambda: None):
    """Each group is a name and a function that makes checks; the exit status of the script."""
    for name, group in groups:
        try:
            group()
        except Exception as e:  # a check that could not be made has failed; the next group starts afresh
            check(f"{name}: stopped short", False, repr(e))
        finally:
            afterwards()
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not groups else 0
