"""The prompt cache: hits run no encoder, entries are evicted in order, a file outlives a stop."""

import os
import signal

from harness import (NANO, Pipeline, Serve, check, check_result, generate, pid_of, run, send_signal,
                     status)


def test_hit_runs_no_encoder(tmp):
    """Neither on a repeated prompt nor while text is stopped."""
    with Serve(tmp, "--prompt", "a red ball") as s:
        s.prompt("a blue cube")
        before = status(s.run_dir)
        text = pid_of(s.run_dir, "text")
        send_signal(text, signal.SIGSTOP)
        try:
            s.prompt("a red ball", timeout=8)
        finally:
            send_signal(text, signal.SIGCONT)
        after = status(s.run_dir)
        ops = [[p["n_ops"] for p in x["processes"] if p["name"] == "text"] for x in (before, after)]
        check(ops[0] == ops[1] and ops[0][0] > 0, "ops of the encoder:", ops)
        check(after["counters"]["encoder_runs"] == 2, after["counters"])
        check(after["counters"]["prompt_hits"] == 1, after["counters"])
        check(after["counters"]["prompt_misses"] == 2, after["counters"])
        check(s.finish() == 0, s.err())


def test_evictions(tmp):
    """A table of one entry still serves a script of many prompts; bits do not depend on it."""
    lines = os.path.join(tmp, "s.jsonl")
    with open(lines, "w") as f:
        f.write('{"prompts": ["a", "b", "a", "c", "a"], "switch": [3, 6, 9, 12]}\n')
    args = ["--script", lines, "--blocks", "6"]
    first = generate(tmp, "many", *args)
    with Pipeline(tmp, "--set", "cache.prompts=1") as p:
        check(p.generate(tmp, "one", *args) == first, "another video")
        c = status(p.run_dir)["counters"]
        check(c["prompt_entries"] == 1 and c["prompt_evictions"] == 4, c)
        check(c["encoder_runs"] == 5, c)


def test_prewarm(tmp):
    lines = os.path.join(tmp, "warm.txt")
    with open(lines, "w") as f:
        f.write("a\nb\n")
    with Serve(tmp, "--prompt", "a", "--prewarm", lines) as s:
        s.prompt("b")
        c = status(s.run_dir)["counters"]
        check(c["encoder_runs"] == 2 and c["prompt_entries"] == 2, c)
        check(s.finish() == 0, s.err())


def test_hit_after_text_was_killed(tmp):
    """What the table holds needs no encoder process; LRU: what was used last stays."""
    with Serve(tmp, "--prompt", "a", "--set", "cache.prompts=2") as s:
        s.prompt("b")
        s.prompt("a")
        s.prompt("c")  # in the place of b
        send_signal(pid_of(s.run_dir, "text"), signal.SIGKILL)
        s.prompt("a")
        s.prompt("c")
        c = status(s.run_dir)["counters"]
        check(c["encoder_runs"] == 3 and c["prompt_hits"] == 3 and c["prompt_misses"] == 3, c)
        check(c["prompt_entries"] == 2 and c["prompt_evictions"] == 1, c)
        s.prompt("b")
        c = status(s.run_dir)["counters"]
        check(c["encoder_runs"] == 4 and c["prompt_evictions"] == 2, c)
        check(s.finish() == 0, s.err())


def test_file_survives_a_stop(tmp):
    store = os.path.join(tmp, "prompts.bin")
    args = ["--set", "cache.file=" + store]
    with Pipeline(tmp, *args) as p:
        first = p.generate(tmp, "first", "--prompt", "a", "--blocks", "2")
        check(status(p.run_dir)["counters"]["encoder_runs"] == 1, "first run encodes")
    with Pipeline(tmp, *args) as p:
        check(p.generate(tmp, "second", "--prompt", "a", "--blocks", "2") == first, "other bits")
        c = status(p.run_dir)["counters"]
        check(c["encoder_runs"] == 0 and c["prompts_from_file"] == 1, c)
    # It is as large as the table at most, holds what the table holds, and a smaller table reads it.
    lines = os.path.join(tmp, "s.jsonl")
    with open(lines, "w") as f:
        f.write('{"prompts": ["b", "c", "d", "e"], "switch": [3, 6, 9]}\n')
    two = args + ["--set", "cache.prompts=2"]
    with Pipeline(tmp, *two) as p:
        p.generate(tmp, "third", "--script", lines, "--blocks", "5")
        c = status(p.run_dir)["counters"]
        check(c["prompts_from_file"] == 1 and c["encoder_runs"] == 4, c)
    check(os.path.getsize(store) == 24 + 2 * (40 + 16 * 32 * 4 + 32), os.path.getsize(store))
    with Pipeline(tmp, *two) as p:
        p.generate(tmp, "fourth", "--script", lines, "--blocks", "5")
        c = status(p.run_dir)["counters"]
        check(c["prompts_from_file"] == 2 and c["prompt_hits"] == 2, c)
    with open(store, "wb") as f:
        f.write(b"something else entirely, for sure")
    r = run(["generate", "-c", NANO, "--prompt", "a", "--quiet", "-o",
             os.path.join(tmp, "v.y4m")] + args)
    check_result(r, 65, "prompts.bin")


TESTS = [test_hit_runs_no_encoder, test_hit_after_text_was_killed, test_evictions, test_prewarm,
         test_file_survives_a_stop]
