"""Remakes baseline-losses.safetensors and gated-crf-full.safetensors: the scribble baselines' losses.

    python baseline_losses.py --like DIR                    # compares with both files of DIR
    python baseline_losses.py --like DIR --to DIR2 --seed 7 # writes both from other inputs

Partial cross-entropy, its regularisers, full supervision, and three SGD steps with each, all in double
precision with autograd. A file that DIR does not have is named and passed over. Needs torch, numpy,
scipy and safetensors.
"""

import math

import numpy
import torch
from torch.nn import functional as F

import common
from baselines import (
    CLASSES,
    dice_per_class,
    draw_logits,
    draw_noisy_images,
    optimiser_of,
    parameter_sums,
    partial_cross_entropy,
    ramp_up,
    remake,
    scribbled,
    statistics_sums,
    step_network,
    update,
)
from common import IGNORE

TOTAL_STEPS = 100
"""Where the learning rate of the step tests would reach its end."""
ITERATION_OF_THE_VARIANCE_WEIGHT = 15_000
HIGH_RATE = ("pce", "fully")
"""The step tests whose base learning rate is 0.03; that of the others is 0.01."""

STEPS = ("pce", "fully", "entropy", "tv", "gatedcrf", "mumford_published", "mumford_head", "ivm")
# The sums of parameters move by little: 1e-8 of them is a small part of what a step changes.
TOLERANCES = {f"step.{name}.out.params": 1e-8 for name in STEPS}
TOLERANCES |= {f"step.{name}.out.bn": 1e-7 for name in STEPS}


def dice(p, labels):
    return dice_per_class(p, labels).mean()


def partial_dice(p, labels):
    """As released: the masks of all samples of the batch weigh each sample."""
    weight = (labels != IGNORE).double().sum(0, keepdim=True)
    return dice_per_class(p, labels, weight).mean()


def partial_dice_per_sample(p, labels):
    return dice_per_class(p, labels, (labels != IGNORE).double()).mean()


def supervised(logits, labels):
    return 0.5 * (partial_cross_entropy(logits, labels) + dice(logits.softmax(1), labels))


def entropy(p):
    """Of the pixels in nats, on average; trained with as a share of ln 4."""
    return -(p * (p + 1e-6).log()).sum(1).mean()


def contour(p):
    """Opening minus erosion of each probability map."""
    eroded = -F.max_pool2d(-p, 3, stride=1, padding=1)
    opened = F.max_pool2d(eroded, 3, stride=1, padding=1)
    return F.relu(opened - eroded)


def contour_length(p):
    """As released: the first sample of the batch is left out."""
    return contour(p[1:]).mean()


def shifted(maps, dy, dx):
    """At each pixel the value at offset (dy, dx) of it, 0 outside: [..., H, W]."""
    height, width = maps.shape[-2:]
    margin = max(abs(dy), abs(dx))
    padded = F.pad(maps, (margin,) * 4)
    rows, columns = slice(margin + dy, margin + dy + height), slice(margin + dx, margin + dx + width)
    return padded[..., rows, columns]


def offsets(radius):
    return [(dy, dx) for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1)]


def kernel_features(image, sigma_xy, sigma_intensity):
    """Column, row and intensity in units of their sigmas, [N, 2 or 3, H, W]."""
    samples, _, height, width = image.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows]).double().expand(samples, -1, -1, -1) / sigma_xy
    return places if sigma_intensity is None else torch.cat([places, image / sigma_intensity], 1)


def crf_kernel(image, kernels, radius):
    """Weights [offset, N, H, W] of all pairs, those with places outside the image included.

    `kernels` lists (weight, sigma_xy, sigma_intensity). Outside, the features are 0, as released.
    """
    total = 0
    for weight, sigma_xy, sigma_intensity in kernels:
        features = kernel_features(image, sigma_xy, sigma_intensity)
        pairs = []
        for dy, dx in offsets(radius):
            distance = (features - shifted(features, dy, dx)).square().sum(1)
            pairs.append(weight * (-0.5 * distance).exp() * float((dy, dx) != (0, 0)))
        total = total + torch.stack(pairs)
    return total


