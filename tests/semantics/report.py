"""report.py - results for people: tables in markdown, and a contact sheet (ffmpeg writes it)."""
import subprocess

import numpy as np

import features
import words

COLUMNS = 10         # frames of a row
GAP, CAPTION = 4, 20  # pixels
ROWS = {"prompts": 14, "switches": 5, "stream": 1}  # of the sheet


def table(head, rows):
    lines = [head, ["---"] * len(head)] + rows
    return "".join("| %s |\n" % " | ".join(map(str, line)) for line in lines) + "\n"


def percent(share):
    return "%.1f %%" % (100 * share)


def confusion(asked, seen):
    """A table an attribute: a row a word that was asked, a column a word that was seen."""
    text = ""
    for i, attribute in enumerate(words.Scene._fields):
        known = {"colour": words.COLOURS, "background": words.BACKGROUNDS, "shape": words.SHAPES,
                 "size": words.SIZES, "motion": words.MOTIONS}[attribute]
        columns = list(known) + [features.NONE]
        pairs = [(a[i], s[i]) for a, s in zip(asked, seen)]
        text += table([attribute] + columns,
                      [[word] + [pairs.count((word, c)) or "" for c in columns] for word in known])
    return text


def wrong(asked, seen):
    """A line each scene that is not what was asked."""
    lines = []
    for a, s in zip(asked, seen):
        off = ["%s is %s" % (k, y) for k, x, y in zip(words.Scene._fields, a, s) if x != y]
        if off:
            lines.append("- %s: %s\n" % (words.plain(a), ", ".join(off)))
    return "".join(lines) + ("\n" if lines else "")


def markdown(result):
    text = "# What was asked and what was seen\n\n"
    if "prompts" in result:
        r = result["prompts"]
        text += "## %d prompts\n\n" % r["n"]
        text += table(["", *r["right"]],
                      [[name, *map(percent, r[key].values())]
                       for name, key in (("right", "right"), ("prompts shuffled", "shuffled"))])
        text += confusion(r["asked"], r["seen"]) + wrong(r["asked"], r["seen"])
    if "switches" in result:
        r = result["switches"]
        text += "## %d switches\n\n" % r["n"]
        text += "From the second block on the new attributes are right after %s, the others after " \
                "%s.\n\n" % (percent(r["new"]), percent(r["kept"]))
        text += table(["block after the switch", *range(1, 1 + len(r["by_block"]))],
                      [["new attributes right, but motion", *map(percent, r["by_block"])]])
        text += wrong(r["asked"], r["seen"])
    if "stream" in result:
        r = result["stream"]
        text += "## A stream of %d frames: %s\n\n" % (r["frames"], r["prompt"])
        text += table(["%d windows" % r["windows"], *r["right"]],
                      [["right", *map(percent, r["right"].values())],
                       ["in the last quarter", *map(percent, r["right_in_last_quarter"].values())]])
        drift = ["nothing to compare" if by is None else "%.3g" % by for by in r["drift"].values()]
        text += table(["from the first quarter to the last", "background, RGB distance",
                       "thing, RGB distance", "its radius, share"],
                      [["drift", *drift]])
    if "run" in result:
        r = result["run"]
        text += "%s%s: %d frames at %.1f a second, %.0f s in all.\n" % (
            r["config"], "".join(" " + s for s in r["set"]), r["frames"], r["frames_a_second"],
            r["seconds"])
    return text


def choose(rows):
    """Some rows of each part, evenly."""
    return [part[i * len(part) // n] for name, part in rows.items()
            for n in [min(ROWS[name], len(part))] for i in range(n)]


def sheet(path, rows):
    """A PNG: a row (caption, frames [T, H, W, 3]) its caption and COLUMNS frames, evenly in time."""
    height, width = rows[0][1].shape[1:3]
    step = height + CAPTION + GAP
    page = np.full((GAP + len(rows) * step, GAP + COLUMNS * (width + GAP), 3), 255, np.uint8)
    captions = []
    for i, (caption, frames) in enumerate(rows):
        top = GAP + i * step
        captions.append("drawtext=text='%s':x=%d:y=%d:fontsize=14" % (caption, GAP, top + 2))
        for k, t in enumerate(np.linspace(0, len(frames) - 1, COLUMNS).astype(int)):
            left = GAP + k * (width + GAP)
            page[top + CAPTION:top + CAPTION + height, left:left + width] = frames[t]
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s",
                    "%dx%d" % (page.shape[1], page.shape[0]), "-i", "-", "-vf",
                    ",".join(captions), "-frames:v", "1", path],
                   input=page.tobytes(), check=True, timeout=120)
