#!/usr/bin/env python3
"""mutate.py BUILD/tests/model [--file FILE] [--only TEXT] [--jobs N] [--limit SECONDS] [--sample]
    [--missing] [--census SRC]

Does a model find each order that is too weak? Each atomic operation and each fence of the shipped files that some model
comes to (its --sites) is weakened, to each weaker order, one at a time, and models are run again with that one change
(--mutate; nothing is compiled anew): all that come to it with one preemption and one stale load, then those that are
about its file (ABOUT) with their own bounds; with --thorough all of them.
One row per place. "found" names the first case that failed. What survives stands with its reason, from survivors.txt
beside this file; a survivor without one is "NOT EXPLAINED", and makes the script fail. So does a reason that is out
of date: a model has learnt to find that mutant.
Where an order survives, all that are stronger do: they allow less. They are not run.

--file FILE     only places in this file, as sched/timer.c; may be given several times
--only TEXT     only places whose FILE FUNCTION OPERATION contains this; may be given several times
--jobs N        so many models at once; default 1
--limit S       what one model may take for one mutant; default 300. "no fault in S s" means that it took longer
--sample        for each model a mutant that it must find, and one that is right, for the test suite
--thorough      all models with their own bounds, which takes ten times as long
--missing       the atomic operations of the shipped files that no model comes to
--census SRC    for each file of SRC: how many operations and fences it has that are stronger than relaxed, how many
                of them some model comes to, and which none does; also in files that no model has
"""
import argparse
import collections
import concurrent.futures
import pathlib
import re
import subprocess
import sys

ORDERS = ["relaxed", "acquire", "release", "acq_rel", "seq_cst"]
FENCES = ["none", "light", "full", "heavy"]
QUICK = ["--bound", "1", "--stale", "1"]
FOR_OWN_FILES = {"uring": "netpoll/uring", "epoll": "netpoll/epoll"}  # large, and come to most of the others
NOT_MODELS = ("litmus",)  # it has no shipped files

# The models that are about a file. What is not here is tried by all that come to it.
ABOUT = {
    "base/lock.c": ["lock"], "base/lock.h": ["lock", "park"], "sched/gate.c": ["gate", "runq", "retake"],
    "sched/gate.h": ["gate", "runq", "retake"], "sched/globq.c": ["runq", "idle"], "sched/globq.h": ["runq", "idle"],
    "sched/idle.c": ["idle", "sysmon"], "sched/idle.h": ["idle"], "sched/park.c": ["park", "timer", "stop"],
    "sched/park.h": ["park", "timer", "stop"], "sched/proc.c": ["idle", "timer", "stop"],
    "sched/spawn.c": ["timer", "idle"], "sched/sysmon.c": ["sysmon"], "sched/sysmon.h": ["sysmon"],
    "sched/retake.c": ["retake", "spares"], "sched/retake.h": ["retake"], "sched/procs.c": ["procs", "spares"],
    "sched/sched.h": ["procs", "retake", "spares"], "sched/start.c": ["stop"], "sched/worker.c": ["spares", "stop"],
    "sched/g.c": ["slabs"], "sched/pool.c": ["pool"], "sched/long_run.c": ["long_run"], "task/local.c": ["local"],
    "netpoll/fd.h": ["fd"], "netpoll/uring.c": ["uring"], "netpoll/uring.h": ["uring"],
    "netpoll/uring_owner.c": ["uring"], "netpoll/epoll.c": ["epoll"], "base/fault.c": ["fault"],
    "sched/timer.c": ["timer", "park"], "sync/mutex.c": ["mutex"], "sync/waitgroup.c": ["waitgroup"],
    "sync/rwmutex.c": ["rwmutex"], "sync/sem.c": ["sem"], "sync/once.c": ["once"], "sync/barrier.c": ["barrier"],
    "sync/cond.c": ["cond"], "task/group.c": ["group"],
    "task/gen.c": ["gen"], "task/join.c": ["join", "stop"], "task/scope.c": ["scope", "park", "join"],
}

