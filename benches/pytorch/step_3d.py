"""Times training steps of the U-Net over volumes: partial cross-entropy and Dice, SGD, one process.

    python step_3d.py --batch 2 --extent 16 96 96 --threads 1
    python step_3d.py --channels-last --device cuda --bf16

Prints one JSON line with `step_ms`, a list without the steps of the warm-up. `cargo bench --bench step_3d` calls
this script. Needs torch.
"""

import argparse
import json
import time
from contextlib import nullcontext

import torch
from torch.nn import functional as F

from training import partial_cross_entropy, sgd
from unet_3d import CUBES, HALVES, UNet3d

CLASSES = 4
IGNORE = 255
# Different batches in turn, so that no cache holds the inputs.
BATCHES = 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--extent", type=int, nargs=3, default=[16, 96, 96], help="slices, rows, columns")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--channels-last", action="store_true")
    return parser.parse_args()


def pooling_of(extent):
    """By what each axis is divided between levels: 2 while at least 4 of it remain."""
    extent, pooling = list(extent), []
    for _ in HALVES:
        pooling.append(tuple(2 if size >= 8 else 1 for size in extent))
        extent = [size // factor for size, factor in zip(extent, pooling[-1], strict=True)]
    return pooling


def partial_dice(logits, label):
    """Over annotated voxels, mean over classes, squared denominators."""
    probabilities = logits.softmax(1)
    known = label != IGNORE
    target = F.one_hot(label.where(known, 0), CLASSES).movedim(-1, 1) * known.unsqueeze(1)
    axes = (0, 2, 3, 4)
    overlap = (probabilities * target).sum(axes)
    predicted = (probabilities.square() * known.unsqueeze(1)).sum(axes)
    return 1 - ((2 * overlap + 1e-5) / (predicted + target.sum(axes) + 1e-5)).mean()


def random_batches(options, device, layout):
    """Random volumes with scribbles on one voxel in a hundred."""
    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(BATCHES):
        image = torch.rand(options.batch, 1, *options.extent, generator=generator)
        label = torch.randint(0, CLASSES, (options.batch, *options.extent), generator=generator)
        label[torch.rand(label.shape, generator=generator) > 0.01] = IGNORE
        batches.append((image.to(device, memory_format=layout), label.to(device)))
    return batches


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(2022)
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    layout = torch.channels_last_3d if options.channels_last else torch.contiguous_format
    net = UNet3d(1, CLASSES, CUBES, pooling_of(options.extent)).to(device, memory_format=layout)
    optimizer = sgd(net.parameters(), 0.01)
    batches = random_batches(options, device, layout)
    step_ms = []
    for step in range(options.warmup + options.steps):
        image, label = batches[step % BATCHES]
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16) if options.bf16 else nullcontext():
            logits = net(image)
        logits = logits.float()
        loss = partial_cross_entropy(logits, label, IGNORE) + partial_dice(logits, label)
        loss.backward()
        optimizer.step()
        value = loss.item()
        if step >= options.warmup:
            step_ms.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({"loss": value, "step_ms": step_ms}))


if __name__ == "__main__":
    main()
