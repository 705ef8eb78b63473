"""Features that spread between pixels as PyTorch users write it: neighbours unfolded, then multiplied.

    python feature_propagation.py INPUTS.safetensors

INPUTS holds `features` and `factors` (f32 [N, C, H, W]); `cargo bench --bench feature_propagation` writes it and calls
this script. One thread. Prints one JSON line: the milliseconds of each pass, which is the result, and the gradient of
its sum with the factors; the sum, the sum of the squares of the gradient, one of its elements in the middle and the
largest; and by how many bytes the resident memory grew at its peak. Needs torch and safetensors, and Linux.
"""

import json
import sys
import time

import torch
from safetensors.torch import load_file
from torch.nn.functional import unfold

from process_memory import forget_peak, process_bytes

PASSES = 2
SIDE = 5
DILATION = 2


def propagate(features):
    """[N, C, H, W] as means of 25 neighbours, weighted by the softmax of what products with them are above 0."""
    samples, channels, height, width = features.shape
    around = unfold(features, SIDE, dilation=DILATION, padding=SIDE // 2 * DILATION)
    around = around.view(samples, channels, SIDE * SIDE, height, width)
    weights = (features.unsqueeze(2) * around).sum(1).relu().softmax(1)
    return (weights.unsqueeze(1) * around).sum(2)


def main():
    torch.set_num_threads(1)
    inputs = load_file(sys.argv[1])
    features, factors = inputs["features"].requires_grad_(), inputs["factors"]
    forget_peak()
    before = process_bytes("VmRSS")
    times_ms = []
    for _ in range(PASSES):
        features.grad = None
        start = time.perf_counter()
        total = (propagate(features) * factors).sum()
        total.backward()
        times_ms.append((time.perf_counter() - start) * 1e3)
    grown = process_bytes("VmHWM") - before
    gradient = features.grad
    middle = gradient[0, 0, gradient.shape[2] // 2, gradient.shape[3] // 2]
    squares = gradient.square().sum(dtype=torch.float64)
    numbers = [number.item() for number in (total, squares, middle, gradient.abs().max())]
    print(json.dumps({"times_ms": times_ms, "numbers": numbers, "memory_bytes": grown}))


if __name__ == "__main__":
    main()
