#!/usr/bin/env python3
"""The demo model's training, small, on a CPU: models that compute what LongLive computes, a state that
can be cut anywhere, and files from which the product makes what these models make.

    python3 tests/demo_model/test_demo_model.py [NAME...]       # prints ok and not ok lines
"""
import os
import random
import subprocess
import sys
import tempfile
import traceback

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

import losses as L  # noqa: E402
import make  # noqa: E402
import tensors  # noqa: E402
import test_golden  # noqa: E402
import words as W  # noqa: E402
from dit import Dit  # noqa: E402
from rollout import SIGMAS, T_MAX, Session  # noqa: E402
from tokens import Tokenizer  # noqa: E402
from world import World, place_of  # noqa: E402


def check(condition, *why):
    if not condition:
        raise AssertionError(" ".join(map(str, why)))


def test_golden_numbers(_):
    check(test_golden.main() == 0, "another model than LongLive's")


def test_words(_):
    scenes = W.all_scenes()
    held = sum(map(W.is_held_out, scenes))
    check(len(scenes) == 2352 and held == 268, len(scenes), held)
    rng = random.Random(3)
    for trained in (True, False):
        s = W.draw(rng, trained)
        for _ in range(200):
            s = W.change(s, rng, trained)
            check(W.is_held_out(s) != trained and s.colour != s.background, s)
    check(W.plain(W.Scene("red", "ball", "medium", "blue", "right"))
          == "a red ball moves to the right over a blue background")


def test_world(_):
    """A thing is where it must be: to the right by two pixels a frame, around the edge, one colour
    until the switch's first picture, another from it on; noise says where it begins."""
    w = World(lambda text: [2, 1], 8, "cpu")
    number = {s: i for i, s in enumerate(w.scenes)}
    a = W.Scene("red", "square", "small", "black", "right")
    b = a._replace(colour="white")
    scenes = torch.tensor([[number[a], number[b]]])
    x = w.clip(scenes, torch.tensor([3]), 6, torch.tensor([[80.0, 40.0]]), torch.zeros(1))[0]
    for f in range(21):
        colour = W.COLOURS["red" if f < 9 else "white"]
        column = int((80 + 2 * f) % 96)
        got = (x[:, f, 40, column] + 1) * 127.5
        check((got - torch.tensor(colour)).abs().max() < 0.01, f, got)
        check(abs(float((x[:, f, 40, (column + 48) % 96] + 1).max() * 127.5) - 16) < 0.01, f)
    noise = 0.1 * torch.randn(2, 3, 16, 12, 12)
    noise[0, :, :4, 5, 7] += 9
    check((place_of(noise)[0][0] - torch.tensor([60.0, 44.0])).abs().max() < 1.5, "not there")
    rolled = place_of(torch.roll(noise, (3, 5), (3, 4)))[0] - place_of(noise)[0]
    check((rolled.remainder(96) - torch.tensor([40.0, 24.0])).abs().max() < 0.01, rolled)


def test_things_latents(_):
    """The latent of a picture's four, the latent pixel of its 8 x 8 and the eight around."""
    for f, t in ((0, 0), (1, 1), (4, 1), (5, 2), (8, 2)):
        thing = torch.zeros(2, 1, 9, 48, 48)
        thing[1, 0, f, 17, 47] = 1
        want = torch.zeros(2, 3, 1, 6, 6)
        want[1, t, 0, 1:4, 4:] = 1
        check(torch.equal(L.things_latents(thing), want), f)
    x = torch.zeros(1, 3, 1, 48, 48)
    x[0, 1, 0, 10:20, 30:40] = 0.55
    check(L.thing_of(x).sum() == 100 and L.thing_of(x)[0, 0, 0, 15, 35] == 1, "the thing")


def test_streams(_):
    """All blocks of a video at once see what a session sees, block after block; a row of beginnings
    what each session sees first."""
    c = make.config()["dit"]
    torch.manual_seed(1)
    model, n, sigma = Dit(c), 6, SIGMAS[1]
    clean, noisy = torch.randn(2, 2, n, 3, c["z"], c["rows"], c["cols"])
    row = torch.cat([clean, noisy], 1)
    session = Session(model, None, None)
    with torch.no_grad():
        session.prompt(torch.randn(2, 32, c["text_dim"]))
        text = [tuple(t.expand(-1, 2 * n, -1, -1, -1)[[0, 1, 1]] for t in layer)
                for layer in session.text]
        times = torch.tensor([0.0] * n + [T_MAX * sigma] * n).expand(3, -1)
        flow = model(row[[0, 1, 1]], times, text, L.Streams(model, n, 1).attend)
        for i in range(n, 2 * n):
            first = session.denoise(row[:, i], 1, 0)[1]
            check((row[1, i] - sigma * flow[2, i] - first).abs().max() < 1e-4, f"beginning {i}")
        session.cache.layers = [{} for _ in session.cache.layers]
        for b in range(n):
            want = session.denoise(noisy[:, b], 1, 3 * b)
            off = (noisy[:, b] - sigma * flow[:2, n + b] - want).abs().max()
            check(off < 1e-4, f"block {b} is {off} away")
            session.commit(clean[:, b])


