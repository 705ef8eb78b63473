"""Remakes dmsps.safetensors: losses, the network over volumes, three updates, expansion, its data sets, scores.

    python dmsps.py --like DIR                    # compares with the file of DIR
    python dmsps.py --like DIR --to DIR2 --seed 7 # writes DIR2/dmsps.safetensors from other inputs

In double precision with autograd. Needs torch, numpy, scipy and safetensors.
"""

import itertools
import math
import sys

import numpy
import torch
from scipy import ndimage
from torch.nn import functional as F

import common
from baselines import draw_batch, draw_logits, optimiser_of, parameter_sums, statistics_sums, update
from common import BENCH_NETWORKS

sys.path.insert(0, str(BENCH_NETWORKS))
from unet import UNet_CCT  # noqa: E402
from volumetric_cct import VolumetricCct  # noqa: E402

WEIGHT = 8.0
SEEN = 256
# Features that are normalised over four voxels, and gradients through rectifications next to zero, have the
# rounding of the stored numbers, which are of single precision.
TOLERANCES = {
    "cct3.eval.out.center": 3e-5,
    "cct3.train.out.center": 3e-5,
    "cct3.out.grad_sums": 5e-4,
    "step.out.lr": 1e-12,
}
LOSSES = ("sps", "sps_a1", "sps3d")
BOTH = ("main", "aux")


# Losses


def cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels.long(), ignore_index=logits.shape[1])


def soft_cross_entropy(logits, target):
    return -(target * logits.log_softmax(1)).sum(1).mean()


def both_losses(branches, scribble, share, is_double=True):
    """Of the scribble, and of the soft pseudo label."""
    probabilities = [logits.softmax(1) for logits in branches]
    target = (share * probabilities[0] + (1 - share) * probabilities[1]).detach()
    compared = probabilities if is_double else branches
    ce = sum(cross_entropy(logits, scribble) for logits in branches) / 2
    return ce, sum(soft_cross_entropy(each, target) for each in compared) / 2


def compute_losses(name, inputs):
    scribble, share = inputs[f"{name}.in.scribble"], inputs[f"{name}.in.alpha"].item()
    branches = [inputs[f"{name}.in.logits_{one}"].double().requires_grad_() for one in BOTH]
    ce, soft = both_losses(branches, scribble, share)
    total = ce + WEIGHT * soft
    gradients = torch.autograd.grad(total, branches, retain_graph=True)
    _, single = both_losses(branches, scribble, share, is_double=False)
    return {
        f"{name}.out.losses": torch.stack([ce, soft, total]),
        **{f"{name}.grad.logits_{one}": each for one, each in zip(BOTH, gradients, strict=True)},
        f"ext_{name}.out.loss": single.view(1),
        f"ext_{name}.grad.logits_main": torch.autograd.grad(single, branches[0])[0],
    }


# Networks


def whole(features):
    return features


def compute_volumes(inputs):
    net = common.fill(VolumetricCct(1, 8, dropout=(0.0,) * 5))
    x, label = inputs["cct3.in.x"].double(), inputs["cct3.in.label"]
    outputs = {}
    for mode in ("eval", "train"):
        main, aux = net(x, whole)
        sums = torch.cat([common.sums([logits])[0] for logits in (main, aux)])
        for key, value in (("main_s2", main), ("aux_s2", aux)):
            outputs[f"cct3.{mode}.out.{key}"] = value[..., ::2, ::2, ::2]
        outputs[f"cct3.{mode}.out.sums"] = sums
        outputs[f"cct3.{mode}.out.center"] = net.encoder(x)[-1]
    loss = (cross_entropy(main, label) + cross_entropy(aux, label)) / 2
    loss.backward()
    parts = (net.encoder, net.main_decoder, net.aux_decoder1)
    gradients = [common.sums(p.grad for p in part.parameters()).sum(0) for part in parts]
    return outputs | {"cct3.out.loss": loss.view(1), "cct3.out.grad_sums": torch.stack(gradients)}


def rate(iteration, iterations=10):
    return 0.01 * (1 - max(iteration - 1, 0) / iterations) ** 0.9


def compute_steps(inputs):
    net = common.fill(common.without_dropout(UNet_CCT())).train()
    optimiser = optimiser_of(net)
    image, scribble = inputs["step.in.image"].double(), inputs["step.in.scribble"]
    parts = (net.encoder, net.main_decoder, net.aux_decoder1)
    losses, checksums, rates = [], [], []
    for iteration, share in enumerate(inputs["step.in.alpha"].tolist()):
        features = net.encoder(image)
        branches = [decoder(features) for decoder in (net.main_decoder, net.aux_decoder1)]
        ce, soft = both_losses(branches, scribble, share)
        optimiser.param_groups[0]["lr"] = rate(iteration)
        update(optimiser, ce + WEIGHT * soft)
        losses.append(torch.stack([ce, soft, ce + WEIGHT * soft]))
        rates.append(rate(iteration))
        checksums.append(torch.cat([parameter_sums(*parts), statistics_sums(net)[None]]))
    return {
        "step.out.losses": torch.stack(losses),
        "step.out.lr": torch.tensor(rates, dtype=torch.float64),
        "step.out.checksums": torch.stack(checksums),
    }


