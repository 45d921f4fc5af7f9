"""losses.py - what is learnt, in LongLive's order: pictures to latents and back; the flow of every
block given the true blocks before it, all blocks of a video in one pass; the same in videos that the
model makes itself, by its four steps, from its own blocks."""
import torch
from torch.nn import functional as F

from dit import Rope, attention
from rollout import SIGMAS, T_MAX, Session, sigma_of
from world import place_of

BLOCK, WINDOW = 3, 12  # latent frames; the sink is one block
POSTERIOR = 0.6  # the most deviation of the noise on latents under which the decoder learns
CONTEXT = 0.4    # the most noise on the true blocks that a later one is given
THING = 7.0      # how much more a pixel of the thing weighs: they are few, and all that is hard
AROUND = 2       # pixels, how far beyond its edge that goes: a corner is made of both sides
FLOW = 6.0       # the same for the flow of a latent pixel in which the thing is, or beside it
# What a video shows is decided in its first block: at the first level out of nothing but noise and
# text, and at the second again, where little of what the first found stands in the noise. Shares of
# first blocks that learn these levels beside what all learn, and how much one counts.
BEGIN, AGAIN, FIRST = 0.4, 0.3, 2.0
# How far, in a channel, a pixel of the thing is from its picture's mean at least: things are 0.55 away
# and more, the background is within 0.25, as a big thing covers an eighth of the picture.
FAR = 0.35


