"""bench: every protocol through real processes, its file against the schema, and its own sums."""

import contextlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess

import harness
from harness import (NANO, ROOT, Skip, check, check_result, fake_gpus, pid_of, run, send_signal,
                     start, wait_for)
from schema import faults


def bench(tmp, protocol, *args, status=0, pattern=None, timeout=400):
    r = run(["bench", "--protocol", protocol, "--quick", "--quiet", "-c", NANO, "--out", tmp] +
            list(args), timeout=timeout)
    check_result(r, status, pattern)
    return r


def results(tmp, protocol):
    """The file, which is as the schema says."""
    with open(os.path.join(ROOT, "docs", "bench.schema.json")) as f:
        schema = json.load(f)
    with open(os.path.join(tmp, protocol + ".json")) as f:
        file = json.load(f)
    wrong = faults(file, schema, schema)
    check(not wrong, "\n  ".join(wrong[:10]))
    check(file["protocol"] == protocol, file["protocol"])
    # The schema's own words are heeded: what is spoilt is found.
    spoilt = json.loads(json.dumps(file))
    del spoilt["runs"][0]["timestamp"]
    spoilt["machine"]["cpus"] = "2"
    spoilt["more"] = 1
    check(len(faults(spoilt, schema, schema)) == 3, "a spoilt file:", faults(spoilt, schema, schema))
    return file


@contextlib.contextmanager
def environment(**words):
    """The variables, for what is started inside."""
    was = {k: os.environ.get(k) for k in words}
    os.environ.update(words)
    try:
        yield
    finally:
        for k, v in was.items():
            if v is None:
                del os.environ[k]
            else:
                os.environ[k] = v


