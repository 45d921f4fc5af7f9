#!/usr/bin/env python3
"""The libraries beside our ops: `yardstick.py ROWS.jsonl OUT.json [--device cuda:0] [--seconds N]`.

ROWS.jsonl is what bench-ops wrote (BENCH_JSON): its rows name the tensors of each call. Calls that
a library has are done here by torch on the same card: products by cuBLAS (torch.nn.functional.
linear), attention by cuDNN, flash and the memory-efficient kernel (scaled_dot_product_attention),
convolutions by cuDNN in channels-last memory, norms by torch's own kernels. Each in two ways where
they differ: `library`, the library's call alone with everything laid out for it before, and
`whole`, all that our op does. Attention takes all keys, without a bias of the last.

It is timed as bench-ops times: runs queued behind work that takes longer than queueing them, with
an event between each two, by turns over copies that no cache holds; the first run of a batch is not
counted. After N seconds (none unless told) no further row is begun, the longest having been first.
On the CPU (--device cpu) it is a dry run: one copy, the host's clock.
"""

import argparse
import json
import math
import sys
import time

BATCH, BATCHES, WARM_UPS, COPIES_MAX = 24, 3, 3, 64
ROTATED_BYTES = 256 << 20
LONG_US = 10000
AHEAD_CYCLES = 8000000  # some milliseconds: longer than it takes to queue a batch


def stop(why):
    sys.exit("yardstick: " + why)


class Row:
    """A line of bench-ops; tensors are (type, shape) or None."""

    def __init__(self, line):
        self.line, self.op = line, line["op"]
        self.tensors = []
        for text in line["tensors"]:
            if text is None:
                self.tensors.append(None)
                continue
            kind, shape = text.split()
            self.tensors.append((kind, [int(n) for n in shape.split("x")]))

    def shape(self, i):
        return self.tensors[i][1]


def rows_of(path):
    """The newest of each case, in the order of the file."""
    rows = {}
    try:
        with open(path) as f:
            for text in f:
                line = json.loads(text)
                if "tensors" in line:
                    rows[line["name"], line["shape"], line["device"]] = Row(line)
    except (OSError, ValueError) as e:
        stop("%s: %s" % (path, e))
    if not rows:
        stop("%s: no rows of bench-ops" % path)
    return list(rows.values())


