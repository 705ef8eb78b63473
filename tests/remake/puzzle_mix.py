"""Remakes the part of cyclemix.safetensors that PuzzleMix makes, and the regions that CycleMix keeps.

    python puzzle_mix.py --like DIR                    # compares with DIR/cyclemix.safetensors
    python puzzle_mix.py --like DIR --to DIR2 --seed 7 # writes these keys of it from other inputs

Labels of blocks are calls of gco-wrapper, costs and transport those of `benches/pytorch/puzzle_mix.py`. Needs
torch, numpy, scipy, safetensors and gco-wrapper.
"""

import itertools
import sys

import gco
import numpy
import torch
from common import BENCH_NETWORKS, draw_label_maps, draw_permutations, main, smooth_noise
from scipy import ndimage

sys.path.insert(0, str(BENCH_NETWORKS))
import puzzle_mix

BLOCKS = (2, 4, 8, 16)
WITH_LABELS = (4, 16)
PREFIXES = ("sal.", "mg.", "tr.", "gc.", "cc.")
MOST_LABELLINGS = 3**9
PADDING = 2


def is_input(key):
    """What transport starts from stands among the inputs and follows from the mix."""
    return key.startswith(PREFIXES) and ".in." in key and ".t1." not in key and ".t2." not in key


def energy_of(labels, unary, vertical, horizontal):
    """As gco-wrapper counts, [...] of labels [..., B, B]."""
    square = (unary.shape[-1] - 1) ** 2

    def pairs(one, other):
        return 100 * (one.astype(int) - other) ** 2 // square

    own = numpy.take_along_axis(unary.astype(int)[None], labels[..., None], -1)[..., 0]
    below = vertical * pairs(labels[:, :-1], labels[:, 1:])
    right = horizontal * pairs(labels[:, :, :-1], labels[:, :, 1:])
    return 100_000 * own.sum((1, 2)) + 1000 * (below.sum((1, 2)) + right.sum((1, 2)))


def cut(unary, vertical, horizontal):
    count = unary.shape[-1]
    levels = numpy.linspace(0, 1, count)
    difference = (numpy.subtract.outer(levels, levels) ** 2).astype(numpy.float32)
    costs = (numpy.ascontiguousarray(c, dtype=numpy.int32) for c in (unary, vertical, horizontal))
    unary, vertical, horizontal = costs
    found = gco.cut_grid_graph(unary, difference, vertical, horizontal, algorithm="swap")
    return found.reshape(unary.shape[:2])


def cuts(inputs):
    outputs = {}
    for name in sorted(key.removesuffix(".in.D") for key in inputs if key.endswith(".in.D")):
        costs = [inputs[f"{name}.in.{part}"].numpy() for part in ("D", "wx", "wy")]
        labels = cut(*costs)
        outputs[f"{name}.out.label"] = torch.from_numpy(labels)
        energy = energy_of(labels[None], *costs)
        outputs[f"{name}.out.energy"] = torch.from_numpy(energy)
        blocks, _, count = costs[0].shape
        if count ** (blocks**2) <= MOST_LABELLINGS:
            every = numpy.array(list(itertools.product(range(count), repeat=blocks**2)))
            least = energy_of(every.reshape(-1, blocks, blocks), *costs).min(keepdims=True)
            outputs[f"{name}.out.global_min"] = torch.from_numpy(least)
    return outputs


def sources_of(plan, shown):
    """The patch that comes to each place: -1 for none, -2 where nothing is shown."""
    found, source = plan.max(1)
    source = torch.where(found > 0, source, -1)
    return torch.where(shown.flatten(1) > 0, source, -2)


def transports(inputs):
    outputs = {}
    for side in (8, 16, 32):
        shown = inputs[f"tr.{side}.in.mask_codes"].float()
        distance = puzzle_mix.distances(side)
        plan = puzzle_mix.plan_of(inputs[f"tr.{side}.in.unary"], (shown > 0).float(), distance)
        outputs[f"tr.{side}.out.src"] = sources_of(plan, shown)
    return outputs