RELEASED_KERNELS = [(1.0, 6.0, 0.1)]
RELEASED_RADIUS = 5


def crf_energy(p, kernel, radius, pixels):
    """The weights of the pairs that are not of one class, per pixel."""
    alike = sum(
        (weights * (p * shifted(p, dy, dx)).sum(1)).sum()
        for weights, (dy, dx) in zip(kernel, offsets(radius), strict=True)
    )
    return (kernel.sum() - alike) / pixels


def gated_crf(p, image):
    kernel = crf_kernel(image, RELEASED_KERNELS, RELEASED_RADIUS)
    return crf_energy(p, kernel, RELEASED_RADIUS, image.numel())


def masked_gated_crf(p, image, source, destination):
    radius = 3
    source, destination = (mask.squeeze(1).nan_to_num().ge(1).double() for mask in (source, destination))
    kernel = crf_kernel(image, [(0.9, 6.0, 0.1), (0.1, 6.0, None)], radius)
    sources = torch.stack([shifted(source, dy, dx) for dy, dx in offsets(radius)])
    return crf_energy(p, kernel * sources * destination, radius, max(1.0, destination.sum()))


def variation(maps):
    """Sum of the differences of neighbours, without their signs."""
    return maps.diff(dim=-2).abs().sum() + maps.diff(dim=-1).abs().sum()


def level(weight, values):
    """Sum over samples and classes of the weighted squares about the weighted mean."""
    mean = (weight * values).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True)
    return (weight * (values - mean).square()).sum()


def mumford_published(p, image):
    """As the table was made: image and prediction change roles, the length is the image's."""
    return level(image, p) + variation(image)


def mumford_head(p, image):
    return level(image, p) + variation(p)


def intensity_spreads(p, image):
    """Standard deviations between the classes, and inside of them."""
    products = image * p
    inside = products.flatten(2).std(2).mean()
    between = products.mean((2, 3)).std(1).mean()
    return between, inside


def intensity_variance(p, image):
    between, inside = intensity_spreads(p, image)
    return between - inside


