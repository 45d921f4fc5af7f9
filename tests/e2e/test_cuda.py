"""The CUDA transport without a GPU: the real processes over CUDA IPC, on the fake runtime of
tests/fake_cuda, whose ops are the CPU's. Frames must be the CPU's, whatever dies."""

import smoke
from harness import NANO, check, fake_gpus, generate, leftovers
from test_matrix import BLOCKS, options, run_matrix, script, small_table


def placed(text, dit, vae):
    return ["--set", "place.text=" + text, "--set", "place.dit=" + dit, "--set",
            "place.vae=" + vae, "--set", "model.precision=fp32"]


ONE_GPU, TWO_GPUS = placed("cuda:0", "cuda:0", "cuda:0"), placed("cuda:1", "cuda:0", "cuda:1")


def test_cuda_frames(tmp):
    """One GPU and two, beside a CPU stage, with memory that comes late: the same bits."""
    def video(name, *more):
        return generate(tmp, name, "--script", script(tmp), "--blocks", str(BLOCKS), *more)

    want = video("cpu")
    for name, machine, places in (("one", "gpus=1 peer=0", ONE_GPU),
                                  ("two", "gpus=2 late_ms=200", TWO_GPUS),
                                  ("mixed", "gpus=1", placed("cpu", "cuda:0", "cpu"))):
        with fake_gpus(machine):
            got = video(name, *places)
            check(got == want, name, "first frame that differs:",
                  next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))
            check(leftovers() == ([], []), name, "left", leftovers())


def test_cuda_kill_sample(tmp):
    with fake_gpus("gpus=2"):
        run_matrix(tmp, "two GPUs, sample", ("dit", "vae"),
                   options("relative", "false") + TWO_GPUS, lambda kills: kills[::13])


def test_cuda_kill_matrix(tmp):
    for machine, places in (("gpus=1", ONE_GPU), ("gpus=2", TWO_GPUS)):
        with fake_gpus(machine):
            run_matrix(tmp, machine, ("dit", "vae", "gateway"),
                       options("absolute", "true") + places)


def test_cuda_kill_matrix_text(tmp):
    with fake_gpus("gpus=2"):
        run_matrix(tmp, "two GPUs, text", ("text",), small_table(tmp) + TWO_GPUS)


def test_cuda_smoke(tmp):
    """What a bundle runs on a GPU (smoke.py)."""
    with fake_gpus("gpus=1"):
        smoke.kills(tmp, NANO, 40, 6, "--set", "model.precision=fp32")


TESTS = [test_cuda_frames, test_cuda_kill_sample]
FULL = [test_cuda_kill_matrix, test_cuda_kill_matrix_text, test_cuda_smoke]