def check_stats(s, n):
    """The statistics of n values, worked out again from them."""
    v = sorted(s["values"])
    check(s["n"] == n == len(v), s["n"], "values, not", n)
    check(v[0] == s["min"] and v[-1] == s["max"] and s["min"] > 0, "min and max")
    check(abs(sum(v) / n - s["mean"]) < 1e-6 * s["mean"], "mean")
    for name, percent in (("p50", 50), ("p95", 95), ("p99", 99)):
        check(s[name] == v[-(-percent * n // 100) - 1], name)


def shown(tmp, protocol):
    """The page's document after its script ran in a browser that reaches nothing."""
    browser = shutil.which("chromium")
    if not browser:
        raise Skip("chromium is not installed")
    page = os.path.join(tmp, protocol + ".html")
    r = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         "--user-data-dir=" + os.path.join(tmp, "browser"), "--host-resolver-rules=MAP * ~NOTFOUND",
         "--dump-dom", "file://" + page], capture_output=True, text=True, timeout=120)
    check(r.returncode == 0, r.stderr[-2000:])
    said = [x for x in r.stderr.splitlines() if ":CONSOLE" in x]
    check(not said, "the console says:", said)
    with open(page) as f:
        check(not re.search(r"https?://", f.read().replace("http://www.w3.org/2000/svg", "")),
              "the page names another place")
    return r.stdout


def charts(document):
    return {k: len(re.findall(r'<svg class="%s"' % k, document))
            for k in ("trace", "histogram", "bars", "gantt")}


def distributions(o):
    """Series of more than one value, those of pixel frames left out."""
    if "values" in o:
        return int(o["n"] > 1)
    return sum(distributions(v) for k, v in o.items() if isinstance(v, dict) and k != "px_frame_ms")


def check_reports(tmp, protocol, run_, want):
    """The page shows these many charts, with something in each; the CSV has the page's rows."""
    document = shown(tmp, protocol)
    want["histogram"] = distributions(run_)
    check(charts(document) == want, charts(document), "not", want)
    for svg in re.findall(r"<svg.*?</svg>", document, re.S):
        check(len(re.findall(r"<(rect|polyline)", svg)) > 0, "an empty chart:", svg[:200])
        legend = re.findall(r'width="11" height="11" fill="([^"]*)"', svg)
        check(len(set(legend)) == len(legend), "a colour twice in", legend)
        check("NaN" not in svg and "undefined" not in svg, "no number in:", svg[:200])
    with open(os.path.join(tmp, protocol + ".csv")) as f:
        rows = [line.strip().split(",") for line in f][1:]
    check(rows and all(len(r) == 12 for r in rows), "rows of", protocol)
    for r in rows:
        check(">%s</td>" % r[3] in document, r[3], "is not in the page")
    if want["trace"]:
        check(document.count('class="limit"') == want["trace"], "a line at 40 ms in each trace")


def blocks(run_dir):
    r = run(["status", "--json", "--run", run_dir])
    return json.loads(r.stdout).get("counters", {}).get("latents_blocks", 0) if not r.returncode else 0


def test_bench_refuses(tmp):
    check_result(run(["bench"]), 2, "seed, paper or stream")
    check_result(run(["bench", "--protocol", "sead"]), 2, "seed, paper or stream")
    check_result(run(["bench", "--diff", "a.json"]), 2, "--diff A.json B.json")
    bench(tmp, "seed", "--phase", "intervals", status=2, pattern="fresh.steady-state, fresh.prom")
    with open(os.path.join(tmp, "stream.json"), "w") as f:
        f.write("{}")
    bench(tmp, "stream", "--merge", status=65, pattern="not a result")
    check(os.path.getsize(os.path.join(tmp, "stream.json")) == 2, "what was there is gone")


def test_bench_seed(tmp):
    out = bench(tmp, "seed").stdout
    check("fresh.call_ms" in out and "steady.switch_ms" in out, out)
    run_ = results(tmp, "seed")["runs"][0]
    check(run_["phases"] == [s + p for s in ("fresh.", "steady.") for p in
                             ("steady-state", "prompt-switch", "throughput")], run_["phases"])
    for name, px in (("fresh", 9), ("steady", 12)):
        s = run_[name]
        check_stats(s["call_ms"], 99)
        check_stats(s["switch_ms"], 10)
        check(s["ss_mean"] == s["call_ms"]["mean"] and s["ps_p99"] == s["switch_ms"]["p99"], name)
        check(s["px_frames_per_call"] == px and s["latents_per_call"] == 3, name)
        check(abs(s["px_frame_ms"]["mean"] * px / s["ss_mean"] - 1) < 1e-4, "pixel frames")
        check(s["total_frames"] % 3 == 0 and s["duration_s"] >= 10, name)
        check(abs(s["total_frames"] / s["duration_s"] / s["fps"] - 1) < 1e-6, "fps")
        check(abs(s["px_fps"] / s["fps"] - px / 3) < 1e-6, "both units")
        check(s["meets_40ms"] == (s["ss_max"] <= 40), "meets_40ms")
        check(s["switch_parts_ms"]["encode"] > 0, "a new text is encoded")
        check((s["switch_parts_ms"]["recache"] > 0) == (name == "steady"), "recache:", name)
        # Each of the four stages has a hand in the blocks that are drawn, but text: its work is done.
        check({x["stage"] for x in s["spans"]} == {"dit", "vae", "gateway"}, name)
    # One call after the other: the parts and what remains are the whole.
    s = run_["fresh"]
    whole = sum(s["components"].values())
    check(0.8 < whole / s["ss_mean"] < 1.25, "components", whole, "of", s["ss_mean"])
    check(s["components"]["sync_overhead"] >= 0, s["components"])
    check_reports(tmp, "seed", run_, {"trace": 4, "bars": 2, "gantt": 2})


def test_bench_phases_merge(tmp):
    first, second = "steady.prompt-switch", "steady.steady-state"
    bench(tmp, "seed", "--phase", first)
    bench(tmp, "seed", "--phase", second, "--merge")
    bench(tmp, "seed", "--phase", second, "--merge")
    runs = results(tmp, "seed")["runs"]
    check([r["phases"] for r in runs] == [[first, second], [second]], runs)
    check("ps_mean" in runs[0]["steady"] and "ss_mean" in runs[0]["steady"], "not one run")
    check("fresh" not in runs[0], "what was not asked for")
    bench(tmp, "seed", "--merge", "--set", "dit.window=9", status=65, pattern="another config")
    # The file has nothing over itself: two runs of one phase, one of the other.
    path = os.path.join(tmp, "seed.json")
    r = run(["bench", "--diff", path, path])
    check_result(r, 0)
    row = {x.split()[0]: x for x in r.stdout.splitlines() if x}
    check(row["steady.call_ms.mean"].endswith("  same"), row["steady.call_ms.mean"])
    check(row["steady.switch_ms.p99"].endswith("one run: not known"), row["steady.switch_ms.p99"])
    check_result(run(["bench", "--diff", path, path, "--out", os.path.join(tmp, "d")]), 0)
    check(charts(shown(os.path.join(tmp, "d"), "diff"))["bars"] > 2, "the page of a difference")


def test_bench_paper(tmp):
    bench(tmp, "paper")
    run_ = results(tmp, "paper")["runs"][0]
    video = run_["videos"][0]
    check(video["latents"] == 120 and video["px_frames"] == 477, video)
    check(abs(477 / video["seconds"] / video["px_fps"] - 1) < 1e-6, video)
    check(video["px_fps"] <= video["px_fps_without_text"] < video["px_fps_without_text_and_vae"],
          "what is left out only saves time:", video)
    check(abs(run_["px_fps"] / run_["latent_fps"] - 477 / 120) < 1e-6, run_["latent_fps"])
    check_stats(run_["block_ms"], 39)
    check_reports(tmp, "paper", run_, {"trace": 1, "bars": 1, "gantt": 1})
    check_pictures(tmp, "paper", 4)


def test_bench_by_turns(tmp):
    """Two presets, a turn each and a second one merged: a result each, and how they differ."""
    for more in ([], ["--merge"]):
        bench(tmp, "paper", "--compare", "--preset", "turbo", "--rounds", "1", *more)
    with open(os.path.join(ROOT, "docs", "bench.schema.json")) as f:
        schema = json.load(f)
    with open(os.path.join(tmp, "paper-compare.json")) as f:
        file = json.load(f)
    wrong = faults(file, schema["$defs"]["comparison"], schema)
    check(not wrong, "\n  ".join(wrong[:10]))
    results_ = [v["result"] for v in file["variants"]]
    want = [("baseline", "1000,750,500,250", False), ("turbo", "1000,500,250", True)]
    for r, (name, steps, is_on) in zip(results_, want):
        c = r["config"]
        check((c["preset"], c["steps"]) == (name, steps), c)
        check([c["graphs"], c["overlap"], c["reuse"]] == 3 * [is_on], c)
        check(len(r["runs"]) == 2, name, len(r["runs"]), "runs")
    figures = {f["name"]: f for f in file["figures"]}
    for i, r in enumerate(results_):
        v = [x["block_ms"]["mean"] for x in r["runs"]]
        f = figures["block_ms.mean"]
        check(abs(f["means"][i] - sum(v) / 2) < 1e-6 * f["means"][i], f, "is not the mean of", v)
        check(abs(f["spreads"][i] - abs(v[0] - v[1])) < 1e-6, f, "is not the spread of", v)
    check(all(f["differs"][0] == "same" for f in figures.values()), "the first is not itself")
    document = shown(tmp, "paper-compare")
    check(charts(document)["bars"] == 2, charts(document))
    check(re.search(r"baseline \(commit .*\), turbo \(commit .*\), by turns", document) and "<td>block_ms.max</td>" in document, "page")
    bench(tmp, "paper", "--ablate", "sinc", status=2, pattern="window, sink, graph, edge, overlap, precision")
    bench(tmp, "paper", "--compare", "--preset", "ultra", status=78, pattern="fp8: not built")


def check_passes(o, names):
    """Each pass's parts are all of it, its ops all but what is uploaded before the first."""
    check(sorted(o["passes"]) == sorted(names), sorted(o["passes"]))
    for name, p in o["passes"].items():
        check(abs(sum(p["parts"].values()) - p["sum_ms"]) < 1e-6 * p["sum_ms"], name, p)
        check(sum(p["ops"].values()) < sum(p["parts"].values()), name, p)
        check(set(p["floors"]) <= set(p["parts"]), name, p)
        for key in p["ops"]:
            of = [r for r in p["rows"] if r["op"] == key]
            check(abs(sum(r["ms"] for r in of) - p["ops"][key]) < 1e-6 * p["sum_ms"], name, key)
        check(sum(r["n"] for r in p["rows"]) == p["n_ops"], name, p["rows"])
        check(abs(sum(r["floor_ms"] for r in p["rows"]) - sum(p["floors"].values())) < 1e-6, name)
        for r in p["rows"]:
            floor = r["gflop"] / o["ceiling_tflops"]
            check(abs(r["floor_ms"] - floor) <= 1e-6 * floor, name, r, "at", o["ceiling_tflops"])
        check(min(p["parts"].values()) > 0, name, p)
        check(abs(p["sum_of_plain"] - p["sum_ms"] / p["plain_ms"]) < 1e-6, name, p)
        check(p["is_within_3_percent"] == (abs(p["sum_of_plain"] - 1) < 0.03), name, p)


def test_bench_stages(tmp):
    """Each stage alone, merged into one run; on a GPU the recorded pass beside the watched one."""
    def stage(name, *args, **kw):
        r = run(["bench", "--stage", name, "--quick", "--merge", "--quiet", "-c", NANO, "--out",
                 tmp] + list(args), timeout=100)
        check_result(r, kw.get("status", 0), kw.get("pattern"))

    for name in ("text", "dit", "vae", "edge"):
        stage(name)
    (run_,) = results(tmp, "stage")["runs"]
    check(run_["phases"] == ["text", "dit", "vae", "edge"], run_["phases"])
    check_passes(run_["text"], ["encode"])
    check_passes(run_["dit"], ["step", "clean", "recache"])
    check_passes(run_["vae"], ["latent"])
    check(set(run_["dit"]["passes"]["step"]["parts"]) ==
          {"self_attention", "cross_attention", "ffn", "norms", "kv", "other"}, run_["dit"])
    check(run_["text"]["hit_ms"]["p50"] < run_["text"]["miss_ms"]["p50"], "a hit encodes")
    check(run_["dit"]["recached_latents"] == 9, "sizes")
    check(run_["text"]["tokens"] == run_["text"]["short_tokens"] == 16, "tokens")
    for name, series in (("text", "short_ms"), ("dit", "step_3_ms"), ("vae", "latent_ms"),
                         ("edge", "frames_out_ms")):
        check_stats(run_[name][series], 11)
    check_reports(tmp, "stage", run_, {"trace": 1, "bars": 5, "gantt": 0})
    os.remove(os.path.join(tmp, "stage.json"))
    with fake_gpus("gpus=1"):
        stage("dit", "--set", "place.dit=cuda:0", "--set", "model.precision=fp32")
        p = results(tmp, "stage")["runs"][0]["dit"]["passes"]
        check(all(x["recorded_ms"] > 0 for x in p.values()), p)
        gpu = results(tmp, "stage")["runs"][0]["gpu"]["dit"]["cuda:0"]
        check("libnvidia-ml.so.1" in gpu["absent"] and len(gpu) == 1, gpu)
    with fake_gpus("gpus=0"):
        stage("vae", "--set", "place.vae=cuda:0", status=69, pattern="GPU")


def bench_ops(rows, *args):
    """bench-ops on a GPU that is not there; its lines."""
    with fake_gpus("gpus=1"), environment(BENCH_JSON=rows):
        r = subprocess.run([os.path.join(harness.FAKE_BIN, "bench-ops")] + list(args), cwd=ROOT,
                           capture_output=True, text=True, timeout=100)
    check(r.returncode == 0, r.stderr)
    with open(rows) as f:
        return [json.loads(line) for line in f]


def yardstick(*args):
    """By Debian's own Python, which finds Debian's PyTorch, whatever else is in PATH."""
    return subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "bench", "yardstick.py")] +
                          list(args), capture_output=True, text=True, timeout=100)