# (model, file, function, operation, order): found, in each model; the last one is right, and must not be.
SAMPLE = [
    ("gate", "sched/gate.c", "rt_gate_try", "rt_fence_heavy()", "full", True),
    ("lock", "base/lock.c", "rt_futex_unlock", "rt_exchange_release(lock)", "relaxed", True),
    ("runq", "sched/globq.c", "rt_globq_take", "rt_store_release(&rt_globq.size)", "relaxed", True),
    ("idle", "sched/idle.c", "fence_of_looker", "rt_fence_full()", "none", True),
    ("sysmon", "sched/sysmon.c", "sysmon_main", "rt_fence_heavy()", "full", True),
    ("park", "sched/park.c", "rt_commit", "rt_fence_light()", "none", True),
    ("timer", "sched/timer.c", "fire", "rt_load_seq_cst(&g->wait)", "relaxed", True),
    ("waitgroup", "sync/waitgroup.c", "go_waitgroup_wait", "rt_load_acquire(&wg->rt_count)", "relaxed", True),
    ("mutex", "sync/mutex.h", "rt_mutex_unlock_alone", "rt_cas_release(&m->rt_state)", "relaxed", True),
    ("rwmutex", "sync/rwmutex.c", "go_rwmutex_rdunlock", "rt_cas_release(&rw->rt_state)", "relaxed", True),
    ("sem", "sync/sem.c", "answer", "rt_fetch_and_acquire(word)", "relaxed", True),
    ("once", "sync/once.c", "finish", "rt_store_release(&o->rt_state)", "relaxed", True),
    ("barrier", "base/lock.h", "rt_unlock", "rt_store_release(lock)", "relaxed", True),
    ("cond", "base/lock.h", "rt_unlock", "rt_store_release(lock)", "relaxed", True),
    ("group", "task/group.c", "go_group_wait", "rt_load_acquire(&g->attention)", "relaxed", True),
    ("chan", "base/lock.h", "rt_unlock", "rt_store_release(lock)", "relaxed", True),
    ("join", "task/join.c", "take_place", "rt_fence_light()", "none", True),
    ("scope", "task/scope.c", "lower", "rt_load_acquire(&s->rt_state)", "relaxed", True),
    ("stop", "sched/start.c", "rt_foreign_enter", "rt_load_seq_cst(&rt.state)", "acquire", True),
    ("fd", "netpoll/fd.c", "count_edge", "rt_store_release(&s->edge[dir])", "relaxed", True),
    ("uring", "netpoll/uring_owner.c", "set_state", "rt_store_release(&u->state)", "relaxed", True),
    ("epoll", "netpoll/epoll.c", "epoll_sleep_undo", "rt_store_release(&ep.sleeper)", "relaxed", True),
    ("fault", "base/fault.c", "rt_fault_slow", "rt_cas_acquire(&f->countdown)", "relaxed", True),
    ("slabs", "sched/g.c", "rt_g_each", "rt_load_acquire(&all.slabs)", "relaxed", True),
    ("pool", "sched/pool.c", "call", "rt_store_release(word)", "relaxed", True),
    ("long_run", "sched/long_run.c", "report", "rt_store_release(&lr.busy)", "relaxed", True),
    ("local", "task/local.c", "go_local_set", "rt_load_acquire(&all.count)", "relaxed", True),
    ("gen", "task/gen.c", "resume", "rt_store_release(&gen->state)", "relaxed", True),
    ("retake", "sched/retake.c", "hand_over", "rt_store_release(&p->m)", "relaxed", True),
    ("procs", "sched/procs.c", "count_put_away", "rt_fetch_add_release(&change.put_away)", "relaxed", True),
    ("spares", "sched/procs.c", "admit", "rt_store_release(&rt.procs)", "relaxed", True),
    ("gate", "sched/gate.c", "rt_gate_try", "rt_cas_relaxed(&m->gate)", "acquire", False),
]

Place = collections.namedtuple("Place", "file function operation line key order")


