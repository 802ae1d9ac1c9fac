"""tools/bench --only scale: how the cost of an operation grows with the number of tasks, processors,
channels, waiters and timers. One run for each point and runtime, one right after the other."""
import json
import math
import statistics
from collections import namedtuple
from html import escape

# axis: what grows; point(x): the arguments; cost(result): ns for an operation.
Series = namedtuple("Series", "name what axis points arguments cost")


def per_op(result):
    return result["ns_per_op"]


def cpu_per_op(result):
    """Sleeps take as long as they take: what counts is the CPU time."""
    return result["cpu_s"] * 1e9 / result["n"]


SERIES = [
    Series("switch", "a yield, 1 P", "tasks", (2, 10, 100, 1_000, 10_000, 100_000, 1_000_000),
           lambda x: ["switch", "--procs", "1", "--n", str(max(1_000_000, 2 * x)), f"tasks={x}"], per_op),
    Series("spawn", "spawn and end", "processors", (1, 2, 4, 8, 16, 32, 64),
           lambda x: ["spawn", "--procs", str(x), "--n", "500000"], per_op),
    Series("chan_mpmc", "an item, 4 producers, 4 consumers", "processors", (1, 2, 4, 8, 16, 32, 64),
           lambda x: ["chan_mpmc", "--procs", str(x), "--n", "500000"], per_op),
    Series("select_n", "a select, one of its channels is ready", "channels", (2, 8, 64, 1_024),
           lambda x: ["select_n", "--procs", "1", "--n", str(max(5_000, 2_000_000 // x)), f"cases={x}"], per_op),
    Series("select_park", "a select that waits in all of them", "channels", (2, 8, 64, 1_024),
           lambda x: ["select_park", "--procs", "1", "--n", str(max(5_000, 2_000_000 // x)), f"cases={x}"], per_op),
    Series("waiters", "each gets a mutex that all wait for", "waiters", (1_000, 10_000, 40_000, 160_000),
           lambda x: ["waiters", "--procs", "2", "--n", str(x)], per_op),
    Series("timers", "a sleep, CPU time", "timers", (100, 1_000, 10_000, 100_000, 1_000_000),
           lambda x: ["timers", "--procs", "2", "--n", str(x)], cpu_per_op),
]

# Many Ps beside few, on a machine with few CPUs: name, n; what must be left of the throughput.
CROWDED, FEW, MANY, ROUNDS, LEAST_LEFT = (("spawn", 5_000_000), ("chan_mpmc", 5_000_000)), 2, 64, 7, 0.5

WIDTH, PANEL, PLOT, LEFT, TOP = 880, 230, 150, 70, 100
STYLE = """
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-size:11px;fill:#1f2328}
.page{fill:#ffffff;stroke:#d1d9e0}.rule{stroke:#d8dee4}.title{font-size:22px;font-weight:700}
.group{font-size:14px;font-weight:700}.muted{fill:#59636e}
polyline{fill:none;stroke-width:2}.gort{stroke:#0e9f97;fill:#0e9f97}.go{stroke:#aab4bf;fill:#aab4bf}
polyline.gort,polyline.go{fill:none}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.page{fill:#0d1117;stroke:#30363d}.rule{stroke:#262c34}.muted{fill:#9198a1}}
"""


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(str(words))}</text>'


def panel(series, lines, y):
    """One series: both axes logarithmic, from a power of ten to a power of ten."""
    values = [v for points in lines.values() for _, v in points]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    first, last = math.log10(series.points[0]), math.log10(series.points[-1])
    out = [text(32, y, f"{series.name}: {series.what}", "group"),
           text(WIDTH - 32, y, f"ns, by the number of {series.axis}", "muted", "end")]
    bottom = y + 22 + PLOT

    def at(x, v):
        return (LEFT + (WIDTH - LEFT - 60) * (math.log10(x) - first) / (last - first),
                bottom - PLOT * (math.log10(v) - low) / (high - low))

    for power in range(low, high + 1):
        level = at(series.points[0], 10.0**power)[1]
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - 60}" y1="{level:g}" y2="{level:g}" class="rule"/>')
        out.append(text(LEFT - 8, level + 4, f"{10.0**power:g}", "muted", "end"))
    for x in series.points:
        out.append(text(at(x, 10.0**low)[0], bottom + 16, f"{x:,}", "muted", "middle"))
    for peer, points in lines.items():
        places = [at(x, v) for x, v in points]
        out.append(f'<polyline class="{peer}" points="' + " ".join(f"{x:.1f},{v:.1f}" for x, v in places) + '"/>')
        out += [f'<circle class="{peer}" cx="{x:.1f}" cy="{v:.1f}" r="3"/>' for x, v in places]
    return out


def svg(done, labels, machine):
    out, y = [text(32, 46, "How the cost grows", "title")], TOP
    x = WIDTH - 32
    for peer, label in reversed(labels.items()):
        out.append(text(x, 46, label, "", "end"))
        x -= 7 * len(label) + 12
        out.append(f'<circle class="{peer}" cx="{x}" cy="42" r="5"/>')
        x -= 16
    for series, lines in done:
        out += panel(series, lines, y)
        y += PANEL
    out.append(text(32, y, machine, "muted"))
    y += 22
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">'
            f"<title>How the cost grows</title><style>{STYLE}</style>"
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{y - 1}" rx="10" class="page"/>\n' + "\n".join(out) + "\n</svg>\n")


def many_ps(gort, run_command):
    """The throughput of gort at MANY Ps beside that at FEW, in rounds in turn: {name: (median, least, most)}."""
    left = {}
    for name, n in CROWDED:
        rounds = []
        for i in range(ROUNDS):
            ns = {procs: per_op(run_command(gort, [name, "--procs", str(procs), "--n", str(n)]))
                  for procs in ((FEW, MANY) if i % 2 == 0 else (MANY, FEW))}
            rounds.append(ns[FEW] / ns[MANY])
        left[name] = statistics.median(rounds), min(rounds), max(rounds)
    return left


def run(peers, run_command, progress, out_dir, machine):
    """Runs all series, prints a table for each, writes scale.json and scale.svg. run_command(peer, arguments) is the
    result of one run."""
    done, results = [], []
    for number, series in enumerate(SERIES, 1):
        lines = {p.name: [] for p in peers}
        for x in series.points:
            progress(number, len(SERIES), f"{series.name}, {x:,} {series.axis}")
            for peer in peers:
                result = run_command(peer, series.arguments(x))
                lines[peer.name].append((x, series.cost(result)))
                results.append({"series": series.name, series.axis: x, **result})
        done.append((series, lines))
    progress(len(SERIES), len(SERIES), f"{MANY} Ps beside {FEW}")
    left = many_ps(peers[0], run_command)
    for series, lines in done:
        print(f"\n{series.name}: {series.what}; ns")
        head = [series.axis.rjust(12)] + [p.label.rjust(9) for p in peers] + (["gort is".rjust(9)] if len(peers) > 1 else [])
        print(" ".join(head))
        for i, x in enumerate(series.points):
            costs = [lines[p.name][i][1] for p in peers]
            ratio = [f"{costs[1] / costs[0]:8.2f}x"] if len(costs) > 1 else []
            print(" ".join([f"{x:12,}"] + [f"{c:9.1f}" for c in costs] + ratio))
    print(f"\nthroughput of gort at {MANY} Ps beside {FEW} (must be >= {LEAST_LEFT}), median of {ROUNDS} rounds: " +
          ", ".join(f"{name} {median:.2f} ({least:.2f} - {most:.2f})" for name, (median, least, most) in left.items()))
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "scale.json").write_text(json.dumps({"machine": machine, "runs": results, f"throughput at {MANY} Ps": left},
                                                   indent=1) + "\n")
    (out_dir / "scale.svg").write_text(svg(done, {p.name: p.label for p in peers}, machine))
