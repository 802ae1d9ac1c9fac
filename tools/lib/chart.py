"""A bar chart as SVG, written by hand: no library draws one that follows the reader's light or dark
theme. Each line has its own scale, its longest bar fills the width, so that ns and ms stand together."""
from collections import namedtuple
from html import escape

# bars: (class, label, value, shown value); ratio: how many times better the first bar is than Go's.
Line = namedtuple("Line", "name what procs bars ratio")

WIDTH, LEFT, BARS, RIGHT = 880, 250, 420, 32
BAR, GAP = 13, 3

STYLE = """
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;fill:#1f2328}
.page{fill:#ffffff;stroke:#d1d9e0}.rule{stroke:#d8dee4}
.title{font-size:22px;font-weight:700}.group{font-size:14px;font-weight:700;letter-spacing:.02em}
.name{font-size:13px;font-weight:600}.small{font-size:11px}.value{font-size:11.5px}
.muted{fill:#59636e}.ratio{font-size:15px;font-weight:700;fill:#0b7a75}.ratio.worse{fill:#59636e}
.gort{fill:#0e9f97}.go{fill:#aab4bf}.raw{fill:#e0b25c}.plain{fill:#b9a3d6}.python{fill:#9db4d8}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.page{fill:#0d1117;stroke:#30363d}.rule{stroke:#262c34}
.muted{fill:#9198a1}.ratio{fill:#3fd0c6}.ratio.worse{fill:#9198a1}
.gort{fill:#2bb8af}.go{fill:#59636e}.raw{fill:#b98a35}.plain{fill:#7d659e}.python{fill:#5d77a3}
}
"""


def text(x, y, words, kind, anchor="start"):
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(str(words))}</text>'


def svg(title, subtitle, groups, machine):
    out, y = [], 46
    labels = {}
    for _, lines in groups:
        for line in lines:
            labels.update({kind: label for kind, label, _, _ in line.bars})
    has_ratio = any(line.ratio for _, lines in groups for line in lines)

    out.append(text(RIGHT, y, title, "title"))
    x = WIDTH - RIGHT
    for kind, label in reversed(list(labels.items())):
        out.append(text(x, y, label, "value", "end"))
        x -= 7 * len(label) + 16  # nobody tells an SVG's author how wide a word is
        out.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" rx="2.5" class="{kind}"/>')
        x -= 16
    y += 21
    out.append(text(RIGHT, y, subtitle, "value muted"))

    for group, lines in groups:
        y += 36
        out.append(text(RIGHT, y, group, "group"))
        if has_ratio:
            out.append(text(WIDTH - RIGHT, y, "times better than Go", "small muted", "end"))
        y += 10
        out.append(f'<line x1="{RIGHT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" class="rule"/>')
        y += 10
        last = None
        for line in lines:
            height = max(len(line.bars), 2) * (BAR + GAP)
            middle = y + height / 2
            if line.name != last:
                out.append(text(RIGHT, middle - 2, line.name, "name"))
                out.append(text(RIGHT, middle + 12, line.what, "small muted"))
            last = line.name
            out.append(text(LEFT - 10, middle + 3, "1 core" if line.procs == 1 else f"{line.procs} cores",
                            "small muted", "end"))
            longest = max(value for _, _, value, _ in line.bars)
            top = middle - len(line.bars) * (BAR + GAP) / 2
            for kind, _, value, shown in line.bars:
                width = max(2.0, BARS * value / longest)
                out.append(f'<rect x="{LEFT}" y="{top + GAP / 2:g}" width="{width:.1f}" height="{BAR}" rx="2.5" '
                           f'class="{kind}"/>')
                out.append(text(round(LEFT + width + 7, 1), top + GAP / 2 + BAR - 2.5, shown, "value"))
                top += BAR + GAP
            if line.ratio:
                digits = 0 if line.ratio >= 10 else 1 if line.ratio >= 2 else 2
                shown = f"{line.ratio:.{digits}f}×"
                out.append(text(WIDTH - RIGHT, middle + 5, shown, "ratio" if line.ratio >= 1 else "ratio worse", "end"))
            y += height + 9
    y += 22
    out.append(text(RIGHT, y, machine, "small muted"))
    y += 22
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">'
            f"<title>{escape(title)}</title><style>{STYLE}</style>"
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{y - 1}" rx="10" class="page"/>\n'
            + "\n".join(out) + "\n</svg>\n")
