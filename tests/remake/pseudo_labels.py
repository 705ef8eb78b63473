"""Remakes pseudo-labels.safetensors: random walker, Scribble2Label, USTM and DMPLS.

    python pseudo_labels.py --like DIR                    # compares with the file of DIR
    python pseudo_labels.py --like DIR --to DIR2 --seed 7 # writes DIR2/pseudo-labels.safetensors

The random walker is scikit-image's direct solver; the rest is in double precision with autograd. Other
inputs are drawn again as long as a label or a mask hangs by less than `TIE`. Needs torch, numpy, scipy,
scikit-image and safetensors.
"""

import math
import warnings

import numpy
import torch
from scipy import ndimage
from skimage.segmentation import random_walker

import common
import ustm_dmpls
from baselines import (
    CLASSES,
    draw_batch,
    draw_logits,
    draw_noisy_images,
    gap,
    optimiser_of,
    parameter_sums,
    partial_cross_entropy,
    remake,
    scribbled,
    statistics_sums,
    step_network,
    update,
)
from common import IGNORE

CONFIDENT = 0.8
TIE = 1e-5

PARAMETER_ROWS = {"ustm_step.out.checksums": 2, "dmpls_step.out.checksums": 3}
# The sums of parameters move by little: 1e-8 of them is a small part of what a step changes.
# The stored teacher was averaged in single precision, whose rounding is of that size.
TOLERANCES = {
    "dmpls_step.out.checksums of parameters": 1e-8,
    "dmpls_step.out.checksums of statistics": 1e-6,
    "s2l_step.out.bn": 1e-6,
    "s2l_step.out.params": 1e-8,
    "ustm_step.out.checksums of parameters": 3e-8,
    "ustm_step.out.checksums of statistics": 1e-6,
}
# Only in files without real images.
OPTIONAL = ("rw_missing.out.label_left_out",)


# Random walker


def rescaled(image):
    image = image.numpy()
    span = numpy.float32(1.7)
    return 2 * (image.clip(-0.35, 1.35) + numpy.float32(0.35)) / span - 1


def conductance(image, axis):
    beta = 100 / (10 * image.std())
    return torch.from_numpy(numpy.exp(-beta * numpy.diff(image, axis=axis) ** 2) + 1e-10)


def walk(image, scribble):
    """Probabilities [classes, H, W] of the classes that the scribble has; 0 of the others."""
    scribble = scribble.numpy()
    present = numpy.unique(scribble[scribble != IGNORE])
    markers = numpy.where(scribble == IGNORE, 0, numpy.searchsorted(present, scribble) + 1)
    probabilities = numpy.zeros((CLASSES, *scribble.shape))
    with warnings.catch_warnings():
        # It says that other modes are faster, which do not give the same labels.
        warnings.simplefilter("ignore")
        probabilities[present] = random_walker(
            rescaled(image), markers, beta=100, mode="bf", return_full_prob=True
        )
    return torch.from_numpy(probabilities)


def walked_labels(image, scribble):
    """The released rule: all background where one of the structures is not scribbled."""
    if not {1, 2, 3} <= set(scribble.unique().tolist()):
        return torch.zeros_like(scribble)
    return walk(image, scribble).argmax(0)


def compute_walker(inputs):
    image, scribble = inputs["rw.in.image"], inputs["rw.in.scribble"]
    native, missing = inputs["rw_native.in.image"], inputs["rw_missing.in.scribble"]
    g, probabilities = rescaled(image), walk(image, scribble)
    native_probabilities = walk(native, inputs["rw_native.in.scribble"])
    left_out = walk(native, missing)
    outputs = {
        "rw.out.rescaled": torch.from_numpy(g),
        "rw.out.std": torch.tensor([g.std()]),
        "rw.out.weight_right": conductance(g, 1),
        "rw.out.weight_down": conductance(g, 0),
        "rw.out.prob": probabilities,
        "rw.out.label": probabilities.argmax(0),
        "rw_native.out.label": native_probabilities.argmax(0),
        "rw_native.out.prob_sum": native_probabilities.sum((1, 2)),
        "rw_missing.out.label": walked_labels(native, missing),
        "rw_missing.out.label_left_out": left_out.argmax(0),
    }
    return outputs, min(gap(maps, 0) for maps in (probabilities, native_probabilities, left_out))


