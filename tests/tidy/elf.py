#!/usr/bin/env python3
"""elf.py LIBRARY: libgort.so exports go_* and nothing else, and is hardened as the build says."""
import re
import subprocess
import sys


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(library):
    errors = []
    symbols = output("nm", "-D", "--defined-only", library).splitlines()
    names = [line.split()[-1].split("@")[0] for line in symbols if " A " not in line]  # A: GORT_0
    errors += [f"exports {name}" for name in names if not name.startswith("go_")]
    if not names:
        errors.append("exports nothing")

    headers = output("readelf", "-lW", library)
    stack = re.search(r"GNU_STACK.*", headers)
    if not stack or "E" in stack.group(0).split()[6]:
        errors.append("has an executable stack")
    if "GNU_RELRO" not in headers:
        errors.append("has no RELRO segment")
    if re.search(r"LOAD.* RWE ", headers):
        errors.append("has a segment both writable and executable")

    dynamic = output("readelf", "-dW", library)
    for flag in ("NOW", "NODELETE"):
        if not re.search(rf"FLAGS.*\b{flag}\b", dynamic):
            errors.append(f"is linked without -z {flag.lower()}")
    if "TEXTREL" in dynamic:
        errors.append("has text relocations")
    if not re.search(r"SONAME.*libgort\.so\.\d+\]", dynamic):
        errors.append("has no versioned SONAME")

    for error in errors:
        print(f"{library}: {error}")
    return 1 if errors else 0


sys.exit(main(sys.argv[1]))