def test_bench_ops(tmp):
    """Each kind of call once, its floor from the ceilings, and torch beside it on the CPU."""
    path, out = os.path.join(tmp, "ops.jsonl"), os.path.join(tmp, "yardstick.json")
    lines = bench_ops(path, "configs/nano.ini", "cuda:0", "model.precision=fp32")
    rows = {(x["name"], x["shape"]): x for x in lines}
    check(len(rows) == len(lines) > 60, len(rows), "names of", len(lines), "rows")
    for x in lines:
        by_flops = x["flops"] / x["ceiling_tflops"] / 1e6 if x["flops"] else 0
        floor = max(by_flops, x["bytes"] / x["ceiling_gbs"] / 1e3)
        check(abs(x["floor_us"] - floor) < 1e-3 * floor + 1e-3, x["floor_us"], "not", floor, x)
        check(x["device"] == "cuda:0" and x["card"].startswith("Fake GPU"), x)
        check(0 < x["min_us"] <= x["median_us"] <= x["max_us"] and x["n"] in (23, 69), x)
    x = rows["dit.attention", "18x72x2x24 f32"]
    check(x["flops"] == 4 * 18 * 72 * 48 and x["bytes"] == 4 * 48 * (2 * 18 + 2 * 72), x)
    check(x["tensors"] == 2 * ["f32 18x2x24"] + 2 * ["f32 72x2x24"] + [None, None], x)
    r = yardstick(path, out)
    if "has no torch" in r.stderr:
        raise Skip("Debian's torch is not installed")
    check(r.returncode == 1 and "sees no GPU" in r.stderr and r.stderr.count("\n") == 1, r.stderr)
    r = yardstick(path, out, "--device", "cpu")
    check(r.returncode == 0 and not r.stderr, r.stderr)
    with open(out) as f:
        beside = json.load(f)["rows"]
    check([(x["name"], x["shape"]) for x in beside] == list(rows), "other rows")
    for x in beside:
        op, whole = x["name"].split(".")[1], [v for v in x["torch"].values() if v["is_whole"]]
        if op in ("linear", "linear_gelu", "linear_add", "linear_add_norm", "attention",
                  "attention_t5", "conv3d", "conv3d_norm", "upsample_conv"):
            check(any(v.get("median_us", 0) > 0 for v in whole), x)
        check(op.startswith("attention") or not [v for v in x["torch"].values() if "absent" in v], x)
    r = yardstick(path, out, "--device", "cpu", "--seconds", "0")
    check("rows left out" in r.stdout and "; 0 rows" not in r.stdout, r.stdout[-200:])


