"""The CUDA transport without a GPU: the real processes over CUDA IPC, on the fake runtime of
tests/fake_cuda, whose ops are the CPU's. Frames must be the CPU's, whatever dies."""

import os
import re
import signal
import subprocess

import harness
import smoke
from harness import (NANO, Pipeline, check, check_result, fake_gpus, generate, hashes, leftovers,
                     pid_of, run, send_signal, start, status, wait_for)
from test_matrix import BLOCKS, Matrix, options, run_matrix, script, small_table
from test_recovery import kill_keeper, replay, run_during


def placed(text, dit, vae):
    return ["--set", "place.text=" + text, "--set", "place.dit=" + dit, "--set",
            "place.vae=" + vae, "--set", "model.precision=fp32"]


ONE_GPU, TWO_GPUS = placed("cuda:0", "cuda:0", "cuda:0"), placed("cuda:1", "cuda:0", "cuda:1")
CLEAN_HERE, CLEAN_THERE = ["--set", "place.clean=cuda:0"], ["--set", "place.clean=cuda:1"]


def test_cuda_frames(tmp):
    """One GPU and two, beside a CPU stage, with memory that comes late: the same bits."""
    def video(name, *more):
        return generate(tmp, name, "--script", script(tmp), "--blocks", str(BLOCKS), *more)

    want = video("cpu")
    for name, machine, places in (("one", "gpus=1 peer=0", ONE_GPU),
                                  ("two", "gpus=2 late_ms=200 pin=0", TWO_GPUS),
                                  ("clean", "gpus=2", TWO_GPUS + CLEAN_THERE),
                                  ("clean, own memory", "gpus=2 ipc=0", TWO_GPUS + CLEAN_THERE),
                                  ("clean, one GPU", "gpus=1", ONE_GPU + CLEAN_HERE),
                                  ("mixed", "gpus=1", placed("cpu", "cuda:0", "cpu"))):
        with fake_gpus(machine):
            got = video(name, *places)
            check(got == want, name, "first frame that differs:",
                  next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))
            check(leftovers() == ([], []), name, "left", leftovers())
    with fake_gpus("gpus=2 pin=0"), Pipeline(tmp, *TWO_GPUS) as p:
        wait_for("a word of what is not pinned, once it is idle", 20,
                 lambda: "ev=not_pinned" in file_text(p.run_dir, "log", "vae.log"))


def test_cuda_clean_passes_need_peers(tmp):
    """They write into the DiT's memory: one line, at once, from doctor too."""
    places = TWO_GPUS + CLEAN_THERE
    for machine in ("gpus=2 peer=0", "gpus=2 peer=2"):
        with fake_gpus(machine):
            r = run(["generate", "-c", NANO, "--quiet", "-o", os.path.join(tmp, "x.y4m"),
                     "--script", script(tmp), "--blocks", str(BLOCKS)] + places)
            check(r.returncode == 69 and "place.clean = cuda:1" in r.stderr and
                  r.stderr.count("\n") == 1, r.returncode, r.stderr)
            r = run(["doctor", "-c", NANO, "--run", os.path.join(tmp, "run")] + places)
            check(r.returncode == 69 and "BAD  peer access   place.clean = cuda:1" in r.stdout,
                  r.stdout)
    with fake_gpus("gpus=2 ipc=0 memory_mb=4000"):  # the cache is then dit's own
        r = run(["doctor", "-c", NANO, "--run", os.path.join(tmp, "run")] + places)
        check_result(r, 0)


def file_text(*path):
    with open(os.path.join(*path)) as f:
        return f.read()


def test_cuda_edge(tmp):
    """Latents go from GPU to GPU where that is possible, and through the host where it is not: the
    same bits. What cannot be used is not there."""
    want = generate(tmp, "cpu", "--script", script(tmp), "--blocks", str(BLOCKS))
    for machine, places, is_used in (
            ("gpus=1", ONE_GPU, True),
            ("gpus=1 peer=0", ONE_GPU, True),
            ("gpus=2", TWO_GPUS, True),
            ("gpus=2 peer=0", TWO_GPUS, False),
            ("gpus=2 peer=2", TWO_GPUS, False),
            ("gpus=2 ipc=0", TWO_GPUS, False),
            ("gpus=2 ipc=2", TWO_GPUS, False),
            ("gpus=1", ONE_GPU + ["--set", "gpu.edge=false"], False),
            ("gpus=2", TWO_GPUS + ["--set", "gpu.edge=false"], False),
            ("gpus=1", placed("cuda:0", "cpu", "cuda:0"), False),
            ("gpus=1", placed("cuda:0", "cuda:0", "cpu"), False)):
        with fake_gpus(machine), Pipeline(tmp, *places) as p:
            got = p.generate(tmp, "edge", "--script", script(tmp), "--blocks", str(BLOCKS))
            s, keeper_log = status(p.run_dir), file_text(p.run_dir, "log", "keeper.log")
        n = s["counters"]["latents_from_edge"]
        check(got == want, machine, places, "first frame that differs:",
              next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))
        check(s["edge"] == ("cuda_ipc" if is_used else "host"), machine, places, s["edge"])
        check(n == (3 * BLOCKS if is_used else 0), machine, places, n, "latents from the edge")
        n_live = len(re.findall("ev=region_made region=edge.0", keeper_log)) - \
            len(re.findall("ev=region_dropped region=edge.0", keeper_log))
        check(n_live == is_used, machine, places, "regions:", n_live)


