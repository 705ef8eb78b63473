"""Marginals of a dense CRF as CLTN takes them: pydensecrf with a Gaussian and a bilateral kernel.

    python dense_crf.py PICTURES.safetensors MARGINALS.safetensors

PICTURES holds `N.image` (u8 [H, W, 3]) and `N.unary` (f32 [L, H * W]) for N = 0, 1, ...; `cargo bench
--bench dense_crf` writes it and calls this script. Writes `N.marginals` (f32 [L, H, W]) to MARGINALS
and prints one JSON line: the milliseconds of each picture, the median of three passes. Needs
pydensecrf2 and safetensors.
"""

import json
import sys
import time

import numpy as np
from pydensecrf.densecrf import DenseCRF2D
from safetensors.numpy import load_file, save_file

PASSES = 3
ITERATIONS = 10


def marginals_of(image, unary):
    (rows, columns, _), labels = image.shape, len(unary)
    field = DenseCRF2D(columns, rows, labels)
    field.setUnaryEnergy(unary)
    field.addPairwiseGaussian(sxy=3, compat=3)
    field.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    return np.array(field.inference(ITERATIONS)).reshape(labels, rows, columns)


def main():
    pictures, file = sys.argv[1:]
    pictures = load_file(pictures)
    times_ms, marginals = [], {}
    for number in range(len(pictures) // 2):
        image, unary = pictures[f"{number}.image"], pictures[f"{number}.unary"]
        passes_ms = []
        for _ in range(PASSES):
            start = time.perf_counter()
            found = marginals_of(image, unary)
            passes_ms.append((time.perf_counter() - start) * 1e3)
        times_ms.append(sorted(passes_ms)[PASSES // 2])
        # What the package returns lies in memory label after label of a pixel.
        marginals[f"{number}.marginals"] = np.ascontiguousarray(found)
    save_file(marginals, file)
    print(json.dumps({"times_ms": times_ms}))


if __name__ == "__main__":
    main()