def test_bench_on_gpus(tmp):
    """The same on GPUs, which are not there: what is on them is counted by stage."""
    places = ["--set", "model.precision=fp32"]
    for stage, place in (("text", "cuda:1"), ("dit", "cuda:0"), ("vae", "cuda:1")):
        places += ["--set", "place.%s=%s" % (stage, place)]
    with fake_gpus("gpus=2"), environment(LD_LIBRARY_PATH=harness.FAKE_BIN[:-3] + "lib"):
        bench(tmp, "paper", *places)
    file = results(tmp, "paper")
    gpus = file["runs"][0]["gpu"]["videos"]
    check(sorted(gpus) == ["cuda:0", "cuda:1"], gpus)
    check(gpus["cuda:0"]["samples"] > 0 and gpus["cuda:0"]["sm_mhz"] == 1000, gpus)
    check(gpus["cuda:1"]["power_w"] == 501 and gpus["cuda:1"]["temperature_c_max"] >= 40, gpus)
    check("<td>1001 (1001 to 1001)</td>" in shown(tmp, "paper"), "clocks in the page")
    check(file["machine"]["dit"] == "cuda:0" and file["machine"]["vae"] == "cuda:1", file["machine"])
    memory = {m["process"]: m for m in file["runs"][0]["memory"]}
    for stage in ("text", "dit", "vae"):
        check(memory[stage]["device_weights_gb"] > 0 and memory[stage]["device_scratch_gb"] > 0,
              memory[stage])
    check(memory["dit"]["device_state_gb"] > 0 and memory["gateway"]["device_state_gb"] == 0, memory)
    check(file["runs"][0]["videos"][0]["px_frames"] == 477, "frames")