def test_cuda_keeper_killed(tmp):
    """The edge goes with its keeper, and with it what vae has yet to decode: the host has that. The
    KV cache goes too, so the stream is another one from there on, which replays to the bit."""
    for name, places in (("keeper", TWO_GPUS), ("keeper-clean", TWO_GPUS + CLEAN_THERE)):
        with fake_gpus("gpus=2"):
            got, s, kept = run_during(tmp, name, [10], kill_keeper, *places)
            c = s["counters"]
            check(s["edge"] == "cuda_ipc" and c["rebuilds"] == 1, s["edge"], c)
            check(0 < c["latents_from_edge"] <= c["latents_decoded"], c)
            check(replay(tmp, kept, name + "-again") == got, "the replay shows another video")


def edge_is_used(s):
    """For every latent, whoever died."""
    c = s["counters"]
    check(s["edge"] == "cuda_ipc" and c["latents_from_edge"] == c["latents_decoded"], s["edge"], c)


def needs(p, stage):
    """What the stage itself says that its model takes of a device: weights, state, scratch."""
    with open(os.path.join(p.run_dir, "config.ini")) as f:
        r = subprocess.run([os.path.join(harness.FAKE_BIN, "longlived-" + stage), "--need"],
                           stdin=f, capture_output=True, text=True, timeout=20)
    check(r.returncode == 0, r.stdout)
    return [int(w) for w in r.stdout.split()[-3:]]


def test_cuda_memory(tmp):
    """Each GPU's memory by class is what its stages say that they need, and does not grow by work or
    by deaths; the driver's total beside it."""
    for machine, places, on in (
            ("gpus=1 memory_mb=700", ONE_GPU, {"cuda:0": ("text", "dit", "vae")}),
            ("gpus=2 memory_mb=700", TWO_GPUS, {"cuda:1": ("text", "vae"), "cuda:0": ("dit",)}),
            ("gpus=2 memory_mb=700", TWO_GPUS + CLEAN_THERE,
             {"cuda:1": ("text", "vae", "dit"), "cuda:0": ("dit",)}),
            ("gpus=1 ipc=0 memory_mb=700", ONE_GPU, {"cuda:0": ("text", "dit", "vae")})):
        with fake_gpus(machine), Pipeline(tmp, *places) as p:
            before = status(p.run_dir)
            lose(p, tmp, ["vae", "dit", "text"])
            wait_for("all up", 20, lambda: all(q["state"] == "up"
                                               for q in status(p.run_dir)["processes"]))
            after = status(p.run_dir)
            check([m["device"] for m in before["memory"]] == list(on), machine, before["memory"])
            for m, n in zip(before["memory"], after["memory"]):
                need = [sum(x) for x in zip(*(needs(p, s) for s in on[m["device"]]))]
                counted = [m["weights_bytes"], m["state_bytes"] + m["edge_bytes"],
                           m["scratch_bytes"]]
                if "vae" in on[m["device"]] and "ipc=0" in machine:
                    need[1] -= edge  # without IPC there is none
                elif "vae" in on[m["device"]]:
                    edge = m["edge_bytes"]
                    check(edge > 0, machine, m)
                if places[-2:] == CLEAN_THERE and m["device"] == "cuda:1":
                    check(0 < need[2] - counted[2] < need[2] / 4, "steps have scratch, too:", need)
                    need[2] = counted[2]
                check(counted == need, machine, counted, "of", need)
                check(m["all_bytes"] == 700 << 20 >= m["used_bytes"] > 0, machine, m)
                for key in ("weights_bytes", "state_bytes", "edge_bytes", "scratch_bytes"):
                    check(m[key] == n[key], machine, key, m[key], "is now", n[key])
    with Pipeline(tmp) as p:
        check(status(p.run_dir)["memory"] == [], "memory of GPUs on a CPU")