def vae_loss(world, encoder, vae, n, n_latents, side):
    """side: of the part of the picture that is learnt, a multiple of 8; the thing begins in it."""
    switch = BLOCK * world.pick((n_latents + BLOCK - 1) // BLOCK, n)
    with torch.no_grad():
        place = (side + 24) * world.random(n, 2) - 12
        x = world.clip(world.scene_pairs(n), switch, n_latents, place,
                       48 * world.random(n))[..., :side, :side]
    z = encoder(x)
    some = POSTERIOR * world.random(n, 1, 1, 1, 1)
    y = vae.decode(z + some * torch.randn_like(z)).float()
    thing = F.max_pool3d(thing_of(x), (1, 2 * AROUND + 1, 2 * AROUND + 1), 1, (0, AROUND, AROUND))
    error = (y - x).abs() + 2 * (y - x).pow(2)
    return ((1 + THING * thing) * error).mean()


def thing_of(x):
    """Pictures [B, 3, f, Y, X] -> [B, 1, f, Y, X], 1 where the thing is, else 0."""
    return ((x - x.mean((3, 4), keepdim=True)).abs().amax(1, keepdim=True) > FAR).float()


def things_latents(thing):
    """[B, 1, 1 + 4(T - 1), 8Y, 8X] -> [B, T, 1, Y, X]: of each latent pixel, and of those beside it,
    whether the thing is in one of its pictures."""
    near = F.max_pool2d(F.max_pool2d(thing.flatten(0, 2), 8), 3, 1, 1)
    near = near.unflatten(0, (len(thing), -1))
    four = near[:, 1:].unflatten(1, (-1, 4)).amax(2)
    return torch.cat([near[:, :1], four], 1)[:, :, None]


class Streams:
    """What the blocks of a video see in one pass. Streams 0 to n - 1 are its clean blocks, which see
    clean blocks; n to 2n - 1 noisy ones, which see the clean ones before them. Time is relative:
    the sink stays as far before a block as the window is long. The last `alone` rows of a batch are
    no videos: each of their 2n streams is a block that sees only itself, as a first one does."""

    def __init__(self, model, n, alone):
        c, p = model.c, next(model.parameters())
        rope = Rope(c["dim"] // c["heads"], c["rows"] // 2, c["cols"] // 2, p.device)
        table = lambda at: rope.table(at, torch.float32).unflatten(0, (n, -1))
        self.n, self.alone = n, alone
        self.own = table(range(BLOCK * n))
        self.sink = table([max(0, BLOCK * (b + 1) - WINDOW) + i
                           for b in range(n) for i in range(BLOCK)])
        full = WINDOW // BLOCK - 1  # the first block that sees a whole window
        ends = [b + 1 for b in range(min(n, full))] + [n] * (n > full)
        self.alike = list(zip([0] + ends[:-1], ends))  # blocks that see equally many

    def attend(self, layer, q, k, v):
        q, k, v = (x.unflatten(1, (2, self.n)) for x in (q, k, v))
        q, turned = Rope.turn(q, self.own), Rope.turn(k, self.own)
        # bf16 and f32 meet in autocast: values say which
        q, turned, videos = q.to(v.dtype), turned.to(v.dtype), len(q) - self.alone
        begun = attention(q[videos:], turned[videos:], v[videos:])
        q, k, v, turned = q[:videos], k[:videos], v[:videos], turned[:videos]
        sink = Rope.turn(k[:, 0, :1].expand(-1, self.n, -1, -1, -1), self.sink).to(v.dtype)
        twice = lambda x: x[:, None].expand(-1, 2, -1, -1, -1, -1)
        out = []
        for first, end in self.alike:
            keys, values = [turned[:, :, first:end]], [v[:, :, first:end]]
            for i in range(1, first):  # the blocks before, but for the sink
                keys.append(twice(turned[:, 0, first - i:end - i]))
                values.append(twice(v[:, 0, first - i:end - i]))
            if first > 0:
                keys.append(twice(sink[:, first:end]))
                values.append(twice(v[:, 0, :1].expand(-1, end - first, -1, -1, -1)))
            out.append(attention(q[:, :, first:end], torch.cat(keys, 3), torch.cat(values, 3)))
        return torch.cat([torch.cat(out, 2), begun]).flatten(1, 2)


def levels(n, m, world):
    """Noise levels [n, m]: three in four are the sampler's, the others lie between."""
    steps = 1 - world.pick(len(SIGMAS), n, m) / len(SIGMAS)
    return sigma_of(torch.where(world.random(n, m) < 0.75, steps, world.random(n, m)))


def noised_first(world, x0, noise):
    """First blocks [n, F, z, Y, X] at levels of their own: those [n], noise [n, F, z, Y, X]. At the
    first level the noise is that which says where the thing is."""
    n, draw = len(x0), world.random(len(x0))
    sigma = torch.where(draw < BEGIN, SIGMAS[0], levels(n, 1, world)[:, 0])
    sigma = torch.where((draw >= BEGIN) & (draw < BEGIN + AGAIN), SIGMAS[1], sigma)
    at_first = (sigma == SIGMAS[0])[:, None, None, None, None]
    return sigma, torch.where(at_first, noise, torch.randn_like(x0))


def flow_error(got, want, sigma):
    """x0 of both, as the difference of their flows."""
    return ((got - want) / sigma).float().pow(2).mean((-4, -3, -2, -1))


def videos(world, encoder, switch, n_blocks):
    """Videos whose prompts change before block switch [n], or never where that is n_blocks: true
    blocks [n, n_blocks, F, z, Y, X], the first one's noise, scenes [n, 2], and where the thing is
    [n, n_blocks, F, 1, Y, X]."""
    n = len(switch)
    noise = torch.randn(n, BLOCK, *encoder.shape, device=world.device)
    place, phase = place_of(noise)
    scenes = world.scene_pairs(n)
    with torch.no_grad():
        pictures = world.clip(scenes, BLOCK * switch, BLOCK * n_blocks, place, phase)
        z, thing = encoder(pictures).float().transpose(1, 2), things_latents(thing_of(pictures))
    blocks = lambda t: t.unflatten(1, (n_blocks, BLOCK))
    return blocks(z), noise, scenes, blocks(thing)


def beginnings(world, encoder, rows, n):
    """First blocks of rows * n videos: true blocks [rows, n, F, z, Y, X], levels [rows, n], noise,
    token ids [rows, n, L], and where the thing is [rows, n, F, 1, Y, X]."""
    never = torch.full((rows * n,), 1, device=world.device)
    x0, noise, scenes, thing = videos(world, encoder, never, 1)
    x0, thing = x0[:, 0], thing[:, 0]
    sigma, eps = noised_first(world, x0, noise)
    return [t.unflatten(0, (rows, n))
            for t in (x0, sigma, eps, world.prompts(scenes[:, 0]), thing)]


def teach_loss(world, encoder, text, model, streams, n):
    """Teacher forcing: n videos, and first blocks of 2 * streams.n others in each of streams.alone
    rows more. After a switch, blocks before it are seen under the new prompt, as the pass over them
    computes the cache anew; the sink keeps the old one once the window is full. A noisy first block
    sees only itself, under the prompt that it was made under."""
    nb = streams.n
    switch = torch.where(world.random(n) < 0.5, 1 + world.pick(nb - 1, n), nb)
    x0, noise0, scenes, thing = videos(world, encoder, switch, nb)
    sigma, eps = levels(n, nb, world), torch.randn_like(x0)
    sigma[:, 0], eps[:, 0] = noised_first(world, x0[:, 0], noise0)
    some = CONTEXT * (world.random(n, nb) * (world.random(n, 1) < 0.7))[..., None, None, None, None]
    more = beginnings(world, encoder, streams.alone, 2 * nb)
    more0, more_sigma, more_eps, more_ids, more_thing = more

    times = torch.cat([torch.cat([torch.zeros_like(sigma), sigma], 1), more_sigma])
    sigma, more_sigma = (s[..., None, None, None, None] for s in (sigma, more_sigma))
    x = torch.cat([torch.cat([x0 + some * torch.randn_like(x0), (1 - sigma) * x0 + sigma * eps], 1),
                   (1 - more_sigma) * more0 + more_sigma * more_eps])
    is_new = (switch < nb)[:, None].expand(-1, 2 * nb).clone()
    is_new[:, 0] &= switch * BLOCK <= WINDOW
    is_new[:, nb] = False

    def of_streams(t):
        """k or v of the videos' old prompts, their new ones and the beginnings'. An indexed choice
        would have gradients whose sums depend on the order in which threads come by."""
        old, new, rest = t.split([n, n, len(t) - 2 * n])
        old = torch.where(is_new[..., None, None, None], new[:, None], old[:, None])
        return torch.cat([old, rest.unflatten(0, (streams.alone, 2 * nb))])

    ids = torch.cat([*world.prompts(scenes).unbind(1), more_ids.flatten(0, 1)])
    kv = [[of_streams(t) for t in layer] for layer in model.text(text(ids))]
    flow = model(x, T_MAX * times, kv, streams.attend).float()

    counts = (torch.arange(nb, device=x.device)[None] >= switch[:, None]).float()
    counts = torch.where((switch == nb)[:, None], 1.0, counts)
    counts[:, 0] = FIRST
    error = torch.cat([weighed(flow[:n, nb:], eps - x0, thing).mul(counts).flatten(),
                       FIRST * weighed(flow[n:], more_eps - more0, more_thing).flatten()])
    return error.sum() / (counts.sum() + FIRST * more_sigma.numel())


def weighed(flow, want, thing):
    """The mean [...] of a block's squared errors [..., F, z, Y, X], the thing's heavier. Weights are
    shares of the block's own: a small thing is as much as a big one."""
    weight = 1 + FLOW * thing
    error = (weight * (flow - want).pow(2)).mean((-4, -3, -2, -1))
    return error / weight.mean((-4, -3, -2, -1))


def roll_loss(world, encoder, text, model, n, n_blocks):
    """Self-forcing: the model's own blocks, each from its four steps, one of which learns. The first
    block is the true one: what follows is known only for that."""
    switch = min(1 + int(world.pick(2 * n_blocks, 1)), n_blocks)  # one for all
    switches = torch.full((n,), switch, device=world.device)
    x0, _, scenes, _ = videos(world, encoder, switches, n_blocks)
    embeds = [text(ids) for ids in world.prompts(scenes).unbind(1)]
    draw = lambda *_: torch.randn_like(x0[:, 0])
    s = Session(model, draw, draw)
    s.prompt(embeds[0])
    with torch.no_grad():
        s.commit(x0[:, 0])
    loss = 0.0
    for b in range(1, n_blocks):
        if b == switch:
            s.prompt(embeds[1])
        learns = int(world.pick(len(SIGMAS), 1))
        x, start = s.noise(b), b * BLOCK
        for i, sigma in enumerate(SIGMAS):
            x = s.renoise(x, i)
            with torch.set_grad_enabled(i == learns):
                x = s.denoise(x, i, start).float()
            if i == learns:
                loss = loss + flow_error(x, x0[:, b], sigma).mean()
                x = x.detach()
        with torch.no_grad():
            s.commit(x)
    return loss / (n_blocks - 1)