def draw_heart(shape, random):
    """Labels of a disc in a ring, and beside it the part of a disc that the ring leaves."""
    height, width = shape
    size = min(shape) * random.uniform(0.9, 1.1)
    rows, columns = numpy.mgrid[:height, :width]
    row, column = height * random.uniform(0.45, 0.55), width * random.uniform(0.55, 0.6)
    from_centre = numpy.hypot(rows - row, columns - column) / size
    from_side = numpy.hypot(rows - row, columns - column + 0.3 * size) / size
    return numpy.select([from_centre < 0.13, from_centre < 0.25, from_side < 0.2], [3, 2, 1], 0)


def draw_slice(shape, random):
    """A smooth image of a heart, and strokes along its parts."""
    labels = draw_heart(shape, random)
    means = numpy.array([0.25, 0.8, 0.4, 0.9])[labels]
    blurred = ndimage.gaussian_filter(means, 0.7)
    image = blurred + 0.1 * (draw_noisy_images(shape, random, 6.0).numpy() - 0.5)
    scribble = numpy.full(shape, IGNORE)
    unbroken = common.smooth_noise(shape, 3.0, random)
    for c in range(CLASSES):
        depth = ndimage.distance_transform_edt(labels == c)
        line = 0.4 * depth.max()
        scribble[(depth >= line) & (depth < line + 1) & (unbroken > -0.05)] = c
    return torch.from_numpy(image.clip(0, 1)).float(), torch.from_numpy(scribble).to(torch.uint8)


def draw_walker(stored, random):
    drawn = {}
    for name in ("rw", "rw_native"):
        image, scribble = draw_slice(stored[f"{name}.in.image"].shape, random)
        while len(scribble.unique()) <= CLASSES:
            image, scribble = draw_slice(stored[f"{name}.in.image"].shape, random)
        drawn |= {f"{name}.in.image": image, f"{name}.in.scribble": scribble}
    missing = torch.where(scribble == 1, torch.tensor(IGNORE, dtype=torch.uint8), scribble)
    return drawn | {"rw_missing.in.scribble": missing}


# Scribble2Label


def sure_labels(average, scribble):
    """Classes of the unlabelled pixels whose average [N, H, W, classes] is above the threshold."""
    best, label = average.max(-1)
    return torch.where((scribble == IGNORE) & (best > CONFIDENT), label, IGNORE)


def hanging(average):
    """How near an average is to the threshold."""
    return (average - CONFIDENT).abs().min().item()


def zoomed(array, shape):
    """Nearest neighbours [H, W], by the released call."""
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    return torch.from_numpy(ndimage.zoom(array.numpy(), factors, order=0))


def rotated(array, degrees):
    return torch.from_numpy(ndimage.rotate(array.numpy(), degrees, order=0, reshape=False))


def compute_averages(inputs):
    image, p, average = (inputs[f"s2l.in.{name}"] for name in ("image", "prob", "weight"))
    native = torch.stack([zoomed(channel, image.shape) for channel in p])
    degrees = inputs["s2l_rotate.in.angle"].item()
    outputs = {
        "s2l.out.image_zoomed": zoomed(image, p.shape[-2:]),
        "s2l.out.prob_native": native,
        "s2l.out.weight": 0.2 * native.permute(1, 2, 0).double() + 0.8 * average.double(),
        "s2l_rotate.out.image": rotated(image, degrees),
        "s2l_rotate.out.scribble": rotated(inputs["s2l_rotate.in.scribble"], degrees),
        "s2l_rotate.out.weight": rotated(average, degrees),
    }
    return outputs, math.inf


def pseudo_losses(logits, scribble, labels):
    parts = [partial_cross_entropy(logits, target) for target in (scribble, labels)]
    return torch.stack([*parts, parts[0] + 0.5 * parts[1]])


def compute_pseudo_loss(inputs):
    logits = inputs["s2l_loss.in.logits"].double().requires_grad_()
    average, scribble = inputs["s2l_loss.in.weight"].double(), inputs["s2l_loss.in.scribble"]
    labels = sure_labels(average, scribble)
    losses = pseudo_losses(logits, scribble, labels)
    outputs = {
        "s2l_loss.out.u_labels": labels,
        "s2l_loss.out.losses": losses.detach(),
        "s2l_loss.grad.logits": torch.autograd.grad(losses[2], logits)[0],
    }
    return outputs, hanging(average)