def lose(p, tmp, victims):
    """A job during which these stages are killed; its hashes, the status after it."""
    sums = os.path.join(tmp, "lose.sha256")
    job = start(["generate", "--run", p.run_dir, "--quiet", "--hashes", sums, "-o",
                 os.path.join(tmp, "lose.y4m"), "--script", script(tmp), "--blocks", "20"])
    at = status(p.run_dir)["counters"]["latents_blocks"]
    for i, stage in enumerate(victims):
        wait_for("work", 30, lambda: status(p.run_dir)["counters"]["latents_blocks"] > at + 3 * i)
        pid = pid_of(p.run_dir, stage)
        send_signal(pid, signal.SIGKILL)
        wait_for("another " + stage, 30, lambda: pid_of(p.run_dir, stage) not in (0, pid))
    check(job.wait(60) == 0, "the job ended with", job.returncode, job.stderr.read())
    return hashes(sums), status(p.run_dir)


def test_cuda_recording(tmp):
    """Every kind of pass is recorded before a session begins, and none in it. A DiT, or a VAE, that
    dies in its middle is back with those of the unit at hand, and has all a few passes later."""
    want = generate(tmp, "cpu", "--script", script(tmp), "--blocks", "20")
    for stage, point, at, most in (("dit", "dit.latents", 26, 3), ("vae", "vae.frames", 75, 1)):
        with fake_gpus("gpus=1"), Pipeline(tmp, *ONE_GPU, "--set", "fault.point=" + point, "--set",
                                           "fault.at=%d" % at) as p:
            for name, is_killed in (("alive", False), ("killed", True)):
                got = p.generate(tmp, name, "--script", script(tmp), "--blocks", "20")
                check(got == want, stage, name, "first frame that differs:",
                      next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))
                log = file_text(p.run_dir, "log", stage + ".log")
                check(("ev=recorded" in log) == is_killed, name, log)
        kinds = [(int(n), int(of))
                 for n, of in re.findall(r"ev=passes recorded=(\d+) of=(\d+)", log)]
        check(len(kinds) == 2 and kinds[0][0] == kinds[0][1], stage, "at starts:", kinds)
        check(1 <= kinds[1][0] <= most < kinds[1][1] == kinds[0][1], stage, "after:", kinds)


def test_cuda_without_ipc(tmp):
    """Memory of the GPU is then each stage's. A VAE or text encoder that dies is restored to the
    bit; a DiT rebuilds its cache, and says that the video is another one."""
    want = generate(tmp, "cpu", "--script", script(tmp), "--blocks", "20")
    for machine, places in (("gpus=1 ipc=0", ONE_GPU), ("gpus=1 ipc=2", ONE_GPU),
                            ("gpus=2 ipc=0", TWO_GPUS + CLEAN_THERE)):
        with fake_gpus(machine), Pipeline(tmp, *places) as p:
            got, s = lose(p, tmp, ["vae", "text", "gateway", "vae"])
            check(got == want and s["exact"], machine, "first frame that differs:",
                  next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))
            got, s = lose(p, tmp, ["dit"])
            check(len(got) == len(want), machine, len(got), "frames")
            check(not s["exact"] and s["counters"]["rebuilds"] == 1, s["counters"])
            with open(os.path.join(p.run_dir, "log", "dit.log")) as f:
                n = f.read().count("ev=own_memory")
            check(n == 2, "dit has started twice and warned", n, "times")


def test_cuda_not_resident(tmp):
    """The text encoder's weights take memory while prompts are encoded, and no longer: the same
    frames, whenever it dies with them or on the way to them."""
    want = generate(tmp, "cpu", "--script", script(tmp), "--blocks", str(BLOCKS))
    for machine in ("gpus=1", "gpus=1 ipc=0"):
        with fake_gpus(machine), Pipeline(tmp, *ONE_GPU, *small_table(tmp), "--set",
                                          "text.resident=false") as p:
            rest = sum(needs(p, stage)[0] for stage in ("dit", "vae"))

            def is_gone():
                log = file_text(p.run_dir, "log", "keeper.log")
                n_live = log.count("region_made region=weights.text") - \
                    log.count("region_dropped region=weights.text")
                return n_live == 0 and status(p.run_dir)["memory"][0]["weights_bytes"] == rest

            wait_for("no weights before a prompt", 20, is_gone)
            m = Matrix(tmp, p)
            check(m.want == want, machine, "other frames than the CPU's")
            check(1 <= m.counts["text.weights.filling"] <= 3, "three prompts:", m.counts)
            places = ["text.drop", "text.layer", "text.mapped", "text.weights.filled",
                      "text.weights.filling", "text.weights.sealed"]
            check(set(places) <= set(m.places), m.places)
            for place in places if machine == "gpus=1" else ("text.drop", "text.layer"):
                # After the last drop there is nothing to do that would free them by the way.
                m.kill_at(place, m.counts[place] if place == "text.drop" else 1)
                wait_for("no weights after " + place, 20, is_gone)


