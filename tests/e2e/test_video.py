"""generate: the same bits whatever does not matter, other bits for what does; formats; scripts."""

import json
import os
import subprocess

from harness import (NANO, TINY, Pipeline, check, check_result, ffprobe_frames, generate, hashes,
                     run, start, status, wait_for, y4m_frames)

SCRIPT = {"prompts": ["a red ball", "a blue cube", "rain at night"], "switch": [6, 15]}


def script(tmp, *videos, name="script.jsonl"):
    path = os.path.join(tmp, name)
    with open(path, "w") as f:
        f.write("".join(json.dumps(v) + "\n" for v in videos))
    return path


def test_same_bits(tmp):
    """Two runs, two run directories, other ring depths, another number of threads."""
    args = ["--script", script(tmp, SCRIPT), "--blocks", "9"]
    first = generate(tmp, "a", *args)
    check(len(first) == 1 + 4 * 26, "frames:", len(first))
    check(len(set(first)) == len(first), "frames repeat")
    for name, more in {
        "again": ["--run", os.path.join(tmp, "another")],
        "rings": ["--set", "dit.ring_latents=131", "--set", "vae.ring_frames=97"],
        "one": ["--set", "cpu.threads=1"],
        "two": ["--set", "cpu.threads=2"],
        "three": ["--set", "cpu.threads=3"],
    }.items():
        check(generate(tmp, name, *args, *more) == first, "another video:", name)


def test_other_bits(tmp):
    base = ["--prompt", "a red ball", "--blocks", "3"]
    first = generate(tmp, "a", *base)
    for name, args in {
        "seed": base + ["--seed", "8"],
        "prompt": ["--prompt", "a red bell", "--blocks", "3"],
        "weights": base + ["--set", "model.weights=random:9"],
    }.items():
        other = generate(tmp, name, *args)
        check(not set(other) & set(first), "frames in common:", name)


def test_modes_differ_where_they_must(tmp):
    """Sink, its mode and rotary mode change frames only once the window has rolled."""
    args = ["--script", script(tmp, {"prompts": ["a", "b"], "switch": [15]}), "--blocks", "8"]
    keep = generate(tmp, "keep", *args)
    move = generate(tmp, "move", *args, "--set", "dit.global_sink=false")
    relative = generate(tmp, "relative", *args, "--set", "dit.rope=relative")
    check(keep[:57] == move[:57] and not set(keep[57:]) & set(move[57:]), "sink mode")
    check(keep[:45] == relative[:45] and not set(keep[45:]) & set(relative[45:]), "rope")
    none = generate(tmp, "none", *args, "--set", "dit.sink=0")
    check(keep[:45] == none[:45] and not set(keep[45:]) & set(none[45:]), "no sink")


def test_switch_rule(tmp):
    """A switch takes effect at the first block at or after its index, and changes no frame before."""
    plain = generate(tmp, "plain", "--prompt", "a", "--blocks", "6")
    for index, block in ((0, 0), (1, 1), (3, 1), (7, 3), (12, 4)):
        path = script(tmp, {"prompts": ["a", "b"], "switch": [index]})
        got = generate(tmp, "s%d" % index, "--script", path, "--blocks", "6")
        at = 0 if block == 0 else 12 * block - 3
        check(got[:at] == plain[:at], "frames before the switch at", index)
        check(not set(got[at:]) & set(plain[at:]), "frames after the switch at", index)
    # Two in one block: the second comes one block later.
    both = generate(tmp, "both", "--blocks", "6", "--script",
                    script(tmp, {"prompts": ["a", "b", "c"], "switch": [4, 5]}))
    apart = generate(tmp, "apart", "--blocks", "6", "--script",
                     script(tmp, {"prompts": ["a", "b", "c"], "switch": [6, 9]}))
    check(both == apart, "two switches in one block")
    # The same indices from the configuration, for a line that has none; a line's own go first.
    bare = script(tmp, {"prompts": ["a", "b", "c"]})
    at = ["--set", "run.switch_frame_indices=6, 9"]
    check(generate(tmp, "conf", "--blocks", "6", "--script", bare, *at) == apart, "from config")
    own = script(tmp, {"prompts": ["a", "b", "c"], "switch": [4, 5]})
    check(generate(tmp, "own", "--blocks", "6", "--script", own, *at[:1],
                   "run.switch_frame_indices=0,3") == apart, "the line's own indices")
    r = run(["generate", "-c", NANO, "--script", script(tmp, {"prompts": ["a", "b"]}), "--blocks",
             "6", "-o", os.path.join(tmp, "v.y4m")] + at, timeout=60)
    check_result(r, 65, r"script\.jsonl:1: .*2 switch indices for 2 prompts")