def weaker(place):
    """From the weakest up; each with those whose survival is its own."""
    name = place.operation.split("(")[0]
    if "fence" in name:
        return [(f, FENCES[:i]) for i, f in enumerate(FENCES[:place.order])]
    if "load" in name:
        steps = [("relaxed", []), ("acquire", ["relaxed"])]
    elif "store" in name:
        steps = [("relaxed", []), ("release", ["relaxed"])]
    else:
        steps = [("relaxed", []), ("acquire", ["relaxed"]), ("release", ["relaxed"]),
                 ("acq_rel", ["acquire", "release"])]
    limit = place.order
    if limit == 2:  # a release, weakened to an acquire, would be another thing
        return steps[:1]
    return [s for s in steps if ORDERS.index(s[0]) < limit]


def run(program, *options, limit=None):
    return subprocess.run([program, *options], capture_output=True, text=True, timeout=limit, check=False)


def sites(program, *options):
    """All places in shipped files that this model has, and how often it came to them."""
    hits, places, seen = collections.Counter(), {}, collections.Counter()
    for line in run(program, "--sites", *options).stdout.splitlines():
        if not line.startswith("site\t"):
            continue
        _, key, order, n, function = line.split("\t")
        file, number, name, text = key.split(":", 3)
        if "/" in file:
            hits[key] += int(n)
            places[key] = (file, int(number), function, f"{name}({text})", int(order))
    named = {}
    for key, (file, number, function, operation, order) in sorted(places.items(), key=lambda p: p[1][:2]):
        seen[file, function, operation] += 1
        nth = seen[file, function, operation]
        if nth > 1:
            operation += f" #{nth}"
        named[Place(file, function, operation, number, key, order)] = hits[key]
    return named


def fault(program, place, order, options, limit):
    """The case that fails; None: none does; "?": out of time."""
    try:
        r = run(program, "--first", "--mutate", f"{place.key}={order}", *options, limit=limit)
    except subprocess.TimeoutExpired:
        return "?"
    if r.returncode not in (0, 1):
        return f"{program.name} crashed" if r.returncode < 0 else sys.exit(r.stderr)
    return next((line.split()[1] for line in r.stdout.splitlines() if line.startswith("BAD")), None)


def find(programs, place, order, limit, thorough):
    slow = False
    if not thorough:
        programs = [p for p in programs if place.file.startswith(FOR_OWN_FILES.get(p.name, ""))]
    about = [p for p in programs if thorough or p.name in ABOUT.get(place.file, [p.name])]
    for options, some in (QUICK, programs), ([], about):
        for program in some:
            found = fault(program, place, order, options, limit)
            if found and found != "?":
                return found
            slow |= found == "?" and not options
    return "?" if slow else None


def row(place, programs, reasons, limit, thorough):
    """The row of the table, and the complaints."""
    found, cells, complaints, survived = {}, [], [], []
    for order, implied in weaker(place):
        if any(found.get(i, "") is None for i in implied):
            found[order] = None
        else:
            found[order] = find(programs, place, order, limit, thorough)
        if found[order] is None:
            survived.append(order)
        else:
            why = f"no fault in {limit} s" if found[order] == "?" else found[order]
            cells.append(f"{order}: {why}")
    reason = reasons.get((place.file, place.function, place.operation), {})
    orders = set(reason.get("orders", []))
    if set(survived) - orders:
        complaints.append(f"{place.file} {place.function} {place.operation}: "
                          f"{', '.join(sorted(set(survived) - orders))} SURVIVES")
    if orders - set(survived) - {o for o, f in found.items() if f == "?"}:
        complaints.append(f"{place.file} {place.function} {place.operation}: "
                          f"{', '.join(sorted(orders - set(survived)))} is found now")
    text = ""
    if survived:
        why = reason.get("why", "") if not set(survived) - orders else "**NOT EXPLAINED**"
        text = f"{', '.join(survived)}: {why}"
    operation = place.operation.replace("|", "\\|")
    return (f"| {place.file} `{place.function}` | `{operation}` | {'; '.join(cells) or '-'} | {text or '-'} |",
            complaints)


