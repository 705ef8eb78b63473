"""What the remakes of the scribble baselines share: two losses, steps of a network, inputs, the files.

Not to be run; `baseline_losses.py` and `pseudo_labels.py` import it. Everything is in double precision.
"""

import math
import sys

import numpy
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import common
from common import BENCH_NETWORKS, IGNORE

sys.path.insert(0, str(BENCH_NETWORKS))
from unet import UNet  # noqa: E402

CLASSES = 4
SMOOTH = 1e-5
RATE = 0.01


def partial_cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels.long(), ignore_index=IGNORE)


def one_hot(labels):
    """[N, H, W] -> [N, classes, H, W]; an unlabelled pixel is of no class."""
    return torch.stack([(labels == c).double() for c in range(CLASSES)], 1)


def dice_per_class(p, labels, weight=None):
    """Soft Dice losses [classes] over the batch, pixels weighted by `weight` [N or 1, H, W]."""
    target = one_hot(labels)
    weight = torch.ones_like(p) if weight is None else weight.unsqueeze(1).expand_as(p)
    common_part = (weight * p * target).sum((0, 2, 3))
    both = (weight * (p.square() + target.square())).sum((0, 2, 3))
    return 1 - (2 * common_part + SMOOTH) / (both + SMOOTH)


def ramp_up(current, length):
    return math.exp(-5 * (1 - min(current, length) / length) ** 2)


def step_network():
    return common.fill(UNet(dropout=(0.0,) * 5)).train()


def sharpen(weight):
    """Makes the filled network sure of something."""
    with torch.no_grad():
        weight.mul_(4)


def optimiser_of(net, rate=RATE):
    return torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=1e-4)


def update(optimiser, loss):
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def parameter_sums(*parts):
    return torch.stack([common.sums(part.parameters()).sum(0) for part in parts])


def statistics_sums(net):
    return common.sums(buffer for buffer in net.buffers() if buffer.is_floating_point()).sum(0)


def gap(scores, axis):
    """The smallest distance of the two largest scores."""
    two = torch.as_tensor(scores).topk(2, axis).values
    return two.diff(dim=axis).abs().min().item()


def draw_logits(shape, random, width=2.0):
    """Smooth noise of deviation 2.5, and a little white noise."""
    smooth = common.smooth_noise(shape, width, random)
    return torch.from_numpy(2.5 * smooth / smooth.std() + 0.5 * random.standard_normal(shape)).float()


def draw_noisy_images(shape, random, width=2.0):
    """Smooth images with a little white noise, in [0, 1]."""
    smooth = common.draw_images(shape, random, width)
    return (smooth + common.draw_normal(shape, random, 0.03)).clamp(0, 1)


def scribbled(labels, random, share=0.08):
    """The labels at about `share` of the pixels, elsewhere nothing."""
    known = torch.from_numpy(random.random(labels.shape) < share)
    return torch.where(known, labels, torch.tensor(IGNORE, dtype=torch.uint8))


def draw_batch(name, stored, random):
    labels = common.draw_label_maps(stored[f"{name}.in.scribble"].shape, random)
    return {
        f"{name}.in.image": draw_noisy_images(stored[f"{name}.in.image"].shape, random),
        f"{name}.in.scribble": scribbled(labels, random),
    }


def without(tensors, absent):
    return {key: tensor for key, tensor in tensors.items() if key not in absent}


def apart(tensors, parameter_rows):
    """Splits checksums, whose rows of running statistics are far larger than those of parameters."""
    found = dict(tensors)
    for key, rows in parameter_rows.items():
        whole = found.pop(key)
        found |= {f"{key} of parameters": whole[:, :rows], f"{key} of statistics": whole[:, rows:]}
    return found


def remake(files, tolerances, optional=(), parameter_rows=None):
    """Compares or writes the files of a folder: `files` holds `compute` and `draw` of each name.

    The keys `optional` are not in every file. `parameter_rows` says for keys of checksums
    [iteration, row, 2] how many of the rows, the first, are of parameters.
    """
    asked = common.arguments(" and ".join(files))
    random = numpy.random.default_rng(asked.seed)
    agree = True
    for name, (compute, draw) in files.items():
        file = asked.like / f"{name}.safetensors"
        if not file.exists():
            print(f"{name}: not there, passed over")
            continue
        stored = load_file(file)
        absent = set(optional) - stored.keys()
        inputs = {key: tensor for key, tensor in stored.items() if ".in." in f".{key}"}
        if asked.to is None:
            pair = without(compute(inputs), absent), without(stored, inputs)
            agree &= common.compare(*(apart(each, parameter_rows or {}) for each in pair), tolerances)
        else:
            inputs = draw(inputs, random)
            outputs = without(compute(inputs), absent)
            common.save(asked.to / f"{name}.safetensors", inputs | outputs, stored)
    sys.exit(0 if agree else 1)
