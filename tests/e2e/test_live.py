"""serve: prompts that take effect, pace and lead, the end of a session."""

import os
import pty
import re
import shutil
import signal
import subprocess
import time

from harness import LONGLIVED, NANO, Pipeline, Serve, Skip, check, check_result, ffprobe_frames
from harness import our_processes, run, start, status, wait_for, y4m_frames


def test_prompt_needs_a_session(tmp):
    with Pipeline(tmp) as p:
        check_result(run(["prompt", "x", "--run", p.run_dir]), 69, "session")


def test_prompts_from_stdin_and_command(tmp):
    with Serve(tmp) as s:
        s.p.stdin.write(b"a red ball\n")
        s.p.stdin.flush()
        wait_for("the first decision", 20, lambda: status(s.run_dir)["counters"]["decisions"] == 1)
        block, _ = s.prompt("a blue cube")
        check(block >= 1, "a later block:", block)
        again, _ = s.prompt("rain")
        check(again > block, "decided in order:", block, again)
        check_result(run(["prompt", " ", "--run", s.run_dir]), 65)
        c = status(s.run_dir)["counters"]
        check(c["decisions"] == 3 and c["encoder_runs"] == 3, c)
        check(s.finish() == 0, "exit after SIGINT:", s.err())
    frames = y4m_frames(s.stdout.name, 48, 32)
    check(frames > 12 and (frames - 9) % 12 == 0, "whole blocks:", frames)


def test_stdin_may_end(tmp):
    with Serve(tmp, "--prompt", "a") as s:
        s.p.stdin.close()
        wait_for("frames", 20, lambda: status(s.run_dir)["counters"]["frames_committed"] > 20)
        check(s.finish(signal.SIGTERM) == 0, s.err())


def test_finish_without_a_prompt(tmp):
    with Serve(tmp) as s:
        time.sleep(0.3)
        check(s.finish() == 0, s.err())
    check(y4m_frames(s.stdout.name, 48, 32) == 0, "frames without a prompt")


def test_mp4_of_a_live_session(tmp):
    movie = os.path.join(tmp, "live.mp4")
    with Serve(tmp, "--prompt", "a", "--set", "run.fps=60", "--set",
               "run.ahead_ms=400", out=movie) as s:
        wait_for("frames", 30, lambda: status(s.run_dir)["counters"]["frames_committed"] > 30)
        check(s.finish() == 0, s.err())
    frames = ffprobe_frames(movie)
    check(frames >= 33 and (frames - 9) % 12 == 0, "whole blocks:", frames)


def test_second_serve_is_refused(tmp):
    with Serve(tmp, "--prompt", "a") as s:
        check_result(run(["serve", "-c", NANO, "--run", s.run_dir, "-o", "-"]), 100, "pid")
        check(s.finish() == 0, s.err())


def test_twice_stops(tmp):
    with Serve(tmp, "--prompt", "a") as s:
        s.p.send_signal(signal.SIGINT)
        s.p.send_signal(signal.SIGTERM)
        began = time.monotonic()
        s.p.wait(20)
        check(time.monotonic() - began < 5, "took %.1f s" % (time.monotonic() - began))


def test_reader_gone(tmp):
    """`serve -o - | head -c 5000`: ends by itself, in words, and leaves nothing."""
    p = subprocess.Popen("'%s' serve -c '%s' --run '%s/run' --prompt a --set run.fps=60 --set run.ahead_ms=400 -o - 2>%s/err"
                         " </dev/null | head -c 5000 >/dev/null; exit ${PIPESTATUS[0]}" %
                         (LONGLIVED, NANO, tmp, tmp), shell=True, executable="/bin/bash")
    check(p.wait(30) == 73, "exit", p.returncode)
    with open(os.path.join(tmp, "err")) as f:
        check("reader" in f.read(), "no word about the reader")


