"""Times training steps over volumes with SGD in one process: partial cross-entropy and Dice on the U-Net, or DMSPS.

    python step_3d.py --batch 2 --extent 16 96 96 --threads 1
    python step_3d.py --method dmsps --batch 1 --extent 80 96 96 --threads 1
    python step_3d.py --channels-last --device cuda --bf16

Prints one JSON line with `step_ms`, a list without the steps of the warm-up, and `peak_bytes` of the process. `cargo bench --bench step_3d` calls
this script. Needs torch.
"""

import argparse
import json
import resource
import time
from contextlib import nullcontext

import torch
from torch.nn import functional as F

from training import partial_cross_entropy, sgd
from unet_3d import CUBES, HALVES, UNet3d
from volumetric_cct import VolumetricCct

CLASSES = 4
IGNORE = 255
# Different batches in turn, so that no cache holds the inputs.
BATCHES = 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=["partial-ce", "dmsps"], default="partial-ce")
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


def partial_ce_and_dice(logits, label):
    """What `partial-ce` with `dice = 1` minimises."""
    logits = logits.float()
    return partial_cross_entropy(logits, label, IGNORE) + partial_dice(logits, label)


def dmsps(logits, label):
    """Partial cross-entropy of both decoders, and 8 times theirs with their randomly weighted mean, softmax taken twice."""
    main, auxiliary = (each.float() for each in logits)
    probabilities = main.softmax(1), auxiliary.softmax(1)
    share = torch.rand(()).item()
    pseudo = (share * probabilities[0] + (1 - share) * probabilities[1]).detach()
    annotated = sum(partial_cross_entropy(each, label, IGNORE) for each in (main, auxiliary)) / 2
    soft = sum(-(pseudo * each.log_softmax(1)).sum(1).mean() for each in probabilities) / 2
    return annotated + 8 * soft


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
    if options.method == "dmsps":
        net, objective = VolumetricCct(1, CLASSES), dmsps
    else:
        net, objective = UNet3d(1, CLASSES, CUBES, pooling_of(options.extent)), partial_ce_and_dice
    net = net.to(device, memory_format=layout)
    optimizer = sgd(net.parameters(), 0.01)
    batches = random_batches(options, device, layout)
    step_ms = []
    for step in range(options.warmup + options.steps):
        image, label = batches[step % BATCHES]
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16) if options.bf16 else nullcontext():
            logits = net(image)
        loss = objective(logits, label)
        loss.backward()
        optimizer.step()
        value = loss.item()
        if step >= options.warmup:
            step_ms.append((time.perf_counter() - start) * 1e3)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"loss": value, "step_ms": step_ms, "peak_bytes": peak_bytes}))


if __name__ == "__main__":
    main()
