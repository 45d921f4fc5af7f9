"""compare: two videos of ours, against what is known of them."""

import json
import math
import os

from harness import NANO, check, check_result, run


def movie(tmp, name, *args):
    path = os.path.join(tmp, name)
    r = run(["generate", "-c", NANO, "--quiet", "--prompt", "a", "--blocks", "2", "-o", path] +
            list(args))
    check_result(r, 0)
    return path


def compare(a, b):
    r = run(["compare", "--json", a, b])
    check_result(r, 0)
    return json.loads(r.stdout)


def spoil(path, new, frame, at, change):
    """A copy in which one byte of a frame is another one."""
    with open(path, "rb") as f:
        head = f.readline()
        rest = bytearray(f.read())
    i = frame * (6 + 48 * 32 * 3 // 2) + 6 + at
    rest[i] = rest[i] + change if rest[i] + change < 256 else rest[i] - change
    with open(new, "wb") as f:
        f.write(head + rest)


def test_compare_videos(tmp):
    a, again = movie(tmp, "a.y4m"), movie(tmp, "again.y4m")
    c = compare(a, again)
    check(c["frames"] == 21 and c["first_differing"] is None and c["max_error"] == 0, c)
    check(c["psnr"] is None and c["ssim_y"] == 1 and c["same_length"], c)
    near = os.path.join(tmp, "near.y4m")
    spoil(a, near, 7, 100, 9)
    c = compare(a, near)
    n = 48 * 32 * 3 // 2
    check(c["first_differing"] == 7 and c["max_error"] == 9, c)
    check(abs(c["each"][7]["psnr"] - 10 * math.log10(255 ** 2 * n / 81)) < 1e-9, c["each"][7])
    check(abs(c["psnr"] - 10 * math.log10(255 ** 2 * n * 21 / 81)) < 1e-9, c["psnr"])
    check(0.9 < c["each"][7]["ssim_y"] < 1 and c["each"][6]["psnr"] is None, c["each"][7])
    other = movie(tmp, "other.y4m", "--seed", "7")
    far = compare(a, other)
    check(far["first_differing"] == 0 and far["psnr"] < c["psnr"] and far["ssim_y"] < 0.9, far["psnr"])
    r = run(["compare", a, near])
    check("first differing frame: 7\n" in r.stdout and len(r.stdout.splitlines()) == 24, r.stdout)


def test_compare_refuses(tmp):
    a, short = movie(tmp, "a.y4m"), movie(tmp, "short.y4m", "--blocks", "1")
    check("%s is longer\n" % a in run(["compare", a, short]).stdout, "the longer one")
    check(not compare(short, a)["same_length"], "the same length")
    wide = movie(tmp, "wide.y4m", "--set", "model.latent_cols=8")
    check_result(run(["compare", a, wide]), 65, "48 x 32 pixels.*64 x 32")
    check_result(run(["compare", a, NANO]), 65, "not a y4m")
    check_result(run(["compare", a]), 2, "compare")


TESTS = [test_compare_videos, test_compare_refuses]
