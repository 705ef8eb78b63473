"""Remakes volumetric.safetensors: the U-Net over volumes, and every loss of volumes.

    python volumetric.py --like DIR                    # compares with DIR/volumetric.safetensors
    python volumetric.py --like DIR --to DIR2 --seed 7 # writes one from other inputs

Nobody has published these for scribbles: they are computed from their definitions, in double precision with
autograd. Needs torch, numpy, scipy and safetensors.
"""

import itertools
import math
import sys

import torch
from torch.nn import functional as F

import common
from common import IGNORE

sys.path.insert(0, str(common.BENCH_NETWORKS))
from unet_3d import UNet3d  # noqa: E402

CLASSES = 3
SHAPE = (4, 5, 6)
"""Slices, rows and columns of the volumes of the losses."""
NETWORKS = {
    # All axes alike, until the slices are few.
    "cubes": ((8, 16, 16), ((3, 3, 3),) * 4, ((2, 2, 2), (1, 2, 2), (1, 1, 1))),
    # Slices 5 mm apart and pixels of 1 mm.
    "slices": ((6, 16, 16), ((1, 3, 3),) * 2 + ((3, 3, 3),) * 2, ((1, 2, 2), (1, 2, 2), (1, 1, 1))),
}
"""Extents of a sample, taps of the levels, pooling between them."""
KERNELS = [(0.9, 2.0, 3.0, 0.3), (0.4, 4.0, 1.5, None)]
"""Weight and the sigmas of pixels, of slices and of intensities of the gated CRF."""
RADIUS = (1, 2, 3)
"""In slices, rows and columns."""


def cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels.long(), ignore_index=IGNORE)


def dice(p, labels):
    """Over the annotated voxels; with all of them annotated the ordinary one."""
    known = (labels != IGNORE).double()
    scores = []
    for number in range(CLASSES):
        hit = (labels == number).double()
        overlap, predicted = (p[:, number] * hit).sum(), (p[:, number] ** 2 * known).sum()
        scores.append((2 * overlap + 1e-5) / (predicted + hit.sum() + 1e-5))
    return 1 - sum(scores) / CLASSES


def entropy(p):
    return -(p * (p + 1e-6).log()).sum(1).mean() / math.log(CLASSES)


def smallest(maps):
    """Of the 27 voxels around each, without those outside."""
    padded = F.pad(maps, (1,) * 6, value=math.inf)
    depth, height, width = maps.shape[2:]
    cut = lambda z, y, x: padded[:, :, z : z + depth, y : y + height, x : x + width]  # noqa: E731
    return torch.stack([cut(*offset) for offset in itertools.product(range(3), repeat=3)]).amin(0)


def contour(p):
    """Opening minus erosion."""
    eroded = smallest(p)
    return (-smallest(-eroded) - eroded).clamp_min(0)


def variation(maps):
    return sum(maps.diff(dim=axis).abs().sum() for axis in (2, 3, 4))


def level(weight, values):
    mean = (weight * values).sum((2, 3, 4), keepdim=True) / weight.sum((2, 3, 4), keepdim=True)
    return (weight * (values - mean) ** 2).sum()


def intensity_variance(p, image):
    products = p * image
    return products.mean((2, 3, 4)).std(1).mean() - products.flatten(2).std(2).mean()


def pair_weight(dz, dy, dx, difference):
    total = 0
    for weight, pixels, slices, intensity in KERNELS:
        exponent = (dy**2 + dx**2) / (2 * pixels**2) + dz**2 / (2 * slices**2)
        if intensity is not None:
            exponent = exponent + difference**2 / (2 * intensity**2)
        total = total + weight * math.exp(-exponent)
    return total