def variance_weight(iteration):
    return 0.1 * ramp_up(iteration // 150, 200)


def learning_rate(base, iteration, total):
    """The schedule is set after each step with the old counter, so it lags by one."""
    return base * (1 - max(iteration - 1, 0) / total) ** 0.9


def regularisers(iteration):
    """By name: weight in the total loss, and the term, which is given p and the image."""
    return {
        "entropy": (0.1, lambda p, image: entropy(p) / math.log(CLASSES)),
        "tv": (0.01, lambda p, image: contour_length(p)),
        "gatedcrf": (0.1, gated_crf),
        "mumford_published": (1e-6, mumford_published),
        "mumford_head": (1e-6, mumford_head),
        "ivm": (variance_weight(iteration), intensity_variance),
    }


def terms(inputs):
    """Every loss of the logits alone, by key."""
    image, label, scribble = (inputs[f"in.{name}"] for name in ("image", "label", "scribble"))
    image = image.double()
    masks = [inputs[f"gatedcrf_masked.in.mask_{end}"] for end in ("src", "dst")]
    found = {
        "pce": lambda z: partial_cross_entropy(z, scribble),
        "ce_dense": lambda z: partial_cross_entropy(z, label),
        "dice": lambda z: dice(z.softmax(1), label),
        "pdice": lambda z: partial_dice(z.softmax(1), scribble),
        "pdice_fixed": lambda z: partial_dice_per_sample(z.softmax(1), scribble),
        "pdice_dense": lambda z: partial_dice(z.softmax(1), label),
        "tv_all": lambda z: contour(z.softmax(1)).mean(),
        "tv_fg": lambda z: contour(z.softmax(1)[:, 1:]).mean(),
        "gatedcrf_masked": lambda z: masked_gated_crf(z.softmax(1), image, *masks),
        "mumford_kimye": lambda z: level(z.softmax(1), image) + variation(z.softmax(1)),
        "total_fully": lambda z: supervised(z, label),
    }
    for name, (weight, term) in regularisers(ITERATION_OF_THE_VARIANCE_WEIGHT).items():
        found[name] = lambda z, term=term: term(z.softmax(1), image)
        found[f"total_{name}"] = lambda z, term=term, weight=weight: (
            partial_cross_entropy(z, scribble) + weight * term(z.softmax(1), image)
        )
    return found


def doubles(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def gradient(loss, leaf):
    """Value and gradient of a loss at a tensor."""
    leaf = leaf.double().detach().requires_grad_()
    value = loss(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def crf_details(p, image, pixels):
    """The kernels themselves, and the gradient in front of the softmax."""
    kernel = crf_kernel(image, RELEASED_KERNELS, RELEASED_RADIUS)
    side = 2 * RELEASED_RADIUS + 1
    return {
        "gatedcrf.grad.softmax": gradient(lambda p: gated_crf(p, image), p)[1],
        "gatedcrf.out.kernel_map": kernel.sum(0),
        "gatedcrf.out.kernel_sum": kernel.sum(),
        "gatedcrf.out.kernel_at": torch.stack([kernel[:, 0, y, x].view(side, side) for y, x in pixels]),
    }


def intermediates(inputs):
    p, image = inputs["in.logits"].double().softmax(1), inputs["in.image"].double()
    between, inside = intensity_spreads(p, image)
    return crf_details(p, image, inputs["gatedcrf.in.kernel_pixels"]) | {
        "dice.out.per_class": dice_per_class(p, inputs["in.label"]),
        "entropy_raw.out.loss": entropy(p),
        "ivm.out.inter": between,
        "ivm.out.intra": inside,
        "ivm.out.weight_15000": doubles(variance_weight(ITERATION_OF_THE_VARIANCE_WEIGHT)),
        "mumford.out.level": level(image, p),
        "mumford.out.tv_image": variation(image),
        "mumford.out.tv_softmax": variation(p),
        "mumford_kimye.out.level": level(p, image),
        "tv.out.contour": contour(p),
    }


def schedules(inputs):
    lengths, currents = inputs["ramp.in.length"].tolist(), inputs["ramp.in.current"].tolist()
    iterations = inputs["lr.in.iter"].tolist()
    ramps = [[ramp_up(current, length) for current in currents] for length in lengths]
    rates = [[learning_rate(base, t, 60_000) for t in iterations] for base in (0.01, 0.03)]
    return {
        "ramp.out.sigmoid": doubles(ramps),
        "lr.out.used": doubles(rates),
    }


def step_terms(name, logits, inputs):
    """Weights and values of the terms of a step's loss."""
    if name == "fully":
        label = inputs["step.in.label"]
        return [(0.5, partial_cross_entropy(logits, label)), (0.5, dice(logits.softmax(1), label))]
    found = [(1.0, partial_cross_entropy(logits, inputs["step.in.scribble"]))]
    if name != "pce":
        weight, term = regularisers(0)[name]
        found.append((weight, term(logits.softmax(1), inputs["step.in.image"].double())))
    return found


def three_steps(name, inputs):
    net = step_network()
    base = 0.03 if name in HIGH_RATE else 0.01
    optimiser = optimiser_of(net, base)
    losses, parameters, statistics = [], [], []
    for iteration in range(3):
        optimiser.param_groups[0]["lr"] = learning_rate(base, iteration, TOTAL_STEPS)
        parts = step_terms(name, net(inputs["step.in.image"].double()), inputs)
        total = sum(weight * value for weight, value in parts)
        update(optimiser, total)
        losses.append(torch.stack([*(value for _, value in parts), total]))
        parameters.append(parameter_sums(net.encoder, net.decoder))
        statistics.append(statistics_sums(net))
    return {
        f"step.{name}.out.losses": torch.stack(losses),
        f"step.{name}.out.params": torch.stack(parameters),
        f"step.{name}.out.bn": torch.stack(statistics),
    }


def compute_baselines(inputs):
    outputs = intermediates(inputs) | schedules(inputs)
    for name, loss in terms(inputs).items():
        value, slope = gradient(loss, inputs["in.logits"])
        outputs |= {f"{name}.out.loss": value, f"{name}.grad.logits": slope}
    net = step_network()
    outputs["step.init.params"] = parameter_sums(net.encoder, net.decoder)
    for name in STEPS:
        outputs |= three_steps(name, inputs)
    return {key: torch.atleast_1d(output) for key, output in outputs.items()}


def compute_whole_slice(inputs):
    image = inputs["in.image"].double()
    value, slope = gradient(lambda z: gated_crf(z.softmax(1), image), inputs["in.logits"])
    return {
        "out.loss": value.reshape(1),
        "out.kernel_sum": crf_kernel(image, RELEASED_KERNELS, RELEASED_RADIUS).sum().reshape(1),
        "grad.checksum": common.sums([slope])[0],
        "grad.logits_s2": slope[:, :, ::2, ::2],
        "grad.logits_last_row": slope[:, :, -1, :],
        "grad.logits_last_col": slope[:, :, :, -1],
    }


def draw_pixels(count, height, width, random):
    """The four corners, and places drawn."""
    corners = [[0, 0], [0, width - 1], [height - 1, 0], [height - 1, width - 1]]
    places = random.integers(0, [height, width], (count - len(corners), 2)).tolist()
    return torch.tensor(corners + places)


def draw_iterations(count, total, random):
    """The first and the last two, and others between, in order."""
    between = random.choice(numpy.arange(2, total - 2), count - 4, replace=False).tolist()
    return torch.tensor(sorted([0, 1, *between, total - 2, total - 1]))


def draw_baselines(stored, random):
    image = stored["in.image"]
    pixels = len(stored["gatedcrf.in.kernel_pixels"])
    drawn = {
        "gatedcrf.in.kernel_pixels": draw_pixels(pixels, *image.shape[-2:], random),
        "gatedcrf_masked.in.mask_src": torch.from_numpy(random.random(image.shape) < 0.8).float(),
        "gatedcrf_masked.in.mask_dst": torch.from_numpy(random.random(image.shape) < 0.6).float(),
        "in.logits": draw_logits(stored["in.logits"].shape, random),
        "lr.in.iter": draw_iterations(len(stored["lr.in.iter"]), 60_000, random),
        "ramp.in.current": doubles([0, *sorted(random.integers(1, 400, 7)), 400]),
        "ramp.in.length": torch.from_numpy(random.integers(20, 300, 2)).double(),
    }
    for prefix in ("", "step."):
        labels = common.draw_label_maps(stored[f"{prefix}in.label"].shape, random)
        drawn[f"{prefix}in.label"] = labels
        drawn[f"{prefix}in.scribble"] = scribbled(labels, random)
        drawn[f"{prefix}in.image"] = draw_noisy_images(stored[f"{prefix}in.image"].shape, random)
    return drawn


def draw_whole_slice(stored, random):
    """A smooth synthetic image in place of the real slice."""
    return {
        "in.image": draw_noisy_images(stored["in.image"].shape, random, 8.0),
        "in.logits": draw_logits(stored["in.logits"].shape, random, 8.0).half(),
    }


FILES = {
    "baseline-losses": (compute_baselines, draw_baselines),
    "gated-crf-full": (compute_whole_slice, draw_whole_slice),
}


if __name__ == "__main__":
    remake(FILES, TOLERANCES)