# Expansion


def zoomed(array, shape):
    """Order 0; where rounding puts a place behind the last pixel there is 0."""
    for axis, size in enumerate(shape):
        places = (array.shape[axis] - 1) / (size - 1) * numpy.arange(size)
        inside = places <= array.shape[axis] - 1
        array = numpy.take(array, numpy.where(inside, numpy.floor(places + 0.5), 0).astype(int), axis)
        array = array * inside.reshape([-1 if each == axis else 1 for each in range(array.ndim)])
    return array


def softmax(logits):
    return torch.from_numpy(logits).softmax(0).numpy()


def entropy(p, floor):
    return -(p * numpy.log(p + floor, where=p + floor > 0, out=numpy.zeros_like(p))).sum(0) / math.log(len(p))


def largest(mask):
    parts, count = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, parts, range(1, count + 1))
    return parts == 1 + numpy.argmax(sizes) if count else mask


def expanded(labels, keep, classes, mark=None):
    """Of each class the largest part of what is kept; the rest is background, or `mark`."""
    result = numpy.full_like(labels, 0 if mark is None else mark)
    for c in range(0 if mark is not None else 1, classes):
        result[largest((labels == c) & keep)] = c
    return result


def slices(function, *volumes):
    return numpy.stack([function(*each) for each in zip(*volumes, strict=True)])


def stub(inputs, name, image):
    """Probabilities of both decoders, [classes, ...]; image in double precision."""
    line = [-1] + [1] * image.ndim
    coefficients = ([inputs[f"{name}.in.{of}_{one}"].double().numpy() for of in "wt"] for one in BOTH)
    ramp = numpy.zeros(len(inputs[f"{name}.in.w_main"]))
    depth = numpy.zeros(image.shape)
    if f"{name}.in.ramp" in inputs:
        ramp = inputs[f"{name}.in.ramp"].double().numpy()
        depth += (numpy.arange(len(image)) / len(image)).reshape(-1, *[1] * (image.ndim - 1))
    return [
        softmax(w.reshape(line) * image + t.reshape(line) + ramp.reshape(line) * depth)
        for w, t in coefficients
    ]


def compute_slices(inputs):
    image = inputs["uf2.in.image"].double().numpy()
    threshold = inputs["uf2.in.threshold"].item()
    found = {key: [] for key in ("pred_main", "pred_aux", "mean", "uncertainty")}
    for one in image:
        main, aux = stub(inputs, "uf2", zoomed(one, (SEEN, SEEN)))
        mean = (main + aux) / 2
        maps = (main.argmax(0), aux.argmax(0), mean.argmax(0), entropy(mean, 1e-6))
        for values, each in zip(found.values(), maps, strict=True):
            values.append(zoomed(each, one.shape))
    found = {key: numpy.stack(values) for key, values in found.items()}
    labels, keep = found.pop("mean"), found["uncertainty"] < threshold
    classes = len(inputs["uf2.in.w_main"])
    found["pseudo"] = slices(lambda *each: expanded(*each, classes), labels, keep)
    found["seeds_ignore"] = slices(lambda *each: expanded(*each, classes, classes), labels, keep)
    return {f"uf2.out.{key}": torch.from_numpy(value) for key, value in found.items()}


def compute_seeds(inputs):
    main, aux = (softmax(inputs[f"seeds.in.logits_{one}"].double().numpy()) for one in BOTH)
    mean = (main + aux) / 2
    unsure, classes = entropy(mean, 0.0), len(mean)
    label = slices(lambda *each: expanded(*each, classes, classes), mean.argmax(0), unsure < 0.1)
    found = {"uncertainty": unsure, "label": label}
    return {f"seeds.out.{key}": torch.from_numpy(value) for key, value in found.items()}