class Pass:
    """A model that tells what it was given: k and v of a prompt are its token ids."""

    def text(self, ids):
        return [(ids[..., None, None],) * 2]

    def __call__(self, x, t, text, attend):
        self.x, self.sigma, self.ids = x, t / T_MAX, text[0][0][..., 0, 0]
        self.flow = torch.zeros_like(x).requires_grad_()
        return self.flow


def test_teacher(_):
    """First blocks are made under the prompt before a switch, and at the first level of the noise
    that says where the thing is; all that comes after is made under the new one. What comes between
    is not learnt: it was made under another prompt than it is seen under."""
    t, n, nb = make.Training(None, "smoke", make.Ranks("cpu")), 40, 3
    model, drawn, videos = Pass(), [], L.videos

    def recorded(world, encoder, switch, n_blocks):
        drawn.append((switch, *videos(world, encoder, switch, n_blocks)))
        return drawn[-1][1:]

    L.videos = recorded
    try:
        torch.manual_seed(2)
        streams = L.Streams(t.nets["dit"], nb, 4)
        L.teach_loss(t.world, t.nets["encoder"], lambda ids: ids, model, streams, n).backward()
    finally:
        L.videos = videos
    says = lambda ids, scene: (t.world.said[scene] == ids).all(-1).any()
    (switch, x0, noise, scenes, _), (_, more0, more_noise, more_scenes, _) = drawn
    check(0 < (switch < nb).sum() < n, "half of the videos switch")
    learns = model.flow.grad.flatten(2).abs().amax(2) > 0
    check(learns[n:].all(), "all beginnings are learnt")
    for i in range(n):
        is_new = int(switch[i] < nb)
        for s in range(2 * nb):
            block = s - nb
            check(learns[i, s] == (block == 0 or block > 0 and (not is_new or block >= switch[i])),
                  "video", i, "stream", s)
            check(says(model.ids[i, s], scenes[i, is_new if s != nb else 0]), i, s)
    x = torch.cat([model.x[:n, nb], model.x[n:].flatten(0, 1)])
    sigma = torch.cat([model.sigma[:n, nb], model.sigma[n:].flatten()])
    noise, first = torch.cat([noise, more_noise]), torch.cat([x0[:, 0], more0[:, 0]])
    for i, ids in enumerate(model.ids[n:].flatten(0, 1)):
        check(says(ids, more_scenes[i, 0]), "beginning", i)
    for i, s in enumerate(sigma):
        check(torch.equal(x[i], noise[i]) == (s == 1), "noise of beginning", i, "at", s)
        off = (x[i] - (1 - s) * first[i]).std() - s
        check(abs(off) < 0.1, "level of beginning", i, "is", off, "off", s)
    shares = {s: int((L.noised_first(t.world, torch.zeros(4000, 1, 1, 1, 1), torch.zeros(
        4000, 1, 1, 1, 1))[0] == s).sum()) / 4000 for s in SIGMAS}
    others = (1 - L.BEGIN - L.AGAIN) * 0.75 / 4
    for s, more in zip(SIGMAS, (L.BEGIN, L.AGAIN, 0, 0)):
        check(abs(shares[s] - more - others) < 0.04, s, "in", shares[s])


def test_weighed(_):
    """An error of the thing counts seven times another; a block's mean is its own."""
    thing = torch.zeros(2, 3, 1, 4, 4)
    thing[0, :, :, 0], thing[1, :, :, :2] = 1, 1
    for row, want in ((0, 7), (3, 1)):
        error = torch.zeros(2, 3, 5, 4, 4)
        error[:, :, :, row] = 1
        got = L.weighed(error, torch.zeros_like(error), thing)
        for i, share in enumerate((1 / 4, 1 / 2)):
            check(abs(got[i] - want / 4 / (1 + 6 * share)) < 1e-6, row, i, got[i])