def test_bench_stream(tmp):
    bench(tmp, "stream")
    run_ = results(tmp, "stream")["runs"][0]
    check(0 < run_["first_frame_ms"]["warm"] < run_["first_frame_ms"]["cold"], "first frame")
    i = run_["intervals"]
    counts = {"normal": 60, "batch_boundary": 3, "cache_full": 26, "all": 89}
    check({k: v["n"] for k, v in i["completion_ms"].items()} == counts, "completion")
    counts = {"normal": 327, "batch_boundary": 3, "cache_full": 26, "all": 356}
    check({k: v["n"] for k, v in i["presentation_ms"].items()} == counts, "presentation")
    check(i["dropped_frames"] == 0, i["dropped_frames"])
    # Paced: 30 blocks cannot come sooner than at 16 frames a second.
    check(i["px_fps"] < 16.01, i["px_fps"])
    s = run_["switches"]
    check(s["hit"]["ready_ms"]["n"] == s["miss"]["ready_ms"]["n"] == 5, "switches")
    for x in s["each"]:
        check((x["encode_ms"] == 0) == x["is_hit"], x)
        check(x["recached_latents"] == 12 and x["recache_ms"] > 0, x)
        parts = ("encode", "lead", "block", "prompt", "recache", "denoise", "decode", "other")
        check(abs(sum(x[p + "_ms"] for p in parts) - x["total_ms"]) < 1e-3, x)
        check(min(x[p + "_ms"] for p in parts) >= 0 and x["shown_ms"] >= x["total_ms"], x)
    check_reports(tmp, "stream", run_, {"trace": 2, "bars": 1, "gantt": 1})


