"""Weights from files: read, refused, merged, listed, written; a full-size file in the long tier."""

import array
import io
import json
import os
import random
import re
import shutil
import struct
import subprocess
import time
import zipfile

from harness import (LONGLIVED, NANO, ROOT, SHM, Pipeline, check, check_result, generate, leftovers, run,
                     status)

GOLDEN = os.path.join(ROOT, "tests", "golden", "checkpoints")
VERSIONS = ("torch-1.6", "torch-1.13", "torch-2.1", "torch-2.8")


def dit_tensors(z, text_dim, dim, ffn, layers, freq):
    """Names and shapes of a DiT's checkpoint, as the public files have them."""
    linear = [("text_embedding.0", dim, text_dim), ("text_embedding.2", dim, dim),
              ("time_embedding.0", dim, freq), ("time_embedding.2", dim, dim),
              ("time_projection.1", 6 * dim, dim), ("head.head", 4 * z, dim)]
    vectors = [("head.modulation", [1, 2, dim])]
    for i in range(layers):
        b = "blocks.%d." % i
        vectors += [(b + "modulation", [1, 6, dim]), (b + "norm3.weight", [dim]),
                    (b + "norm3.bias", [dim])]
        for a in ("self_attn.", "cross_attn."):
            linear += [(b + a + m, dim, dim) for m in "qkvo"]
            vectors += [(b + a + "norm_q.weight", [dim]), (b + a + "norm_k.weight", [dim])]
        linear += [(b + "ffn.0", ffn, dim), (b + "ffn.2", dim, ffn)]
    out = [("patch_embedding.weight", [dim, z, 1, 2, 2]), ("patch_embedding.bias", [dim])]
    for name, n_out, n_in in linear:
        out += [(name + ".weight", [n_out, n_in]), (name + ".bias", [n_out])]
    return out + vectors