class Library:
    """What torch has for a row: variants (name, is it all that our op does, inputs, call), the
    call's arguments being a copy of the inputs, which nothing needs to make again."""

    def __init__(self, torch, device):
        self.torch, self.device, self.F = torch, device, torch.nn.functional
        self.types = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

    def draw(self, kind, *shape):
        return self.torch.randn(*shape, device=self.device).to(self.types[kind])

    def variants(self, row):
        make = getattr(self, "of_" + row.op, None)
        return make(row) if make else []

    def product(self, row):
        """x, w and b, all of the type of x."""
        kind = row.tensors[1][0]
        return [self.draw(kind, *row.shape(i)) if row.tensors[i] else None for i in (1, 2, 3)]

    def of_linear(self, row):
        return [("cublas", True, lambda: self.product(row), self.F.linear)]

    def of_linear_gelu(self, row):
        def apart(x, w, b):
            return self.F.gelu(self.F.linear(x, w, b), approximate="tanh")

        def fused(x, w, b):
            return self.torch._addmm_activation(b, x, w.t(), use_gelu=True)

        inputs = lambda: self.product(row)  # noqa: E731
        out = [("cublas", False, inputs, self.F.linear), ("cublas, gelu", True, inputs, apart)]
        if row.tensors[3] and hasattr(self.torch, "_addmm_activation"):
            out.append(("cublas with gelu", True, inputs, fused))
        return out

    def of_linear_add(self, row):
        def whole(x, w, b, y, gate):
            r = self.F.linear(x, w, b)
            return y.addcmul_(r, gate) if gate is not None else y.add_(r)

        def inputs():
            gate = self.draw("f32", *row.shape(4)) if row.tensors[4] else None
            return self.product(row) + [self.draw(row.tensors[0][0], *row.shape(0)), gate]

        return [("cublas", False, lambda: self.product(row), self.F.linear),
                ("cublas, add", True, inputs, whole)]

    def of_linear_add_norm(self, row):
        product, (name, _, branch, add) = self.of_linear_add(row)
        kind, width = self.types[row.tensors[5][0]], row.shape(5)[1:]

        def inputs():
            return branch() + [self.draw("f32", *row.shape(i)) for i in (6, 7)]

        def whole(*t):
            return self.F.layer_norm(add(*t[:-2]), width, t[-2], t[-1], 1e-6).to(kind)

        return [product, (name + ", norm", True, inputs, whole)]

    def heads(self, row):
        """q, k, v as [1, N, S, D], in memory as ours: a token's heads side by side."""
        return [self.draw(row.tensors[i][0], *row.shape(i)).transpose(0, 1).unsqueeze(0)
                for i in (1, 2, 3)]

    def by_hand(self, q, k, v, bias, scale):
        logits = q @ k.transpose(-1, -2) * scale
        return self.torch.softmax(logits if bias is None else logits + bias, -1) @ v

    def attentions(self, row, scale, inputs):
        """Each kernel of scaled_dot_product_attention that takes this; by hand where it is not."""
        def of(backend):
            def call(q, k, v, bias=None):
                with sdpa_kernel(backend):
                    return self.F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
            return call

        try:
            from torch.nn.attention import SDPBackend, sdpa_kernel
        except ImportError:
            return [("by hand", True, inputs,
                     lambda q, k, v, bias=None: self.by_hand(q, k, v, bias, scale))]
        names = {"cudnn": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION",
                 "efficient": "EFFICIENT_ATTENTION", "math": "MATH"}
        return [(name, True, inputs, of(getattr(SDPBackend, key)))
                for name, key in names.items() if hasattr(SDPBackend, key)]

    def of_attention(self, row):
        scale = 1 / math.sqrt(row.shape(1)[2])
        found = self.attentions(row, scale, lambda: self.heads(row))
        # All logits in memory: only where no other kernel takes heads as wide.
        return found if row.shape(1)[2] > 256 else [v for v in found if v[0] != "math"] or found

    def of_attention_t5(self, row):
        def inputs():
            S, N, _ = row.shape(1)
            return self.heads(row) + [self.draw(row.tensors[1][0], 1, N, S, S)]

        return self.attentions(row, 1.0, inputs)

    def of_layer_norm(self, row):
        kind, width = self.types[row.tensors[0][0]], row.shape(1)[1:]

        def inputs():
            return [self.draw("f32", *row.shape(i)) for i in (1, 2, 3)]

        return [("torch", True, inputs,
                 lambda x, w, b: self.F.layer_norm(x, width, w, b, 1e-6).to(kind))]

    def of_rms_norm(self, row):
        kind, width = self.types[row.tensors[0][0]], row.shape(1)[1:]

        def inputs():
            x = row.tensors[1][0]
            return [self.draw(x, *row.shape(1)), self.draw(x, *row.shape(2))]

        if not hasattr(self.F, "rms_norm"):
            return []
        return [("torch", True, inputs, lambda x, w: self.F.rms_norm(x, width, w, 1e-6).to(kind))]

    def of_embed(self, row):
        kind = self.types[row.tensors[0][0]]

        def inputs():
            S, V = row.shape(2)[0], row.shape(1)[0]
            ids = self.torch.randint(V, (S,), device=self.device)
            return [ids, self.draw(row.tensors[1][0], *row.shape(1))]

        return [("torch", True, inputs, lambda ids, w: self.F.embedding(ids, w).to(kind))]

    def of_conv3d(self, row):
        """Pictures are channels-last in memory, [T, Y, X, C], and [1, C, T, Y, X] to torch."""
        torch, F = self.torch, self.F
        kind, (T, Y, X, C) = row.tensors[1][0], row.shape(1)
        O, kt, k = row.shape(3)[:3]
        has_residual = row.tensors[5] is not None

        def picture(n, channels):
            return self.draw(kind, 1, n, Y, X, channels).permute(0, 4, 1, 2, 3)

        def weights():
            return [self.draw(kind, O, kt, k, k, C).permute(0, 4, 1, 2, 3), self.draw(kind, O)]

        def conv(x, w, b):
            return F.conv3d(x, w, b, padding=(0, k // 2, k // 2))

        def whole(past, x, w, b, residual=None):
            y = conv(torch.cat([past, x], 2), w, b)
            return y if residual is None else y.add_(residual)

        def flat():
            """Three frames as one with three times the channels: a convolution in the plane."""
            x = self.draw(kind, T, Y, X, kt * C).permute(0, 3, 1, 2)
            return [x, self.draw(kind, O, k, k, kt * C).permute(0, 3, 1, 2), self.draw(kind, O)]

        return [
            ("cudnn", False, lambda: [picture(T + kt - 1, C)] + weights(), conv),
            ("cudnn, plane", False, flat, lambda x, w, b: F.conv2d(x, w, b, padding=k // 2)),
            ("cat, cudnn" + (", add" if has_residual else ""), True,
             lambda: [picture(kt - 1, C), picture(T, C)] + weights() +
             ([picture(T, O)] if has_residual else []), whole),
        ]

    def of_conv3d_norm(self, row):
        *apart, (name, _, convolved, conv) = self.of_conv3d(row)
        kind, (O,) = self.types[row.tensors[0][0]], row.shape(6)

        def inputs():
            return [self.draw("f32", O)] + convolved()

        def whole(g, *t):
            unit = self.F.normalize(conv(*t), dim=1, eps=1e-12)
            return self.F.silu(unit * O ** 0.5 * g.to(kind).view(O, 1, 1, 1))

        return apart + [(name + ", norm", True, inputs, whole)]

    def of_upsample_conv(self, row):
        F = self.F
        kind, (T, Y, X, C), O = row.tensors[1][0], row.shape(1), row.shape(2)[0]

        def inputs(rows, cols):
            return [self.draw(kind, T, rows, cols, C).permute(0, 3, 1, 2),
                    self.draw(kind, O, 3, 3, C).permute(0, 3, 1, 2), self.draw(kind, O)]

        def whole(x, w, b):
            return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), w, b, padding=1)

        return [("cudnn", False, lambda: inputs(2 * Y, 2 * X),
                 lambda x, w, b: F.conv2d(x, w, b, padding=1)),
                ("double, cudnn", True, lambda: inputs(Y, X), whole)]


def copies_of(inputs, is_gpu):
    first = inputs()
    n_bytes = sum(t.numel() * t.element_size() for t in first if t is not None)
    n = min(ROTATED_BYTES // n_bytes + 2, COPIES_MAX) if is_gpu else 1
    return [first] + [inputs() for _ in range(n - 1)]


def times_on_gpu(torch, copies, call):
    took = []
    events = [torch.cuda.Event(enable_timing=True) for _ in range(BATCH + 1)]
    for batch in range(BATCHES):
        torch.cuda._sleep(AHEAD_CYCLES)
        for i in range(BATCH):
            events[i].record()
            call(*copies[(batch * BATCH + i) % len(copies)])
        events[BATCH].record()
        torch.cuda.synchronize()
        took += [1e3 * events[i].elapsed_time(events[i + 1]) for i in range(1, BATCH)]
        if took[0] > LONG_US:
            break
    return took


def times_on_cpu(copies, call):
    took = []
    for _ in range(BATCH):
        began = time.perf_counter()
        call(*copies[0])
        took.append(1e6 * (time.perf_counter() - began))
    return took


def measure(torch, device, inputs, call):
    """Statistics of a variant in microseconds; the sentence of torch where it does not take it."""
    is_gpu = device != "cpu"
    try:
        copies = copies_of(inputs, is_gpu)
        for i in range(WARM_UPS):
            call(*copies[i % len(copies)])
        took = sorted(times_on_gpu(torch, copies, call) if is_gpu else times_on_cpu(copies, call))
    except RuntimeError as e:
        return {"absent": str(e).splitlines()[0][:120]}
    at = lambda percent: took[-(-percent * len(took) // 100) - 1]  # noqa: E731
    return {"n": len(took), "median_us": round(at(50), 3), "p95_us": round(at(95), 3),
            "min_us": round(took[0], 3), "max_us": round(took[-1], 3)}


def best(found, is_whole):
    """The fastest variant of this sort: a `whole` one is a `library` one, too, if there is no
    other."""
    done = {k: v for k, v in found.items() if "median_us" in v and v["is_whole"] == is_whole}
    if not done:
        return best(found, True) if not is_whole else ("", None)
    name = min(done, key=lambda k: done[k]["median_us"])
    return name, done[name]["median_us"]


def show(rows):
    print("%-20s %-44s %10s %6s %10s %-16s %10s %-16s %6s" %
          ("op", "shape", "ours us", "floor", "library us", "", "whole us", "", "ours"))
    for r in rows:
        (library, a), (whole, b) = best(r["torch"], False), best(r["torch"], True)
        floor = "%.0f %%" % (100 * r["floor_us"] / r["ours_us"]) if r["floor_us"] else ""
        print("%-20s %-44s %10.2f %6s %10s %-16s %10s %-16s %6s" % (
            r["name"], r["shape"], r["ours_us"], floor, "" if a is None else "%.2f" % a, library,
            "" if b is None else "%.2f" % b, whole, "" if b is None else "%.2f" % (r["ours_us"] / b)))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("rows")
    p.add_argument("out")
    p.add_argument("--device", default="cuda:0")
    p.add_argument("--seconds", type=float, default=float("inf"))
    args = p.parse_args()
    began = time.monotonic()
    rows = rows_of(args.rows)
    try:
        import torch
    except ImportError:
        stop("this python3 (%s) has no torch" % sys.executable)
    if args.device != "cpu" and not torch.cuda.is_available():
        stop("torch %s sees no GPU" % torch.__version__)
    torch.set_grad_enabled(False)
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    library = Library(torch, args.device)
    result = {"torch": torch.__version__, "cuda": torch.version.cuda,
              "cudnn": torch.backends.cudnn.version(), "device": args.device, "rows": [],
              "left_out": 0}
    if args.device != "cpu":
        torch.cuda.set_device(args.device)
        result["card"] = torch.cuda.get_device_name()
    done = {}
    for row in sorted(rows, key=lambda r: -r.line["median_us"]):
        found = {}
        is_late = time.monotonic() - began > args.seconds
        for name, is_whole, inputs, call in library.variants(row):
            if is_late:
                result["left_out"] += 1
                break
            found[name] = dict(measure(torch, args.device, inputs, call), is_whole=is_whole)
            torch.cuda.empty_cache()
        done[id(row)] = found
    for row in rows:
        line = row.line
        result["rows"].append({"name": line["name"], "shape": line["shape"],
                               "ours_us": line["median_us"], "floor_us": line["floor_us"],
                               "commit": line["commit"], "torch": done[id(row)]})
    show(result["rows"])
    print("# torch %s, CUDA %s, cuDNN %s, %s; %d rows left out for lack of time" % (
        result["torch"], result["cuda"], result["cudnn"], result.get("card", "CPU"),
        result["left_out"]))
    with open(args.out, "w") as f:
        json.dump(result, f, indent=1)


main()