def mixes(inputs):
    image, saliency = inputs["mg.in.image"][:, 0], inputs["mg.in.unary"]
    partner, labels = inputs["mg.in.indices"], inputs["mg.in.label"].long()
    one_hot = torch.nn.functional.one_hot(labels, 5).permute(0, 3, 1, 2)
    outputs = {}
    for blocks in BLOCKS:
        size = image.shape[-1]
        share = inputs[f"mg.b{blocks}.in.lam"].item()
        costs, rest = puzzle_mix.terms_of(image, saliency, partner, blocks)
        whole = puzzle_mix.whole_costs(costs, rest, share)
        of_blocks = puzzle_mix.shares_of(image, saliency, partner, blocks, share)
        patch = min(puzzle_mix.PATCH, size // blocks)
        distance = puzzle_mix.distances(size // patch)
        shares, mixed = puzzle_mix.mix(image, saliency, partner, of_blocks, distance)
        unary, vertical, horizontal = map(torch.from_numpy, whole)
        found = {
            "mid.beta": torch.tensor([puzzle_mix.smoothness(blocks)], dtype=torch.float64),
            "mid.u_label0": costs[0],
            "mid.u_labelN": costs[1],
            "mid.pw_x": rest[0],
            "mid.pw_y": rest[1],
            "mid.D_int": unary,
            "mid.wx_int": vertical,
            "mid.wy_int": horizontal,
            "out.block_mask": of_blocks,
            "out.mask_codes": 2 * shares[:, None],
            "out.mixed": mixed[:, None],
            "out.ratio": shares.mean((1, 2)),
        }
        if blocks in WITH_LABELS:
            z = shares[:, None]
            found["out.label_codes"] = 2 * (one_hot * z + one_hot[partner] * (1 - z))
        own = puzzle_mix.block_saliency(saliency, patch)
        of_patches = puzzle_mix.enlarged(of_blocks, size // patch // blocks)
        sides = ((own, of_patches), (own[partner], 1 - of_patches))
        for number, (unary, shown) in enumerate(sides, 1):
            plan = puzzle_mix.plan_of(unary, (shown > 0).float(), distance)
            found[f"t{number}.in.unary"] = unary
            found[f"t{number}.in.mask"] = shown[:, None]
            found[f"t{number}.out.src"] = sources_of(plan, shown)
        outputs |= {f"mg.b{blocks}.{key}": value for key, value in found.items()}
    return outputs


def saliencies(inputs):
    unary = inputs["sal.in.grad"].square().mean(1).sqrt()
    padded = torch.nn.functional.pad(unary, [PADDING] * 4)
    outputs = {"sal.out.unary": unary, "sal.out.unary_pad2": padded}
    for blocks in BLOCKS[:3]:
        shares = puzzle_mix.block_saliency(unary, unary.shape[-1] // blocks)
        outputs[f"sal.b{blocks}.out.blocks"] = shares
    return outputs


def largest(region):
    parts, count = ndimage.label(region)
    if count == 0:
        return region
    # The first of the largest: parts are numbered as they begin.
    return parts == 1 + numpy.bincount(parts.ravel())[1:].argmax()


def main_regions(labels):
    body = largest(labels > 0)
    kept = numpy.zeros_like(labels)
    for value in (1, 2, 3):
        kept[largest(labels == value) & body] = value
    return kept


def compute(inputs):
    regions = numpy.stack([main_regions(labels) for labels in inputs["cc.in.label"].numpy()])
    outputs = {"cc.out.label": torch.from_numpy(regions)}
    return outputs | saliencies(inputs) | mixes(inputs) | transports(inputs) | cuts(inputs)


def within_32_bits(outputs):
    """Whether the costs of blocks stay below where gco-wrapper loses its upper bits."""
    return all(outputs[f"mg.b{blocks}.mid.D_int"].abs().max() < 2**31 // 100_000 for blocks in BLOCKS)


def draw_saliency(shape, random):
    """Positive, and high in places."""
    noise = smooth_noise(shape, 2.0, random)
    return torch.from_numpy(numpy.exp(noise / noise.std())).float()


def draw_mask_codes(side, random):
    codes = random.integers(0, 3, (2, side // 2, side // 2))
    return torch.from_numpy(codes.repeat(2, 1).repeat(2, 2)).to(torch.uint8)


def draw(stored, random):
    drawn = {}
    for key, old in stored.items():
        if key.startswith("gc."):
            # Few values make many ties.
            most = int(old.max()) if random.random() < 0.7 else 4
            drawn[key] = torch.from_numpy(random.integers(0, most + 1, old.shape))
        elif key.endswith(".lam"):
            drawn[key] = torch.tensor([random.beta(0.5, 0.5)])
    images = smooth_noise(stored["mg.in.image"].shape, 1.5, random)
    drawn["mg.in.image"] = torch.from_numpy(images / images.std()).float()
    drawn["mg.in.unary"] = draw_saliency(stored["mg.in.unary"].shape, random)
    drawn["mg.in.indices"] = draw_permutations(stored["mg.in.indices"].shape, random)
    drawn["mg.in.label"] = draw_label_maps(stored["mg.in.label"].shape, random, classes=5)
    for side in (8, 16, 32):
        saliency = draw_saliency((2, side, side), random)
        drawn[f"tr.{side}.in.unary"] = saliency / saliency.flatten(1).sum(1)[:, None, None]
        drawn[f"tr.{side}.in.mask_codes"] = draw_mask_codes(side, random)
    gradient = random.standard_normal(stored["sal.in.grad"].shape)
    drawn["sal.in.grad"] = torch.from_numpy(gradient).float()
    drawn["cc.in.label"] = draw_label_maps(stored["cc.in.label"].shape, random, width=1.2)
    return drawn


if __name__ == "__main__":
    main("cyclemix", compute, draw, accept=within_32_bits, is_input=is_input)