def compute_scribble2label(inputs):
    image, scribble = inputs["s2l_step.in.image"].double(), inputs["s2l_step.in.scribble"]
    net = step_network()
    initial = parameter_sums(net)[0]
    optimiser = optimiser_of(net)
    loss = partial_cross_entropy(net(image), scribble)
    update(optimiser, loss)
    statistics, parameters = [statistics_sums(net)], [parameter_sums(net)[0]]
    with torch.no_grad():
        p = torch.cat([net(single).softmax(1) for single in image.split(1)])
    average = 0.2 * p.permute(0, 2, 3, 1) + 0.8 * inputs["s2l_step.in.weight"].double()
    statistics.append(statistics_sums(net))
    labels = sure_labels(average, scribble)
    losses = pseudo_losses(net(image), scribble, labels)
    update(optimiser, losses[2])
    statistics.append(statistics_sums(net))
    parameters.append(parameter_sums(net)[0])
    outputs = {
        "s2l_step.init.params": initial,
        "s2l_step.out.losses": torch.stack([torch.stack([loss, torch.zeros_like(loss), loss]), losses]),
        "s2l_step.out.params": torch.stack(parameters),
        "s2l_step.out.bn": torch.stack(statistics),
        "s2l_step.out.weight": average,
        "s2l_step.out.u_labels": labels,
    }
    return outputs, hanging(average)


def draw_probabilities(shape, random, deviation, width):
    """Distributions over the classes: [..., classes, H, W]."""
    scores = common.smooth_noise(shape, width, random)
    return torch.from_numpy(deviation * scores / scores.std()).softmax(-3).float()


def draw_averages(stored, random):
    height, width = stored["s2l.in.image"].shape
    labels = common.draw_label_maps((height, width), random)
    p = draw_probabilities(stored["s2l.in.prob"].shape, random, 2.5, 2.0)
    average = draw_probabilities((CLASSES, height, width), random, 1.0, 0.0)
    return {
        "s2l.in.image": draw_noisy_images((height, width), random),
        "s2l.in.prob": p,
        "s2l.in.weight": average.permute(1, 2, 0),
        "s2l_rotate.in.angle": torch.from_numpy(random.integers(-20, 20, 1)),
        "s2l_rotate.in.scribble": scribbled(labels, random, 0.45),
    }


def draw_pseudo_loss(stored, random):
    samples, classes, height, width = stored["s2l_loss.in.logits"].shape
    labels = common.draw_label_maps((samples, height, width), random)
    average = draw_probabilities((samples, classes, height, width), random, 3.0, 2.0)
    return {
        "s2l_loss.in.logits": draw_logits((samples, classes, height, width), random),
        "s2l_loss.in.scribble": scribbled(labels, random, 0.14),
        "s2l_loss.in.weight": average.permute(0, 2, 3, 1),
    }


def draw_scribble2label(stored, random):
    """Of half of the pixels nothing is known, of the others the class nearly for sure."""
    shape = stored["s2l_step.in.scribble"].shape
    drawn = draw_batch("s2l_step", stored, random)
    labels = common.draw_label_maps(shape, random)
    sure = 0.025 + 0.9 * torch.nn.functional.one_hot(labels.long(), CLASSES)
    known = torch.from_numpy(random.random(shape) < 0.5).unsqueeze(-1)
    return drawn | {"s2l_step.in.weight": torch.where(known, sure, 1 / CLASSES).float()}


PARTS = (
    (compute_walker, draw_walker),
    (compute_averages, draw_averages),
    (compute_pseudo_loss, draw_pseudo_loss),
    (compute_scribble2label, draw_scribble2label),
    *ustm_dmpls.PARTS,
)


def compute_all(inputs):
    outputs = {}
    for compute, _ in PARTS:
        outputs |= compute(inputs)[0]
    return outputs


def draw_all(stored, random):
    """Inputs of each part, drawn until no decision hangs by less than the tie."""
    drawn = {}
    for compute, draw in PARTS:
        found = draw(stored, random)
        while compute(found)[1] < TIE:
            found = draw(stored, random)
        drawn |= found
    return drawn


if __name__ == "__main__":
    remake({"pseudo-labels": (compute_all, draw_all)}, TOLERANCES, OPTIONAL, PARAMETER_ROWS)