def train(work, *args):
    r = subprocess.run([sys.executable, os.path.join(HERE, "make.py"), work, "--size", "smoke",
                        "--device", "cpu", *args], capture_output=True, text=True, timeout=600)
    check(r.returncode == 0, r.stderr[-2000:])
    return "done" in r.stdout


def weights(work):
    return {n: tensors.load(os.path.join(work, n + ".safetensors"))
            for n in ("vae", "text", "dit", "encoder")}


def test_training(tmp):
    """All phases; cut after every few steps, the same weights to the bit."""
    whole, cut = os.path.join(tmp, "whole"), os.path.join(tmp, "cut")
    check(train(whole), "is not done")
    slices = 1
    while not train(cut, "--steps", "7"):
        slices += 1
        check(slices < 9, "is never done")
    check(slices > 1, "was not cut")
    a, b = weights(whole), weights(cut)
    for n in a:
        for k in a[n]:
            if k == "norm.num_batches_tracked":  # of this process only, and of no use
                continue
            check(torch.equal(a[n][k], b[n][k]), n, k, "is another after cuts")
    for f in os.listdir(cut):
        check(os.path.getsize(os.path.join(cut, f)) <= 16 << 20, f, "is larger than 16 MiB")


def shipped():
    return {n: tensors.load(os.path.join(folder, n + ".safetensors"))
            for n, folder in make.SHIPPED.items()}


def test_one_phase(tmp):
    """One phase after what is shipped: all else stays as it is."""
    for phase, trained in (("decoder", {"vae"}), ("teach", {"text", "dit"})):
        work = os.path.join(tmp, phase)
        check(train(work, "--from", phase, "--until", phase), "is not done")
        made, before = weights(work), shipped()
        for n in made:
            same = all(torch.equal(made[n][k], v) for k, v in before[n].items())
            check(same == (n not in trained), n, "is the same" if same else "is another")


def test_start(_):
    """Phases begin with what is shipped, but for what they are the first to learn."""
    names = list(make.PHASES["smoke"])
    for first, last, fresh in (("decoder", "decoder", set()), ("teach", "teach", {"text", "dit"}),
                               ("decoder", "roll", {"text", "dit"}), ("roll", "roll", set())):
        t = make.Training(None, "smoke", make.Ranks("cpu"))
        untrained = {n: {k: v.clone() for k, v in t.nets[n].state_dict().items()} for n in fresh}
        t.start(names.index(first), names.index(last) + 1)
        for n, want in {**shipped(), **untrained}.items():
            got = t.nets[n].state_dict()
            for k, v in want.items():
                check(torch.equal(got[k], v.to(got[k].dtype)), first, last, n, k, "is another")


def two_processes(program):
    """What each prints."""
    env = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
           "MASTER_PORT": str(20000 + os.getpid() % 10000)}
    both = [subprocess.Popen([sys.executable, "-c", program], env={**env, "RANK": str(i)}, cwd=HERE,
                             stdout=subprocess.PIPE, text=True) for i in range(2)]
    return [process.communicate(timeout=300)[0].strip() for process in both]


def test_together(tmp):
    """Two processes have the mean of their gradients, and stop when the first says so."""
    program = ("import torch, make; r = make.Ranks('cpu'); g = [torch.full((2, 3), 1.0 + r.i),"
               "torch.tensor([4.0 * r.i])]; r.mean(g); print([x.flatten().tolist() for x in g],"
               "r.first_says(r.i == 0), r.first_says(r.i == 1))")
    for out in two_processes(program):
        check(out == "[[1.5, 1.5, 1.5, 1.5, 1.5, 1.5], [2.0]] True False", out)


def test_one_encoder(_):
    """What two processes measure of their own clips is the same on both when the VAE is learnt."""
    program = ("import torch, make; torch.set_num_threads(1); r = make.Ranks('cpu');"
               "t = make.Training(None, 'smoke', r); t.at['step'] = 11; t.begin_phase(); t.step();"
               "print(t.at['phase'], t.nets['encoder'].norm.running_mean.tolist(),"
               "t.nets['encoder'].norm.running_var.tolist())")
    one, other = two_processes(program)
    check(one == other and one.startswith("1 ["), one, other)