def read_reasons(path):
    """Blocks of: FILE FUNCTION OPERATION, a line "    ORDER..: WHY", more lines of why."""
    reasons, entry = {}, None
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith(" "):
            file, function, operation = line.split(None, 2)
            entry = reasons.setdefault((file, function, operation), {"orders": [], "why": ""})
        elif not entry["orders"]:
            orders, why = line.strip().split(":", 1)
            entry["orders"], entry["why"] = orders.split(), why.strip()
        else:
            entry["why"] += " " + line.strip()
    return reasons


def sample(folder):
    bad = 0
    for model, file, function, operation, order, must in SAMPLE:
        program = folder / model
        # With no case there is nothing to run, but the names are told.
        place = next((p for p in sites(program, "--case", "none")
                      if (p.file, p.function, p.operation) == (file, function, operation)), None)
        found = place and fault(program, place, order, QUICK, 300)
        fine = place is not None and bool(found) == must
        print("ok  " if fine else "BAD ", model + ":", file, function, operation, "->", order + ":",
              found or ("no fault" if place else "no such place"))
        bad += not fine
    return bad


def first_argument(text):
    depth = 0
    for i, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if depth < 0 or (depth == 0 and c == ","):
            return " ".join(text[:i].split())
    return ""


def operations(path):
    """(line, name, first argument) of all that are stronger than relaxed."""
    text = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), path.read_text(), flags=re.DOTALL)
    for m in re.finditer(r"(?<!void )\b(rt_(?:load|store|exchange|fetch|cas|fence)_?\w*)\(", text):
        if "relaxed" not in m.group(1):
            yield text.count("\n", 0, m.start()) + 1, m.group(1), first_argument(text[m.end():])


def census(src, reach):
    reached = {p.key for p, programs in reach.items() if programs}
    total = done = 0
    for path in sorted(src.rglob("*.[ch]")):
        file = str(path.relative_to(src))
        found = [] if file == "base/atomic.h" else list(operations(path))
        # An operation that takes several lines may stand under a later one of them.
        missing = [(line, name, text) for line, name, text in found
                   if not any(f"{file}:{line + d}:{name}:{text}" in reached for d in range(3))]
        total += len(found)
        done += len(found) - len(missing)
        if found:
            print(f"{file}: {len(found)}, with a model {len(found) - len(missing)}")
        for line, name, text in missing:
            print(f"    {line} {name}({text})")
    print(f"{total}, with a model {done}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("--file", action="append")
    p.add_argument("--only", action="append", default=[])
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--limit", type=int, default=300)
    p.add_argument("--sample", action="store_true")
    p.add_argument("--thorough", action="store_true")
    p.add_argument("--missing", action="store_true")
    p.add_argument("--census", type=pathlib.Path)
    args = p.parse_args()
    if args.sample:
        return sample(args.folder)
    programs = [f for f in sorted(args.folder.iterdir()) if f.is_file() and f.suffix == "" and
                f.stat().st_mode & 0o100 and f.name not in NOT_MODELS]
    reasons = read_reasons(pathlib.Path(__file__).with_name("survivors.txt"))
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        reach = collections.defaultdict(list)
        for program, named in zip(programs, pool.map(lambda f: sites(f, *QUICK), programs)):
            for place, hits in named.items():
                reach[place] += [program] if hits else []
        if args.census:
            census(args.census, reach)
            return 0
        places = sorted(p for p in reach if not args.file or p.file in args.file)
        places = [p for p in places if not args.only or
                  any(o in f"{p.file} {p.function} {p.operation}" for o in args.only)]
        if args.missing:
            print("\n".join(f"{p.file}:{p.line} {p.function} {p.operation}" for p in places if not reach[p]))
            return 0
        print("| place | operation | weakened to: found by | survives as: because |\n|---|---|---|---|", flush=True)
        todo = [p for p in places if reach[p] and weaker(p)]
        complaints = []
        for text, more in pool.map(lambda p: row(p, reach[p], reasons, args.limit, args.thorough), todo):
            print(text, flush=True)
            complaints += more
    print("\n".join(complaints), file=sys.stderr)
    return min(len(complaints), 100)


if __name__ == "__main__":
    sys.exit(main())
