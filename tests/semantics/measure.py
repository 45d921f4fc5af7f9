#!/usr/bin/python3
"""measure.py - does the video follow the prompt? Scenes that training never sees, measured.

Three things: a video each of many prompts; prompt switches, measured from the second block on; one
long stream. Writes result.json, report.md (tables of what was asked and what was seen) and sheet.png
into a folder. Any configuration can be measured, with any of its keys set otherwise:

    tests/semantics/measure.py --set dit.steps=1000,500 -o build/semantics-2-steps
"""
import argparse
import json
import os
import random
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "demo_model"), os.path.join(HERE, "..", "e2e")]

import harness  # noqa: E402
import numpy as np  # noqa: E402

import features  # noqa: E402
import report  # noqa: E402
import words  # noqa: E402
import y4m  # noqa: E402

ATTRIBUTES = words.Scene._fields
BLOCK_LATENTS = 3
VIDEO_BLOCKS = 5     # of a prompt: 57 frames, or 60 behind a switch; a circle takes 48
SCENES_A_SEED = 9    # prompts that start from the same noise
SWITCHES_A_VIDEO = 5
WINDOW_BLOCKS = 4    # of the stream, and behind a switch without its first block
SHUFFLES = 200


def frame_of(block):
    """The first latent is one frame, each other four."""
    return max(0, 4 * BLOCK_LATENTS * block - 3)


def held_out(n, rng):
    """n scenes, each attribute's values as equally often as can be."""
    pool = [s for s in words.all_scenes() if words.is_held_out(s)]
    rng.shuffle(pool)
    used = {(k, v): 0 for s in pool for k, v in zip(ATTRIBUTES, s)}
    scenes = []
    for _ in range(n):
        scene = min(pool, key=lambda s: sorted((used[kv] for kv in zip(ATTRIBUTES, s)),
                                               reverse=True))
        pool.remove(scene)
        scenes.append(scene)
        for kv in zip(ATTRIBUTES, scene):
            used[kv] += 1
    return scenes


class Product:
    """Paints with `longlived generate`."""

    def __init__(self, conf, sets):
        self.args = ["-c", conf] + [a for s in sets for a in ("--set", s)]
        self.frames = self.seconds = 0

    def __call__(self, videos, blocks, seed):
        """Frames [T, H, W, 3] of each video: a list of scenes that are shown for `blocks` each."""
        with tempfile.TemporaryDirectory(prefix="longlived-semantics-") as tmp:
            script = os.path.join(tmp, "script.jsonl")
            with open(script, "w") as f:
                for scenes in videos:
                    at = [BLOCK_LATENTS * blocks * i for i in range(1, len(scenes))]
                    line = {"prompts": [words.plain(s) for s in scenes], "switch": at}
                    f.write(json.dumps(line) + "\n")
            began = time.monotonic()
            r = harness.run(["generate", *self.args, "--quiet", "--script", script, "--seed", seed,
                             "--blocks", blocks * len(videos[0]), "-o",
                             os.path.join(tmp, "v.y4m")], timeout=900)
            harness.check_result(r, 0)
            self.seconds += time.monotonic() - began
            names = ["v-%03d.y4m" % i for i in range(len(videos))] if len(videos) > 1 else ["v.y4m"]
            shown = [y4m.read(os.path.join(tmp, name)) for name in names]
            self.frames += sum(map(len, shown))
            return shown


def scene_of(clip):
    return words.Scene(*clip[:len(ATTRIBUTES)])


def right(asked, seen):
    """By attribute, and for all of them at once: the share of scenes that are what was asked."""
    same = np.array([[a == b for a, b in zip(x, y)] for x, y in zip(asked, seen)])
    shares = dict(zip(ATTRIBUTES, same.mean(0).tolist()))
    return {**shares, "all": float(same.all(1).mean())}


def shuffled(asked, seen, rng):
    """The same with each video held against the prompt of another: the mean of many shuffles."""
    runs = [right(rng.sample(asked, len(asked)), seen) for _ in range(SHUFFLES)]
    return {k: sum(r[k] for r in runs) / SHUFFLES for k in runs[0]}


def measure_prompts(paint, n, rng):
    asked, seen, rows = held_out(n, rng), [], []
    for first in range(0, n, SCENES_A_SEED):
        scenes = asked[first:first + SCENES_A_SEED]
        shown = paint([[s] for s in scenes], VIDEO_BLOCKS, seed=1 + first)
        seen += [scene_of(features.measure(frames)) for frames in shown]
        rows += [(words.plain(s), frames) for s, frames in zip(scenes, shown)]
    return {"n": n, "right": right(asked, seen), "shuffled": shuffled(asked, seen, rng),
            "asked": asked, "seen": seen}, rows