def test_losses_fall(_):
    """Each phase learns: on one batch again and again its loss falls by a third."""
    t = make.Training(None, "smoke", make.Ranks("cpu"))
    seed = torch.manual_seed
    for phase, steps in ((0, 25), (1, 20), (2, 12), (3, 8)):
        t.at = {"phase": phase, "step": 0}
        t.begin_phase()
        losses = []
        for _ in range(steps):
            seed(7)
            losses.append(float(t.learn(t.loss(), 2e-3)))
        print(f"  phase {phase}: {losses[0]:.3f} to {losses[-1]:.3f}")
        check(losses[-1] < 0.67 * losses[0], losses)


def test_product(tmp):
    """The product, from the exported files and the same noise: the same latents and frames, prompts
    in words and a switch included."""
    t = make.Training(tmp, "smoke", make.Ranks("cpu"))
    torch.manual_seed(3)
    for net in t.nets.values():
        for p in net.parameters():
            p.data += 0.05 * torch.randn_like(p)
    t.export()
    prompts = ["A red ball moves to the right over a blue background.", "zebra, big green cross"]
    tokenizer = Tokenizer(os.path.join(make.CONFIGS, "demo/spiece.model"))
    exported = weights(tmp)
    for n, net in t.nets.items():
        net.double()
        if n != "encoder":
            net.load_state_dict({k: v.double() for k, v in exported[n].items()})
    n_blocks, shape = 6, t.nets["encoder"].shape
    noise = torch.randn(3 * n_blocks, *shape).bfloat16()
    eps = torch.randn(n_blocks, 3, 3, *shape).bfloat16()
    tensors.save(os.path.join(tmp, "noise.safetensors"), {"noise": noise, "eps": eps})
    with torch.no_grad():
        s = Session(t.nets["dit"], lambda b: noise[None, 3 * b:3 * b + 3].double(),
                    lambda b, i: eps[None, b, i].double())
        for b in range(n_blocks):
            if b in (0, 5):
                ids = t.world.ids(tokenizer.encode(prompts[b > 0]))[None]
                s.prompt(t.nets["text"](ids))
            s.block()
        want = torch.cat(s.latents, 1)[0]
        frames = t.nets["vae"].decode(want.transpose(0, 1)[None])[0].permute(1, 2, 3, 0)
    script = os.path.join(tmp, "script.jsonl")
    with open(script, "w", encoding="ascii") as f:
        f.write('{"prompts": ["%s", "%s"], "switch": [15]}\n' % tuple(prompts))
    files = [x for n in ("vae", "text", "dit")
             for x in ("--set", f"model.{n}={os.path.join(tmp, n)}.safetensors")]
    r = subprocess.run(
        ["build/bin/longlived", "generate", "-c", "configs/demo.ini", "--set",
         "model.parity=clean", *files, "--script", script, "--noise",
         os.path.join(tmp, "noise.safetensors"), "--latents", os.path.join(tmp, "out.safetensors"),
         "--quiet", "-o", os.path.join(tmp, "out.y4m")], cwd=ROOT, capture_output=True, text=True)
    check(r.returncode == 0, r.stderr)
    got = tensors.load(os.path.join(tmp, "out.safetensors"))
    far = test_golden.distance(next(iter(got.values())).double().reshape(want.shape), want)
    print(f"  latents of the product: {far:.1e} away")
    check(far < 1e-4, far)
    luma = luma_of(os.path.join(tmp, "out.y4m"))
    rgb = ((frames.clamp(-1, 1) * 0.5 + 0.5) * 255).floor()
    expect = 16 + (65.481 * rgb[..., 0] + 128.553 * rgb[..., 1] + 24.966 * rgb[..., 2]) / 255
    worst = float((luma.double() - expect).abs().max())
    print(f"  brightness of the product: {worst:.2f} away at most")
    check(worst < 2, worst)


def luma_of(path):
    """Y of a .y4m in 4:2:0: [T, SIDE, SIDE]."""
    n = W.SIDE * W.SIDE
    with open(path, "rb") as f:
        f.readline()
        out = []
        while f.readline():
            out.append(torch.frombuffer(bytearray(f.read(n * 3 // 2)), dtype=torch.uint8)[:n])
    return torch.stack(out).reshape(-1, W.SIDE, W.SIDE)


def main():
    torch.set_num_threads(1)
    failed = 0
    tests = [f for k, f in globals().items() if k.startswith("test_") and callable(f)]
    for test in tests:
        if len(sys.argv) > 1 and not any(w in test.__name__ for w in sys.argv[1:]):
            continue
        try:
            with tempfile.TemporaryDirectory() as tmp:
                test(tmp)
            print("ok", test.__name__, flush=True)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            print("not ok", test.__name__, flush=True)
            failed += 1
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
