"""The gated conditional random field as PyTorch users write it: neighbours unfolded, then multiplied.

    python gated_crf.py INPUTS.safetensors

INPUTS holds `logits` (f32 [N, C, H, W]) and `image` (f32 [N, 1, H, W]); `cargo bench --bench gated_crf`
writes it and calls this script. One thread. Prints one JSON line: the milliseconds of each pass, which
is softmax, value, and gradient of the logits; the value; and by how many bytes the resident memory grew
at its peak. Needs torch and safetensors, and Linux.
"""

import json
import sys
import time

import torch
from safetensors.torch import load_file
from torch.nn.functional import unfold

from process_memory import forget_peak, process_bytes

PASSES = 2
RADIUS = 5
SIGMA_XY = 6.0
SIGMA_INTENSITY = 0.1
WINDOW = 2 * RADIUS + 1


def neighbours(maps):
    """[N, C, H, W] -> [N, C, 121, H, W]: the pixels around each pixel, 0 outside the image."""
    samples, channels, height, width = maps.shape
    columns = unfold(maps, WINDOW, padding=RADIUS)
    return columns.view(samples, channels, WINDOW * WINDOW, height, width)


def weights(image):
    """How much each neighbour counts, [N, 121, H, W]; a pixel is no neighbour of its own."""
    samples, _, height, width = image.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([columns, rows]).float().expand(samples, 2, height, width)
    features = torch.cat([place / SIGMA_XY, image / SIGMA_INTENSITY], 1)
    kernel = (neighbours(features) - features.unsqueeze(2)).square_().sum(1).mul_(-0.5).exp_()
    kernel[:, WINDOW * WINDOW // 2] = 0
    return kernel


def gated_crf(probabilities, image):
    """Energy per pixel: weights of pairs that are not of one class."""
    kernel = weights(image)
    around = (neighbours(probabilities) * kernel.unsqueeze(1)).sum(2)
    return (kernel.sum() - (around * probabilities).sum()) / image.numel()


def main():
    torch.set_num_threads(1)
    inputs = load_file(sys.argv[1])
    logits, image = inputs["logits"].requires_grad_(), inputs["image"]
    forget_peak()
    before = process_bytes("VmRSS")
    times_ms = []
    for _ in range(PASSES):
        logits.grad = None
        start = time.perf_counter()
        loss = gated_crf(logits.softmax(1), image)
        loss.backward()
        times_ms.append((time.perf_counter() - start) * 1e3)
    grown = process_bytes("VmHWM") - before
    print(json.dumps({"times_ms": times_ms, "loss": loss.item(), "memory_bytes": grown}))


if __name__ == "__main__":
    main()
