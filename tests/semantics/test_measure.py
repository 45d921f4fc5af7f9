"""measure.py with painters whose videos are known: the true world's, late ones, drifting ones."""

import os
import random

import measure
import numpy as np
import report
import truth
import words
import y4m
from harness import check
from test_demo import ABOVE_CHANCE, CHANCE

ATTRIBUTES = words.Scene._fields


class Truth:
    """Paints the true world, through a file as the product writes it. A scene is shown `late` blocks
    after it was asked for; each frame's colours are moved by `fade` a frame."""

    def __init__(self, tmp, late=0, fade=0.0):
        self.path, self.late, self.fade = os.path.join(tmp, "v.y4m"), late, fade

    def video(self, scenes, blocks, rng):
        parts, at = [], rng.uniform(0, words.SIDE, 2)
        ends = [measure.frame_of(blocks * i + self.late) for i in range(1, len(scenes))]
        ends.append(measure.frame_of(blocks * len(scenes)))
        n = 0
        for scene, end in zip(scenes, ends):  # from where the last one left the thing
            phase = rng.random()
            begin = at - truth.path(scene.motion, [0], (0, 0), phase)[0]
            parts.append(truth.paint(scene, range(end - n), begin, phase))
            at = truth.path(scene.motion, [end - n], begin, phase)[0]
            n = end
        frames = np.concatenate(parts)
        frames += self.fade * np.arange(n)[:, None, None, None]
        y4m.write(self.path, truth.spoil(frames, rng, noise=6, sigma=0.7))
        return y4m.read(self.path)

    def __call__(self, videos, blocks, seed):
        rng = np.random.default_rng(seed)
        return [self.video(scenes, blocks, rng) for scenes in videos]


def test_truth_is_right(tmp):
    """And against other prompts than its own it is right by chance."""
    result, rows = measure.measure(Truth(tmp))
    prompts, switches, stream = (result[k] for k in ("prompts", "switches", "stream"))
    print("  right %s\n  shuffled %s" % (prompts["right"], prompts["shuffled"]))
    check(prompts["n"] == 63 and switches["n"] == 30 and stream["frames"] >= 2000, "lengths")
    check(prompts["right"]["all"] >= 0.98, prompts["right"])
    for k, chance in CHANCE.items():
        check(abs(prompts["shuffled"][k] - chance) < ABOVE_CHANCE, k, prompts["shuffled"][k])
    check(prompts["shuffled"]["all"] < 0.03, "all by chance:", prompts["shuffled"]["all"])
    check(switches["new"] >= 0.95 and switches["kept"] >= 0.95, switches)
    check(min(switches["by_block"]) >= 0.95, switches["by_block"])
    check(stream["right"]["all"] >= 0.95, stream["right"])
    check(stream["drift"]["background_rgb"] < 2 and stream["drift"]["thing_rgb"] < 2 and
          stream["drift"]["radius"] < 0.05, stream["drift"])
    text = report.markdown(result)
    check("## 63 prompts" in text and "## 30 switches" in text and "2001 frames" in text, text)
    sheet = os.path.join(tmp, "sheet.png")
    report.sheet(sheet, report.choose(rows))
    with open(sheet, "rb") as f:
        head = f.read(24)
    check(head[:8] == b"\x89PNG\r\n\x1a\n", head)
    size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:], "big")
    check(size == (1004, 4 + 20 * 120), "the sheet's size:", size)


def test_blocks(tmp):
    """Nine frames in the first block, twelve in each other."""
    check([measure.frame_of(b) for b in range(4)] == [0, 9, 21, 33], "first frames of blocks")


def test_late_switches_are_seen(tmp):
    """One block late is in time, two are not, whatever the later blocks show."""
    in_time, _ = measure.measure(Truth(tmp, late=1), prompts=0, stream=0)
    late, _ = measure.measure(Truth(tmp, late=2), prompts=0, stream=0)
    check(in_time["switches"]["new"] >= 0.95, in_time["switches"])
    check(in_time["switches"]["by_block"][0] == 0, in_time["switches"]["by_block"])
    check(late["switches"]["new"] <= 0.4, late["switches"])  # motions alone are not told by a block
    check(late["switches"]["by_block"][:2] == [0, 0] and
          min(late["switches"]["by_block"][2:]) >= 0.95, late["switches"]["by_block"])


def test_drift_is_seen(tmp):
    result, _ = measure.measure(Truth(tmp, fade=-0.03), prompts=0, switches=0)  # 60 of 255 in all
    drift = result["stream"]["drift"]
    check(drift["thing_rgb"] > 30 and drift["background_rgb"] > 30, drift)


def test_held_out_scenes_are_balanced(tmp):
    scenes = measure.held_out(63, random.Random(5))
    check(len(set(scenes)) == 63 and all(map(words.is_held_out, scenes)), scenes)
    for i, n_words in enumerate((6, 4, 3, 5, 7)):
        values = [s[i] for s in scenes]
        counts = [values.count(v) for v in set(values)]
        check(len(counts) == n_words and max(counts) - min(counts) <= 2, ATTRIBUTES[i], counts)
    chains = measure.switch_chains(30, random.Random(5))
    check(len(chains) == 6 and all(len(c) == 6 for c in chains), "30 switches in six videos")
    check(all(a != b for c in chains for a, b in zip(c, c[1:])), "a switch to the same scene")


TESTS = [test_blocks, test_held_out_scenes_are_balanced, test_late_switches_are_seen,
         test_drift_is_seen, test_truth_is_right]
