"""What the remakes of golden files share: arguments, reading, comparing, filling, drawing, saving.

Not to be run; the scripts beside it import it. A remake computes the outputs of one golden file
anew, from the method cards and with none of the trainer's code:

    python NAME.py --like DIR                    # compares with DIR/NAME.safetensors
    python NAME.py --like DIR --to DIR2 --seed 7 # writes DIR2/NAME.safetensors from other inputs

Needs torch, numpy, scipy and safetensors.
"""

import argparse
import math
import pathlib
import sys

import numpy
import torch
from safetensors.torch import load_file, save_file
from scipy import ndimage

torch.set_num_threads(1)

BENCH_NETWORKS = pathlib.Path(__file__).resolve().parents[2] / "benches" / "pytorch"
TOLERANCE = 1e-5
IGNORE = 4


def main(name, compute, draw, tolerances=None, accept=None, is_input=None):
    """Runs a remake from the command line.

    `compute(inputs)` returns every output by key. `draw(given, random)` returns other inputs of the
    same kind, from a `numpy.random.Generator`. `tolerances` maps the beginnings of keys to
    tolerances other than the usual one; the longest beginning counts. `accept(outputs)` says
    whether the outputs stay clear of ties; where not, the inputs are drawn again. `is_input(key)`
    tells inputs from outputs, by default by `.in.` in the key.
    """
    asked = arguments(name)
    is_input = is_input or (lambda key: ".in." in key)
    stored = load_file(asked.like / f"{name}.safetensors")
    given = {key: tensor for key, tensor in stored.items() if is_input(key)}
    if asked.to is None:
        expected = {key: tensor for key, tensor in stored.items() if key not in given}
        sys.exit(0 if compare(compute(given), expected, tolerances or {}) else 1)
    random = numpy.random.default_rng(asked.seed)
    while True:
        inputs = draw(given, random)
        outputs = compute(inputs)
        if accept is None or accept(outputs):
            break
        print("drawn again: too near to a tie")
    save(asked.to / f"{name}.safetensors", {**inputs, **outputs}, stored)


def arguments(name):
    parser = argparse.ArgumentParser(description=f"Remakes {name}.safetensors.")
    add = parser.add_argument
    add("--like", type=pathlib.Path, required=True, help="folder of the golden file")
    add("--to", type=pathlib.Path, help="folder to write one with other inputs to")
    add("--seed", type=int, default=0, help="of the other inputs")
    return parser.parse_args()


def difference(actual, expected):
    """The largest difference relative to the largest magnitude expected; NaN equals NaN alone."""
    actual, expected = actual.detach().double(), expected.double()
    if actual.numel() != expected.numel():
        return math.inf
    actual = actual.reshape(expected.shape)
    if not torch.equal(actual.isfinite(), expected.isfinite()):
        return math.inf
    finite = expected.isfinite()
    # Zero stands for NaN here, the largest numbers for the infinities.
    if not torch.equal(actual[~finite].nan_to_num(), expected[~finite].nan_to_num()):
        return math.inf
    largest = (actual - expected)[finite].abs().max().item() if finite.any() else 0.0
    magnitude = expected[finite].abs().max().item() if finite.any() else 0.0
    return largest / magnitude if magnitude > 0 else largest


def tolerance_of(key, expected, tolerances):
    """That of the longest beginning of the key; integers must be equal unless one is given."""
    beginnings = [beginning for beginning in tolerances if key.startswith(beginning)]
    if beginnings:
        return tolerances[max(beginnings, key=len)]
    return TOLERANCE if expected.is_floating_point() else 0.0


def compare(outputs, expected, tolerances):
    """Prints one line per key of `expected`; whether all agree. Keys not remade are only named."""
    agree = True
    for key in sorted(expected):
        if key not in outputs:
            print(f"{key:40} not remade")
            continue
        found = difference(outputs[key], expected[key])
        allowed = tolerance_of(key, expected[key], tolerances)
        print(f"{key:40} {found:9.2e} of {allowed:.0e}{'' if found <= allowed else '  DIFFERS'}")
        agree &= found <= allowed
    unknown = sorted(outputs.keys() - expected.keys())
    if unknown:
        print(f"not stored: {', '.join(unknown)}")
    return agree and not unknown