def count(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def write_safetensors(path, tensors, dtype, values):
    """tensors: (name, shape); values(n, fan_in): n numbers as bytes."""
    size = {"F32": 4, "BF16": 2}[dtype]
    header, at = {}, 0
    for name, shape in tensors:
        n = count(shape) * size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, shape in tensors:
            f.write(values(count(shape), count(shape[1:])))


def nano_dit(path, seed, drop=None, extra=None):
    rng = random.Random(seed)

    def values(n, fan_in):
        return array.array("f", (rng.gauss(0, fan_in ** -0.5) for _ in range(n))).tobytes()

    tensors = [t for t in dit_tensors(4, 32, 48, 96, 3, 32) if t[0] != drop]
    write_safetensors(path, tensors + (extra or []), "F32", values)
    return path


def test_a_pipeline_from_a_file(tmp):
    one, other = (nano_dit(os.path.join(tmp, "%d.safetensors" % s), s) for s in (1, 2))
    args = ("--prompt", "a", "--blocks", "3")
    drawn = generate(tmp, "drawn", *args)
    first = generate(tmp, "one", "--set", "model.dit=" + one, *args)
    check(first != drawn, "a file changes the frames")
    check(generate(tmp, "two", "--set", "model.dit=" + other, *args) != first, "another file")
    # The same values by another name, in a folder of shards, with a LoRA of nothing.
    folder = os.path.join(tmp, "folder")
    os.mkdir(folder)
    shutil.copy(one, os.path.join(folder, "model-00001.safetensors"))
    lora = os.path.join(tmp, "lora.safetensors")
    keys = [("base_model.model.blocks.0.ffn.0.lora_A.weight", [2, 48]),
            ("base_model.model.blocks.0.ffn.0.lora_B.weight", [96, 2])]
    write_safetensors(lora, keys, "F32", lambda n, fan_in: bytes(4 * n))
    check(generate(tmp, "same", "--set", "model.dit=" + folder, "--set", "model.lora=" + lora, *args)
          == first, "the same weights make the same frames")
    write_safetensors(lora, keys, "F32", lambda n, fan_in: array.array("f", [0.3] * n).tobytes())
    merged = generate(tmp, "lora", "--set", "model.dit=" + one, "--set", "model.lora=" + lora, *args)
    check(merged != first, "a LoRA changes the frames")
    # convert --lora writes what the pipeline merges.
    out = os.path.join(tmp, "merged.safetensors")
    check_result(run(["convert", one, out, "--lora", lora]), 0)
    check(generate(tmp, "conv", "--set", "model.dit=" + out, *args) == merged, "converted, merged")


def test_killed_while_it_loads(tmp):
    path = nano_dit(os.path.join(tmp, "m.safetensors"), 3)
    args = ("--prompt", "a", "--blocks", "3", "--set", "model.dit=" + path)
    want = generate(tmp, "want", *args)
    for point in ("dit.weights.filling", "dit.weights.filled", "dit.weights.sealed"):
        check(generate(tmp, "killed", "--set", "fault.point=" + point, *args) == want, point)


def test_the_file_may_change_while_it_runs(tmp):
    path = nano_dit(os.path.join(tmp, "m.safetensors"), 3)
    want = generate(tmp, "want", "--prompt", "a", "--blocks", "3", "--set", "model.dit=" + path)
    with Pipeline(tmp, "--set", "model.dit=" + path) as p:
        # The per mille that were loaded are no unit of a stage that has not begun one.
        units = {s["name"]: s["unit"] for s in status(p.run_dir)["processes"] if "unit" in s}
        check(units == dict.fromkeys(("text", "dit", "vae", "gateway"), 0), "units:", units)
        os.remove(path)  # the weights are in memory that outlives the stage
        check_result(run(["restart", "dit", "--kill", "--run", p.run_dir]), 0)
        check(p.generate(tmp, "again", "--prompt", "a", "--blocks", "3") == want, "same frames")


def expect(tmp, sets, code, pattern):
    words = []
    for s in sets:
        words += ["--set", s]
    r = run(["generate", "-c", NANO, "--prompt", "x", "-o", os.path.join(tmp, "v.y4m")] + words,
            timeout=60)
    check_result(r, code, pattern)
    check(len(r.stderr.splitlines()) == 1, "one line:", r.stderr)
    procs, dirs = leftovers()
    check(not procs and not dirs, "left:", procs, dirs)


def test_bad_files(tmp):
    def bad(name, data):
        path = os.path.join(tmp, name)
        with open(path, "wb") as f:
            f.write(data)
        return "model.dit=" + path

    expect(tmp, ["model.dit=" + os.path.join(tmp, "none.pt")], 66, r"none\.pt: No such file")
    expect(tmp, ["model.wan=" + tmp], 66, r"models_t5_umt5-xxl-enc-bf16\.pth: No such file")
    expect(tmp, [bad("text.pt", b"no tensors")], 65, r"text\.pt: neither")
    for version in VERSIONS:
        expect(tmp, ["model.dit=" + os.path.join(GOLDEN, version, "legacy.pt")], 65, "before 1.6")
        expect(tmp, ["model.dit=" + os.path.join(GOLDEN, version, "unknown.pt")], 65, "Namespace")
    with open(os.path.join(GOLDEN, "torch-2.8", "dump.pt"), "rb") as f:
        whole = f.read()
    expect(tmp, [bad("cut.pt", whole[:-100])], 65, r"cut\.pt: zip: .*cut short")
    short = nano_dit(os.path.join(tmp, "short.safetensors"), 1, drop="head.head.bias",
                     extra=[("head.bias", [16]), ("z.a", [1]), ("z.b", [1]), ("z.c", [1])])
    expect(tmp, ["model.dit=" + short], 65,
           r"1 missing, 4 not expected, 0 wrong; missing: head\.head\.bias; not expected: "
           r"head\.bias, z\.a, z\.b, \.\.\.")
    fine = nano_dit(os.path.join(tmp, "fine.safetensors"), 1)
    expect(tmp, ["model.dit=" + fine, "model.dit_id=00"], 65, "not what it was")
    expect(tmp, ["model.lora=" + fine], 78, r"without model\.dit")


def torch_file(pickle):
    """A torch.save file with this pickle and four floats."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        z.writestr("archive/data.pkl", pickle)
        z.writestr("archive/data/0", bytes(16))
        z.writestr("archive/version", "3\n")
    return out.getvalue()


def hostile_files(canary):
    """Name, bytes, what the one line says."""
    def safetensors(text, n_values, n_header=None):
        text = text.replace("'", '"').encode()
        return struct.pack("<Q", len(text) if n_header is None else n_header) + text + bytes(n_values)

    def entry(shape, first, end):
        return "{'dtype':'F32','shape':%s,'data_offsets':[%d,%d]}" % (shape, first, end)

    def rebuilt(size, stride):
        storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + \
            b"0X\3\0\0\0cpuK\4tQ"
        call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + size + stride + \
            b"\x89ccollections\nOrderedDict\n)RtR"
        return torch_file(b"\x80\2}X\1\0\0\0a" + call + b"s.")

    call = ("touch " + canary).encode()
    whole = rebuilt(b"K\4\x85", b"K\1\x85")
    yield "whole", whole, None
    yield "cut short", whole[:-40], "zip: "
    yield "a call", torch_file(b"\x80\2cos\nsystem\nX" + struct.pack("<I", len(call)) + call +
                               b"\x85R."), "os.system"
    yield "a cycle", torch_file(b"\x80\2]q\1h\1a."), "nested deeper"
    yield "a memo of 4 G", torch_file(b"\x80\2}r\xff\xff\xff\xff."), "memo is too large"
    yield "a shape of 2^62", rebuilt(b"J\0\0\0\x7fJ\0\0\0\x7f\x86", b"K\0K\0\x86"), "overflows"
    yield "beyond its storage", rebuilt(b"K\5\x85", b"K\1\x85"), "a"
    yield "a header of 2^63", safetensors("{}", 0, 1 << 63), "header"
    yield "a header cut short", safetensors("{", 0, 100), "header"
    yield "data cut short", safetensors("{'a':" + entry("[4]", 0, 16) + "}", 8), "a"
    yield "overlapping", safetensors("{'a':" + entry("[2]", 0, 8) + ",'b':" + entry("[1]", 4, 8) +
                                     "}", 8), "overlaps"
    yield "a count of 2^64", safetensors("{'a':" + entry("[4294967296,4294967296]", 0, 8) + "}",
                                         8), "overflows"


def test_hostile_files(tmp):
    """One line, code 65, quickly, and nothing of them is run."""
    canary, path = os.path.join(tmp, "canary"), os.path.join(tmp, "file")
    for name, data, words in hostile_files(canary):
        with open(path, "wb") as f:
            f.write(data)
        r = run(["inspect", path], timeout=10)
        if words is None:
            check_result(r, 0)
            continue
        check_result(r, 65, words)
        check(len(r.stderr.splitlines()) == 1 and not r.stdout, name, r.stderr, r.stdout)
        expect(tmp, ["model.dit=" + path], 65, words)
    check(not os.path.exists(canary), "something was run")


def test_inspect_and_convert(tmp):
    for version in VERSIONS:
        path = os.path.join(GOLDEN, version, "flat.pth")
        r = run(["inspect", path])
        check_result(r, 0)
        check("bf16 " in r.stdout and "[5, 7]" in r.stdout and "13 tensors" in r.stdout, r.stdout)
        listed = json.loads(run(["inspect", "--json", path]).stdout)["tensors"]
        out = os.path.join(tmp, "out.safetensors")
        check_result(run(["convert", path, out]), 0)
        again = json.loads(run(["inspect", "--json", out]).stdout)["tensors"]
        key = [(t["name"], t["shape"], t["dtype"], t["bytes"]) for t in listed]
        check(key == [(t["name"], t["shape"], t["dtype"], t["bytes"]) for t in again], version)
        r = run(["inspect", os.path.join(GOLDEN, version, "strided.pt")])
        check_result(r, 0)
        check(r.stdout.count("not contiguous") == 1, r.stdout)
        # The model's own names, whatever wrapped it.
        check_result(run(["convert", os.path.join(GOLDEN, version, "dump.pt"), out, "--lora",
                          os.path.join(GOLDEN, version, "lora.pt"), "--lora-alpha", "8"]), 0)
        names = [t["name"] for t in json.loads(run(["inspect", "--json", out]).stdout)["tensors"]]
        check("blocks.1.q.weight" in names and len(names) == 10, names)
    check_result(run(["inspect"]), 2, "FILE")
    check_result(run(["inspect", os.path.join(tmp, "none")]), 66, "none: No such file")
    check_result(run(["inspect", os.path.join(GOLDEN, "torch-2.8", "unknown.pt")]), 65, "Namespace")
    check_result(run(["convert", out]), 2, "OUT")
    check_result(run(["convert", out, out, "--lora-alpha", "8"]), 2, "--lora")
    check_result(run(["convert", out, "/proc/none"]), 73, "/proc/none")
    bad = os.path.join(GOLDEN, "torch-2.8", "strided.pt")
    check_result(run(["convert", bad, os.path.join(tmp, "x.safetensors")]), 65, "not contiguous")
    check(sorted(os.listdir(tmp)) == ["out.safetensors"], os.listdir(tmp))


FULL_DIT = ("dit.dim=1536", "dit.heads=12", "dit.ffn_dim=8960", "dit.layers=30", "dit.freq_dim=256",
            "model.latent_channels=16", "text.dim=4096", "text.heads=1", "text.head_dim=8",
            "text.layers=1", "text.vocab=300")


def memory_kib(pid, what):
    try:
        with open("/proc/%d/status" % pid) as f:
            return sum(int(line.split()[1]) for line in f if line.split(":")[0] in what)
    except (OSError, ProcessLookupError):
        return 0


def test_a_full_size_file(tmp):
    """LongLive's DiT, drawn: 825 tensors, 1,418,996,800 parameters in bf16. Time and memory."""
    tensors = dit_tensors(16, 4096, 1536, 8960, 30, 256)
    n = sum(count(shape) for _, shape in tensors)
    check(len(tensors) == 825 and n == 1418996800, len(tensors), n)
    block = bytes(bytearray(random.Random(1).choice((0x3C, 0xBC)) if i % 2 else i // 2 % 256
                            for i in range(1 << 20)))

    def values(n_values, fan_in):
        n_bytes = 2 * n_values
        return block * (n_bytes // len(block)) + block[:n_bytes % len(block)]

    path = os.path.join(tmp, "full.safetensors")
    write_safetensors(path, tensors, "BF16", values)
    run_dir = os.path.join(SHM, "full")
    words = ["up", "-c", NANO, "--run", run_dir, "--set", "model.dit=" + path]
    for s in FULL_DIT:
        words += ["--set", s]
    up = subprocess.Popen([LONGLIVED] + words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peak, seen, began = 0, set(), time.monotonic()
    while up.poll() is None and time.monotonic() - began < 300:
        try:
            o = status(run_dir)
        except (AssertionError, ValueError):
            time.sleep(0.2)
            continue
        for p in o["processes"]:
            if p["name"] == "dit" and p["pid"]:
                peak = max(peak, memory_kib(p["pid"], ("RssAnon", "RssFile")))
                if p.get("phase") == "opening":
                    seen.add(p["unit"])
        time.sleep(0.02)
    up.communicate(timeout=60)
    check(up.returncode == 0, "up", up.returncode)
    out = run(["status", "--run", run_dir]).stdout
    with open(os.path.join(run_dir, "log", "dit.log")) as f:
        log = f.read()
    run(["down", "--run", run_dir], timeout=60)
    took = [int(ms) for ms in re.findall(r"ev=weights_filled .*took_ms=(\d+)", log)]
    check(took and len(seen) > 2, "progress:", seen, log, out)
    largest = max(count(shape) for _, shape in tensors) * 4 // 1024
    print("full-size DiT: loaded in %.1f s, %.0f MiB beside the region at most" %
          (took[0] / 1000, peak / 1024))
    check(peak <= largest + 256 * 1024, "memory beside the region:", peak, "KiB")


TESTS = [test_a_pipeline_from_a_file, test_killed_while_it_loads,
         test_the_file_may_change_while_it_runs, test_bad_files, test_hostile_files,
         test_inspect_and_convert]
FULL = [test_a_full_size_file]