def test_pace_and_lead(tmp):
    """At half the speed the model can reach, a prompt is in the output within lead plus a block."""
    fps, ahead_ms = 20, 600
    lead = ahead_ms * fps / 1000
    with Serve(tmp, "--prompt", "a", "--set", "run.fps=%d" % fps, "--set",
               "run.ahead_ms=%d" % ahead_ms) as s:
        wait_for("some frames", 30, lambda: status(s.run_dir)["counters"]["frames_committed"] > 20)
        for i in range(4):
            time.sleep(0.35)
            played = status(s.run_dir)["counters"]["frames_committed"]
            _, frame = s.prompt("prompt %d" % i)
            check(frame - played <= lead + 12 + 2, "prompt %d: asked at frame %d, in at %d" %
                  (i, played, frame))
        steady = status(s.run_dir)
        first, began = steady["counters"], time.monotonic()
        time.sleep(2)
        after = status(s.run_dir)
        last = after["counters"]
        rate = (last["frames_committed"] - first["frames_committed"]) / (time.monotonic() - began)
        check(0.8 * fps < rate < 1.2 * fps, "paced at", rate)
        allocs = [{q["name"]: q["n_allocs_ready"] for q in x["processes"] if "n_allocs_ready" in q}
                  for x in (steady, after)]
        check(allocs[0] == allocs[1] and len(allocs[0]) == 4, "steady state allocates:", allocs)
        want, decoded = last["want"], last["latents_decoded"]
        check(want - decoded <= 12, "bounded lead: want", want, "decoded", decoded)
        check(s.finish() == 0, s.err())


def test_crash_leaves_a_file_that_plays(tmp):
    """SIGKILL of all at once, several times: whole blocks, and not a word from the decoder."""
    for i in range(3):
        movie = os.path.join(tmp, "crash%d.mp4" % i)
        with Serve(tmp, "--prompt", "a", "--set", "run.fps=100", "--set", "run.ahead_ms=300",
                   out=movie) as s:
            wait_for("frames", 30, lambda: status(s.run_dir)["counters"]["frames_committed"] > 30)
            time.sleep(0.05 * i)
            s.p.kill()
            s.p.wait(20)
            wait_for("no process left", 5, lambda: not our_processes())
        frames = ffprobe_frames(movie)
        check(frames >= 33 and (frames - 9) % 12 == 0, "whole blocks:", frames)
        shutil.rmtree(s.run_dir)


def test_status_line(tmp):
    """On a terminal one line over itself; the same words in plain lines elsewhere."""
    words = (r"block \d+/40  frames \d+  [\d.]+ fps  text \d+ dit \d+ vae \d+ gateway \d+ ms  "
             r"lead [\d.]+ s  queue \d+")
    args = ["generate", "-c", NANO, "--prompt", "a", "--blocks", "40", "-o",
            os.path.join(tmp, "v.y4m")]
    try:
        ours, theirs = pty.openpty()
    except OSError as e:
        raise Skip("%s: is /dev/pts mounted?" % e)
    p = start(args, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while True:
            more = os.read(ours, 4096)
            if not more:
                break
            said += more
    except OSError:
        pass  # the other side has closed
    os.close(ours)
    check(p.wait(30) == 0, said)
    lines = said.decode().split("\r")
    check(len(lines) > 3 and all(re.match(words + r"\x1b\[K$", x) for x in lines[1:-1] if x),
          lines)
    check(said.count(b"\n") == 1, "one line only:", said)
    r = run(args, timeout=60)
    check_result(r, 0)
    lines = r.stderr.splitlines()
    check(lines and all(re.search(words + "$", x) for x in lines), r.stderr)


TESTS = [test_crash_leaves_a_file_that_plays, test_status_line, test_prompt_needs_a_session, test_prompts_from_stdin_and_command, test_stdin_may_end,
         test_finish_without_a_prompt, test_mp4_of_a_live_session, test_second_serve_is_refused,
         test_twice_stops, test_reader_gone, test_pace_and_lead]