def gated_crf(p, image, source=None, destination=None):
    """One pair of voxels after the other, those with one outside included unless a mask says what is looked at."""
    volume = image.shape[2:]
    inside = set(itertools.product(*map(range, volume)))
    pairs = torch.zeros(p.shape[0], *volume, *volume, dtype=torch.float64)
    outside = 0.0
    for n, at in itertools.product(range(p.shape[0]), inside):
        if destination is not None and destination[(n, 0, *at)] < 1:
            continue
        here = image[(n, 0, *at)].item()
        for offset in itertools.product(*(range(-radius, radius + 1) for radius in RADIUS)):
            other = tuple(a + b for a, b in zip(at, offset, strict=True))
            if offset == (0, 0, 0):
                continue
            if other not in inside:
                # As if it lay in the first corner, without intensity and without a class.
                outside += 0.0 if source is not None else pair_weight(*at, here)
            elif source is None or source[(n, 0, *other)] >= 1:
                pairs[(n, *at, *other)] = pair_weight(*offset, here - image[(n, 0, *other)].item())
    alike = torch.einsum("nczyx,nzyxijk,ncijk->", p, pairs, p)
    counted = destination if destination is not None else source
    pixels = image.numel() if counted is None else max(1, (counted >= 1).sum().item())
    return (pairs.sum() + outside - alike) / pixels


def losses(inputs):
    """By key, what is made of logits."""
    image = inputs["in.image"].double()
    label, scribble, source, destination = (
        inputs[f"in.{name}"] for name in ("label", "scribble", "source", "destination")
    )
    of_p = {
        "dice": lambda p: dice(p, label),
        "pdice": lambda p: dice(p, scribble),
        "entropy": entropy,
        "contour_all": lambda p: contour(p).mean(),
        "contour_foreground": lambda p: contour(p[:, 1:]).mean(),
        "contour_as_coded": lambda p: contour(p[1:]).mean(),
        "mumford_published": lambda p: level(image, p) + variation(image),
        "mumford_head": lambda p: level(image, p) + variation(p),
        "mumford_kimye": lambda p: level(p, image) + variation(p),
        "intensity_variance": lambda p: intensity_variance(p, image),
        "crf": lambda p: gated_crf(p, image),
        "crf_source": lambda p: gated_crf(p, image, source),
        "crf_destination": lambda p: gated_crf(p, image, destination=destination),
        "crf_both": lambda p: gated_crf(p, image, source, destination),
    }
    found = {name: lambda z, term=term: term(z.softmax(1)) for name, term in of_p.items()}
    found["pce"] = lambda z: cross_entropy(z, scribble)
    found["ce"] = lambda z: cross_entropy(z, label)
    return found


def network(name, inputs):
    _, taps, pooling = NETWORKS[name]
    net = common.without_dropout(common.fill(UNet3d(1, CLASSES, taps, pooling)))
    image, label = inputs[f"{name}.in.image"].double(), inputs[f"{name}.in.scribble"]
    with torch.no_grad():
        evaluated = net.eval()(image)
    logits = net.train()(image)
    loss = cross_entropy(logits, label)
    loss.backward()
    return {
        f"{name}.out.evaluated": evaluated,
        f"{name}.out.trained": logits,
        f"{name}.out.loss": loss.reshape(1),
        f"{name}.out.state": common.sums(entry for _, entry in common.floating_state(net)),
        f"{name}.out.gradients": common.sums(parameter.grad for parameter in net.parameters()),
    }


def compute(inputs):
    outputs = {}
    for name, loss in losses(inputs).items():
        logits = inputs["in.logits"].double().requires_grad_()
        value = loss(logits)
        outputs[f"{name}.out.loss"] = value.detach().reshape(1)
        outputs[f"{name}.grad.logits"] = torch.autograd.grad(value, logits)[0]
    for name in NETWORKS:
        outputs |= network(name, inputs)
    return outputs


def draw(_given, random):
    maps = (2, 1, *SHAPE)
    inputs = {
        "in.logits": common.draw_normal((2, CLASSES, *SHAPE), random, 1.5),
        "in.image": common.draw_images(maps, random, 1.0),
        "in.label": common.draw_label_maps((2, *SHAPE), random, CLASSES, 1.0),
        "in.scribble": common.draw_scribbles((2, *SHAPE), random, 0.4, CLASSES),
        "in.source": (common.draw_normal(maps, random) > -0.5).float(),
        "in.destination": (common.draw_normal(maps, random) > -0.5).float(),
    }
    for name, (shape, _, _) in NETWORKS.items():
        inputs[f"{name}.in.image"] = common.draw_images((2, 1, *shape), random)
        inputs[f"{name}.in.scribble"] = common.draw_scribbles((2, *shape), random, 0.2, CLASSES)
    return inputs


if __name__ == "__main__":
    common.main("volumetric", compute, draw, is_input=lambda key: ".in." in f".{key}")