def compute_windows(name, inputs):
    volume = inputs[f"{name}.in.volume"].double().numpy()
    patch, stride = (inputs[f"{name}.in.{key}"].tolist() for key in ("patch", "stride"))
    missing = [max(p - size, 0) for p, size in zip(patch, volume.shape, strict=True)]
    around = [(each // 2, each - each // 2) for each in missing]
    padded = numpy.pad(volume, around)
    starts = [
        [min(s * k, size - p) for k in range(math.ceil((size - p) / s) + 1)]
        for size, p, s in zip(padded.shape, patch, stride, strict=True)
    ]
    classes = len(inputs[f"{name}.in.w_main"])
    both = numpy.zeros((2, classes, *padded.shape))
    unsure, keep, count = numpy.zeros((3, *padded.shape))
    for corner in itertools.product(*starts):
        box = tuple(slice(start, start + p) for start, p in zip(corner, patch, strict=True))
        answers = stub(inputs, name, padded[box])
        both[(slice(None), slice(None), *box)] += answers
        u = entropy((answers[0] + answers[1]) / 2, 1e-6)
        unsure[box] += u
        keep[box] += u < 0.3
        count[box] += 1
    inner = tuple(slice(low, low + size) for (low, _), size in zip(around, volume.shape, strict=True))
    main, aux, mean = (p.argmax(0)[inner] for p in (both[0], both[1], both[0] + both[1]))
    mask = (keep / count > 0.5)[inner]
    found = {
        "pred_main": main,
        "pred_aux": aux,
        "pred_mean": mean,
        "uncertainty": (unsure / count)[inner],
        "mask": mask.astype(int),
        "pseudo": expanded(mean, mask, classes),
        "pseudo_ignore": expanded(mean, mask, classes, 255),
    }
    return {f"{name}.out.{key}": torch.from_numpy(value) for key, value in found.items()}


# Data sets


def scaled(values, low, high):
    return (values.clamp(low, high) - low) / (high - low)


def compute_intensities(inputs):
    volume = inputs["acdc.in.volume"].double()
    low, high = volume.min().item(), volume.max().item()
    # The smallest whole number that 99 % of the voxels do not exceed.
    brightest = volume.flatten().sort().values[math.ceil(0.99 * volume.numel()) - 1].item()
    return {
        "acdc.out.minmax": scaled(volume, low, high),
        "acdc.out.clip99": scaled(volume, low, brightest),
        "word.out.image": scaled(inputs["word.in.hu"].double(), -150.0, 250.0),
    } | compute_brats(inputs["brats.in.volume"].double())


def compute_brats(volume):
    cut = volume.flatten().sort().values[math.ceil(0.999 * volume.numel()) - 1]
    clipped = volume.clamp(max=cut.item())
    brain = clipped[clipped > 0]
    norm = (clipped - brain.mean()) / brain.std(correction=0)
    return {"brats.out.cut": cut.view(1), "brats.out.norm": norm}


# Of sixteen organs the first six and the eighth.
ORGANS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 7, *[0] * 8])


def compute_word(inputs):
    first, last = inputs["word.in.box_fg"].T
    kept = [(first - 20).clamp(min=0), torch.minimum(last + 20, inputs["word.in.box_shape"])]
    return {
        "word.out.label": ORGANS[inputs["word.in.label"].long()],
        "word.out.box": torch.stack(kept, 1),
    }


def compute_patches(inputs, extent=(8, 10, 8)):
    shape = inputs["crop3.in.image"].shape
    pads = [0] * 3
    if any(size <= wanted for size, wanted in zip(shape, extent, strict=True)):
        pads = [max((wanted - size) // 2 + 3, 0) for size, wanted in zip(shape, extent, strict=True)]
    found = {"crop3.out.pad": torch.tensor(pads)}
    for key, outside in (("image", 0), ("label", 8), ("gt", 0)):
        padded = numpy.pad(inputs[f"crop3.in.{key}"].numpy(), [(pad, pad) for pad in pads], constant_values=outside)
        corners = zip(inputs["crop3.in.offset"].tolist(), extent, strict=True)
        cut = padded[tuple(slice(corner, corner + wanted) for corner, wanted in corners)]
        found[f"crop3.out.{key}"] = torch.from_numpy(cut.copy())
    return found


# Scores


def surface(mask):
    inner = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 1))
    return mask & ~inner


def distances(one, other, spacing):
    """From each voxel of the surface of `one` to the surface of `other`."""
    return ndimage.distance_transform_edt(~surface(other), sampling=spacing)[surface(one)]


def compute_scores(inputs):
    spacing = inputs["met.in.spacing"].tolist()
    rows = []
    for predicted, true in zip(inputs["met.in.pred"].numpy() > 0, inputs["met.in.gt"].numpy() > 0, strict=True):
        if not (predicted.any() and true.any()):
            rows.append([0.0, 0.0, 0.0])
            continue
        there, back = distances(predicted, true, spacing), distances(true, predicted, spacing)
        overlap = 2 * (predicted & true).sum() / (predicted.sum() + true.sum())
        rows.append([overlap, there.mean(), numpy.percentile(numpy.concatenate([there, back]), 95)])
    return {"met.out.dice_asd_hd95": torch.tensor(rows, dtype=torch.float64)}


