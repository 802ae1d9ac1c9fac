#!/usr/bin/env python3
"""source.py ROOT: the house style that a machine can check. One line per fault, then exit 1."""
import pathlib
import re
import sys

# A folder of src/ may include itself, the public headers, and what stands here.
BASE = {"base"}
ARCH = BASE | {"arch"}
SCHED = ARCH | {"sched"}
MIDDLE = SCHED | {"sync", "netpoll"}
TOP = MIDDLE | {"task", "io"}
MAY_INCLUDE = {"base": set(), "arch": BASE, "sched": ARCH, "sync": SCHED, "netpoll": SCHED,
               "task": MIDDLE, "io": MIDDLE, "debug": TOP, "checkpoints": set()}

MAX_COLUMNS, MAX_FILE, MAX_FUNCTION = 100, 700, 90
SCRIPT_COLUMNS = 140  # tables and messages in Python, Go and shell

# (pattern, the files of src/ that may, why)
BANNED = [
    (r"\b(malloc|calloc|realloc|free|aligned_alloc|posix_memalign|strdup)\s*\(",
     "base/", "use rt_sys_alloc and rt_sys_free"),
    (r"\b(syscall|mmap|munmap|mprotect|madvise|pthread_create)\s*\(",
     "base/sys", "system calls live in base/sys"),
    (r"\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|alloca|setjmp|longjmp|atoi|system)\s*\(",
     None, "banned function"),
    (r"\b(TODO|FIXME|XXX)\b", None, "an issue, not a note in the code"),
]


def strip_comments(text):
    """Comments and the contents of strings become blanks; lines stay where they are."""
    def blank(match):
        token = match.group(0)
        if token[0] in "\"'":
            return token[0] + " " * (len(token) - 2) + token[0]
        return re.sub(r"[^\n]", " ", token)
    token = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\''
    return re.sub(token, blank, text, flags=re.S)


def check_text(lines, columns=MAX_COLUMNS, tabs=False):
    for number, line in enumerate(lines, 1):
        if len(line) > columns:
            yield number, f"{len(line)} columns, more than {columns}"
        if "\t" in line and not tabs:
            yield number, "a tab"
        if line != line.rstrip():
            yield number, "blanks at the end"


def check_length(lines):
    if len(lines) > MAX_FILE:
        yield len(lines), f"{len(lines)} lines, more than {MAX_FILE}"


def check_functions(code):
    """A function lies between a declaration at column 0 that ends in { and a } at column 0."""
    start = None
    for number, line in enumerate(code, 1):
        if re.match(r"[A-Za-z_].*\)[^;=]*\{\s*$", line) or (line.startswith("{") and start is None):
            start = number
        elif line.startswith("}"):
            if start and number - start - 1 > MAX_FUNCTION:
                yield start, f"a function of {number - start - 1} lines, more than {MAX_FUNCTION}"
            start = None


def check_includes(name, text):
    layer = name.split("/")[0]
    if layer not in MAY_INCLUDE:
        yield 1, f"src/{layer} is not a layer of the design"
        return
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*["<](\w+)/', line)
        other = match.group(1) if match else layer
        if other in MAY_INCLUDE and other not in MAY_INCLUDE[layer] | {layer}:
            yield number, f"{layer} must not include {other}"
        if re.match(r'\s*#\s*include\s*"\.\.?/', line):
            yield number, "a relative include"


def check_banned(name, raw, code):
    for number, (line, stripped) in enumerate(zip(raw, code), 1):
        for pattern, allowed, why in BANNED:
            if not (allowed and name.startswith(allowed)):
                match = re.search(pattern, line if "TODO" in pattern else stripped)
                if match:
                    yield number, f"{match.group(0).strip(' (')}: {why}"


def texts(root):
    """What is not C, but ours: build files, scripts, presets."""
    yield from (root / name for name in ("CMakeLists.txt", "CMakePresets.json", ".ci/run"))
    for folder in ("cmake", "tests", "tools", "examples", "bench"):
        for path in sorted((root / folder).rglob("*")):
            named = path.suffix in (".txt", ".cmake", ".in", ".py", ".sh", ".go", "")
            if path.is_file() and named and not {"third_party", "__pycache__"} & set(path.parts):
                yield path


def check_named_tests(root, text):
    """`folder.program/case`: does it exist?"""
    for match in re.finditer(r"`(\w+)\.(\w+)/(\w+)`", text):
        folder, program, case = match.groups()
        files = [root / "tests" / folder / name for name in (f"test_{program}.c", f"test_{program}.cc", f"{program}.c")]
        if not any(f.is_file() and re.search(rf"\bG?Test\(\w+,\s*{case}\b", f.read_text()) for f in files):
            yield text.count("\n", 0, match.start()) + 1, f"{match.group(0)}: no such test"


def faults(root):
    for path in sorted((root / "docs").glob("*.md")):
        for number, what in check_named_tests(root, path.read_text()):
            yield f"{path.relative_to(root)}:{number}: {what}"
    for path in texts(root):
        if path.is_file():
            lines = path.read_text().split("\n")[:-1]
            for number, what in check_text(lines, SCRIPT_COLUMNS, tabs=path.suffix == ".go"):
                yield f"{path.relative_to(root)}:{number}: {what}"
    for folder in ("include", "src", "tests", "bench", "examples"):
        for path in sorted((root / folder).rglob("*.[chS]")):
            if "third_party" in path.parts:
                continue
            text = path.read_text()
            lines, code = text.split("\n")[:-1], strip_comments(text).split("\n")[:-1]
            found = [*check_text(lines), *check_length(lines), *check_functions(code)]
            if not text.endswith("\n"):
                found.append((len(lines) + 1, "no newline at the end"))
            if folder == "src":
                name = path.relative_to(root / "src").as_posix()
                found += list(check_includes(name, text)) + list(check_banned(name, lines, code))
            for number, what in sorted(found):
                yield f"{path.relative_to(root)}:{number}: {what}"


def main(root):
    found = list(faults(pathlib.Path(root)))
    print("\n".join(found) if found else "tidy")
    return 1 if found else 0


sys.exit(main(sys.argv[1]))
