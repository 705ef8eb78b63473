"""PuzzleMix of a batch as it is published: gco-wrapper for the blocks, dense costs of all pairs of patches.

    python puzzle_mix.py BATCH.safetensors BLOCKS SHARE MIX.safetensors

BATCH holds `image` and `saliency` (f32 [N, S, S]) and `partner` (i64 [N]); `cargo bench --bench puzzle_mix`
writes it and calls this script. Mixes with so many blocks along a side and this share of the own image, writes
`share` and `mixed` (f32 [N, S, S]), and prints one JSON line: the milliseconds of the shares, a median, and of
the whole mix, once. Needs gco-wrapper, torch and safetensors.
"""

import json
import math
import sys
import time

import gco
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

LABELS = 3
BETA, GAMMA, ETA = 1.2, 0.5, 0.2
SQUARE = PATCH = 4
DISTANCE_WEIGHT = 0.8
REPEATS = 21
LEVELS = np.linspace(0, 1, LABELS)
DIFFERENCE = (np.subtract.outer(LEVELS, LEVELS) ** 2).astype(np.float32)


def means(maps, side):
    return F.avg_pool2d(maps[:, None], side)[:, 0]


def block_saliency(saliency, side):
    pooled = means(saliency, side)
    return pooled / pooled.flatten(1).sum(1)[:, None, None]


def borders(near, far, along):
    """Costs of the borders below and to the right of blocks, [N, B - 1, B] and [N, B, B - 1]."""
    below = (near[:, :-1] - far[:, 1:])[:, along - 1 :: along].abs()
    right = (near[:, :, :-1] - far[:, :, 1:])[:, :, along - 1 :: along].abs()
    below = F.avg_pool2d(below[:, None], (1, along))[:, 0]
    return below, F.avg_pool2d(right[:, None], (along, 1))[:, 0]


def terms_of(image, saliency, partner, blocks):
    """Costs of showing the own image and the partner's, two of [N, B, B], and what borders cost beside that."""
    side = image.shape[-1] // blocks
    along = side // min(SQUARE, side)
    own = block_saliency(saliency, side)
    squares = means(image * 0.5 + 0.5, min(SQUARE, side))
    pair = (squares, squares[partner])
    terms = [[borders(near, far, along) for far in pair] for near in pair]
    costs, rest = [own[partner].clone(), own.clone()], []
    for axis in (0, 1):
        strength = smoothness(blocks) * GAMMA
        v = [[strength * terms[near][far][axis] for far in (0, 1)] for near in (0, 1)]
        for picture, cost in enumerate(costs):
            near, far = (cost.narrow(axis + 1, start, blocks - 1) for start in (0, 1))
            near += (v[picture][0] + v[picture][1]) / 2
            far += (v[0][picture] + v[1][picture]) / 2
        rest.append((v[0][1] + v[1][0] - v[0][0] - v[1][1]) / 2)
    return costs, rest


def smoothness(blocks):
    return BETA / blocks / 16


def whole_costs(costs, rest, share):
    """In whole numbers: [N, B, B, 3] of labels, [N, B - 1, B] and [N, B, B - 1] of borders."""
    blocks = costs[0].shape[-1]
    units = 1000 * blocks**2
    chances = [share**2, 2 * share * (1 - share), (1 - share) ** 2]
    prior = [-ETA * math.log(chance + 1e-8) / blocks**2 for chance in chances]
    first, second = (cost.numpy() for cost in costs)
    unary = [(1 - s) * first + s * second + p for s, p in zip(LEVELS, prior)]
    unary = (units * np.stack(unary, -1)).astype(np.int32)
    return unary, *((units * (r.numpy() + smoothness(blocks))).astype(np.int32) for r in rest)


def shares_of(image, saliency, partner, blocks, share):
    """The share of the own image in each block, [N, B, B]."""
    costs = whole_costs(*terms_of(image, saliency, partner, blocks), share)
    found = [
        gco.cut_grid_graph(unary, DIFFERENCE, vertical, horizontal, algorithm="swap")
        for unary, vertical, horizontal in zip(*costs)
    ]
    labels = np.stack(found).reshape(-1, blocks, blocks)
    return torch.from_numpy(1 - labels / (LABELS - 1)).float()


def distances(side):
    """Squared distances of all pairs of patches, as shares of a squared side."""
    place = torch.stack(torch.meshgrid(*[torch.arange(side)] * 2, indexing="ij"), -1).view(-1, 2)
    squared = (place[:, None] - place[None]).pow(2).sum(-1)
    return squared.float() / (side - 1) ** 2


def plan_of(saliency, shown, distance):
    """Which patch, [N, P, :], goes to which place, [N, :, P]."""
    cost = DISTANCE_WEIGHT * distance - saliency.flatten(1)[:, :, None] * shown.flatten(1)[:, None]
    for _ in range(saliency.shape[-1]):
        pick = cost.argmin(2, keepdim=True)
        picked = torch.zeros_like(cost).scatter_(2, pick, 1)
        winner = (picked * cost).argmin(1, keepdim=True)
        won = torch.zeros_like(cost).scatter_(1, winner, 1) * picked
        cost += picked - won
    return won


def moved(image, plan, side):
    count, size = image.shape[0], image.shape[-1]
    patch = size // side
    patches = image.view(count, side, patch, side, patch).transpose(2, 3)
    patches = plan.transpose(1, 2) @ patches.reshape(count, side * side, patch * patch)
    patches = patches.view(count, side, side, patch, patch).transpose(2, 3)
    return patches.reshape(count, size, size)


def enlarged(maps, factor):
    return maps.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def mix(image, saliency, partner, of_blocks, distance):
    size, blocks = image.shape[-1], of_blocks.shape[-1]
    patch = min(PATCH, size // blocks)
    side = size // patch
    own = block_saliency(saliency, patch)
    of_patches = enlarged(of_blocks, side // blocks)
    plans = (
        plan_of(own, (of_patches > 0).float(), distance),
        plan_of(own[partner], (of_patches < 1).float(), distance),
    )
    of_pixels = enlarged(of_blocks, size // blocks)
    first, second = (moved(i, p, side) for i, p in zip((image, image[partner]), plans))
    return of_pixels, of_pixels * first + (1 - of_pixels) * second


def main():
    file, blocks, share, to = sys.argv[1:]
    blocks, share = int(blocks), float(share)
    torch.set_num_threads(1)
    batch = load_file(file)
    image, saliency, partner = batch["image"], batch["saliency"], batch["partner"]
    # The distances are made once for a training.
    distance = distances(image.shape[-1] // PATCH)
    shares_ms = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        of_blocks = shares_of(image, saliency, partner, blocks, share)
        shares_ms.append((time.perf_counter() - start) * 1e3)
    start = time.perf_counter()
    shares, mixed = mix(image, saliency, partner, of_blocks, distance)
    shares_ms = sorted(shares_ms)[REPEATS // 2]
    mix_ms = shares_ms + (time.perf_counter() - start) * 1e3
    save_file({"share": shares, "mixed": mixed}, to)
    print(json.dumps({"shares_ms": shares_ms, "mix_ms": mix_ms}))


if __name__ == "__main__":
    main()