def compute(inputs):
    outputs = compute_volumes(inputs) | compute_steps(inputs) | compute_slices(inputs) | compute_seeds(inputs)
    for name in LOSSES:
        outputs |= compute_losses(name, inputs)
    for name in ("sw", "swpad"):
        outputs |= compute_windows(name, inputs)
    for name in ("m2", "m3"):
        mask = largest(inputs[f"lcc.in.{name}"].numpy() > 0)
        outputs[f"lcc.out.{name}"] = torch.from_numpy(mask.astype(int))
    for compute_some in (compute_intensities, compute_word, compute_patches, compute_scores):
        outputs |= compute_some(inputs)
    return outputs


# Other inputs


def draw_labels(shape, classes, random, share=0.15):
    labels = random.integers(0, classes, shape)
    labels[random.random(shape) >= share] = classes
    return torch.from_numpy(labels).to(torch.uint8)


def draw_data(given, random):
    """Of the data sets and scores."""
    shape = given["brats.in.volume"].shape
    volume = random.integers(1, 2000, shape) * (random.random(shape) < 0.7)
    volume.flat[random.integers(volume.size)] = 20_000
    drawn = {"brats.in.volume": torch.from_numpy(volume.astype(numpy.int16))}
    drawn["word.in.label"] = torch.from_numpy(random.integers(0, 17, given["word.in.label"].shape).astype(numpy.uint8))
    whole = random.integers(12, 80, 3)
    bounds = numpy.sort(random.integers(0, whole[:, None], (3, 2)), 1)
    drawn["word.in.box_shape"] = torch.from_numpy(whole)
    drawn["word.in.box_fg"] = torch.from_numpy(bounds)
    drawn["crop3.in.image"] = common.draw_images(given["crop3.in.image"].shape, random)
    for key, classes in (("label", 9), ("gt", 8)):
        labels = random.integers(0, classes, given["crop3.in.image"].shape)
        drawn[f"crop3.in.{key}"] = torch.from_numpy(labels.astype(numpy.uint8))
    # Within what the padded volume leaves, 6, 10 and 5 voxels, of which one axis begins in the padding.
    drawn["crop3.in.offset"] = torch.from_numpy(random.integers([0, 0, 0], [4, 10, 5]))
    for side in ("pred", "gt"):
        masks = given[f"met.in.{side}"].numpy() > 0
        moved = [numpy.roll(mask, random.integers(-1, 2, 2), (1, 2)) for mask in masks]
        noise = random.random(masks.shape) < 0.02
        kept = masks.any((1, 2, 3), keepdims=True)
        drawn[f"met.in.{side}"] = torch.from_numpy((((moved | noise) & kept)).astype(numpy.uint8))
    drawn["met.in.spacing"] = torch.from_numpy(random.uniform(0.5, 8.0, 3))
    return drawn


def draw(given, random):
    drawn = given | draw_data(given, random)
    for name in LOSSES:
        shape = given[f"{name}.in.logits_main"].shape
        for one in BOTH:
            drawn[f"{name}.in.logits_{one}"] = draw_logits(shape, random)
        drawn[f"{name}.in.scribble"] = draw_labels((shape[0], *shape[2:]), shape[1], random)
        shift = 0.1 if name == "sps_a1" else 0.0
        drawn[f"{name}.in.alpha"] = torch.tensor([random.random() + shift], dtype=torch.float64)
    drawn["cct3.in.x"] = common.draw_images(given["cct3.in.x"].shape, random)
    drawn["cct3.in.label"] = draw_labels(given["cct3.in.label"].shape, 8, random)
    drawn |= draw_batch("step", given, random)
    drawn["step.in.alpha"] = torch.from_numpy(random.random(3))
    for name, key in (("uf2", "image"), ("sw", "volume"), ("swpad", "volume")):
        drawn[f"{name}.in.{key}"] = common.draw_images(given[f"{name}.in.{key}"].shape, random)
    for one in BOTH:
        key = f"seeds.in.logits_{one}"
        drawn[key] = 2 * draw_logits(given[key].shape, random)
    for key, low, high in (("acdc.in.volume", 0, 900), ("word.in.hu", -1000, 1000)):
        drawn[key] = torch.from_numpy(random.integers(low, high, given[key].shape))
    for name in ("m2", "m3"):
        key = f"lcc.in.{name}"
        drawn[key] = torch.from_numpy(random.random(given[key].shape) < 0.6).to(torch.uint8)
    return drawn


if __name__ == "__main__":
    common.main("dmsps", compute, draw, TOLERANCES)