def check_pictures(tmp, protocol, n):
    """bench/png.py makes a PNG of each chart, of its size."""
    out = os.path.join(tmp, "png")
    r = subprocess.run([os.path.join(ROOT, "bench", "png.py"), os.path.join(tmp, protocol + ".html"),
                        out], capture_output=True, text=True, timeout=100)
    check(r.returncode == 0, r.stderr)
    names = sorted(os.listdir(out))
    check([os.path.join(out, x) for x in names] == r.stdout.split() and len(names) == n, r.stdout)
    for name in names:
        with open(os.path.join(out, name), "rb") as f:
            head = f.read(24)
        check(head[:8] == b"\x89PNG\r\n\x1a\n", name)
        width, height = struct.unpack(">II", head[16:])
        check(width == (529 if "histogram" in name else 1024) and height > 60, name, width, height)


def test_bench_interrupted(tmp):
    """By a signal, and by the death of what it measures: nothing is written, nothing left."""
    for why in ("signal", "death"):
        run_dir = os.path.join(tmp, why)
        p = start(["bench", "--protocol", "paper", "--quiet", "-c", NANO, "--out", tmp, "--run",
                   run_dir])
        wait_for("some blocks", 30, lambda: blocks(run_dir) > 9)
        if why == "signal":
            p.send_signal(signal.SIGINT)
        else:
            send_signal(pid_of(run_dir, "vae"), signal.SIGKILL)
        err = p.communicate(timeout=30)[1].decode()
        check(p.returncode == 75, "exit", p.returncode, err)
        check(("interrupted" if why == "signal" else "vae died while it was measured") in err, err)
        check(not os.path.exists(os.path.join(tmp, "paper.json")), "results of half a run")
        check(not os.path.exists(run_dir), "a run directory is left")


def test_trace_file(tmp):
    """A kept run's spans: every block, in its parts, by the processes that did them."""
    kept, out = os.path.join(tmp, "kept"), os.path.join(tmp, "t.json")
    check_result(run(["trace", "--run", kept, "-o", out]), 69, "nothing runs there")
    check_result(run(["trace", "--run", kept]), 2, "OUT.json")
    check_result(run(["generate", "-c", NANO, "--quiet", "--prompt", "a", "--blocks", "4", "--run",
                      kept, "--keep-run", "-o", os.path.join(tmp, "a.y4m")]), 0)
    check_result(run(["trace", "--run", kept, "-o", out]), 0)
    with open(out) as f:
        events = json.load(f)["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    spans = [e for e in events if e["ph"] == "X"]
    check(sorted(names.values()) == ["dit", "gateway", "text", "vae"], names)
    blocks = {e["name"]: e for e in spans if e["name"].startswith("block")}
    check(sorted(blocks) == ["block %d" % i for i in range(4)], sorted(blocks))
    for e in blocks.values():
        inside = [s for s in spans if s["pid"] == e["pid"] and s is not e and
                  e["ts"] <= s["ts"] and s["ts"] + s["dur"] <= e["ts"] + e["dur"]]
        check(sum(s["cat"] == "denoise" for s in inside) == 4, "four steps in", e)
    latents = [e for e in spans if names[e["pid"]] == "vae"]
    check([e["args"]["unit"] for e in latents] == list(range(12)), "latents")
    for e in latents[::3]:
        made = blocks["block %d" % (e["args"]["unit"] // 3)]
        check(e["ts"] >= made["ts"] + made["dur"], "decoded before it was made:", e)
    check(min(e["ts"] for e in spans) == 0, "time begins at 0")


TESTS = [test_bench_refuses, test_bench_interrupted, test_trace_file]
FULL = [test_bench_seed, test_bench_phases_merge, test_bench_paper, test_bench_on_gpus,
        test_bench_stream, test_bench_by_turns, test_bench_stages, test_bench_ops]