def switch_chains(n, rng):
    chains = []
    for scene in held_out(-(-n // SWITCHES_A_VIDEO), rng):
        chains.append([scene])
        for _ in range(SWITCHES_A_VIDEO):
            chains[-1].append(words.change(chains[-1][-1], rng, trained=False))
    return chains


def measure_switches(paint, n, rng):
    """`new` is the share of switches after which all that they change is right, `kept` that of those
    after which all else is: each in the second block by itself, but for motions, which a block is
    too short for, and in all blocks from there on together. `by_block` has, for the block of the
    switch and those behind it, the share of what is new (no motions) that is right in it."""
    chains = switch_chains(n, rng)
    asked, seen, new, kept, rows = [], [], [], [], []
    by_block = [[] for _ in range(VIDEO_BLOCKS)]
    for chain, frames in zip(chains, paint(chains, VIDEO_BLOCKS, seed=2)):
        for i, (old, scene) in enumerate(zip(chain, chain[1:]), 1):
            first = [frame_of(VIDEO_BLOCKS * i + b) for b in range(VIDEO_BLOCKS + 1)]
            seen.append(scene_of(features.measure(frames[first[1]:first[-1]])))
            asked.append(scene)
            blocks = [scene_of(features.measure(frames[a:b])) for a, b in zip(first, first[1:])]
            is_right = {k: getattr(seen[-1], k) == getattr(scene, k) and
                        (k == "motion" or getattr(blocks[1], k) == getattr(scene, k))
                        for k in ATTRIBUTES}
            changed = [k for k in ATTRIBUTES if getattr(old, k) != getattr(scene, k)]
            new.append(all(is_right[k] for k in changed))
            kept.append(all(is_right[k] for k in ATTRIBUTES if k not in changed))
            for found, block in zip(by_block, blocks):
                found += [getattr(block, k) == getattr(scene, k) for k in changed if k != "motion"]
            rows.append(("%s, then %s" % (words.plain(old), words.plain(scene)),
                         frames[frame_of(VIDEO_BLOCKS * i - 3):first[-1]]))
    return {"n": len(asked), "new": float(np.mean(new)), "kept": float(np.mean(kept)),
            "by_block": [float(np.mean(found)) for found in by_block],
            "asked": asked, "seen": seen}, rows


def median_of(clips, field):
    """NaN where no clip has it."""
    values = np.array([getattr(c, field) for c in clips])
    known = values[~np.isnan(values).any(-1)] if values.ndim > 1 else values[~np.isnan(values)]
    return np.median(known, 0) if len(known) else np.nan


def measure_stream(paint, n_frames, rng):
    """One scene that crosses the picture's edge again and again, in windows one after another.
    `drift` holds the last quarter against the first: colours as RGB distance, the radius as a share;
    null where there is nothing to hold."""
    n_blocks = -(-(n_frames + 3) // (4 * BLOCK_LATENTS))
    scene = rng.choice([s for s in words.all_scenes()
                        if words.is_held_out(s) and s.motion in ("left", "right")])
    frames, = paint([[scene]], n_blocks, seed=3)
    clips = [features.measure(frames[frame_of(b):frame_of(b + WINDOW_BLOCKS)])
             for b in range(0, n_blocks - WINDOW_BLOCKS + 1, WINDOW_BLOCKS)]
    asked, seen = [scene] * len(clips), [scene_of(c) for c in clips]
    quarter = max(1, len(clips) // 4)
    drift = {}
    for field in ("background_rgb", "thing_rgb", "radius"):
        first, last = (median_of(part, field) for part in (clips[:quarter], clips[-quarter:]))
        by = abs(last / first - 1) if field == "radius" else np.linalg.norm(last - first)
        drift[field] = None if np.isnan(by) else float(by)
    result = {"prompt": words.plain(scene), "frames": len(frames), "windows": len(clips),
              "right": right(asked, seen),
              "right_in_last_quarter": right(asked[-quarter:], seen[-quarter:]),
              "drift": drift, "asked": asked, "seen": seen}
    return result, [("%s, %d frames" % (words.plain(scene), len(frames)), frames)]


def measure(paint, prompts=63, switches=30, stream=2000):
    """The result, and rows (caption, frames) for the contact sheet. 0 leaves a part away."""
    result, rows = {}, {}
    for name, part, n in (("prompts", measure_prompts, prompts),
                          ("switches", measure_switches, switches),
                          ("stream", measure_stream, stream)):
        if n > 0:
            result[name], rows[name] = part(paint, n, random.Random(name))
    return result, rows


def main(argv):
    p = argparse.ArgumentParser(description="Measures whether videos show what the prompts say.")
    p.add_argument("-c", "--config", default=os.path.join(harness.ROOT, "configs", "demo.ini"))
    p.add_argument("--set", action="append", default=[], metavar="S.K=V",
                   help="sets a key of the configuration; may be repeated")
    p.add_argument("-o", "--output", default=os.path.join(harness.ROOT, "build", "semantics"))
    p.add_argument("--prompts", type=int, default=63, help="how many; 0 for none of it, as below")
    p.add_argument("--switches", type=int, default=30, help="rounded up to videos of 5")
    p.add_argument("--stream", type=int, default=2000, help="frames")
    a = p.parse_args(argv)
    began, paint = time.monotonic(), Product(a.config, a.set)
    result, rows = measure(paint, a.prompts, a.switches, a.stream)
    result["run"] = {"config": os.path.relpath(a.config, harness.ROOT), "set": a.set,
                     "frames": paint.frames, "frames_a_second": paint.frames / paint.seconds,
                     "seconds": time.monotonic() - began}
    os.makedirs(a.output, exist_ok=True)
    with open(os.path.join(a.output, "result.json"), "w") as f:
        json.dump(result, f, indent=1)
    text = report.markdown(result)
    with open(os.path.join(a.output, "report.md"), "w") as f:
        f.write(text)
    report.sheet(os.path.join(a.output, "sheet.png"), report.choose(rows))
    print(text)
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
