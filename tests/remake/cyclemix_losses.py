"""Remakes the part of cyclemix.safetensors that losses and rotations make.

    python cyclemix_losses.py --like DIR                    # compares with DIR/cyclemix.safetensors
    python cyclemix_losses.py --like DIR --to DIR2 --seed 7 # writes these keys of it from other inputs

Needs torch, numpy, scipy and safetensors.
"""

import numpy
import torch
from common import draw_label_maps, draw_normal, draw_permutations, main
from scipy import ndimage
from torch.nn import functional

PREFIXES = ("pce.", "local.", "global.", "rot.")
CONSISTENCY = 0.1
QUARTERS = (45, 90, 180, 270)


def is_input(key):
    return key.startswith(PREFIXES) and ".in." in key


def leaf(tensor):
    return tensor.double().requires_grad_()


def with_gradients(loss, **leaves):
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {f"grad.{name}": found for name, found in zip(leaves, gradients, strict=True)} | {
        "out.loss": loss.reshape(1)
    }


def cross_entropy(p, target):
    return -(target[:, : p.shape[1]] * (p + 1e-12).log()).sum(1).mean()


def apart(a, b):
    """At a vector that is zero the gradient is formal: b divided by the length that stands for 0."""
    return CONSISTENCY * (1 - functional.cosine_similarity(a, b, dim=1, eps=1e-8).mean())


def largest(mask):
    regions, count = ndimage.label(mask)
    sizes = numpy.bincount(regions.ravel(), minlength=count + 1)[1:]
    return regions == sizes.argmax() + 1 if count else mask


def filtered(labels):
    """Of [H, W]: each class in its largest region, as far as that lies in the largest one above 0."""
    kept = numpy.zeros_like(labels)
    for label in range(1, 4):
        kept[largest(labels == label)] = label
    return numpy.where(largest(labels > 0), kept, 0)


def local(p):
    found = p.detach().argmax(1).numpy().astype(numpy.uint8)
    labels = torch.from_numpy(numpy.stack([filtered(labels) for labels in found]))
    target = functional.one_hot(labels.long(), p.shape[1]).movedim(-1, 1)
    return {"mid.label": labels[:, None]} | with_gradients(apart(p, target.double()), prob=p)


def consistency(inputs):
    plain, cut = (leaf(inputs[f"global.in.prob_{name}"]) for name in ("orig", "cut"))
    share, keep = inputs["global.in.mask"].double(), inputs["global.in.cutmask"].double()
    mixed = (plain * share + plain[inputs["global.in.indices"]] * (1 - share)) * keep
    return with_gradients(apart(cut, mixed), prob_orig=plain, prob_cut=cut)


def rotated(maps, degrees):
    """Of [N, C, H, W]: nearest pixels in double precision."""
    rows, columns = maps.shape[2:]
    down, right = numpy.indices((rows, columns))
    down, right = down - (rows - 1) / 2, right - (columns - 1) / 2
    out = torch.zeros_like(maps)
    for number, angle in enumerate(numpy.radians(degrees)):
        column = numpy.rint(numpy.cos(angle) * right - numpy.sin(angle) * down + (columns - 1) / 2)
        row = numpy.rint(numpy.sin(angle) * right + numpy.cos(angle) * down + (rows - 1) / 2)
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        from_row, from_column = (place[inside].astype(int) for place in (row, column))
        out[number][:, inside] = maps[number][:, from_row, from_column]
    return out


def rotations(inputs):
    grid = torch.arange(64.0).view(1, 1, 8, 8)
    outputs = {f"rot.grid8.out.{angle}": rotated(grid, [angle]) for angle in QUARTERS}
    for extents in ("even", "odd"):
        angles = inputs[f"rot.{extents}.in.angle"].numpy()
        for name, back in (("image", "back"), ("label", "label_back")):
            there = rotated(inputs[f"rot.{extents}.in.{name}"], angles)
            outputs[f"rot.{extents}.out.{name}"] = there
            outputs[f"rot.{extents}.out.{back}"] = rotated(there, -angles)
    return outputs


def compute(inputs):
    p = leaf(inputs["pce.in.prob"])
    supervised = cross_entropy(p, inputs["pce.in.target"].double())
    groups = {
        "pce": with_gradients(supervised, prob=p),
        "local": local(leaf(inputs["local.in.prob"])),
        "global": consistency(inputs),
    }
    outputs = rotations(inputs)
    for group, found in groups.items():
        outputs |= {f"{group}.{key}": tensor for key, tensor in found.items()}
    return outputs


def draw_mixed_labels(shape, random):
    """Means of two label maps of which the last class is not annotated, a square hidden."""
    maps = [draw_label_maps((shape[0], *shape[2:]), random, classes=shape[1]) for _ in range(2)]
    one_hot = [functional.one_hot(labels.long(), shape[1]).movedim(-1, 1) for labels in maps]
    mixed = (one_hot[0] + one_hot[1]).float() / 2
    row, column = random.integers(0, shape[-1] - 8, 2)
    mixed[..., row : row + 8, column : column + 8] = 0
    return mixed


def draw(stored, random):
    drawn = {key: draw_normal(old.shape, random, 2.0) for key, old in stored.items()}
    drawn = {key: noise.softmax(1) if ".prob" in key else noise for key, noise in drawn.items()}
    drawn["pce.in.target"] = draw_mixed_labels(stored["pce.in.target"].shape, random)
    shape = stored["global.in.mask"].shape
    drawn["global.in.mask"] = torch.from_numpy(random.integers(0, 3, shape)).float() / 2
    drawn["global.in.cutmask"] = torch.from_numpy(random.random(shape) > 0.1).to(torch.uint8)
    drawn["global.in.indices"] = draw_permutations(stored["global.in.indices"].shape, random)
    # What a rotation did not find.
    drawn["global.in.prob_cut"] *= torch.from_numpy(random.random(shape) > 0.05)
    for extents in ("even", "odd"):
        shape = stored[f"rot.{extents}.in.label"].shape
        drawn[f"rot.{extents}.in.label"] = draw_label_maps(shape, random)
        angles = random.uniform(0, 360, stored[f"rot.{extents}.in.angle"].shape)
        drawn[f"rot.{extents}.in.angle"] = torch.from_numpy(angles)
    return drawn


if __name__ == "__main__":
    main("cyclemix", compute, draw, is_input=is_input)