def save(path, tensors, stored):
    """Writes the tensors with the types of the stored ones."""
    for key in sorted(stored.keys() - tensors.keys()):
        print(f"{key:40} not remade, left out")
    path.parent.mkdir(parents=True, exist_ok=True)
    typed = {key: tensor.detach().to(stored[key].dtype) for key, tensor in tensors.items()}
    save_file({key: tensor.contiguous().clone() for key, tensor in typed.items()}, path)


def wave(count, number):
    """sin(0.7 i + 1.3 k) for the elements i of floating entry k, in single precision."""
    return torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + 1.3 * number).float()


def filled(name, shape, number):
    """Values of one floating entry of a state dict by the fill rule of the cards."""
    values = wave(math.prod(shape), number).reshape(shape)
    if len(shape) >= 2:
        return values * math.sqrt(2 / math.prod(shape[1:]))
    if name.endswith("running_var"):
        return 1 + 0.1 * values**2
    if name.endswith("running_mean"):
        return 0.1 * values
    if name.endswith("weight"):
        return 1 + 0.1 * values
    return 0.05 * values


def fill(module, first=0):
    """Fills a module by the rule, in double precision from there on; returns it.

    `first` is the number of its first floating entry. The rule's own operations are in single
    precision.
    """
    module.double()
    for number, (name, entry) in enumerate(floating_state(module), first):
        entry.copy_(filled(name, entry.shape, number))
    return module


def floating_state(module):
    """Names and tensors of the floating entries, in the order of the state dict."""
    return [(n, entry) for n, entry in module.state_dict().items() if entry.is_floating_point()]


def sums(tensors):
    """[sum, sum of squares] of each tensor, in double precision."""
    wide = [tensor.detach().double() for tensor in tensors]
    return torch.stack([torch.stack([tensor.sum(), tensor.square().sum()]) for tensor in wide])


def without_dropout(module):
    """Sets every dropout to p = 0; returns the module."""
    for part in module.modules():
        if isinstance(part, (torch.nn.Dropout, torch.nn.Dropout2d)):
            part.p = 0.0
    return module


def smooth_noise(shape, width, random):
    """Normal noise blurred over the last two axes."""
    widths = [0.0] * (len(shape) - 2) + [width, width]
    return ndimage.gaussian_filter(random.standard_normal(shape), widths)


def draw_images(shape, random, width=1.5):
    """Smooth random images [..., H, W], each of which spans [0, 1] exactly."""
    images = smooth_noise(shape, width, random)
    low, high = images.min((-2, -1), keepdims=True), images.max((-2, -1), keepdims=True)
    return torch.from_numpy((images - low) / (high - low)).float()


def draw_label_maps(shape, random, classes=4, width=4.0):
    """Blobs of class numbers [..., H, W]."""
    scores = smooth_noise((classes, *shape), width, random)
    return torch.from_numpy(scores.argmax(0)).to(torch.uint8)


def draw_scribbles(shape, random, share=0.1, classes=4):
    """Labels [..., H, W] that are known at about `share` of the pixels, and `IGNORE` elsewhere."""
    labels = random.integers(0, classes, shape)
    labels[random.random(shape) >= share] = IGNORE
    return torch.from_numpy(labels).to(torch.uint8)


def draw_permutations(shape, random):
    """Independent permutations of the numbers below the last size."""
    orders = numpy.broadcast_to(numpy.arange(shape[-1]), shape)
    return torch.from_numpy(random.permuted(orders, axis=-1))


def draw_normal(shape, random, deviation=1.0):
    return torch.from_numpy(deviation * random.standard_normal(shape)).float()