def test_cuda_doctor(tmp):
    """What stands in the way on each kind of machine, in a line; where nothing does, 0."""
    for machine, status_wanted, line in (
            ("gpus=2 memory_mb=4000", 0, r"ok +peer access +cuda:1 and cuda:0: mapped"),
            ("gpus=2 memory_mb=4000", 0, r"ok +cuda ipc +cuda:1: one process maps"),
            ("gpus=2 memory_mb=4000 peer=0", 0, r"note peer access .* not needed"),
            ("gpus=2 memory_mb=4000 ipc=0", 0, r"note cuda ipc +cuda:0: .* load weights again"),
            ("gpus=2 memory_mb=4000 ipc=2", 0, r"note cuda ipc +cuda:0: .* load weights again"),
            ("gpus=2 memory_mb=500", 69, r"BAD +memory +cuda:1: needs 1\.5 GiB \(weights 0\.00, "),
            ("gpus=1", 69, r"BAD +device +cuda:1: this machine has 1 GPUs"),
            ("gpus=2 major=8", 69, r"BAD +device +cuda:0: compute capability 8"),
            ("gpus=2 mode=3", 69, r"BAD +device .* nvidia-smi -c DEFAULT"),
            ("gpus=2 mps=1", 69, r"BAD +device .* stop MPS"),
            ("driver=0", 69, r"BAD +device .* no NVIDIA driver for CUDA 13")):
        with fake_gpus(machine):
            r = run(["doctor", "-c", NANO, "--run", os.path.join(tmp, "run")] + TWO_GPUS)
        check_result(r, status_wanted)
        check(re.search("^" + line, r.stdout, re.M), machine, ":", r.stdout)
    check(os.listdir(tmp) == [], "doctor leaves", os.listdir(tmp))


def sample(kills):
    """Some, and those where latents are in the edge and not committed, or about to be taken."""
    return kills[::13] + [k for k in kills if k[0] in ("dit.latent", "dit.latents", "vae.loaded")]


def test_cuda_kill_sample(tmp):
    with fake_gpus("gpus=2"):
        run_matrix(tmp, "two GPUs, sample", ("dit", "vae"),
                   options("relative", "false") + TWO_GPUS, sample, edge_is_used)
        run_matrix(tmp, "clean passes on the other, sample", ("dit",),
                   options("relative", "true") + TWO_GPUS + CLEAN_THERE, lambda kills: kills[::13])


def test_cuda_kill_matrix(tmp):
    for machine, places, nth in (("gpus=1", ONE_GPU, 1), ("gpus=2", TWO_GPUS, 1),
                                 ("gpus=2", TWO_GPUS + CLEAN_THERE, 3)):
        with fake_gpus(machine):
            run_matrix(tmp, machine, ("dit", "vae", "gateway"),
                       options("absolute", "true") + places,
                       lambda kills, nth=nth: kills[::nth], edge_is_used)


def test_cuda_kill_matrix_text(tmp):
    for resident in ("true", "false"):
        with fake_gpus("gpus=2"):
            run_matrix(tmp, "two GPUs, text, resident " + resident, ("text",),
                       small_table(tmp) + TWO_GPUS + ["--set", "text.resident=" + resident])


def test_cuda_smoke(tmp):
    """What a bundle runs on a GPU (smoke.py)."""
    with fake_gpus("gpus=1"):
        smoke.kills(tmp, NANO, 40, 6, "--set", "model.precision=fp32")


TESTS = [test_cuda_frames, test_cuda_clean_passes_need_peers, test_cuda_edge,
         test_cuda_recording, test_cuda_keeper_killed,
         test_cuda_memory, test_cuda_doctor, test_cuda_without_ipc, test_cuda_not_resident,
         test_cuda_kill_sample]
FULL = [test_cuda_kill_matrix, test_cuda_kill_matrix_text, test_cuda_smoke]