def test_mp4(tmp):
    """As many frames as hash lines, no gap in time, decodes without a word, one GOP a block."""
    sums = generate(tmp, "v", "--prompt", "x", "--seconds", "4", conf=TINY, out="mp4")
    movie = os.path.join(tmp, "v.mp4")
    check(len(sums) == 69, "4 s rounded up to a block:", len(sums))
    check(ffprobe_frames(movie) == len(sums), "frames in the file")
    r = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries",
                        "packet=pts_time,flags", "-of", "csv=p=0", movie],
                       capture_output=True, text=True, timeout=60)
    rows = [line.split(",") for line in r.stdout.split()]
    times = [float(row[0]) for row in rows]
    check(all(abs(t - i / 16) < 1e-4 for i, t in enumerate(times)), "timestamps")
    keys = [i for i, row in enumerate(rows) if "K" in row[1]]
    check(keys == [0] + [9 + 12 * i for i in range(5)], "key frames:", keys)
    r = subprocess.run(["ffmpeg", "-v", "error", "-i", movie, "-f", "null", "-"],
                       capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    check(r.returncode == 0 and r.stderr == "", "ffmpeg:", r.stderr)


def test_y4m_shows_the_frames(tmp):
    """What ffmpeg reads back from y4m and MP4 is the same picture."""
    generate(tmp, "v", "--prompt", "x", "--blocks", "2", conf=TINY)
    generate(tmp, "v", "--prompt", "x", "--blocks", "2", conf=TINY, out="mp4")
    check(y4m_frames(os.path.join(tmp, "v.y4m"), 96, 64) == 21, "y4m frames")
    r = subprocess.run(["ffmpeg", "-v", "error", "-i", os.path.join(tmp, "v.y4m"), "-i",
                        os.path.join(tmp, "v.mp4"), "-lavfi", "psnr=stats_file=-", "-f", "null",
                        "-"], capture_output=True, text=True, timeout=60,
                       stdin=subprocess.DEVNULL)
    averages = [float(word.split(":")[1]) for word in r.stdout.split() if "psnr_avg" in word]
    check(len(averages) == 21 and min(averages) > 25, "PSNR of MP4 to y4m:", averages, r.stderr)


def test_several_videos(tmp):
    """Numbered files; each video is what it is alone; window and VAE begin anew."""
    two = script(tmp, {"prompts": ["a", "b"], "switch": [3]}, {"prompts": ["c"]})
    movie, sums = os.path.join(tmp, "v.y4m"), os.path.join(tmp, "v.sha256")
    r = run(["generate", "-c", NANO, "--script", two, "--blocks", "5", "--quiet", "--hashes", sums,
             "-o", movie], timeout=120)
    check_result(r, 0)
    alone = generate(tmp, "alone", "--prompt", "c", "--blocks", "5")
    check(hashes(os.path.join(tmp, "v-001.sha256")) == alone, "the second video")
    for i in range(2):
        check(y4m_frames(os.path.join(tmp, "v-00%d.y4m" % i), 48, 32) == 57, "frames of video", i)
    lines = os.path.join(tmp, "p.txt")
    with open(lines, "w") as f:
        f.write("a cat  \n\na dog\n")
    check_result(run(["generate", "-c", NANO, "--script", lines, "--blocks", "1", "--quiet", "-o",
                      os.path.join(tmp, "t.y4m")], timeout=60), 0)
    check(os.path.exists(os.path.join(tmp, "t-001.y4m")), "a text file is a prompt a line")


def test_pipeline_stays(tmp):
    """up, two jobs, status, steady state without allocation, down; the same bits as alone."""
    alone = generate(tmp, "alone", "--prompt", "a", "--blocks", "9")
    with Pipeline(tmp) as p:
        check_result(run(["up", "-c", NANO, "--run", p.run_dir]), 100, "pid")
        check(p.generate(tmp, "one", "--prompt", "a", "--blocks", "9") == alone, "first job")
        before = {s["name"]: s for s in status(p.run_dir)["processes"]}
        check(p.generate(tmp, "two", "--prompt", "a", "--blocks", "9") == alone, "second job")
        s = status(p.run_dir)
        for q in s["processes"]:
            check(q["pid"] == before[q["name"]]["pid"], q["name"], "has another pid")
            if q["name"] in ("text", "dit", "vae"):
                check(q["n_allocs_ready"] == 0, q["name"], "allocated", q["n_allocs_ready"])
        c = s["counters"]
        check(c["frames_committed"] == 2 * 105 and c["latents_blocks"] == 18, c)
        p.generate(tmp, "bad", "--prompt", " ", status=65)
        check_result(run(["status", "--run", p.run_dir]), 0)
    check_result(run(["status", "--run", p.run_dir]), 69)
    check(not os.path.exists(p.run_dir), "the run directory stays")


def test_down_ends_a_job(tmp):
    """Who asked for more is told; what is there is whole."""
    movie = os.path.join(tmp, "v.y4m")
    with Pipeline(tmp) as p:
        job = start(["generate", "--run", p.run_dir, "--quiet", "--prompt", "a", "--blocks", "9999",
                     "-o", movie])
        wait_for("frames", 30, lambda: status(p.run_dir)["counters"]["frames_committed"] > 9)
        check_result(run(["down", "--run", p.run_dir], timeout=60), 0)
        err = job.communicate(timeout=30)[1].decode()
    frames = y4m_frames(movie, 48, 32)
    check(job.returncode == 75 and "after %d of 119985 frames" % frames in err, job.returncode, err)
    check((frames - 9) % 12 == 0, "whole blocks:", frames)


def test_progress(tmp):
    r = run(["generate", "-c", NANO, "--prompt", "a", "--blocks", "3", "--progress", "json", "-o",
             os.path.join(tmp, "v.y4m")], timeout=60)
    check_result(r, 0)
    rows = [json.loads(line) for line in r.stderr.splitlines() if line.startswith("{")]
    keys = {"video", "videos", "block", "blocks", "frames", "fps", "text_ms", "dit_ms", "vae_ms",
            "gateway_ms", "lead_s", "queue", "late"}
    check(rows and all(set(row) == keys for row in rows), r.stderr)
    r = run(["generate", "-c", NANO, "--prompt", "a", "--blocks", "3", "--quiet", "-o",
             os.path.join(tmp, "v.y4m")], timeout=60)
    check(r.stderr == "", "--quiet says:", r.stderr)


TESTS = [test_same_bits, test_other_bits, test_modes_differ_where_they_must, test_switch_rule,
         test_mp4, test_y4m_shows_the_frames, test_several_videos, test_pipeline_stays, test_down_ends_a_job,
         test_progress]
