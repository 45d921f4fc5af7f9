#!/usr/bin/env python3
"""Puts the newest row of each case of build/bench.jsonl into the table of docs/BENCHMARKS.md."""

import json
import os
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
ROWS = os.path.join(ROOT, "build", "bench.jsonl")
PAGE = os.path.join(ROOT, "docs", "BENCHMARKS.md")
BEGIN, END = "<!-- measured: bench/table.py -->\n", "<!-- end of measured -->\n"


def digits(us):
    """Three digits that count."""
    return "%.2f" % us if us < 10 else "%.1f" % us if us < 100 else "%d" % round(us)


def newest():
    """Rows by command, in the order in which the command printed them last."""
    commands = {}
    with open(ROWS) as f:
        for line in f:
            r = json.loads(line)
            rows = commands.setdefault(r["command"], {})
            key = (r["name"], r["shape"], r["device"], r["threads"], r["cache"])
            rows.pop(key, None)
            rows[key] = r
    return commands


def table(rows):
    out = ["| case | shape | threads | caches | runs | median us | P95 | P99 | max | floor us | of it |",
           "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for r in rows:
        floor, share = "", ""
        if r["floor_us"]:
            floor = digits(r["floor_us"])
            share = "%d %%" % round(100 * r["floor_us"] / r["median_us"])
        on = r["threads"] if r["device"] == "cpu" else r["device"]
        cells = [r["name"], r["shape"], on, r["cache"], r["n"]]
        cells += [digits(r[k]) for k in ("median_us", "p95_us", "p99_us", "max_us")]
        out.append("| " + " | ".join(str(c) for c in cells + [floor, share]) + " |")
    return out


def main():
    text = []
    for command, rows in newest().items():
        rows = list(rows.values())
        last = rows[-1]
        text += ["", "`%s` at commit %s on %d x %s, load %.1f when it began:" %
                 (command, last["commit"], last["cpus"], last["cpu"], last["load"]), ""]
        text += table(rows)
    with open(PAGE) as f:
        page = f.read()
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        sys.exit("table.py: %s has not its two marks" % PAGE)
    head, tail = page.split(BEGIN)[0], page.split(END)[1]
    with open(PAGE, "w") as f:
        f.write(head + BEGIN + "\n".join(text).lstrip("\n") + "\n" + END + tail)


main()
